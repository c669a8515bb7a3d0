//! A switchover at the source of a flow: its clients' writes are fenced, then its groups, and in the end its topics are
//! mirrors of the other cluster's; or it is released. A failback ends here too, after its own steps (`failback_source.rs`).
//!
//! A fence outlives everything but the target's word: it is released only for an abort that the target has recorded. An
//! attempt below the last one that was heard of changes nothing, however late it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_wire::failback::{FailbackStep, Tails};
use tradewind_wire::flow::{FlowSpec, Lineage, Naming, Origin};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{MoveState, MovedTopic, PartitionEnd, RegionMove, TopicFence};

use super::partitions::limit;
use super::region_epochs::{self, bounded};
use super::{change_partition, change_partitions, partition, topic};
use crate::command::{MetaError, Outcome};
use crate::election::Cause;
use crate::image::{Flow, FlowState, Image, MirrorState, MirrorTopic, Partition, Topic, Truncation};

/// The topic that holds the positions of groups.
pub(super) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The epoch of a lineage entry that stands for records which two clusters agreed on by a switchover: it is not compared.
const AGREED: i32 = -1;

/// Refuses what may not happen to a topic while it is fenced. What has moved is its flow's business.
pub(super) fn not_fenced(topic: &Topic) -> Result<(), MetaError> {
    match &topic.fence {
        Some(fence) if !topic.is_mirroring() => Err(MetaError::FencedTopic {
            topic: topic.name.clone(),
            flow: fence.flow.clone(),
        }),
        _ => Ok(()),
    }
}

/// Refuses a declaration that does not fit a flow back that a switchover makes, or has made: its topics keep their names.
pub(super) fn may_declare(image: &Image, spec: &FlowSpec) -> Result<(), MetaError> {
    let name = spec.name();
    let back = |known: &&RegionMove| {
        known
            .reverse
            .as_ref()
            .is_some_and(|reverse| reverse.name() == name)
    };
    let states: Vec<MoveState> = image
        .moves
        .values()
        .filter(back)
        .map(|known| known.state)
        .collect();
    if states.iter().any(|state| state.is_open()) && !image.flows.contains_key(&name) {
        return Err(MetaError::Region(format!(
            "a switchover or failback is about to make flow {name}: declare it afterwards"
        )));
    }
    if states.contains(&MoveState::Moved) && spec.naming != Naming::Identity {
        return Err(MetaError::Region(format!(
            "flow {name} was made by a switchover or failback: its naming is \"identity\""
        )));
    }
    Ok(())
}

/// Refuses to remove a flow back that a switchover or failback is about to take up. Of what gave way to a failover nothing has
/// begun yet, and what is in the way of its failback may go.
pub(super) fn is_not_taken_up(image: &Image, name: &str) -> Result<(), MetaError> {
    let under_way = |known: &&RegionMove| known.state.is_open() && known.state != MoveState::GaveWay;
    let mut open = image.moves.values().filter(under_way);
    let back = |known: &RegionMove| {
        known
            .reverse
            .as_ref()
            .is_some_and(|reverse| reverse.name() == name)
    };
    if open.any(back) {
        return Err(MetaError::Region(format!(
            "flow {name}: a switchover or failback is about to take it up"
        )));
    }
    Ok(())
}

/// The move of this attempt; an error in words if another one is the last that was heard of.
pub(super) fn current<'a>(
    image: &'a mut Image,
    name: &str,
    (peer_id, attempt): (&str, u64),
) -> Result<&'a mut RegionMove, MetaError> {
    let known = image.moves.get_mut(name);
    known
        .filter(|known| known.peer_id == peer_id && known.attempt == attempt)
        .ok_or_else(|| {
            MetaError::Region(format!(
                "flow {name}: attempt {attempt} does not fence anything here"
            ))
        })
}

/// Clients may not write `topics` any more: every leader epoch rises, and the leaders record where their logs end.
pub(super) fn fence(
    image: &mut Image,
    name: &str,
    (peer, peer_id, attempt): (&str, &str, u64),
    topics: &[TopicId],
    reverse: &FlowSpec,
) -> Result<Outcome, MetaError> {
    limit("topics", topics.len())?;
    if let Some(known) = image.moves.get(name) {
        let open = known.state.is_open();
        let same = known.peer_id == peer_id && known.attempt == attempt;
        if same && known.state != MoveState::Released {
            return Ok(Outcome::Done);
        }
        if open || same || known.peer_id == peer_id && attempt < known.attempt {
            return Err(MetaError::Region(format!(
                "flow {name}: attempt {attempt} comes after attempt {} of {}, which is {:?}",
                known.attempt, known.peer, known.state
            )));
        }
    }
    if topics.is_empty() {
        return Err(MetaError::Region(format!(
            "flow {name}: there is no topic to be fenced"
        )));
    }
    may_take_up(image, Some(reverse))?;
    for id in topics {
        let topic = topic(image, *id)?;
        if topic.fence.is_some() {
            return Err(MetaError::FencedTopic {
                topic: topic.name.clone(),
                flow: topic
                    .fence
                    .as_ref()
                    .map(|fence| fence.flow.clone())
                    .unwrap_or_default(),
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
    }
    for id in topics {
        if let Some(topic) = image.topics.get_mut(id) {
            Arc::make_mut(topic).fence = Some(TopicFence {
                flow: name.to_owned(),
                groups: false,
                gone: false,
            });
        }
    }
    raise_epochs(
        image,
        |topic| topics.contains(&topic.id),
        |_, _, partition| {
            partition.fenced_end = None;
        },
    );
    image.moves.insert(
        name.to_owned(),
        RegionMove {
            peer: peer.to_owned(),
            peer_id: peer_id.to_owned(),
            attempt,
            state: MoveState::Fenced,
            reverse: Some(reverse.clone()),
            region_epoch: None,
            tails: BTreeMap::new(),
        },
    );
    Ok(Outcome::Done)
}

/// Records where fenced partitions end. What is known stays; what another leader has said meanwhile is passed over.
pub(super) fn ends(image: &mut Image, ends: &[PartitionEnd]) -> Result<Outcome, MetaError> {
    limit("ends", ends.len())?;
    for end in ends {
        let Ok(now) = partition(image, (end.topic, end.partition)) else {
            continue;
        };
        let open = topic(image, end.topic).is_ok_and(|topic| topic.fence.is_some() && !topic.is_mirroring());
        if !open || now.fenced_end.is_some() || now.leader_epoch != end.leader_epoch {
            continue;
        }
        change_partition(
            image,
            (end.topic, end.partition),
            Cause::Change,
            |partition, _| {
                partition.fenced_end = Some(end.end);
            },
        )?;
    }
    Ok(Outcome::Done)
}

/// Groups may not commit on the fenced topics any more. The leader epochs of the topic that holds their positions rise: a
/// commit that is under way under an earlier one is either replicated, and read again, or never acknowledged.
pub(super) fn fence_groups(image: &mut Image, name: &str, which: (&str, u64)) -> Result<Outcome, MetaError> {
    let known = current(image, name, which)?;
    match known.state {
        MoveState::Fenced => known.state = MoveState::GroupsFenced,
        state if state.fences_groups() => return Ok(Outcome::Done),
        _ => {
            return Err(MetaError::Region(format!("flow {name}: the attempt is given up")));
        }
    }
    for topic in fenced(image, name) {
        if let Some(fence) = image
            .topics
            .get_mut(&topic)
            .and_then(|topic| Arc::make_mut(topic).fence.as_mut())
        {
            fence.groups = true;
        }
    }
    raise_epochs(image, |topic| topic.name == OFFSETS_TOPIC, |_, _, _| ());
    Ok(Outcome::Done)
}

/// Raises the leader epoch of every partition of `these` topics, so that nothing which is under way under an earlier one
/// is acknowledged, and makes a further change to each.
pub(super) fn raise_epochs(
    image: &mut Image,
    these: impl Fn(&Topic) -> bool,
    change: impl Fn(&Topic, i32, &mut Partition),
) {
    change_partitions(
        image,
        |topic, _| these(topic),
        |topic, number, partition, _| {
            partition.leader_epoch += 1;
            change(topic, number, partition);
            Cause::Change
        },
    );
}

/// The topics that flow `name` has fenced here.
pub(super) fn fenced(image: &Image, name: &str) -> Vec<TopicId> {
    let by_flow = |topic: &&Arc<Topic>| topic.fence.as_ref().is_some_and(|fence| fence.flow == name);
    let topics = image.topics.values().filter(by_flow);
    topics
        .filter(|topic| !topic.is_mirroring())
        .map(|topic| topic.id)
        .collect()
}

/// The target has recorded that it gave this attempt up. One that was never heard of is remembered: its fence may still
/// come, and must find it given up.
pub(super) fn release(
    image: &mut Image,
    name: &str,
    (peer, peer_id, attempt): (&str, &str, u64),
) -> Result<Outcome, MetaError> {
    if let Some(known) = image.moves.get(name) {
        let open = known.state.is_open();
        if known.peer_id == peer_id && attempt < known.attempt {
            return Ok(Outcome::Done);
        }
        if known.peer_id == peer_id && attempt == known.attempt {
            return match known.state {
                MoveState::Released => Ok(Outcome::Done),
                state if state.may_release() => {
                    unfence(image, name);
                    Ok(Outcome::Done)
                }
                _ => Err(MetaError::Region(format!("flow {name}: its topics have moved"))),
            };
        }
        if open {
            return Err(MetaError::Region(format!(
                "flow {name}: attempt {} fences it, not {attempt}",
                known.attempt
            )));
        }
    }
    image.moves.insert(
        name.to_owned(),
        RegionMove {
            peer: peer.to_owned(),
            peer_id: peer_id.to_owned(),
            attempt,
            state: MoveState::Released,
            reverse: None,
            region_epoch: None,
            tails: BTreeMap::new(),
        },
    );
    Ok(Outcome::Done)
}

fn unfence(image: &mut Image, name: &str) {
    for id in fenced(image, name) {
        unfence_topic(image, id);
    }
    if let Some(known) = image.moves.get_mut(name) {
        known.state = MoveState::Released;
    }
}

fn unfence_topic(image: &mut Image, id: TopicId) {
    if let Some(topic) = image.topics.get_mut(&id) {
        let topic = Arc::make_mut(topic);
        topic.fence = None;
        for partition in &mut topic.partitions {
            partition.fenced_end = None;
        }
    }
}

/// The target has promoted this attempt: the fenced topics become mirrors of what they are there, under their own names,
/// from the offset on where both sides end.
pub(super) fn complete(
    image: &mut Image,
    name: &str,
    which: (&str, u64),
    region_epoch: u64,
    topics: &BTreeMap<TopicId, MovedTopic>,
) -> Result<Outcome, MetaError> {
    bounded(region_epoch)?;
    let moving = fenced(image, name);
    let known = current(image, name, which)?;
    match known.state {
        MoveState::GroupsFenced | MoveState::Rescued => {}
        MoveState::Moved => return Ok(Outcome::Done),
        _ => {
            return Err(MetaError::Region(format!(
                "flow {name}: it cannot be promoted there, it is {:?} here",
                known.state
            )));
        }
    }
    let (peer, reverse, tails) = (known.peer.clone(), known.reverse.clone(), known.tails.clone());
    let reverse =
        reverse.ok_or_else(|| MetaError::Region(format!("flow {name}: the way back is not known")))?;
    // What was deleted there since a failover stays here, with its own records and nobody else's.
    let (moving, left): (Vec<_>, Vec<_>) = moving
        .into_iter()
        .partition(|id| known.region_epoch.is_none() || topics.contains_key(id));
    if moving.len() != topics.len() || !moving.iter().all(|id| topics.contains_key(id)) {
        return Err(MetaError::Region(format!(
            "flow {name}: the topics promoted there are not those that are fenced here"
        )));
    }
    known.state = MoveState::Moved;
    for id in left {
        unfence_topic(image, id);
    }
    let back = reverse.name();
    for (id, moved) in topics {
        let Some(topic) = image.topics.get_mut(id) else {
            continue;
        };
        let topic = Arc::make_mut(topic);
        topic.mirror = Some(MirrorTopic {
            flow: back.clone(),
            source_topic: moved.name.clone(),
            source_topic_id: moved.id,
            state: MirrorState::Mirroring,
            paused: None,
            origin: Some(Origin {
                cluster_id: which.0.to_owned(),
                cluster: peer.clone(),
                topic: moved.name.clone(),
                topic_id: moved.id,
                tells: true,
            }),
        });
    }
    raise_epochs(
        image,
        |topic| topics.contains_key(&topic.id),
        |topic, number, partition| {
            partition.cut = None;
            partition.fenced_end = None;
            if let Some(to) = cut_off(&tails, topic.id, number) {
                partition.truncation = Some(Truncation {
                    leader_epoch: partition.leader_epoch,
                    to,
                });
            }
            partition.lineage = vec![Lineage {
                target_first: 0,
                source_cluster_id: which.0.to_owned(),
                source_topic_id: topics.get(&topic.id).map(|moved| moved.id).unwrap_or_default(),
                source_epoch: AGREED,
                source_first: 0,
            }];
        },
    );
    take_up(image, back, reverse);
    region_epochs::agree(image, &peer, region_epoch);
    Ok(Outcome::Done)
}

/// From where on a partition's records are kept elsewhere, and to be removed here.
fn cut_off(tails: &BTreeMap<TopicId, Tails>, topic: TopicId, partition: i32) -> Option<i64> {
    let tail = tails
        .get(&topic)?
        .partitions
        .get(usize::try_from(partition).ok()?)?;
    tail.kept.and_then(|kept| kept.removed_from())
}

/// Refuses a flow back whose place another flow has: one that copies, or one that was failed over and whose source has not come
/// back, which nobody would bring back then.
pub fn may_take_up(image: &Image, reverse: Option<&FlowSpec>) -> Result<(), MetaError> {
    let Some(flow) = reverse.and_then(|reverse| image.flows.get(&reverse.name())) else {
        return Ok(());
    };
    if flow.state != FlowState::Promoted {
        return Err(MetaError::FlowState {
            flow: flow.name.clone(),
            state: flow.state,
        });
    }
    let mut lost = flow.failback.iter();
    if lost.any(|failback| failback.step != FailbackStep::Done) {
        return Err(MetaError::Region(format!(
            "flow {0} was failed over, and its source has not come back: `tradewind failback '{0}'`, or              `tradewind mirror remove '{0}' --forget-source`, first",
            flow.name
        )));
    }
    Ok(())
}

/// The flow back copies. One that was promoted keeps its declaration: it is what the configuration says.
fn take_up(image: &mut Image, name: String, spec: FlowSpec) {
    image.removed_flows.remove(&name);
    let flow = image.flows.entry(name.clone()).or_insert_with(|| Flow {
        name,
        source: spec.source_cluster.clone(),
        target: spec.target_cluster.clone(),
        spec,
        state: FlowState::Active,
        version: 1,
        paused: None,
        switchover: None,
        failback: None,
        drills: Vec::new(),
    });
    flow.state = FlowState::Active;
    flow.paused = None;
    flow.failback = None;
}
