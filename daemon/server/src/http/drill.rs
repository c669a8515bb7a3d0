//! `/v1/drill`: rehearses a failover beside the flow that runs, as JSON. Answers when it is over.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tradewind_mirror::drill_report::{DrillError, DrillReport, DrillWish};

use super::Facts;
use super::v1::{Refusal, mirror};

#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    flow: String,
    /// All of them without any.
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    copy_bytes: Option<u64>,
    #[serde(default)]
    check_bytes: Option<u64>,
    #[serde(default)]
    time_ms: Option<u64>,
}

pub(super) async fn drill(
    State(facts): State<Facts>,
    Json(wish): Json<Wish>,
) -> Result<Json<DrillReport>, Refusal> {
    let usual = DrillWish::default();
    let asked = DrillWish {
        topics: wish.topics,
        copy_bytes: wish.copy_bytes.unwrap_or(usual.copy_bytes),
        check_bytes: wish.check_bytes.unwrap_or(usual.check_bytes),
        time_ms: wish.time_ms.unwrap_or(usual.time_ms),
    };
    let done = mirror(&facts)?.drill(&wish.flow, asked).await;
    done.map(Json).map_err(|error| {
        let code = match error {
            DrillError::UnknownFlow(_) | DrillError::UnknownTopic { .. } => StatusCode::NOT_FOUND,
            DrillError::Refused { .. } => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal(code, error.to_string())
    })
}
