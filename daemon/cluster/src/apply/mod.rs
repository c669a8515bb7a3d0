//! The rules: what one entry of the metadata log makes of the image.
//!
//! [`apply`] is pure and total. It decides from the image alone, so every daemon comes to the same image and the same
//! answer; a refused command changes nothing but the position. Each kind of command has its file; elections are in
//! `election.rs`.

mod configs;
mod daemons;
mod draining;
mod drills;
mod failback_source;
mod failback_target;
mod flows;
mod guarding;
mod partitions;
mod reassignment;
mod region_epochs;
mod region_source;
mod region_target;
mod topics;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

pub(crate) use daemons::MAX_INCARNATIONS;
pub use region_source::may_take_up;
pub use topics::{MAX_TOPIC_NAME, validate_name};

use std::sync::Arc;

use tradewind_wire::flow::Pause;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::RegionCommand;

use crate::command::{Command, MetaError, Outcome, StaleWhat};
use crate::election::{Cause, Rules, settle};
use crate::image::{Daemon, Image, Partition, Topic};

/// Where an entry stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its index.
    pub index: u64,
    /// The Raft term under which it was appended.
    pub term: u64,
}

/// The image after `command` at `at`, and its answer.
pub fn apply(image: &Image, at: Position, command: &Command) -> (Image, Result<Outcome, MetaError>) {
    debug_assert!(
        at.index > image.index || image.index == 0,
        "entries are applied in order"
    );
    let mut next = image.clone();
    let outcome = decide(&mut next, at, command);
    if outcome.is_err() {
        next = image.clone();
    }
    next.index = at.index;
    next.term = at.term;
    debug_assert_eq!(next.check(), Ok(()), "after {command:?}");
    (next, outcome)
}

fn decide(image: &mut Image, at: Position, command: &Command) -> Result<Outcome, MetaError> {
    match command {
        Command::Init {
            cluster_id,
            cluster_number,
        } => match image.cluster_id {
            Some(id) if id != *cluster_id => Err(MetaError::AlreadyInitialised(id)),
            _ => {
                image.cluster_id = Some(*cluster_id);
                image.cluster_number = (*cluster_number).max(1);
                Ok(Outcome::Done)
            }
        },
        Command::Register(registration) => daemons::register(image, at, registration),
        Command::Fence {
            node,
            daemon_epoch,
            session,
            term,
        } => {
            current(StaleWhat::Term, *term as i64, at.term as i64)?;
            daemons::fence(image, *node, *daemon_epoch, *session)
        }
        Command::Unfence { node, daemon_epoch } => daemons::unfence(image, at, *node, *daemon_epoch),
        Command::Stopping { node, daemon_epoch } => daemons::stopping(image, *node, *daemon_epoch),
        Command::Drain { node, on, force } => draining::drain(image, *node, *on, *force),
        Command::Unregister { node } => draining::unregister(image, *node),
        Command::CreateTopic(create) => topics::create(image, at, create),
        Command::DeleteTopic { id } => topics::delete(image, at, *id),
        Command::GrowTopic(grow) => topics::grow(image, at, grow),
        Command::AlterIsr {
            node,
            daemon_epoch,
            changes,
        } => partitions::alter_isr(image, *node, *daemon_epoch, changes),
        Command::ReplicaFailed {
            node,
            daemon_epoch,
            replicas,
            ..
        } => partitions::failed(image, *node, *daemon_epoch, replicas),
        Command::ReplicaRestored {
            node,
            daemon_epoch,
            replicas,
        } => partitions::restored(image, *node, *daemon_epoch, replicas),
        Command::Elect { kind, partitions } => partitions::elect(image, *kind, partitions),
        Command::Reassign { moves, resize } => reassignment::reassign(image, moves, *resize),
        Command::AlterConfigs {
            resource,
            replace,
            changes,
        } => configs::alter(image, resource, *replace, changes),
        Command::AllocateProducerIds { node } => daemons::producer_ids(image, *node),
        Command::DeclareFlow { spec } => flows::declare(image, spec),
        Command::PauseFlow {
            flow,
            paused,
            at_ms,
            reason,
        } => {
            let pause = paused.then(|| Pause {
                since_ms: *at_ms,
                reason: reason.clone(),
            });
            flows::pause(image, flow, None, pause)
        }
        Command::PauseTopic { flow, topic, pause } => flows::pause(image, flow, Some(topic), pause.clone()),
        Command::OfferFlow { spec } => flows::offer(image, spec),
        Command::RemoveFlow {
            flow,
            at_ms,
            keep_topics,
            forget_source,
        } => flows::remove(image, flow, *at_ms, (*keep_topics, *forget_source)),
        Command::SetOrigin { flow, topic, origin } => flows::set_origin(image, flow, *topic, origin),
        Command::Lineage { entries } => flows::lineage(image, entries),
        Command::BeginFailover { flow } => flows::begin_failover(image, at, flow),
        Command::RecordCut {
            flow,
            topic,
            partition,
            leader_epoch,
            cut,
            source_end,
        } => flows::record_cut(
            image,
            flow,
            (*topic, *partition),
            *leader_epoch,
            *cut,
            *source_end,
        ),
        Command::NoteDrill { flow, note } => drills::note(image, at, flow, note),
        Command::Region(command) => region(image, at, command),
    }
}

/// The steps of moving a region: those of the target, then those of the source.
fn region(image: &mut Image, at: Position, command: &RegionCommand) -> Result<Outcome, MetaError> {
    match command {
        RegionCommand::Begin {
            flow,
            at_ms,
            deadline_ms,
            group_drain_ms,
        } => region_target::begin(image, at, flow, (*at_ms, *deadline_ms, *group_drain_ms)),
        RegionCommand::SourceFenced {
            flow,
            attempt,
            at_ms,
            region_epoch,
            ends,
        } => region_target::source_fenced(image, (flow, *attempt), *at_ms, *region_epoch, ends),
        RegionCommand::GroupsFenced { flow, attempt } => {
            region_target::groups_fenced(image, (flow, *attempt))
        }
        RegionCommand::Promote { flow, attempt, at_ms } => {
            region_target::promote(image, (flow, *attempt), *at_ms)
        }
        RegionCommand::Abort {
            flow,
            attempt,
            at_ms,
            reason,
        } => region_target::abort(image, (flow, *attempt), *at_ms, reason),
        RegionCommand::End { flow, attempt } => region_target::end(image, (flow, *attempt)),
        RegionCommand::Fence {
            flow,
            peer,
            peer_id,
            attempt,
            topics,
            reverse,
        } => region_source::fence(image, flow, (peer, peer_id, *attempt), topics, reverse),
        RegionCommand::Ends(ends) => region_source::ends(image, ends),
        RegionCommand::FenceGroups {
            flow,
            peer_id,
            attempt,
        } => region_source::fence_groups(image, flow, (peer_id, *attempt)),
        RegionCommand::Release {
            flow,
            peer,
            peer_id,
            attempt,
        } => region_source::release(image, flow, (peer, peer_id, *attempt)),
        RegionCommand::Complete {
            flow,
            peer_id,
            attempt,
            region_epoch,
            topics,
        } => region_source::complete(image, flow, (peer_id, *attempt), *region_epoch, topics),
        other => failback(image, at, other),
    }
}

/// The steps that follow a failover: those of the source, then those of the target.
fn failback(image: &mut Image, at: Position, command: &RegionCommand) -> Result<Outcome, MetaError> {
    match command {
        RegionCommand::GiveWay {
            flow,
            peer,
            peer_id,
            attempt,
            region_epoch,
            topics,
            reverse,
        } => {
            let who = (peer.as_str(), peer_id.as_str(), *attempt);
            failback_source::give_way(image, flow, who, *region_epoch, topics, reverse)
        }
        RegionCommand::Rescue {
            flow,
            peer_id,
            attempt,
            topics,
        } => failback_source::rescue(image, flow, (peer_id, *attempt), topics),
        RegionCommand::MakeRescue {
            flow,
            attempt,
            topic,
            id,
        } => failback_source::make_rescue(image, at, flow, (*attempt, *topic), *id),
        RegionCommand::TailKept {
            flow,
            attempt,
            topic,
            partition,
            leader_epoch,
            kept,
        } => {
            let which = (*topic, *partition);
            failback_source::tail_kept(image, flow, *attempt, which, (*leader_epoch, *kept))
        }
        RegionCommand::GaveWay {
            flow,
            attempt,
            at_ms,
            took_ms,
            topics,
        } => failback_target::gave_way(image, (flow, *attempt), (*at_ms, *took_ms), topics),
        RegionCommand::BeginFailback { flow, at_ms } => failback_target::begin(image, flow, *at_ms),
        RegionCommand::TailsKept {
            flow,
            attempt,
            tails,
            lowered,
            lowered_total,
        } => failback_target::tails_kept(image, (flow, *attempt), tails, (lowered, *lowered_total)),
        RegionCommand::FailbackDone { flow, attempt, at_ms } => {
            failback_target::done(image, (flow, *attempt), *at_ms)
        }
        RegionCommand::Copied { peer, copied } => guarding::copied(image, peer, copied.as_ref()),
        RegionCommand::Unguard { peers, at_ms, reason } => {
            guarding::unguard(image, at, peers, (*at_ms, reason))
        }
        RegionCommand::Attest => Ok(Outcome::Done),
        RegionCommand::HeardEpoch { source, region_epoch } => {
            region_epochs::heard(image, source, *region_epoch)
        }
        RegionCommand::RaiseEpoch {
            flow,
            attempt,
            refused,
            above,
        } => failback_target::raise_epoch(image, (flow, *attempt), *refused, *above),
        other => Err(MetaError::Region(format!("a step of a later version: {other:?}"))),
    }
}

/// Refuses `given` unless it is the `current` one.
fn current(what: StaleWhat, given: i64, current: i64) -> Result<(), MetaError> {
    if given == current {
        Ok(())
    } else {
        Err(MetaError::Stale { what, given, current })
    }
}

/// The registered daemon `node`, if `daemon_epoch` is its present registration.
fn daemon(image: &Image, node: NodeId, daemon_epoch: i64) -> Result<&Daemon, MetaError> {
    let daemon = image.nodes.get(&node).ok_or(MetaError::UnknownNode(node))?;
    current(StaleWhat::DaemonEpoch, daemon_epoch, daemon.epoch)?;
    Ok(daemon)
}

fn topic(image: &Image, id: TopicId) -> Result<Arc<Topic>, MetaError> {
    let topic = image.topics.get(&id).cloned();
    topic.ok_or_else(|| MetaError::UnknownTopic(id.to_string()))
}

/// A copy of one partition. A copy, because whoever holds on to the topic makes changing it a copy of all its partitions.
fn partition(image: &Image, (id, number): (TopicId, i32)) -> Result<Partition, MetaError> {
    let topic = image.topics.get(&id);
    let topic = topic.ok_or_else(|| MetaError::UnknownTopic(id.to_string()))?;
    let partition = topic.partition(number);
    partition.cloned().ok_or(MetaError::UnknownPartition(number))
}

/// Changes one partition by `change`, then settles it. Daemons and configuration must already be as they shall be.
fn change_partition(
    image: &mut Image,
    (id, number): (TopicId, i32),
    cause: Cause,
    change: impl FnOnce(&mut Partition, &Rules<'_>),
) -> Result<Partition, MetaError> {
    let before = topic(image, id)?;
    let old = before
        .partition(number)
        .ok_or(MetaError::UnknownPartition(number))?;
    let mut next = old.clone();
    let rules = Rules::new(image, &before);
    change(&mut next, &rules);
    settle(old, &mut next, &rules, cause);
    if next != *old {
        put_partition(image, before, number, next.clone());
    }
    Ok(next)
}

fn put_partition(image: &mut Image, topic: Arc<Topic>, number: i32, partition: Partition) {
    let id = topic.id;
    drop(topic);
    if let Some(topic) = image.topics.get_mut(&id)
        && let Some(place) = Arc::make_mut(topic).partitions.get_mut(number as usize)
    {
        *place = partition;
    }
}

/// Changes every partition that `concerns`, topic by topic, then settles each.
fn change_partitions(
    image: &mut Image,
    concerns: impl Fn(&Topic, &Partition) -> bool,
    mut change: impl FnMut(&Topic, i32, &mut Partition, &Rules<'_>) -> Cause,
) {
    let mut changed = Vec::new();
    for before in image.topics.values() {
        let rules = Rules::new(image, before);
        let mut topic: Option<Topic> = None;
        for (number, old) in before.partitions.iter().enumerate() {
            if !concerns(before, old) {
                continue;
            }
            let mut next = old.clone();
            let cause = change(before, number as i32, &mut next, &rules);
            settle(old, &mut next, &rules, cause);
            if next != *old {
                let topic = topic.get_or_insert_with(|| Topic::clone(before));
                topic.partitions[number] = next;
            }
        }
        changed.extend(topic.map(Arc::new));
    }
    for topic in changed {
        image.topics.insert(topic.id, topic);
    }
}
