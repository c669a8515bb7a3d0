//! `/v1/mirror/plan`, `/v1/mirror/apply`, `/v1/mirror/remove`: flows declared, changed and removed by command.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tradewind_mirror::declaring::{DeclareError, FlowPlan, RemovedFlow};
use tradewind_wire::flow::FlowSpec;

use super::Facts;
use super::v1::{Refusal, mirror};

/// Declarations.
#[derive(Debug, Deserialize)]
pub(super) struct Flows {
    flows: Vec<FlowSpec>,
    /// Whether to declare them although the plan complains.
    #[serde(default)]
    force: bool,
}

pub(super) async fn plan(
    State(facts): State<Facts>,
    Json(given): Json<Flows>,
) -> Result<Json<Vec<FlowPlan>>, Refusal> {
    Ok(Json(mirror(&facts)?.plan(&given.flows).await))
}

pub(super) async fn apply(
    State(facts): State<Facts>,
    Json(given): Json<Flows>,
) -> Result<Json<Vec<FlowPlan>>, Refusal> {
    let done = mirror(&facts)?.apply(&given.flows, given.force).await;
    done.map(Json).map_err(refusal)
}

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    flow: String,
    #[serde(default)]
    forget_source: bool,
}

pub(super) async fn remove(
    State(facts): State<Facts>,
    Json(which): Json<Which>,
) -> Result<Json<RemovedFlow>, Refusal> {
    let done = mirror(&facts)?.remove(&which.flow, which.forget_source).await;
    done.map(Json).map_err(refusal)
}

fn refusal(error: DeclareError) -> Refusal {
    let code = match error {
        DeclareError::Invalid(_) => StatusCode::BAD_REQUEST,
        DeclareError::UnknownFlow(_) => StatusCode::NOT_FOUND,
        DeclareError::Problems(_) | DeclareError::Refused { .. } => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal(code, error.to_string())
}
