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
use tradewind_cluster::{MemberChange, MembersError};

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

#[derive(Debug, Deserialize)]
pub(super) struct Add {
    node: i32,
    /// Its mesh address, `host:port`.
    mesh: String,
    /// Whether it takes the place of a dead daemon with the same id.
    #[serde(default)]
    replace: bool,
}

pub(super) async fn add(State(facts): State<Facts>, Json(asked): Json<Add>) -> Result<Json<Value>, Refusal> {
    let Add { node, mesh, replace } = asked;
    members(&facts, &MemberChange::Add { node, mesh, replace }).await?;
    Ok(Json(json!({ "node": node, "added": true })))
}

#[derive(Debug, Deserialize)]
pub(super) struct Remove {
    node: i32,
}

pub(super) async fn remove(
    State(facts): State<Facts>,
    Json(Remove { node }): Json<Remove>,
) -> Result<Json<Value>, Refusal> {
    members(&facts, &MemberChange::Remove { node }).await?;
    Ok(Json(json!({ "node": node, "removed": true })))
}

async fn members(facts: &Facts, change: &MemberChange) -> Result<(), Refusal> {
    cluster(facts)?.change_members(change).await.map_err(|error| {
        let code = match &error {
            MembersError::NotMember(_) => StatusCode::NOT_FOUND,
            MembersError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        Refusal(code, error.to_string())
    })
}

fn refusal(error: ProposeError) -> Refusal {
    let code = match &error {
        ProposeError::Refused(MetaError::UnknownNode(_)) => StatusCode::NOT_FOUND,
        ProposeError::Refused(_) => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal(code, error.to_string())
}
