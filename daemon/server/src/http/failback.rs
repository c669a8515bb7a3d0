//! `/v1/failback`: brings a lost source back as a mirror, as JSON. Begun with POST, looked at with GET.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tradewind_mirror::failback_report::{FailbackError, FailbackReport};

use super::Facts;
use super::v1::{Refusal, mirror};

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    flow: String,
}

pub(super) async fn begin(
    State(facts): State<Facts>,
    Json(which): Json<Which>,
) -> Result<Json<FailbackReport>, Refusal> {
    answer(mirror(&facts)?.failback(&which.flow).await)
}

pub(super) async fn look(
    State(facts): State<Facts>,
    Query(which): Query<Which>,
) -> Result<Json<FailbackReport>, Refusal> {
    answer(mirror(&facts)?.failback_report(&which.flow))
}

fn answer(done: Result<FailbackReport, FailbackError>) -> Result<Json<FailbackReport>, Refusal> {
    done.map(Json).map_err(|error| {
        let code = match error {
            FailbackError::UnknownFlow(_) | FailbackError::None(_) => StatusCode::NOT_FOUND,
            FailbackError::Refused { .. } => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal(code, error.to_string())
    })
}
