//! Flows into this cluster: declaration, lineage of mirror partitions, failover with its cuts.

use std::sync::Arc;

use tradewind_wire::failback::FailbackStep;
use tradewind_wire::flow::{FlowSpec, HEARTBEATS_TOPIC, Lineage, Origin, Pause};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::SwitchStep;

use super::partitions::limit;
use super::{Position, change_partition, change_partitions, current, partition, topic};
use crate::command::{LineageEntry, MetaError, Outcome, StaleWhat};
use crate::election::Cause;
use crate::image::{Cut, Flow, FlowState, Image, MirrorState, Topic};

/// How many flows a cluster may have.
const MAX_FLOWS: usize = 1_000;

/// How long the patterns of one declaration may be together, and how many a list has at most.
const MAX_SPEC_BYTES: usize = 64 << 10;
const MAX_PATTERNS: usize = 1_000;

/// How long the reason of a pause may be.
const MAX_REASON: usize = 1_000;

/// How long the names of an origin may be together.
const MAX_ORIGIN_BYTES: usize = 4 << 10;

/// How many source epochs a partition remembers; the oldest are forgotten. A source that elects once a minute takes a
/// week to get there, and retention has long removed the first.
const MAX_LINEAGE: usize = 10_000;

/// The largest leader epoch of a source that is believed. Ours rise with it, and must be able to rise further for good.
pub(super) const MAX_SOURCE_EPOCH: i32 = 1 << 30;

/// What a daemon's configuration says of a flow, each time that it starts. What is declared already is not changed by it, and
/// what was removed does not return.
pub(super) fn offer(image: &mut Image, spec: &FlowSpec) -> Result<Outcome, MetaError> {
    let name = spec.name();
    match image.flows.get(&name) {
        Some(flow) => Ok(described(flow)),
        None if image.removed_flows.contains_key(&name) => Err(MetaError::RemovedFlow(name)),
        None => declare(image, spec),
    }
}

/// Declares a flow, or changes its declaration. Repeating it changes nothing, not even for a promoted flow.
pub(super) fn declare(image: &mut Image, spec: &FlowSpec) -> Result<Outcome, MetaError> {
    let name = spec.name();
    let lists = [
        &spec.topics,
        &spec.topics_exclude,
        &spec.groups,
        &spec.groups_exclude,
    ];
    let text: usize = lists.iter().flat_map(|list| list.iter()).map(String::len).sum();
    if text + name.len() > MAX_SPEC_BYTES || lists.iter().any(|list| list.len() > MAX_PATTERNS) {
        return Err(MetaError::TooMany {
            what: "the declaration's text".to_owned(),
            limit: MAX_SPEC_BYTES,
        });
    }
    super::region_source::may_declare(image, spec)?;
    keeps_names(image, spec)?;
    if let Some(flow) = image.flows.get_mut(&name) {
        if flow.spec != *spec {
            if matches!(flow.state, FlowState::FailingOver | FlowState::SwitchingOver) {
                return Err(MetaError::FlowState {
                    flow: name,
                    state: flow.state,
                });
            }
            let lost = flow.failback.as_ref();
            if lost.is_some_and(|failback| failback.bars(&flow.spec, spec)) {
                return Err(MetaError::Region(format!(
                    "flow {name} was failed over, and its source has not come back: until then its naming and the kind of its \
                     source stay as they are"
                )));
            }
            flow.spec = spec.clone();
            flow.version += 1;
        }
        return Ok(described(flow));
    }
    if image.flows.len() >= MAX_FLOWS {
        return Err(MetaError::TooMany {
            what: "flows".to_owned(),
            limit: MAX_FLOWS,
        });
    }
    let flow = Flow {
        name: name.clone(),
        source: spec.source_cluster.clone(),
        target: spec.target_cluster.clone(),
        spec: spec.clone(),
        state: FlowState::Active,
        version: 1,
        paused: None,
        switchover: None,
        failback: None,
        drills: Vec::new(),
    };
    let outcome = described(&flow);
    image.removed_flows.remove(&name);
    image.flows.insert(name, flow);
    Ok(outcome)
}

/// Refuses another naming while mirror topics have the names of the one before: whether a source is told of a failover, and
/// which of its topics are meant, goes by the naming and not by each topic. Heartbeats are always prefixed.
fn keeps_names(image: &Image, spec: &FlowSpec) -> Result<(), MetaError> {
    let flow = spec.name();
    if image
        .flows
        .get(&flow)
        .is_some_and(|known| known.spec.naming == spec.naming)
    {
        return Ok(());
    }
    let mirrors = mirroring(image, &flow);
    let otherwise = mirrors.iter().find(|topic| {
        let source = topic.mirror.as_ref().map(|mirror| mirror.source_topic.as_str());
        source.is_some_and(|source| {
            source != HEARTBEATS_TOPIC && spec.naming.target_topic(&spec.source_cluster, source) != topic.name
        })
    });
    otherwise.map_or(Ok(()), |topic| {
        Err(MetaError::Naming {
            flow,
            topic: topic.name.clone(),
        })
    })
}

/// Pauses or resumes a flow, or one of its topics. What is paused already stays as it was.
pub(super) fn pause(
    image: &mut Image,
    name: &str,
    topic: Option<&str>,
    pause: Option<Pause>,
) -> Result<Outcome, MetaError> {
    if pause
        .as_ref()
        .is_some_and(|pause| pause.reason.len() > MAX_REASON)
    {
        return Err(MetaError::TooMany {
            what: "bytes of a reason".to_owned(),
            limit: MAX_REASON,
        });
    }
    let flow = flow_mut(image, name)?;
    if !matches!(flow.state, FlowState::Active | FlowState::Paused) {
        return Err(MetaError::FlowState {
            flow: name.to_owned(),
            state: flow.state,
        });
    }
    let Some(topic) = topic else {
        flow.state = if pause.is_some() {
            FlowState::Paused
        } else {
            FlowState::Active
        };
        keep_first(&mut flow.paused, pause);
        return Ok(described(flow));
    };
    let outcome = described(flow);
    let mirrors = mirroring(image, name);
    let at_source = |mirror: &&Arc<Topic>| {
        let binding = mirror.mirror.as_ref();
        binding.is_some_and(|binding| binding.source_topic == topic)
    };
    let found = mirrors.iter().find(|mirror| mirror.name == topic);
    let found = found.or_else(|| mirrors.iter().find(at_source));
    let found = found.ok_or_else(|| MetaError::NotMirroring(topic.to_owned()))?;
    let mut changed = Topic::clone(found);
    if let Some(mirror) = &mut changed.mirror {
        keep_first(&mut mirror.paused, pause);
    }
    if changed != **found {
        image.topics.insert(changed.id, Arc::new(changed));
    }
    Ok(outcome)
}

/// A pause that is repeated is the one that it was; an end is an end.
fn keep_first(now: &mut Option<Pause>, pause: Option<Pause>) {
    if now.is_none() || pause.is_none() {
        *now = pause;
    }
}

/// Forgets a flow, unless topics still depend on it, which may stay if that is said; or it is about to change hands. One that
/// was removed already is removed.
pub(super) fn remove(
    image: &mut Image,
    name: &str,
    at_ms: i64,
    (keep_topics, forget_source): (bool, bool),
) -> Result<Outcome, MetaError> {
    if !image.flows.contains_key(name) && image.removed_flows.contains_key(name) {
        return Ok(Outcome::Done);
    }
    super::region_source::is_not_taken_up(image, name)?;
    let flow = flow_mut(image, name)?;
    if matches!(flow.state, FlowState::SwitchingOver | FlowState::FailingOver) {
        return Err(MetaError::FlowState {
            flow: name.to_owned(),
            state: flow.state,
        });
    }
    if flow
        .switchover
        .as_ref()
        .is_some_and(|switchover| switchover.step.is_open())
    {
        return Err(MetaError::Region(format!(
            "flow {name}: the source does not know yet what came of its switchover"
        )));
    }
    let refused = |reason: &str| Err(MetaError::Region(format!("flow {name}: {reason}")));
    match flow.failback.as_ref().map(|failback| failback.step) {
        Some(FailbackStep::Rescuing | FailbackStep::Lowering) => return refused("its failback is under way"),
        Some(FailbackStep::Telling) if !forget_source => {
            return refused(
                "its lost source has not confirmed yet that its clients do not write there, and nobody would tell it",
            );
        }
        Some(FailbackStep::GaveWay) if !forget_source => {
            return refused(
                "its source has given way and takes no writes until a failback, which needs the flow",
            );
        }
        _ => {}
    }
    if let Some(topic) = mirroring(image, name).first().filter(|_| !keep_topics) {
        return Err(MetaError::MirrorTopic {
            topic: topic.name.clone(),
            flow: name.to_owned(),
        });
    }
    image.flows.remove(name);
    image.removed_flows.insert(name.to_owned(), at_ms);
    while image.removed_flows.len() > MAX_FLOWS {
        let oldest = image.removed_flows.iter().min_by_key(|(_, at)| **at);
        let oldest = oldest.map(|(name, _)| name.clone());
        oldest.and_then(|name| image.removed_flows.remove(&name));
    }
    Ok(Outcome::Done)
}

/// Whether what a source says of an origin may be kept.
pub(super) fn fits(origin: &Origin) -> Result<(), MetaError> {
    let text = origin.cluster_id.len() + origin.cluster.len() + origin.topic.len();
    if text > MAX_ORIGIN_BYTES {
        return Err(MetaError::TooMany {
            what: "the text of an origin".to_owned(),
            limit: MAX_ORIGIN_BYTES,
        });
    }
    Ok(())
}

/// Remembers where the records of a mirror topic were first written. What holds already changes nothing.
pub(super) fn set_origin(
    image: &mut Image,
    name: &str,
    id: TopicId,
    origin: &Origin,
) -> Result<Outcome, MetaError> {
    fits(origin)?;
    let topic = topic(image, id)?;
    if !writes(name, &topic) {
        return Err(MetaError::NotMirroring(topic.name.clone()));
    }
    let mut changed = Topic::clone(&topic);
    if let Some(mirror) = &mut changed.mirror {
        mirror.origin = Some(origin.clone());
    }
    if changed != *topic {
        image.topics.insert(id, Arc::new(changed));
    }
    Ok(Outcome::Done)
}

/// Enters new source epochs. Each raises its partition's leader epoch to at least the source's, never lowers it; a stale
/// one is refused without touching the others.
pub(super) fn lineage(image: &mut Image, entries: &[LineageEntry]) -> Result<Outcome, MetaError> {
    limit("lineage entries", entries.len())?;
    let results = entries.iter().map(|entry| lineage_one(image, entry));
    Ok(Outcome::Lineage(results.collect()))
}

fn lineage_one(image: &mut Image, entry: &LineageEntry) -> Result<i32, MetaError> {
    let now = partition(image, (entry.topic, entry.partition))?;
    if now.lineage.last() == Some(&entry.lineage) {
        // The answer was lost, or the same leader has asked twice.
        return Ok(now.leader_epoch);
    }
    let topic = topic(image, entry.topic)?;
    let flow = topic
        .mirror
        .as_ref()
        .and_then(|mirror| image.flows.get(&mirror.flow));
    let open = flow.is_some_and(|flow| {
        matches!(
            flow.state,
            FlowState::Active | FlowState::Paused | FlowState::SwitchingOver
        )
    });
    if !open || !topic.is_mirroring() {
        return Err(MetaError::NotMirroring(topic.name.clone()));
    }
    drop(topic);
    current(
        StaleWhat::LeaderEpoch,
        entry.leader_epoch.into(),
        now.leader_epoch.into(),
    )?;
    if entry.lineage.source_epoch > MAX_SOURCE_EPOCH {
        return Err(MetaError::LineageOrder(format!(
            "source epoch {} is larger than any that a cluster comes to",
            entry.lineage.source_epoch
        )));
    }
    if let Some(last) = now.lineage.last() {
        follows(last, &entry.lineage)?;
    }
    let next = change_partition(
        image,
        (entry.topic, entry.partition),
        Cause::Change,
        |partition, _| {
            if partition.lineage.len() >= MAX_LINEAGE {
                partition.lineage.remove(0);
            }
            partition.lineage.push(entry.lineage.clone());
            partition.leader_epoch = partition.leader_epoch.max(entry.lineage.source_epoch);
        },
    )?;
    Ok(next.leader_epoch)
}

/// Within one source topic, epochs rise and offsets do not fall.
fn follows(last: &Lineage, next: &Lineage) -> Result<(), MetaError> {
    let same_source =
        last.source_cluster_id == next.source_cluster_id && last.source_topic_id == next.source_topic_id;
    if next.target_first < last.target_first {
        return Err(MetaError::LineageOrder(format!(
            "target offset {} is below {}",
            next.target_first, last.target_first
        )));
    }
    // Records that the source lost before they were copied are entered as a gap, within one source epoch or between two.
    let gap = next.source_first > next.target_first;
    let epoch_follows =
        next.source_epoch > last.source_epoch || gap && next.source_epoch == last.source_epoch;
    if same_source && (!epoch_follows || next.source_first < last.source_first) {
        return Err(MetaError::LineageOrder(format!(
            "source epoch {} from offset {} does not follow epoch {} from offset {}",
            next.source_epoch, next.source_first, last.source_epoch, last.source_first
        )));
    }
    Ok(())
}

/// Ends mirroring. The leader epoch of every mirror partition rises above both sides', so that a mirrored append that is
/// under way is refused. The leaders then record where their logs end.
pub(super) fn begin_failover(image: &mut Image, at: Position, name: &str) -> Result<Outcome, MetaError> {
    let flow = flow_mut(image, name)?;
    if matches!(flow.state, FlowState::FailingOver | FlowState::Promoted) {
        return Ok(described(flow));
    }
    super::failback_target::failed_over(image, at, name)?;
    let flow = flow_mut(image, name)?;
    flow.state = FlowState::FailingOver;
    if let Some(switchover) = &mut flow.switchover
        && switchover.step.may_abort()
    {
        // The source may be fenced. It must stay so: clients will write here.
        switchover.step = SwitchStep::FailedOver;
    }
    change_partitions(
        image,
        |topic, _| writes(name, topic),
        |_, _, partition, _| {
            let above = partition.source_epoch().unwrap_or(-1).max(partition.leader_epoch);
            partition.leader_epoch = above + 1;
            Cause::Change
        },
    );
    promote_if_all_cut(image, name);
    flow_mut(image, name).map(|flow| described(flow))
}

/// Records where mirroring ended in one partition; the first record stands. With the last one the flow's topics are the
/// clients'.
pub(super) fn record_cut(
    image: &mut Image,
    name: &str,
    which: (TopicId, i32),
    leader_epoch: i32,
    cut: i64,
    source_end: Option<i64>,
) -> Result<Outcome, MetaError> {
    let state = flow_mut(image, name)?.state;
    let topic = topic(image, which.0)?;
    let now = partition(image, which)?;
    if topic.mirror.as_ref().is_none_or(|mirror| mirror.flow != name) {
        return Err(MetaError::NotMirroring(topic.name.clone()));
    }
    drop(topic);
    if let Some(cut) = now.cut {
        return Ok(Outcome::Cut(cut));
    }
    if state != FlowState::FailingOver {
        return Err(MetaError::FlowState {
            flow: name.to_owned(),
            state,
        });
    }
    current(
        StaleWhat::LeaderEpoch,
        leader_epoch.into(),
        now.leader_epoch.into(),
    )?;
    let cut = Cut {
        leader_epoch,
        target_end: cut,
        source_end,
    };
    change_partition(image, which, Cause::Change, |partition, _| {
        partition.cut = Some(cut);
    })?;
    promote_if_all_cut(image, name);
    Ok(Outcome::Cut(cut))
}

/// Promotes a flow in failover once none of its partitions lacks a cut.
pub(super) fn promote_if_all_cut(image: &mut Image, name: &str) {
    let failing_over = image
        .flows
        .get(name)
        .is_some_and(|flow| flow.state == FlowState::FailingOver);
    let topics = mirroring(image, name);
    let all_cut = topics
        .iter()
        .all(|topic| topic.partitions.iter().all(|partition| partition.cut.is_some()));
    if !failing_over || !all_cut {
        return;
    }
    for topic in topics {
        let mut topic = Topic::clone(&topic);
        topic.fence = None;
        if let Some(mirror) = &mut topic.mirror {
            mirror.state = MirrorState::Promoted;
        }
        image.topics.insert(topic.id, Arc::new(topic));
    }
    if let Some(flow) = image.flows.get_mut(name) {
        flow.state = FlowState::Promoted;
    }
}

/// The topics that flow `name` writes.
pub(super) fn mirroring(image: &Image, name: &str) -> Vec<Arc<Topic>> {
    let topics = image.topics.values();
    topics.filter(|topic| writes(name, topic)).cloned().collect()
}

/// Whether flow `name` writes `topic`.
fn writes(name: &str, topic: &Topic) -> bool {
    topic.is_mirroring() && topic.mirror.as_ref().is_some_and(|mirror| mirror.flow == name)
}

pub(super) fn flow_mut<'a>(image: &'a mut Image, name: &str) -> Result<&'a mut Flow, MetaError> {
    let flow = image.flows.get_mut(name);
    flow.ok_or_else(|| MetaError::UnknownFlow(name.to_owned()))
}

pub(super) fn described(flow: &Flow) -> Outcome {
    Outcome::Flow {
        version: flow.version,
        state: flow.state,
    }
}
