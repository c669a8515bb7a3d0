//! Replicas move: a partition gets further replicas, waits until they have caught up, and drops those that are to go.
//!
//! The image holds where a partition comes from and where it goes; what is missing is decided anew after every change, in
//! `election.rs` whenever a partition is settled. So a move goes on after any crash, and nothing but replicated state decides it.
//! Files are deleted by each daemon on its own, when it applies the entry that takes its replica away.

use std::collections::BTreeSet;

use tradewind_wire::ids::{NodeId, TopicId};

use super::{change_partition, partition};
use crate::command::{MetaError, Move, Outcome};
use crate::election::{Cause, keep_replicas};
use crate::image::{Image, Reassignment};
use crate::placement::candidates;

/// How many replicas a partition may have.
pub(super) const MAX_REPLICAS: usize = 100;

/// Begins, changes or takes back moves, each on its own.
pub(super) fn reassign(image: &mut Image, moves: &[Move], resize: bool) -> Result<Outcome, MetaError> {
    super::partitions::limit("moves", moves.len())?;
    let results = moves.iter().map(|one| {
        let which = (one.topic, one.partition);
        match &one.replicas {
            Some(target) => begin(image, which, target, resize),
            None => cancel(image, which),
        }
    });
    Ok(Outcome::Reassigned(results.collect()))
}

fn begin(image: &mut Image, which: (TopicId, i32), target: &[NodeId], resize: bool) -> Result<(), MetaError> {
    let now = partition(image, which)?;
    check_target(image, target)?;
    let original = match &now.reassignment {
        Some(moving) => moving.original.clone(),
        None => now.replicas.clone(),
    };
    if !resize && target.len() != original.len() {
        return Err(MetaError::InvalidReplicationFactor(format!(
            "The replication factor is changed from {} to {}",
            original.len(),
            target.len()
        )));
    }
    if now.reassignment.is_none() && original == target {
        return Ok(());
    }
    change_partition(image, which, Cause::Change, |partition, _| {
        let going = partition.replicas.iter().filter(|node| !target.contains(node));
        let replicas: Vec<NodeId> = target.iter().chain(going).copied().collect();
        partition.reassignment = Some(Reassignment {
            original,
            target: target.to_vec(),
        });
        keep_replicas(partition, replicas);
    })?;
    Ok(())
}

/// Puts the replicas back to where they were before the move.
fn cancel(image: &mut Image, which: (TopicId, i32)) -> Result<(), MetaError> {
    let now = partition(image, which)?;
    let moving = now.reassignment.as_ref().ok_or(MetaError::NoReassignment)?;
    // Those that came may hold records that those that were there do not.
    let could_lead = |node: &NodeId| {
        moving.original.contains(node)
            && image.is_active(*node)
            && !now.suspect.contains(node)
            && !now.failed.contains(node)
    };
    if !now.isr.iter().any(could_lead) {
        return Err(MetaError::InvalidAssignment(
            "The move cannot be taken back: none of the replicas before it is in sync and may lead."
                .to_owned(),
        ));
    }
    let original = moving.original.clone();
    let drops = now.replicas.iter().any(|node| !original.contains(node));
    let cause = if drops {
        Cause::ReplicaDropped
    } else {
        Cause::Change
    };
    change_partition(image, which, cause, |partition, _| {
        partition.reassignment = None;
        keep_replicas(partition, original);
    })?;
    Ok(())
}

fn check_target(image: &Image, target: &[NodeId]) -> Result<(), MetaError> {
    let refuse = |what: String| Err(MetaError::InvalidAssignment(what));
    if target.is_empty() || target.len() > MAX_REPLICAS {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    if target.iter().collect::<BTreeSet<_>>().len() != target.len() {
        return refuse("The manual partition assignment includes a broker more than once.".to_owned());
    }
    let known = candidates(image);
    match target.iter().find(|node| !known.contains(node)) {
        Some(stranger) => refuse(format!(
            "The manual partition assignment includes broker {stranger}, but no such broker is registered."
        )),
        None => Ok(()),
    }
}
