//! Which daemons hold a new topic's partitions: deterministic, round robin, racks apart.
//!
//! Active daemons come first; those that are drained, fenced or not registered yet only fill up a replication factor that
//! the active ones cannot reach, so that a topic made while a daemon restarts does not stay thin for ever.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_wire::ids::NodeId;

use crate::command::MetaError;
use crate::image::{Daemon, Image};

/// Chooses `replication_factor` replicas for each of `count` partitions. `start` turns the wheel, so that topics do not
/// all begin on the same daemon; the same arguments give the same answer on every daemon.
pub(crate) fn place(
    image: &Image,
    count: usize,
    replication_factor: usize,
    start: u64,
) -> Result<Vec<Vec<NodeId>>, MetaError> {
    let active = spread_over_racks(image);
    if active.is_empty() {
        return Err(MetaError::InvalidReplicationFactor(
            "no daemon is active to place replicas on".to_owned(),
        ));
    }
    let spare: Vec<NodeId> = candidates(image)
        .into_iter()
        .filter(|node| !active.contains(node))
        .collect();
    if replication_factor > active.len() + spare.len() {
        return Err(too_many(replication_factor, active.len() + spare.len()));
    }
    let rack = |node: NodeId| image.nodes.get(&node).and_then(|daemon| daemon.rack.as_deref());
    let racks: BTreeSet<_> = active.iter().map(|&node| rack(node)).collect();
    let start = (start % active.len() as u64) as usize;
    Ok((0..count)
        .map(|partition| {
            let from_active = replication_factor.min(active.len());
            let mut chosen = Vec::with_capacity(replication_factor);
            let round = wheel(&active, start + partition, partition / active.len());
            // First one from each rack, then whoever is left, in the order of the wheel.
            let mut used = BTreeSet::new();
            for &node in &round {
                if chosen.len() < from_active && used.len() < racks.len() && used.insert(rack(node)) {
                    chosen.push(node);
                }
            }
            for &node in &round {
                if chosen.len() < from_active && !chosen.contains(&node) {
                    chosen.push(node);
                }
            }
            let missing = replication_factor - chosen.len();
            chosen.extend((0..missing).map(|i| spare[(partition + i) % spare.len()]));
            chosen
        })
        .collect())
}

/// The daemons that may hold replicas at all: registered, or members of the Raft group that have yet to register.
pub(crate) fn candidates(image: &Image) -> BTreeSet<NodeId> {
    image.nodes.keys().chain(&image.members).copied().collect()
}

/// The refusal of a replication factor that exceeds the daemons, in Kafka's words.
pub(crate) fn too_many(replication_factor: usize, daemons: usize) -> MetaError {
    MetaError::InvalidReplicationFactor(format!(
        "Unable to replicate the partition {replication_factor} time(s): The target replication factor of \
         {replication_factor} cannot be reached because only {daemons} broker(s) are registered."
    ))
}

/// All of `nodes`, beginning at `first`; the followers are turned by `shift`, so that the same leader does not always
/// have the same followers.
fn wheel(nodes: &[NodeId], first: usize, shift: usize) -> Vec<NodeId> {
    let first = first % nodes.len();
    let others = nodes.len() - 1;
    std::iter::once(nodes[first])
        .chain((0..others).map(|i| nodes[(first + 1 + (i + shift) % others) % nodes.len()]))
        .collect()
}

/// The active daemons that are not drained (all active ones, if all are), racks taking turns.
fn spread_over_racks(image: &Image) -> Vec<NodeId> {
    let mut racks: BTreeMap<Option<&str>, Vec<NodeId>> = BTreeMap::new();
    let all_drained = image.active().all(|daemon| image.drained.contains(&daemon.id));
    let wanted = |daemon: &&Daemon| all_drained || !image.drained.contains(&daemon.id);
    for daemon in image.active().filter(wanted) {
        racks.entry(daemon.rack.as_deref()).or_default().push(daemon.id);
    }
    let deepest = racks.values().map(Vec::len).max().unwrap_or(0);
    (0..deepest)
        .flat_map(|row| racks.values().filter_map(move |nodes| nodes.get(row).copied()))
        .collect()
}
