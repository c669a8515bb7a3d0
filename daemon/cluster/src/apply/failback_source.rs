//! A lost primary that returns: it gives way to the cluster that took over, keeps what that one never got, and only then
//! becomes its mirror.
//!
//! Giving way outranks a switchover that the failover cut short, and is never released. Nothing is removed before every
//! partition's tail is recorded as kept; what is removed then is a [`Truncation`](crate::image::Truncation) that every copy
//! carries out by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_wire::failback::{History, Kept, RESCUE_PREFIX, Rescue, Tail, Tails};
use tradewind_wire::flow::FlowSpec;
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{MoveState, RegionMove, TopicFence};

use super::partitions::limit;
use super::region_epochs::{self, bounded};
use super::region_source::{OFFSETS_TOPIC, current, fenced, may_take_up, raise_epochs};
use super::{Position, partition, topic, topics};
use crate::command::{CreateTopic, MetaError, Outcome, StaleWhat};
use crate::image::{Image, Topic};

/// What a rescue topic takes over from the topic whose records it keeps.
const KEPT_CONFIGS: [&str; 2] = ["min.insync.replicas", "max.message.bytes"];

/// Clients of `peer` write `topics` since a failover there: clients may neither write them here nor commit on them.
pub(super) fn give_way(
    image: &mut Image,
    name: &str,
    (peer, peer_id, attempt): (&str, &str, u64),
    region_epoch: u64,
    topics: &[TopicId],
    reverse: &FlowSpec,
) -> Result<Outcome, MetaError> {
    limit("topics", topics.len())?;
    if let Some(known) = image.moves.get(name) {
        if known.peer_id == peer_id && known.attempt == attempt && known.region_epoch.is_some() {
            return Ok(Outcome::Done);
        }
        let superseded = known.peer_id == peer_id && attempt > known.attempt;
        let busy = known.state.is_open() && !(superseded && known.state.may_release());
        if busy || known.peer_id == peer_id && !superseded {
            return Err(MetaError::Region(format!(
                "flow {name}: the failover {attempt} comes after attempt {} of {}, which is {:?}",
                known.attempt, known.peer, known.state
            )));
        }
    }
    bounded(region_epoch)?;
    let own = region_epochs::floor(image, peer);
    if region_epoch <= own {
        return Err(MetaError::RegionEpoch {
            flow: name.to_owned(),
            given: region_epoch,
            own,
        });
    }
    let ours: Vec<TopicId> = topics
        .iter()
        .copied()
        .filter(|id| image.topics.contains_key(id))
        .collect();
    for id in &ours {
        may_give_way(&*topic(image, *id)?, name)?;
    }
    for id in fenced(image, name) {
        set_fence(image, id, None);
    }
    for id in &ours {
        let fence = TopicFence {
            flow: name.to_owned(),
            groups: true,
            gone: true,
        };
        set_fence(image, *id, Some(fence));
    }
    raise_epochs(
        image,
        |topic| ours.contains(&topic.id) || topic.name == OFFSETS_TOPIC,
        |_, _, partition| partition.fenced_end = None,
    );
    image.moves.insert(
        name.to_owned(),
        RegionMove {
            peer: peer.to_owned(),
            peer_id: peer_id.to_owned(),
            attempt,
            state: MoveState::GaveWay,
            reverse: Some(reverse.clone()),
            region_epoch: Some(region_epoch),
            tails: BTreeMap::new(),
        },
    );
    region_epochs::agree(image, peer, region_epoch);
    Ok(Outcome::Done)
}

fn may_give_way(topic: &Topic, flow: &str) -> Result<(), MetaError> {
    if let Some(fence) = topic.fence.as_ref().filter(|fence| fence.flow != flow) {
        return Err(MetaError::FencedTopic {
            topic: topic.name.clone(),
            flow: fence.flow.clone(),
        });
    }
    if let Some(mirror) = topic.mirror.as_ref().filter(|_| topic.is_mirroring()) {
        return Err(MetaError::MirrorTopic {
            topic: topic.name.clone(),
            flow: mirror.flow.clone(),
        });
    }
    if topic.internal {
        return Err(MetaError::Region(format!(
            "topic '{}' belongs to the system",
            topic.name
        )));
    }
    Ok(())
}

fn set_fence(image: &mut Image, id: TopicId, fence: Option<TopicFence>) {
    if let Some(topic) = image.topics.get_mut(&id) {
        Arc::make_mut(topic).fence = fence;
    }
}

/// What the target never got is to be kept, topic by topic. Every fenced partition's end must be known.
pub(super) fn rescue(
    image: &mut Image,
    name: &str,
    which: (&str, u64),
    histories: &BTreeMap<TopicId, Vec<History>>,
) -> Result<Outcome, MetaError> {
    let known = current(image, name, which)?;
    match known.state {
        MoveState::GaveWay => {}
        MoveState::Rescuing | MoveState::Rescued | MoveState::Moved => return Ok(Outcome::Done),
        MoveState::Fenced | MoveState::GroupsFenced | MoveState::Released => {
            return Err(MetaError::Region(format!(
                "flow {name}: nothing gave way, it is {:?} here",
                known.state
            )));
        }
    }
    let reverse = known.reverse.clone();
    may_take_up(image, reverse.as_ref())?;
    let mut tails = BTreeMap::new();
    for id in fenced(image, name) {
        let topic = topic(image, id)?;
        if topic
            .partitions
            .iter()
            .any(|partition| partition.fenced_end.is_none())
        {
            return Err(MetaError::Region(format!(
                "the leaders of topic '{}' have not all said where it ends",
                topic.name
            )));
        }
        let there = histories.get(&id).map_or(&[][..], Vec::as_slice);
        let tail = |number: usize| Tail {
            // What the target does not have at all is all tail.
            history: there.get(number).cloned().unwrap_or(History {
                cut: 0,
                epochs: Vec::new(),
            }),
            kept: None,
        };
        let partitions = (0..topic.partitions.len()).map(tail).collect();
        tails.insert(
            id,
            Tails {
                rescue: None,
                partitions,
            },
        );
    }
    let known = current(image, name, which)?;
    known.state = if tails.is_empty() {
        MoveState::Rescued
    } else {
        MoveState::Rescuing
    };
    known.tails = tails;
    Ok(Outcome::Done)
}

/// What is rescued under this attempt.
fn rescuing<'a>(
    image: &'a mut Image,
    name: &str,
    (attempt, topic): (u64, TopicId),
) -> Result<&'a mut RegionMove, MetaError> {
    let known = image.moves.get_mut(name);
    known
        .filter(|known| known.attempt == attempt && known.tails.contains_key(&topic))
        .ok_or_else(|| {
            MetaError::Region(format!(
                "flow {name}: attempt {attempt} rescues nothing of topic {topic}"
            ))
        })
}

/// There is to be a topic that keeps the tail of this one. Nobody but the leaders of that topic writes it.
pub(super) fn make_rescue(
    image: &mut Image,
    at: Position,
    name: &str,
    (attempt, of): (u64, TopicId),
    id: TopicId,
) -> Result<Outcome, MetaError> {
    let known = rescuing(image, name, (attempt, of))?;
    let there = known.tails.get(&of).is_some_and(|tails| tails.rescue.is_some());
    if there || known.state != MoveState::Rescuing {
        return Ok(Outcome::Done);
    }
    let region_epoch = known.region_epoch.unwrap_or(0);
    let kept = topic(image, of)?;
    let factor = kept
        .partitions
        .iter()
        .map(|partition| partition.replication_factor());
    let mut create = CreateTopic::new(
        &format!("{RESCUE_PREFIX}{of}.{region_epoch}"),
        id,
        kept.partitions.len() as i32,
        i16::try_from(factor.max().unwrap_or(1)).unwrap_or(1),
    );
    create.internal = true;
    for key in KEPT_CONFIGS {
        if let Some(value) = kept.configs.get(key) {
            create.configs.insert(key.to_owned(), value.clone());
        }
    }
    // What is committed is on the disks of all that are in sync, and stays until an operator deletes the topic.
    for (key, value) in [
        ("flush.messages", "1"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("cleanup.policy", "delete"),
    ] {
        create.configs.insert(key.to_owned(), value.to_owned());
    }
    topics::create(image, at, &create)?;
    let known = rescuing(image, name, (attempt, of))?;
    if let Some(tails) = known.tails.get_mut(&of) {
        tails.rescue = Some(Rescue {
            id,
            name: create.name,
        });
    }
    Ok(Outcome::Done)
}

/// What one partition has above the cut is committed elsewhere; the first word stands. With the last one all is kept.
pub(super) fn tail_kept(
    image: &mut Image,
    name: &str,
    attempt: u64,
    which: (TopicId, i32),
    (leader_epoch, kept): (i32, Kept),
) -> Result<Outcome, MetaError> {
    let now = partition(image, which)?;
    let known = rescuing(image, name, (attempt, which.0))?;
    if known.state != MoveState::Rescuing {
        return Ok(Outcome::Done);
    }
    super::current(
        StaleWhat::LeaderEpoch,
        leader_epoch.into(),
        now.leader_epoch.into(),
    )?;
    let tails = known.tails.get_mut(&which.0);
    let tail = tails.and_then(|tails| {
        let kept_elsewhere = tails.rescue.is_some();
        let number = usize::try_from(which.1).ok()?;
        tails
            .partitions
            .get_mut(number)
            .map(|tail| (tail, kept_elsewhere))
    });
    let (tail, kept_elsewhere) = tail.ok_or(MetaError::UnknownPartition(which.1))?;
    let fits = kept.cut <= tail.history.cut
        && kept.cut <= kept.end
        && Some(kept.end) == now.fenced_end
        && (kept.cut == kept.end || kept_elsewhere);
    if !fits {
        return Err(MetaError::Region(format!(
            "partition {} of topic {}: {kept:?} is not a tail of what ends at {:?}",
            which.1, which.0, now.fenced_end
        )));
    }
    tail.kept.get_or_insert(kept);
    let open = |tails: &Tails| tails.partitions.iter().any(|tail| tail.kept.is_none());
    if !known.tails.values().any(open) {
        known.state = MoveState::Rescued;
    }
    Ok(Outcome::Done)
}

/// Refuses to delete what keeps a tail that is still to be cut off.
pub(super) fn is_not_needed(image: &Image, topic: &Topic) -> Result<(), MetaError> {
    for known in image.moves.values().filter(|known| known.state.is_open()) {
        let keeps = |tails: &Tails| tails.rescue.as_ref().is_some_and(|rescue| rescue.id == topic.id);
        if known.tails.values().any(keeps) {
            return Err(MetaError::Region(format!(
                "topic '{}' keeps records that are about to be removed elsewhere: the failback is not done",
                topic.name
            )));
        }
    }
    Ok(())
}
