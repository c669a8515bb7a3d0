//! `/v1/...`: what the command line shows and does, as JSON.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tradewind_client::admin::GroupListing;
use tradewind_cluster::Cluster;
use tradewind_cluster::image::{DaemonState, FlowState, Image, Topic};
use tradewind_cluster::overview::Overview;
use tradewind_mirror::Mirror;
use tradewind_mirror::status::{FailoverError, FlowStatus};
use tradewind_wire::flow::FlowSpec;
use tradewind_wire::region::MoveState;

use super::{Facts, guard};

/// An answer that is not the one asked for: `{"error": "..."}`.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// The whole cluster at a glance, as this daemon sees it.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    cluster: String,
    cluster_id: Option<String>,
    node: i32,
    controller: Option<i32>,
    topics: usize,
    partitions: usize,
    leaderless: usize,
    under_replicated: usize,
    nodes: Vec<NodeStatus>,
    flows: Vec<FlowStatus>,
    /// What a person should look at, one sentence each; empty when all is well.
    attention: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    id: i32,
    state: String,
    mesh: String,
    rack: Option<String>,
    listeners: Vec<String>,
}

pub(super) async fn status(State(facts): State<Facts>) -> Result<Json<Status>, Refusal> {
    let cluster = cluster(&facts)?;
    let image = cluster.image();
    let flows = match facts.inner.mirror.get() {
        Some(mirror) => mirror.status().await,
        None => Vec::new(),
    };
    let controller = cluster.metadata().controller();
    let overview = Overview::of(&image, controller, None);
    Ok(Json(Status {
        cluster: cluster.cluster_name().to_owned(),
        cluster_id: image.cluster_id.map(|id| id.to_string()),
        node: cluster.node_id(),
        controller,
        topics: image.topics.len(),
        partitions: overview.partitions,
        leaderless: overview.leaderless,
        under_replicated: overview.under_replicated,
        nodes: nodes(cluster, &image),
        attention: {
            let mut all = attention(cluster, &image, &flows, &overview);
            all.extend(guard::attention(&facts));
            all
        },
        flows,
    }))
}

fn nodes(cluster: &Cluster, image: &Image) -> Vec<NodeStatus> {
    let registered = image.nodes.values().map(|daemon| NodeStatus {
        id: daemon.id,
        state: state_of(daemon.state).to_owned(),
        mesh: daemon.mesh.clone(),
        rack: daemon.rack.clone(),
        listeners: daemon
            .listeners
            .iter()
            .map(|at| format!("{}={}:{}", at.name, at.host, at.port))
            .collect(),
    });
    let absent = cluster
        .seeds()
        .iter()
        .filter(|(id, _)| !image.nodes.contains_key(id))
        .map(|(id, mesh)| NodeStatus {
            id: *id,
            state: "never seen".to_owned(),
            mesh: mesh.clone(),
            rack: None,
            listeners: Vec::new(),
        });
    let mut nodes: Vec<_> = registered.chain(absent).collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

fn attention(cluster: &Cluster, image: &Image, flows: &[FlowStatus], overview: &Overview) -> Vec<String> {
    let mut attention = Vec::new();
    if overview.controller.is_none() {
        attention.push("no controller: changes wait until most daemons are back".to_owned());
    }
    if cluster.disk_is_full() {
        attention.push(format!(
            "the disk of daemon {} is full up to `node.disk_reserve`: it takes no records",
            cluster.node_id()
        ));
    }
    for node in nodes(cluster, image).iter().filter(|node| node.state != "active") {
        attention.push(format!("daemon {} is {}", node.id, node.state));
    }
    for (count, what) in [
        (overview.leaderless, "have no leader"),
        (
            overview.under_replicated,
            "have fewer copies in sync than they should",
        ),
        (
            overview.under_min_isr,
            "refuse acks=all: too few copies are in sync",
        ),
    ] {
        if count > 0 {
            attention.push(format!("{count} partitions {what}"));
        }
    }
    for (flow, known) in &image.moves {
        match known.state {
            MoveState::Fenced | MoveState::GroupsFenced => attention.push(format!(
                "topics are fenced: {} takes them over by a switchover of {flow}; clients cannot write them until that \
                 ends",
                known.peer
            )),
            MoveState::GaveWay => attention.push(format!(
                "topics have given way to a failover of {flow}: clients write at {0}; `tradewind failback '{flow}'` there \
                 makes this side its mirror",
                known.peer
            )),
            MoveState::Rescuing | MoveState::Rescued => {
                attention.push(format!("a failback of {flow} is under way, driven by {}", known.peer));
            }
            MoveState::Moved | MoveState::Released => {}
        }
    }
    for flow in flows {
        if flow.state == "source-unreachable" {
            attention.push(format!("{}: the source does not answer", flow.flow));
        }
        attention.extend(
            flow.problems
                .iter()
                .map(|problem| format!("{}: {problem}", flow.flow)),
        );
    }
    attention
}

fn state_of(state: DaemonState) -> &'static str {
    match state {
        DaemonState::Active => "active",
        DaemonState::Stopping => "stopping",
        DaemonState::Fenced => "fenced",
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TopicLine {
    name: String,
    id: String,
    internal: bool,
    configs: BTreeMap<String, String>,
    mirror: Option<MirrorLine>,
    partitions: Vec<PartitionLine>,
}

#[derive(Debug, Serialize)]
struct MirrorLine {
    flow: String,
    source_topic: String,
    promoted: bool,
}

#[derive(Debug, Serialize)]
struct PartitionLine {
    partition: usize,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
}

pub(super) async fn topics(State(facts): State<Facts>) -> Result<Json<Vec<TopicLine>>, Refusal> {
    let image = cluster(&facts)?.image();
    let mut topics: Vec<TopicLine> = image.topics.values().map(|topic| topic_line(topic)).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(topics))
}

fn topic_line(topic: &Topic) -> TopicLine {
    let partitions = topic
        .partitions
        .iter()
        .enumerate()
        .map(|(number, partition)| PartitionLine {
            partition: number,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
        });
    TopicLine {
        name: topic.name.clone(),
        id: topic.id.to_string(),
        internal: topic.internal,
        configs: topic.configs.clone(),
        mirror: topic.mirror.as_ref().map(|mirror| MirrorLine {
            flow: mirror.flow.clone(),
            source_topic: mirror.source_topic.clone(),
            promoted: !topic.is_mirroring(),
        }),
        partitions: partitions.collect(),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct FlowLine {
    flow: String,
    state: FlowState,
    version: u32,
    spec: FlowSpec,
}

pub(super) async fn flows(State(facts): State<Facts>) -> Result<Json<Vec<FlowLine>>, Refusal> {
    let image = cluster(&facts)?.image();
    let line = |flow: &tradewind_cluster::image::Flow| FlowLine {
        flow: flow.name.clone(),
        state: flow.state,
        version: flow.version,
        spec: flow.spec.clone(),
    };
    Ok(Json(image.flows.values().map(line).collect()))
}

#[derive(Debug, Serialize)]
pub(super) struct GroupLine {
    group: String,
    protocol_type: String,
    state: String,
}

/// The groups of all daemons, asked as any client would.
pub(super) async fn groups(State(facts): State<Facts>) -> Result<Json<Vec<GroupLine>>, Refusal> {
    cluster(&facts)?;
    let client = facts.inner.client.get();
    let client = client.ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, "starting".into()))?;
    let groups = client.list_groups().await;
    let groups = groups.map_err(|error| Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let line = |group: GroupListing| GroupLine {
        group: group.group,
        protocol_type: group.protocol_type,
        state: group.state,
    };
    Ok(Json(groups.into_iter().map(line).collect()))
}

pub(super) async fn mirror_status(State(facts): State<Facts>) -> Result<Json<Vec<FlowStatus>>, Refusal> {
    Ok(Json(mirror(&facts)?.status().await))
}

#[derive(Debug, Deserialize)]
pub(super) struct FailoverRequest {
    flow: String,
    #[serde(default)]
    accept_loss: bool,
}

pub(super) async fn failover(
    State(facts): State<Facts>,
    Json(request): Json<FailoverRequest>,
) -> Result<Response, Refusal> {
    if !request.accept_loss {
        let message = "a failover gives up records that have not arrived: set accept_loss if that is meant";
        return Err(Refusal(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    match mirror(&facts)?.failover(&request.flow).await {
        Ok(report) => Ok(Json(report).into_response()),
        Err(error) => {
            let code = match error {
                FailoverError::UnknownFlow(_) => StatusCode::NOT_FOUND,
                FailoverError::Refused { .. } => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            Err(Refusal(code, error.to_string()))
        }
    }
}

pub(super) async fn unknown() -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        "there is /livez, /readyz, /metrics and /v1/{status,topics,flows,groups,mirror/{status,pause,resume,verify,guard,unguard},failover,failback,switchover}"
            .into(),
    )
}

pub(super) fn cluster(facts: &Facts) -> Result<&Cluster, Refusal> {
    facts
        .inner
        .cluster
        .get()
        .ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, "starting".into()))
}

pub(super) fn mirror(facts: &Facts) -> Result<&Mirror, Refusal> {
    facts
        .inner
        .mirror
        .get()
        .ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, "starting".into()))
}
