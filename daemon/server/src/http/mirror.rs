//! `/v1/mirror/...`: what an operator does to flows, as JSON.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tradewind_mirror::status::PauseError;
use tradewind_mirror::verify::{Compared, Piece, Plan, VerifyError};

use super::Facts;
use super::v1::{Refusal, mirror};

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    flow: String,
    /// Only this topic; the whole flow without it.
    #[serde(default)]
    topic: Option<String>,
    /// Of a pause.
    #[serde(default)]
    reason: String,
}

pub(super) async fn pause(
    State(facts): State<Facts>,
    Json(which): Json<Which>,
) -> Result<Json<Value>, Refusal> {
    let done = mirror(&facts)?
        .pause(&which.flow, which.topic.as_deref(), &which.reason)
        .await;
    answer(&which, "paused", done)
}

pub(super) async fn resume(
    State(facts): State<Facts>,
    Json(which): Json<Which>,
) -> Result<Json<Value>, Refusal> {
    let done = mirror(&facts)?.resume(&which.flow, which.topic.as_deref()).await;
    answer(&which, "resumed", done)
}

#[derive(Debug, Deserialize)]
pub(super) struct Whole {
    flow: String,
    /// All of them without any.
    #[serde(default)]
    topics: Vec<String>,
}

/// What there is to compare; the pieces are then asked for one by one, at the asker's pace.
pub(super) async fn verify(
    State(facts): State<Facts>,
    Json(whole): Json<Whole>,
) -> Result<Json<Plan>, Refusal> {
    let plan = mirror(&facts)?.verify_plan(&whole.flow, &whole.topics).await;
    plan.map(Json).map_err(not_verified)
}

pub(super) async fn verify_piece(
    State(facts): State<Facts>,
    Json(piece): Json<Piece>,
) -> Result<Json<Compared>, Refusal> {
    let compared = mirror(&facts)?.verify_piece(piece).await;
    compared.map(Json).map_err(not_verified)
}

fn not_verified(error: VerifyError) -> Refusal {
    let code = match error {
        VerifyError::UnknownFlow(_) | VerifyError::UnknownTopic { .. } => StatusCode::NOT_FOUND,
        VerifyError::FailedOver(_) => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal(code, error.to_string())
}

fn answer(which: &Which, what: &str, done: Result<(), PauseError>) -> Result<Json<Value>, Refusal> {
    match done {
        Ok(()) => Ok(Json(
            json!({ "flow": which.flow, "topic": which.topic, "done": what }),
        )),
        Err(error) => {
            let code = match error {
                PauseError::UnknownFlow(_) | PauseError::UnknownTopic { .. } => StatusCode::NOT_FOUND,
                PauseError::FailedOver(_) | PauseError::Refused { .. } => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            Err(Refusal(code, error.to_string()))
        }
    }
}
