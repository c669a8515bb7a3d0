//! After a failover, at the side that took over: its lost source is told, and brought back when an operator asks for it.
//!
//! Nothing here can be taken back: the failover was the decision. The steps only remember how far the source has followed.

use std::collections::BTreeMap;

use tradewind_wire::failback::{Failback, FailbackStep, LoweredPosition, MAX_LOWERED, MAX_RAISES, Tails};
use tradewind_wire::flow::{FlowSource, Naming};
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::SwitchStep;

use super::Position;
use super::flows::{described, flow_mut};
use super::region_epochs::{self, bounded};
use crate::command::{MetaError, Outcome};
use crate::image::{Flow, FlowState, Image};

/// A failover of flow `name` begins: its topics get a region epoch above all that is known of either side's, which its source
/// is to be told.
pub(super) fn failed_over(image: &mut Image, at: Position, name: &str) -> Result<(), MetaError> {
    let region_epoch = region_epochs::above_all(image, name);
    let floor = image
        .flows
        .get(name)
        .and_then(|flow| image.regions.get(&flow.source));
    let floor = floor.copied().unwrap_or(0);
    let flow = flow_mut(image, name)?;
    let follows = matches!(flow.spec.source, FlowSource::Mesh(_)) && flow.spec.naming == Naming::Identity;
    flow.failback = follows.then(|| Failback {
        attempt: at.index,
        step: FailbackStep::Telling,
        region_epoch,
        floor: Some(floor),
        raised: 0,
        gave_way_ms: None,
        gave_way_took_ms: None,
        topics: Vec::new(),
        begun_ms: None,
        tails: BTreeMap::new(),
        lowered: Vec::new(),
        lowered_total: 0,
        ended_ms: None,
    });
    if follows {
        let source = flow.source.clone();
        region_epochs::raise(image, &source, region_epoch);
    }
    Ok(())
}

/// The source has a region epoch that the failover's, `refused`, is not above: it gets the one after `above`.
///
/// Nothing is decided by that. The failover is, and the source has not given way to it: only the number says otherwise,
/// because one of the two logs began anew, or flows both ways were failed over. Giving way takes no record away.
pub(super) fn raise_epoch(
    image: &mut Image,
    which: (&str, u64),
    refused: u64,
    above: u64,
) -> Result<Outcome, MetaError> {
    bounded(above)?;
    let flow = flow_mut(image, which.0)?;
    let (state, source) = (flow.state, flow.source.clone());
    let failback = under_way(image, which)?;
    if failback.region_epoch != refused || above < refused {
        return Ok(Outcome::Done);
    }
    if failback.step != FailbackStep::Telling || state != FlowState::Promoted {
        return Err(wrong_step(which.0, failback));
    }
    if failback.raised >= MAX_RAISES {
        return Err(MetaError::Region(format!(
            "flow {}: its source has refused {MAX_RAISES} higher region epochs, and says now that it has {above}",
            which.0
        )));
    }
    failback.raised += 1;
    failback.region_epoch = above + 1;
    region_epochs::raise(image, &source, above + 1);
    Ok(Outcome::Done)
}

/// The failback of this attempt.
fn under_way<'a>(image: &'a mut Image, (name, attempt): (&str, u64)) -> Result<&'a mut Failback, MetaError> {
    let failback = flow_mut(image, name)?.failback.as_mut();
    failback
        .filter(|failback| failback.attempt == attempt)
        .ok_or_else(|| MetaError::Region(format!("flow {name}: attempt {attempt} is not its last failover")))
}

fn wrong_step(name: &str, failback: &Failback) -> MetaError {
    MetaError::Region(format!("flow {name}: its source is {}", failback.step.name()))
}

/// The source takes neither writes nor commits on `topics` any more.
pub(super) fn gave_way(
    image: &mut Image,
    which: (&str, u64),
    (at_ms, took_ms): (i64, i64),
    topics: &[TopicId],
) -> Result<Outcome, MetaError> {
    let state = flow_mut(image, which.0)?.state;
    let failback = under_way(image, which)?;
    match failback.step {
        FailbackStep::Telling if state == FlowState::Promoted => {}
        FailbackStep::Telling => return Err(wrong_step(which.0, failback)),
        _ => return Ok(Outcome::Done),
    }
    failback.step = FailbackStep::GaveWay;
    failback.gave_way_ms = Some(at_ms);
    failback.gave_way_took_ms = Some(took_ms);
    failback.topics = topics.to_vec();
    failback.topics.sort_unstable();
    Ok(Outcome::Done)
}

/// An operator wants the source back as a mirror. What is under way or done stays as it is.
pub(super) fn begin(image: &mut Image, name: &str, at_ms: i64) -> Result<Outcome, MetaError> {
    let flow = flow_mut(image, name)?;
    possible(flow)?;
    let outcome = described(flow);
    if let Some(failback) = &mut flow.failback {
        match failback.step {
            FailbackStep::Telling => {
                return Err(MetaError::Region(format!(
                    "flow {name}: its source has not confirmed yet that its clients do not write there"
                )));
            }
            FailbackStep::GaveWay => {
                failback.step = FailbackStep::Rescuing;
                failback.begun_ms = Some(at_ms);
            }
            FailbackStep::Rescuing | FailbackStep::Lowering | FailbackStep::Done => {}
        }
    }
    Ok(outcome)
}

/// Whether there is anything to come back from.
fn possible(flow: &Flow) -> Result<(), MetaError> {
    let name = &flow.name;
    let refused = |reason: &str| Err(MetaError::Region(format!("flow {name}: {reason}")));
    if flow.state != FlowState::Promoted {
        return refused("it was not failed over");
    }
    if flow.failback.is_some() {
        return Ok(());
    }
    let moved = flow.switchover.as_ref().map(|switchover| switchover.step);
    if matches!(moved, Some(SwitchStep::Promoted | SwitchStep::Done)) {
        return refused("it was switched over: its source has become its mirror by that");
    }
    if !matches!(flow.spec.source, FlowSource::Mesh(_)) {
        return refused(
            "its source is not a Tradewind cluster, which alone gives way and keeps what would be lost",
        );
    }
    if flow.spec.naming != Naming::Identity {
        return refused(
            "its topics are called otherwise here; only a flow with naming = \"identity\" can be turned round",
        );
    }
    refused("it was failed over when its source could not be turned round")
}

/// The source has kept all that never arrived here.
pub(super) fn tails_kept(
    image: &mut Image,
    which: (&str, u64),
    tails: &BTreeMap<TopicId, Tails>,
    (lowered, total): (&[LoweredPosition], u64),
) -> Result<Outcome, MetaError> {
    let failback = under_way(image, which)?;
    match failback.step {
        FailbackStep::Rescuing => {}
        FailbackStep::Lowering | FailbackStep::Done => return Ok(Outcome::Done),
        _ => return Err(wrong_step(which.0, failback)),
    }
    let open = |tails: &Tails| tails.partitions.iter().any(|tail| tail.kept.is_none());
    if !tails.keys().eq(failback.topics.iter()) || tails.values().any(open) {
        return Err(MetaError::Region(format!(
            "flow {}: not every tail of its source is kept",
            which.0
        )));
    }
    failback.step = FailbackStep::Lowering;
    failback.tails.clone_from(tails);
    failback.lowered = lowered.iter().take(MAX_LOWERED).cloned().collect();
    failback.lowered_total = total;
    Ok(Outcome::Done)
}

/// The source mirrors this cluster.
pub(super) fn done(image: &mut Image, which: (&str, u64), at_ms: i64) -> Result<Outcome, MetaError> {
    let failback = under_way(image, which)?;
    match failback.step {
        FailbackStep::Lowering => {}
        FailbackStep::Done => return Ok(Outcome::Done),
        _ => return Err(wrong_step(which.0, failback)),
    }
    failback.step = FailbackStep::Done;
    failback.ended_ms = Some(at_ms);
    Ok(Outcome::Done)
}
