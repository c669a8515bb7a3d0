//! `/v1/switchover`: moves a region without loss, as JSON. Begun with POST, looked at with GET.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tradewind_mirror::switchover_report::{SwitchoverError, SwitchoverReport, SwitchoverWish};

use super::Facts;
use super::v1::{Refusal, mirror};

/// Times for a switchover that does not say its own.
const TIMEOUT_MS: i64 = 60_000;
const GROUP_DRAIN_MS: i64 = 5_000;

/// No longer than this may clients be kept from writing.
const MAX_MS: i64 = 3_600_000;

#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    flow: String,
    #[serde(default)]
    timeout_ms: Option<i64>,
    #[serde(default)]
    group_drain_ms: Option<i64>,
    /// Give up what is under way.
    #[serde(default)]
    abort: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    flow: String,
}

pub(super) async fn begin(
    State(facts): State<Facts>,
    Json(wish): Json<Wish>,
) -> Result<Json<SwitchoverReport>, Refusal> {
    let mirror = mirror(&facts)?;
    if wish.abort {
        return answer(mirror.abort_switchover(&wish.flow).await);
    }
    let times = SwitchoverWish {
        timeout_ms: wish.timeout_ms.unwrap_or(TIMEOUT_MS),
        group_drain_ms: wish.group_drain_ms.unwrap_or(GROUP_DRAIN_MS),
    };
    if !(1..=MAX_MS).contains(&times.timeout_ms) || !(0..times.timeout_ms).contains(&times.group_drain_ms) {
        let message = "the timeout is at most an hour, and longer than groups have to commit";
        return Err(Refusal(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    answer(mirror.switchover(&wish.flow, times).await)
}

pub(super) async fn look(
    State(facts): State<Facts>,
    Query(which): Query<Which>,
) -> Result<Json<SwitchoverReport>, Refusal> {
    answer(mirror(&facts)?.switchover_report(&which.flow).await)
}

fn answer(done: Result<SwitchoverReport, SwitchoverError>) -> Result<Json<SwitchoverReport>, Refusal> {
    done.map(Json).map_err(|error| {
        let code = match error {
            SwitchoverError::UnknownFlow(_) | SwitchoverError::None(_) => StatusCode::NOT_FOUND,
            SwitchoverError::Refused { .. } => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal(code, error.to_string())
    })
}
