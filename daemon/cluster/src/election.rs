//! Who leads a partition: the one place where in-sync, eligible and suspect sets and leaders change together.
//!
//! Pure: takes a partition, what changed, and what the image says about daemons and configuration. Every path (fencing,
//! registration, in-sync proposals, failures, configuration) ends in [`settle`], so that the invariants of
//! [`Image::check`] and the growth of both epochs are decided once.

use tradewind_wire::ids::NodeId;

use crate::bugs::{self, Bug};
use crate::image::{Image, Partition, Topic};

/// What an election may know besides the partition.
pub(crate) struct Rules<'a> {
    image: &'a Image,
    topic: &'a Topic,
}

impl<'a> Rules<'a> {
    /// The rules for `topic` as `image` has them.
    pub(crate) fn new(image: &'a Image, topic: &'a Topic) -> Self {
        Self { image, topic }
    }

    /// Whether the replica on `node` may lead without losing committed records, being in sync or eligible.
    fn may_lead(&self, partition: &Partition, node: NodeId) -> bool {
        self.image.is_active(node) && !partition.suspect.contains(&node) && !partition.failed.contains(&node)
    }

    /// How many members the in-sync set needs for the high watermark to move under the present leader.
    fn min_isr(&self, partition: &Partition) -> usize {
        self.image.min_isr(self.topic, partition, partition.leader)
    }

    /// As [`Self::min_isr`], once the partition has `replicas` replicas.
    fn min_isr_of(&self, partition: &Partition, replicas: usize) -> usize {
        self.image
            .min_isr_configured(self.topic, partition.leader)
            .clamp(1, replicas.max(1))
    }

    fn unclean_allowed(&self, node: NodeId) -> bool {
        let value = self
            .image
            .topic_config(self.topic, "unclean.leader.election.enable", Some(node));
        value.as_deref() == Some("true")
    }
}

/// Why a partition is settled, where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Sets or daemons changed.
    Change,
    /// The leader registered anew: a new epoch even if it leads again, for it may have lost an unflushed tail.
    LeaderRegistered,
    /// An operator accepts the loss of committed records.
    UncleanByChoice,
    /// A replica was taken away: a new epoch even under the same leader, for what it knows of that replica's log must not
    /// count for an empty one that may come back under the same name.
    ReplicaDropped,
}

/// Makes `next` hold the invariants again, electing if it must, and counts both epochs up from `before`.
pub(crate) fn settle(before: &Partition, next: &mut Partition, rules: &Rules<'_>, cause: Cause) {
    let dropped = complete(next, rules) || cause == Cause::ReplicaDropped;
    let stands = next
        .leader
        .is_some_and(|leader| next.isr.contains(&leader) && rules.may_lead(next, leader));
    if !stands {
        next.leader = None;
        elect(next, rules, cause == Cause::UncleanByChoice);
    }
    // Without a leader the watermark stands, whatever the size of the set.
    if next.leader.is_some() && next.isr.len() >= rules.min_isr(next) {
        next.eligible.clear();
    }
    let registered = cause == Cause::LeaderRegistered && !bugs::has(Bug::SameEpochAgain);
    if next.leader != before.leader || registered || dropped {
        next.leader_epoch = before.leader_epoch.max(next.leader_epoch) + 1;
    }
    if next != before {
        next.partition_epoch = before.partition_epoch + 1;
    }
}

/// Ends a move whose new replicas are all in sync; answers whether replicas were dropped by that.
///
/// It waits for a member of the target that may lead, and does not take a set that is large enough for the high watermark
/// to move below that size: the replicas that are to go serve until others do.
fn complete(partition: &mut Partition, rules: &Rules<'_>) -> bool {
    let Some(moving) = &partition.reassignment else {
        return false;
    };
    let target = moving.target.clone();
    let stay: Vec<NodeId> = target
        .iter()
        .copied()
        .filter(|node| partition.isr.contains(node))
        .collect();
    let arrived = moving.adding().all(|node| stay.contains(&node));
    let enough = stay.len() == partition.isr.len() || stay.len() >= rules.min_isr_of(partition, target.len());
    let leads = stay.iter().any(|&node| rules.may_lead(partition, node));
    if !(arrived && enough && leads) {
        return false;
    }
    let drops = partition.replicas.len() > target.len();
    partition.reassignment = None;
    keep_replicas(partition, target);
    drops
}

/// Makes `replicas` the partition's, and forgets what the sets say of others.
pub(crate) fn keep_replicas(partition: &mut Partition, replicas: Vec<NodeId>) {
    let stays = |node: &NodeId| replicas.contains(node);
    partition.isr = replicas
        .iter()
        .copied()
        .filter(|node| partition.isr.contains(node))
        .collect();
    partition.eligible.retain(stays);
    partition.suspect.retain(stays);
    partition.failed.retain(stays);
    partition.replicas = replicas;
}

/// Takes `node` out of the in-sync set, unless it is the last member. A replica that leaves while the set is (or falls)
/// below min ISR holds every record that acks=all acknowledged, since the watermark waited for it and now stands: it
/// becomes eligible, if `trusted`.
pub(crate) fn leave(partition: &mut Partition, node: NodeId, trusted: bool, rules: &Rules<'_>) {
    if !partition.isr.contains(&node) || partition.isr.len() == 1 {
        return;
    }
    partition.isr.retain(|&member| member != node);
    let below = partition.leader.is_none() || partition.isr.len() < rules.min_isr(partition);
    if below && trusted && !partition.suspect.contains(&node) {
        insert(&mut partition.eligible, node);
    }
    // Outside the in-sync set there is nothing to suspect: it comes back only by catching up.
    partition.suspect.retain(|&member| member != node);
}

/// Records that the replica on `node` may lack committed records: it leaves both sets, or stays as a suspect last
/// member.
pub(crate) fn distrust(partition: &mut Partition, node: NodeId, rules: &Rules<'_>) {
    partition.eligible.retain(|&member| member != node);
    leave(partition, node, false, rules);
    if partition.isr.contains(&node) {
        insert(&mut partition.suspect, node);
    }
}

/// Takes the leadership from a drained leader, if a member of the in-sync set that is not drained may have it: settling
/// elects that one.
pub(crate) fn hand_over(partition: &mut Partition, rules: &Rules<'_>) {
    let may = |node: &NodeId| rules.may_lead(partition, *node) && !rules.image.drained.contains(node);
    if partition.isr.iter().any(may) {
        partition.leader = None;
    }
}

/// Inserts `node` into a small set that is kept as a list.
pub(crate) fn insert(set: &mut Vec<NodeId>, node: NodeId) {
    if !set.contains(&node) {
        set.push(node);
        set.sort_unstable();
    }
}

/// Looks for a leader: in-sync replicas first, then eligible ones, then (if allowed) any.
fn elect(partition: &mut Partition, rules: &Rules<'_>, unclean_by_choice: bool) {
    let replicas = partition.replicas.clone();
    // Of those that may lead, the ones that are drained come last.
    let is_drained = |node: &NodeId| rules.image.drained.contains(node);
    let (drained, others): (Vec<NodeId>, Vec<NodeId>) = replicas.into_iter().partition(is_drained);
    let candidates: Vec<NodeId> = others.into_iter().chain(drained).collect();
    let first = |accept: &dyn Fn(NodeId) -> bool| candidates.iter().copied().find(|&node| accept(node));

    if let Some(leader) = first(&|node| partition.isr.contains(&node) && rules.may_lead(partition, node)) {
        partition.leader = Some(leader);
        return;
    }
    if let Some(leader) = first(&|node| partition.eligible.contains(&node) && rules.may_lead(partition, node))
    {
        // Committed records are in every member and every eligible replica; the members that cannot lead now become
        // eligible in their turn, except suspects.
        let left = std::mem::replace(&mut partition.isr, vec![leader]);
        partition.leader = Some(leader);
        partition.eligible.retain(|&node| node != leader);
        for node in left {
            if !partition.suspect.contains(&node) && !partition.failed.contains(&node) {
                insert(&mut partition.eligible, node);
            }
        }
        partition.suspect.clear();
        return;
    }
    let allowed = |node: NodeId| {
        rules.image.is_active(node)
            && !partition.failed.contains(&node)
            && (unclean_by_choice || rules.unclean_allowed(node))
    };
    // The last member has the best chance of having everything, then whoever is first.
    let leader = first(&|node| partition.isr.contains(&node) && allowed(node)).or_else(|| first(&allowed));
    if let Some(leader) = leader {
        partition.leader = Some(leader);
        partition.isr = vec![leader];
        partition.eligible.clear();
        partition.suspect.clear();
    }
}
