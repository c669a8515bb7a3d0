//! `/v1/mirror/guard` and `/v1/mirror/unguard`: what clients may not write since this daemon started, and the operator's word
//! that they may.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Facts;
use super::v1::Refusal;
use crate::guard::{BootGuard, GuardLine};

#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    accept_two_sides: bool,
    #[serde(default)]
    reason: String,
}

pub(super) async fn look(State(facts): State<Facts>) -> Result<Json<Vec<GuardLine>>, Refusal> {
    Ok(Json(guard(&facts)?.lines()))
}

pub(super) async fn unguard(
    State(facts): State<Facts>,
    Json(wish): Json<Wish>,
) -> Result<Json<Value>, Refusal> {
    if !wish.accept_two_sides {
        let message = "another cluster may have taken these topics over, and then two sides take writes: set accept_two_sides \
                       if that is known not to be, or meant";
        return Err(Refusal(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    match guard(&facts)?.unguard(&wish.reason).await {
        Ok(peers) => Ok(Json(json!({ "waited_for": peers }))),
        Err(error) => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

/// What a person should know of it, one sentence for each cluster that is waited for.
pub(super) fn attention(facts: &Facts) -> Vec<String> {
    let lines = facts.inner.guard.get().map(|guard| guard.lines());
    lines.iter().flatten().filter_map(GuardLine::sentence).collect()
}

fn guard(facts: &Facts) -> Result<&BootGuard, Refusal> {
    let guard = facts.inner.guard.get();
    guard
        .map(AsRef::as_ref)
        .ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, "starting".into()))
}
