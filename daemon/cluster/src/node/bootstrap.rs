//! The first start of a cluster: who votes, and when it is safe to begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_wire::ids::NodeId;

use super::Core;
use crate::controller::voters;
use crate::raft;

/// Makes the cluster, if this is its lowest voter and every voter has answered once that it is blank. All must answer:
/// one that is only late could belong to a cluster already.
pub(super) async fn run(core: Arc<Core>) {
    let voters = first_voters(&core.options.seeds);
    let lowest = voters.keys().next() == Some(&core.options.node);
    let mut blank: BTreeMap<NodeId, (String, [u8; 16])> = BTreeMap::new();
    if let Some(mesh) = voters.get(&core.options.node) {
        blank.insert(core.options.node, (mesh.clone(), core.options.storage_id));
    }
    while lowest && core.group.is_blank().await {
        for (&node, mesh) in &voters {
            if blank.contains_key(&node) {
                continue;
            }
            match raft::probe(&core.dialer, node, core.timing().session).await {
                Ok(probe) if probe.blank => {
                    blank.insert(node, (mesh.clone(), probe.storage_id));
                }
                Ok(_) => tracing::warn!(
                    node,
                    "this data directory is blank, but another voter's is not: waiting to be made a member"
                ),
                Err(error) => tracing::info!(node, %error, "waiting for a voter of the new cluster"),
            }
        }
        if blank.len() == voters.len() {
            match core.group.initialize(&blank).await {
                Ok(()) => tracing::info!(voters = ?blank.keys(), "made a new cluster"),
                Err(error) => tracing::warn!(error, "could not make the cluster"),
            }
        } else {
            tokio::time::sleep(core.timing().heartbeat).await;
        }
    }
}

/// The daemons that vote at first: those with the lowest ids.
fn first_voters(seeds: &BTreeMap<NodeId, String>) -> BTreeMap<NodeId, String> {
    seeds
        .iter()
        .take(voters::count(seeds.len()))
        .map(|(node, mesh)| (*node, mesh.clone()))
        .collect()
}
