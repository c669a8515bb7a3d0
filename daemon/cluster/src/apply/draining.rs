//! Daemons are drained: they hand over what they lead and get nothing new, but hold and follow what they have, so that
//! stopping them afterwards takes nothing away from anyone. One that is stopped and holds nothing can be forgotten.

use tradewind_wire::ids::NodeId;

use super::change_partitions;
use crate::command::{MetaError, Outcome};
use crate::election::{Cause, hand_over};
use crate::image::{DaemonState, Image};
use crate::overview::needed;

/// How many partitions a refusal names.
const NAMED: usize = 5;

/// Drains a daemon, or ends that. Refused without `force` if some partition could not do without the daemon. Repeating it
/// hands over what it leads by now.
pub(super) fn drain(image: &mut Image, node: NodeId, on: bool, force: bool) -> Result<Outcome, MetaError> {
    if !image.nodes.contains_key(&node) {
        return Err(MetaError::UnknownNode(node));
    }
    if !on {
        image.drained.remove(&node);
        return Ok(Outcome::Done);
    }
    let needed = needed(image, node);
    if !force && !needed.is_empty() {
        let name = |(topic, partition): &(String, i32)| format!("{topic}-{partition}");
        return Err(MetaError::Needed {
            node,
            partitions: needed.len(),
            some: needed.iter().take(NAMED).map(name).collect(),
        });
    }
    image.drained.insert(node);
    change_partitions(
        image,
        |_, partition| partition.leader == Some(node),
        |_, _, partition, rules| {
            hand_over(partition, rules);
            Cause::Change
        },
    );
    Ok(Outcome::Done)
}

/// Forgets a daemon. It may register again only if it is a member of the Raft group again.
pub(super) fn unregister(image: &mut Image, node: NodeId) -> Result<Outcome, MetaError> {
    let daemon = image.nodes.get(&node).ok_or(MetaError::UnknownNode(node))?;
    if daemon.state != DaemonState::Fenced || image.partitions_on(node) > 0 {
        return Err(MetaError::InUse(node));
    }
    image.nodes.remove(&node);
    image.drained.remove(&node);
    image.node_configs.remove(&node);
    Ok(Outcome::Done)
}
