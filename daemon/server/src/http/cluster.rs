//! `/v1/cluster...`: the cluster at a glance, and what an operator does to its daemons, as JSON.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tradewind_cluster::command::{Command, MetaError};
use tradewind_cluster::metadata::ProposeError;
use tradewind_cluster::overview::Overview;

use super::Facts;
use super::v1::{Refusal, cluster};

/// How long a change may take.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// What the Raft leader says is left out if it does not answer: then least of all may this fail.
pub(super) async fn overview(State(facts): State<Facts>) -> Result<Json<Overview>, Refusal> {
    let cluster = cluster(&facts)?;
    let quorum = cluster.quorum().await.ok();
    let controller = cluster.metadata().controller();
    Ok(Json(Overview::of(&cluster.image(), controller, quorum.as_ref())))
}

#[derive(Debug, Deserialize)]
pub(super) struct Drain {
    node: i32,
    /// Whether it shall be drained, or not any more.
    on: bool,
    /// Even if partitions cannot do without it.
    #[serde(default)]
    force: bool,
}

pub(super) async fn drain(
    State(facts): State<Facts>,
    Json(asked): Json<Drain>,
) -> Result<Json<Value>, Refusal> {
    let Drain { node, on, force } = asked;
    let command = Command::Drain { node, on, force };
    let done = cluster(&facts)?.propose(command, PROPOSE_TIMEOUT).await;
    done.map_err(refusal)?;
    Ok(Json(json!({ "node": node, "drained": on })))
}

fn refusal(error: ProposeError) -> Refusal {
    let code = match &error {
        ProposeError::Refused(MetaError::UnknownNode(_)) => StatusCode::NOT_FOUND,
        ProposeError::Refused(_) => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal(code, error.to_string())
}
