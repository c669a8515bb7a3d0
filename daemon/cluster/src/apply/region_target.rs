//! A switchover at the target of a flow: it leads, and its promotion is the only commit point.
//!
//! Promotion and abort are entries of one log, so at most one of them takes effect for an attempt. The source lets its
//! clients write again only when it is told of an abort that is recorded here.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_wire::flow::{FlowSource, HEARTBEATS_TOPIC, Naming};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{SourceEnd, SwitchStep, Switchover};

use super::flows::{MAX_SOURCE_EPOCH, described, flow_mut, mirroring};
use super::region_epochs::{self, bounded};
use super::{Position, change_partitions};
use crate::command::{MetaError, Outcome};
use crate::election::Cause;
use crate::image::{Cut, Flow, FlowState, Image, MirrorState, Topic};

/// How long the reason of an abort may be.
const MAX_REASON: usize = 1_000;

/// Begins a switchover (times are its begin, deadline and group drain). One that is under way or done stays as it is.
pub(super) fn begin(
    image: &mut Image,
    at: Position,
    name: &str,
    (begun_ms, deadline_ms, group_drain_ms): (i64, i64, i64),
) -> Result<Outcome, MetaError> {
    let topics = moving(image, name);
    let flow = flow_mut(image, name)?;
    let step = flow.switchover.as_ref().map(|switchover| switchover.step);
    let step = step.filter(|_| flow.failback.is_none());
    match (flow.state, step) {
        (FlowState::SwitchingOver, _)
        | (FlowState::Promoted, Some(SwitchStep::Promoted | SwitchStep::Done)) => {
            return Ok(described(flow));
        }
        (FlowState::Active, Some(SwitchStep::Aborting)) => {
            return Err(MetaError::Region(format!(
                "flow {name}: the source has not yet heard that the last switchover was given up"
            )));
        }
        (FlowState::Active, _) => {}
        (state, _) => {
            return Err(MetaError::FlowState {
                flow: name.to_owned(),
                state,
            });
        }
    }
    possible(flow)?;
    let paused = |topic: &&Arc<Topic>| {
        topic
            .mirror
            .as_ref()
            .is_some_and(|mirror| mirror.paused.is_some())
    };
    if let Some(topic) = topics.iter().find(paused) {
        return Err(MetaError::Region(format!("topic '{}' is paused", topic.name)));
    }
    if topics.is_empty() {
        return Err(MetaError::Region(format!("flow {name} writes no topic here")));
    }
    flow.state = FlowState::SwitchingOver;
    flow.switchover = Some(Switchover {
        attempt: at.index,
        step: SwitchStep::Fencing,
        begun_ms,
        deadline_ms,
        group_drain_ms,
        fenced_ms: None,
        region_epoch: 0,
        ends: BTreeMap::new(),
        ended_ms: None,
        reason: String::new(),
    });
    Ok(described(flow))
}

/// Whether a flow like this can be switched over at all.
fn possible(flow: &Flow) -> Result<(), MetaError> {
    if !matches!(flow.spec.source, FlowSource::Mesh(_)) {
        return Err(MetaError::Region(format!(
            "flow {}: its source is not a Tradewind cluster, which alone can be fenced",
            flow.name
        )));
    }
    if flow.spec.naming != Naming::Identity {
        return Err(MetaError::Region(format!(
            "flow {}: its topics are called otherwise here; only a flow with naming = \"identity\" can be switched over",
            flow.name
        )));
    }
    Ok(())
}

/// The topics that move with flow `name`: all that it writes, but the source's heartbeats, which stay the source's own.
fn moving(image: &Image, name: &str) -> Vec<Arc<Topic>> {
    let own = |topic: &Arc<Topic>| {
        let mirror = topic.mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.source_topic != HEARTBEATS_TOPIC)
    };
    mirroring(image, name).into_iter().filter(own).collect()
}

/// The flow and its switchover, if `attempt` is the one under way.
fn under_way<'a>(
    image: &'a mut Image,
    (name, attempt): (&str, u64),
) -> Result<(&'a mut FlowState, &'a mut Switchover), MetaError> {
    let flow = flow_mut(image, name)?;
    let switchover = flow.switchover.as_mut().filter(|now| now.attempt == attempt);
    let switchover = switchover.ok_or_else(|| {
        MetaError::Region(format!(
            "flow {name}: attempt {attempt} is not its last switchover"
        ))
    })?;
    Ok((&mut flow.state, switchover))
}

fn wrong_step(name: &str, switchover: &Switchover) -> MetaError {
    MetaError::Region(format!(
        "flow {name}: its switchover is {}",
        switchover.step.name()
    ))
}

/// The source's writes are fenced and end at `ends`.
pub(super) fn source_fenced(
    image: &mut Image,
    which: (&str, u64),
    at_ms: i64,
    region_epoch: u64,
    ends: &BTreeMap<TopicId, Vec<SourceEnd>>,
) -> Result<Outcome, MetaError> {
    let topics = moving(image, which.0);
    bounded(region_epoch)?;
    let above_ours = region_epochs::above_all(image, which.0);
    let (_, switchover) = under_way(image, which)?;
    match switchover.step {
        SwitchStep::Fencing => {}
        SwitchStep::Draining | SwitchStep::Settling => return Ok(Outcome::Done),
        _ => return Err(wrong_step(which.0, switchover)),
    }
    // Ours rise above the source's at the promotion, and must be able to rise further.
    let mut said = ends.values().flatten();
    if let Some(end) = said.find(|end| end.end < 0 || end.leader_epoch > MAX_SOURCE_EPOCH) {
        return Err(MetaError::Region(format!(
            "the source says that a partition ends at {} in epoch {}, where no partition ends",
            end.end, end.leader_epoch
        )));
    }
    for topic in &topics {
        let there = ends.get(&topic.id).map_or(0, Vec::len);
        if there != topic.partitions.len() {
            return Err(MetaError::Region(format!(
                "topic '{}' has {} partitions here, {there} are fenced at the source",
                topic.name,
                topic.partitions.len()
            )));
        }
    }
    if ends.len() != topics.len() {
        return Err(MetaError::Region(format!(
            "{} topics are fenced at the source, {} are to be moved",
            ends.len(),
            topics.len()
        )));
    }
    switchover.step = SwitchStep::Draining;
    switchover.fenced_ms = Some(at_ms);
    switchover.region_epoch = above_ours.max(region_epoch + 1);
    switchover.ends.clone_from(ends);
    Ok(Outcome::Done)
}

/// No group commits at the source any more.
pub(super) fn groups_fenced(image: &mut Image, which: (&str, u64)) -> Result<Outcome, MetaError> {
    let (_, switchover) = under_way(image, which)?;
    match switchover.step {
        SwitchStep::Draining => switchover.step = SwitchStep::Settling,
        SwitchStep::Settling => {}
        _ => return Err(wrong_step(which.0, switchover)),
    }
    Ok(Outcome::Done)
}

/// The commit point. The proposer has found every record up to the recorded ends committed here, and every group's final
/// position written.
pub(super) fn promote(image: &mut Image, which: (&str, u64), at_ms: i64) -> Result<Outcome, MetaError> {
    let name = which.0;
    let topics = moving(image, name);
    let (state, switchover) = under_way(image, which)?;
    match switchover.step {
        SwitchStep::Settling if *state == FlowState::SwitchingOver => {}
        SwitchStep::Promoted | SwitchStep::Done => return Ok(Outcome::Done),
        _ => return Err(wrong_step(name, switchover)),
    }
    let fits = |topic: &&Arc<Topic>| {
        let ends = switchover.ends.get(&topic.id);
        ends.is_some_and(|ends| ends.len() == topic.partitions.len())
    };
    if topics.len() != switchover.ends.len() || !topics.iter().all(|topic| fits(&topic)) {
        return Err(MetaError::Region(format!(
            "flow {name}: its topics here are not those that were fenced at the source"
        )));
    }
    *state = FlowState::Promoted;
    switchover.step = SwitchStep::Promoted;
    switchover.ended_ms = Some(at_ms);
    let (ends, region_epoch) = (switchover.ends.clone(), switchover.region_epoch);
    change_partitions(
        image,
        |topic, _| ends.contains_key(&topic.id),
        |topic, number, partition, _| {
            let end = ends.get(&topic.id).and_then(|ends| ends.get(number as usize));
            if let Some(end) = end {
                let above = partition.leader_epoch.max(end.leader_epoch);
                partition.leader_epoch = above.max(partition.source_epoch().unwrap_or(-1)) + 1;
                partition.cut = Some(Cut {
                    leader_epoch: partition.leader_epoch,
                    target_end: end.end,
                    source_end: Some(end.end),
                });
            }
            Cause::Change
        },
    );
    for id in ends.keys() {
        if let Some(topic) = image.topics.get_mut(id) {
            let topic = Arc::make_mut(topic);
            topic.fence = None;
            if let Some(mirror) = &mut topic.mirror {
                mirror.state = MirrorState::Promoted;
            }
        }
    }
    let source = image.flows.get(name).map(|flow| flow.source.clone());
    region_epochs::raise(image, &source.unwrap_or_default(), region_epoch);
    Ok(Outcome::Done)
}

/// Gives an attempt up, unless it is promoted.
pub(super) fn abort(
    image: &mut Image,
    which: (&str, u64),
    at_ms: i64,
    reason: &str,
) -> Result<Outcome, MetaError> {
    let (state, switchover) = under_way(image, which)?;
    match switchover.step {
        step if step.may_abort() && *state == FlowState::SwitchingOver => {
            *state = FlowState::Active;
            switchover.step = SwitchStep::Aborting;
            switchover.ended_ms = Some(at_ms);
            switchover.reason = reason.chars().take(MAX_REASON).collect();
            Ok(Outcome::Done)
        }
        SwitchStep::Aborting | SwitchStep::Aborted => Ok(Outcome::Done),
        _ => Err(wrong_step(which.0, switchover)),
    }
}

/// The source has done what follows from an attempt that is promoted or given up.
pub(super) fn end(image: &mut Image, which: (&str, u64)) -> Result<Outcome, MetaError> {
    let (_, switchover) = under_way(image, which)?;
    switchover.step = match switchover.step {
        SwitchStep::Promoted | SwitchStep::Done => SwitchStep::Done,
        SwitchStep::Aborting | SwitchStep::Aborted => SwitchStep::Aborted,
        _ => return Err(wrong_step(which.0, switchover)),
    };
    Ok(Outcome::Done)
}
