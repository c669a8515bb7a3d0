//! Heartbeats in MirrorMaker 2's format: one record per second and flow into this cluster's `heartbeats`.
//!
//! Written by the leader of its one partition, so by one daemon per cluster. Peers mirror the topic like any other; its
//! copies show that a link works from end to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tradewind_wire::flow::HEARTBEATS_TOPIC;

use crate::formats;
use crate::peers::{Answer, Ask, ask_all};
use crate::target::{FlowState, Target, View};

const EVERY: Duration = Duration::from_secs(1);
/// How long other daemons have to name the clusters that mirror from them.
const PEERS_TIMEOUT: Duration = Duration::from_millis(300);

/// Runs until cancelled.
pub(crate) async fn run(target: Arc<dyn Target>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        beat(&target).await;
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn beat(target: &Arc<dyn Target>) {
    let view = target.view();
    let downstream = target.downstream_clusters();
    let Some(topic) = view.topics.get(HEARTBEATS_TOPIC) else {
        // Whoever knows of a flow creates it; the others find it there.
        if !sources(&view, downstream).is_empty() {
            let configs = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
            if let Err(error) = target.create_internal_topic(HEARTBEATS_TOPIC, 1, configs).await {
                tracing::warn!(%error, "heartbeats topic not created");
            }
        }
        return;
    };
    if topic.partitions.first().and_then(|partition| partition.leader) != Some(target.node_id()) {
        return;
    }
    let mut downstream = downstream;
    for (_, answer) in ask_all(target, &Ask::Downstream, PEERS_TIMEOUT).await {
        if let Ok(Answer::Downstream(theirs)) = answer {
            downstream.extend(theirs);
        }
    }
    let sources = sources(&view, downstream);
    if sources.is_empty() {
        return;
    }
    let now_ms = target.clock().now_ms();
    let records: Vec<_> = sources
        .iter()
        .map(|source| formats::heartbeat(source, target.cluster_name(), now_ms))
        .collect();
    if let Err(error) = target
        .append_own(HEARTBEATS_TOPIC, 0, formats::batch(now_ms, &records))
        .await
    {
        tracing::debug!(%error, "heartbeat not written");
    }
}

/// The clusters that this one mirrors from, and those that mirror from it (in MirrorMaker 2's deployments the reverse
/// herder writes that one), once each.
fn sources(view: &View, downstream: Vec<String>) -> Vec<String> {
    let active = view.flows.values().filter(|flow| flow.state == FlowState::Active);
    let mut sources: Vec<String> = active
        .map(|flow| flow.spec.source_cluster.clone())
        .chain(downstream)
        .collect();
    sources.sort();
    sources.dedup();
    sources
}
