//! In-sync sets, failed replicas, elections by choice.

use tradewind_wire::ids::{NodeId, TopicId};

use super::{change_partition, current, daemon, partition};
use crate::bugs::{self, Bug};
use crate::command::{ElectionKind, IsrChange, IsrState, MetaError, Outcome, StaleWhat};
use crate::election::{Cause, distrust, insert};
use crate::image::{DaemonState, Image, Partition};

/// How many partitions one entry may change.
pub(crate) const MAX_CHANGES: usize = 10_000;

/// Takes over a leader's proposed sets, each by compare-and-set on partition epoch and leader epoch; a stale or
/// impossible one is refused without touching the others.
pub(super) fn alter_isr(
    image: &mut Image,
    node: NodeId,
    daemon_epoch: i64,
    changes: &[IsrChange],
) -> Result<Outcome, MetaError> {
    daemon(image, node, daemon_epoch)?;
    limit("in-sync changes", changes.len())?;
    let results = changes.iter().map(|change| alter_one(image, node, change));
    Ok(Outcome::IsrChanged(results.collect()))
}

fn alter_one(image: &mut Image, node: NodeId, change: &IsrChange) -> Result<IsrState, MetaError> {
    let now = partition(image, (change.topic, change.partition))?;
    if now.leader != Some(node) {
        return Err(MetaError::NotLeader(node));
    }
    current(
        StaleWhat::LeaderEpoch,
        change.leader_epoch.into(),
        now.leader_epoch.into(),
    )?;
    let wanted = wanted_isr(image, &now, node, change)?;
    if now.isr == wanted {
        // A proposal whose answer was lost, or that another event has already brought about.
        return Ok(IsrState {
            isr: wanted,
            partition_epoch: now.partition_epoch,
        });
    }
    if !bugs::has(Bug::InSyncWithoutEpochs) {
        current(
            StaleWhat::PartitionEpoch,
            change.partition_epoch.into(),
            now.partition_epoch.into(),
        )?;
    }
    let next = change_partition(
        image,
        (change.topic, change.partition),
        Cause::Change,
        |partition, _| {
            let before = std::mem::replace(&mut partition.isr, wanted);
            partition
                .eligible
                .retain(|member| !partition.isr.contains(member));
            // All that leave were waited for until now. Settling forgets them again if enough members stay for the
            // watermark to move without them.
            for member in before {
                if !partition.isr.contains(&member) && !partition.suspect.contains(&member) {
                    insert(&mut partition.eligible, member);
                }
            }
            partition.suspect.clear();
        },
    )?;
    Ok(IsrState {
        isr: next.isr,
        partition_epoch: next.partition_epoch,
    })
}

/// The proposed set in the order of the replicas, if each member may be in it.
fn wanted_isr(
    image: &Image,
    now: &Partition,
    leader: NodeId,
    change: &IsrChange,
) -> Result<Vec<NodeId>, MetaError> {
    for (i, &(member, epoch)) in change.isr.iter().enumerate() {
        if !now.replicas.contains(&member) {
            return Err(MetaError::InvalidIsr(format!("node {member} is no replica")));
        }
        if change.isr[..i].iter().any(|&(other, _)| other == member) {
            return Err(MetaError::InvalidIsr(format!("node {member} is named twice")));
        }
        let epoch = match image.nodes.get(&member) {
            Some(daemon) if bugs::has(Bug::InSyncWithoutEpochs) => daemon.epoch,
            _ => epoch,
        };
        let daemon = daemon(image, member, epoch)?;
        if daemon.state != DaemonState::Active || now.failed.contains(&member) {
            return Err(MetaError::Ineligible(member));
        }
    }
    if !change.isr.iter().any(|&(member, _)| member == leader) {
        return Err(MetaError::InvalidIsr(format!("its leader {leader} is missing")));
    }
    let named = |node: &NodeId| change.isr.iter().any(|(member, _)| member == node);
    Ok(now.replicas.iter().copied().filter(named).collect())
}

/// Replicas whose disk failed leave both sets and may not come back until they are restored.
pub(super) fn failed(
    image: &mut Image,
    node: NodeId,
    daemon_epoch: i64,
    replicas: &[(TopicId, i32)],
) -> Result<Outcome, MetaError> {
    daemon(image, node, daemon_epoch)?;
    limit("failed replicas", replicas.len())?;
    for &replica in replicas {
        // A topic that was deleted meanwhile is no longer of interest.
        let _ = change_partition(image, replica, Cause::Change, |partition, rules| {
            if partition.replicas.contains(&node) {
                insert(&mut partition.failed, node);
                distrust(partition, node, rules);
            }
        });
    }
    Ok(Outcome::Done)
}

/// Failed replicas were discarded: they may join again by catching up.
pub(super) fn restored(
    image: &mut Image,
    node: NodeId,
    daemon_epoch: i64,
    replicas: &[(TopicId, i32)],
) -> Result<Outcome, MetaError> {
    daemon(image, node, daemon_epoch)?;
    limit("restored replicas", replicas.len())?;
    for &replica in replicas {
        let _ = change_partition(image, replica, Cause::Change, |partition, _| {
            partition.failed.retain(|&member| member != node);
        });
    }
    Ok(Outcome::Done)
}

/// Elects by choice.
pub(super) fn elect(
    image: &mut Image,
    kind: ElectionKind,
    partitions: &[(TopicId, i32)],
) -> Result<Outcome, MetaError> {
    limit("elections", partitions.len())?;
    let results = partitions.iter().map(|&which| match kind {
        ElectionKind::Preferred => elect_preferred(image, which),
        ElectionKind::Unclean => elect_unclean(image, which),
    });
    Ok(Outcome::Elected(results.collect()))
}

fn elect_preferred(image: &mut Image, which: (TopicId, i32)) -> Result<NodeId, MetaError> {
    let now = partition(image, which)?;
    let preferred = *now.replicas.first().ok_or(MetaError::NoEligibleLeader)?;
    if now.leader == Some(preferred) {
        return Err(MetaError::ElectionNotNeeded);
    }
    let fit = now.isr.contains(&preferred)
        && image.is_active(preferred)
        && !image.drained.contains(&preferred)
        && !now.suspect.contains(&preferred)
        && !now.failed.contains(&preferred);
    if !fit {
        return Err(MetaError::NoEligibleLeader);
    }
    let next = change_partition(image, which, Cause::Change, |partition, _| {
        partition.leader = Some(preferred);
    })?;
    next.leader.ok_or(MetaError::NoEligibleLeader)
}

fn elect_unclean(image: &mut Image, which: (TopicId, i32)) -> Result<NodeId, MetaError> {
    let now = partition(image, which)?;
    if now.leader.is_some() {
        return Err(MetaError::ElectionNotNeeded);
    }
    let next = change_partition(image, which, Cause::UncleanByChoice, |_, _| {})?;
    next.leader.ok_or(MetaError::NoEligibleLeader)
}

/// Refuses a list that is too long for one entry.
pub(super) fn limit(what: &str, len: usize) -> Result<(), MetaError> {
    if len <= MAX_CHANGES {
        return Ok(());
    }
    Err(MetaError::TooMany {
        what: what.to_owned(),
        limit: MAX_CHANGES,
    })
}
