//! Daemons come, fall silent, come back and go; producer ids are handed to them.

use super::{Position, change_partitions, current, daemon};
use crate::command::{MetaError, Outcome, Registration, StaleWhat};
use crate::election::{Cause, distrust, leave};
use crate::image::{Daemon, DaemonState, Image, Topic};
use tradewind_wire::ids::NodeId;

/// How many producer ids a daemon gets at once, as in Kafka.
const PRODUCER_ID_BLOCK: u64 = 1_000;

/// A cluster's producer ids count up in their lower 36 bits; above is the cluster's number. 52 bits in all: such ids
/// also survive clients that keep numbers in a double.
const PRODUCER_ID_BITS: u32 = 36;

/// How many listeners a daemon may advertise, how long texts may be.
const MAX_LISTENERS: usize = 64;

/// How many runs of a daemon that may or may not have been registered are remembered.
pub(crate) const MAX_INCARNATIONS: usize = 64;

/// Registers a daemon. Its epoch is the entry's index. Every partition that it led gets a new leader epoch, even if it
/// leads again: a returned leader that lost an unflushed tail must not write other records under the same epoch. It
/// leaves in-sync and eligible sets only where records may be missing; a killed process loses nothing, since every
/// acknowledgement follows `write(2)`.
pub(super) fn register(
    image: &mut Image,
    at: Position,
    registration: &Registration,
) -> Result<Outcome, MetaError> {
    let node = registration.node;
    if registration.listeners.len() > MAX_LISTENERS {
        return Err(MetaError::TooMany {
            what: "listeners".to_owned(),
            limit: MAX_LISTENERS,
        });
    }
    // One that was removed must be added again first. (Before the first entry of the group's members there is nobody.)
    if !image.members.is_empty() && !image.members.contains(&node) {
        return Err(MetaError::UnknownNode(node));
    }
    if registration.own.len() > MAX_INCARNATIONS {
        return Err(MetaError::TooMany {
            what: "incarnations".to_owned(),
            limit: MAX_INCARNATIONS,
        });
    }
    let old = image.nodes.get(&node).cloned();
    if let Some(old) = &old {
        if old.incarnation == registration.incarnation {
            return Ok(Outcome::Registered { epoch: old.epoch });
        }
        if !registration.follows(old.incarnation) && old.state != DaemonState::Fenced {
            return Err(MetaError::DuplicateNode(node));
        }
    }
    let epoch = at.index as i64;
    image.nodes.insert(
        node,
        Daemon {
            id: node,
            epoch,
            session: epoch,
            incarnation: registration.incarnation,
            boot_id: registration.boot_id.clone(),
            state: DaemonState::Active,
            rack: registration.rack.clone(),
            mesh: registration.mesh.clone(),
            listeners: registration.listeners.clone(),
            defaults: registration.defaults.clone(),
        },
    );
    let trust = Trust::new(image, old.as_ref(), registration);
    change_partitions(
        image,
        |_, partition| partition.replicas.contains(&node),
        |topic, number, partition, rules| {
            partition.failed.retain(|&failed| failed != node);
            if !trust.has_everything(topic, number) {
                distrust(partition, node, rules);
            }
            if partition.leader == Some(node) {
                Cause::LeaderRegistered
            } else {
                Cause::Change
            }
        },
    );
    Ok(Outcome::Registered { epoch })
}

/// Whether the replicas of a daemon that registers hold everything that it ever acknowledged.
struct Trust<'a> {
    registration: &'a Registration,
    same_disk: bool,
    lost_page_cache: bool,
    /// Topics whose every append was flushed, before and after.
    flushed: std::collections::BTreeSet<tradewind_wire::ids::TopicId>,
}

impl<'a> Trust<'a> {
    fn new(image: &Image, old: Option<&Daemon>, registration: &'a Registration) -> Self {
        let node = registration.node;
        let lost_page_cache =
            old.is_none_or(|old| old.boot_id != registration.boot_id) && !registration.clean_stop;
        let mut flushed = std::collections::BTreeSet::new();
        if lost_page_cache {
            // What counts is the configuration of the run that lost its page cache; the present one stands in for a
            // daemon that the image does not know.
            let mut then = image.clone();
            if let Some(old) = old {
                then.nodes.insert(node, old.clone());
            }
            let topics = image.topics.values();
            flushed.extend(
                topics
                    .filter(|topic| then.flushes_every_append(topic, node))
                    .map(|topic| topic.id),
            );
        }
        Self {
            registration,
            same_disk: old.is_none_or(|old| registration.follows(old.incarnation)),
            lost_page_cache,
            flushed,
        }
    }

    fn has_everything(&self, topic: &Topic, partition: i32) -> bool {
        self.same_disk
            && !self.registration.damaged.contains(&(topic.id, partition))
            && (!self.lost_page_cache || self.flushed.contains(&topic.id))
    }
}

/// Fences a daemon that its controller has not heard: it leads nothing any more and leaves every in-sync set that has
/// another member.
pub(super) fn fence(
    image: &mut Image,
    node: NodeId,
    daemon_epoch: i64,
    session: i64,
) -> Result<Outcome, MetaError> {
    let found = daemon(image, node, daemon_epoch)?;
    current(StaleWhat::Session, session, found.session)?;
    #[cfg(feature = "known-bugs")]
    for (which, decided) in crate::bugs::decided((node, daemon_epoch, session)) {
        let _ = super::change_partition(image, which, Cause::Change, |partition, _| {
            partition.isr.clone_from(&decided.isr);
            partition.leader = decided.leader;
        });
    }
    retire(image, node, DaemonState::Fenced);
    Ok(Outcome::Done)
}

/// A daemon hands its partitions over before a clean stop.
pub(super) fn stopping(image: &mut Image, node: NodeId, daemon_epoch: i64) -> Result<Outcome, MetaError> {
    if daemon(image, node, daemon_epoch)?.state == DaemonState::Active {
        retire(image, node, DaemonState::Stopping);
    }
    Ok(Outcome::Done)
}

fn retire(image: &mut Image, node: NodeId, state: DaemonState) {
    if let Some(daemon) = image.nodes.get_mut(&node) {
        daemon.state = state;
    }
    change_partitions(
        image,
        |_, partition| partition.leader == Some(node) || partition.isr.contains(&node),
        |_, _, partition, rules| {
            leave(partition, node, true, rules);
            Cause::Change
        },
    );
}

/// A fenced daemon is heard again: it may lead, and starts a new session.
pub(super) fn unfence(
    image: &mut Image,
    at: Position,
    node: NodeId,
    daemon_epoch: i64,
) -> Result<Outcome, MetaError> {
    if daemon(image, node, daemon_epoch)?.state != DaemonState::Fenced {
        return Ok(Outcome::Done);
    }
    if let Some(daemon) = image.nodes.get_mut(&node) {
        daemon.state = DaemonState::Active;
        daemon.session = at.index as i64;
    }
    change_partitions(
        image,
        |_, partition| partition.leader.is_none() && partition.replicas.contains(&node),
        |_, _, _, _| Cause::Change,
    );
    Ok(Outcome::Done)
}

/// Hands out the next block of producer ids.
pub(super) fn producer_ids(image: &mut Image, node: NodeId) -> Result<Outcome, MetaError> {
    if !image.nodes.contains_key(&node) {
        return Err(MetaError::UnknownNode(node));
    }
    let first = image.next_producer_id;
    if first + PRODUCER_ID_BLOCK > 1 << PRODUCER_ID_BITS {
        return Err(MetaError::ProducerIdsExhausted);
    }
    image.next_producer_id = first + PRODUCER_ID_BLOCK;
    Ok(Outcome::ProducerIds {
        first: (i64::from(image.cluster_number) << PRODUCER_ID_BITS) | first as i64,
        count: PRODUCER_ID_BLOCK as i32,
    })
}
