//! After a failover: the steward of the side that took over tells the lost source as soon as it returns, and brings it back
//! as a mirror when an operator asks for it.
//!
//! As with a switchover every step is driven by the view, may be repeated, and is recorded where it concerns
//! ([`tradewind_wire::failback`]). The source removes nothing before this side has recorded that all is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tradewind_wire::failback::{
    Failback, FailbackStep, History, LoweredPosition, MAX_HISTORY, MAX_LOWERED, Tails,
};
use tradewind_wire::flow::HEARTBEATS_TOPIC;
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{GroupPosition, MovedTopic, RegionAnswer, RegionCommand, RegionWish};

use crate::failback_report::{FailbackError, FailbackReport};
use crate::flow::{Flow, wait_for_change};
use crate::switchover::{Halt, agreed, ask, of_coordinators};
use crate::target::{CommandError, FlowState, PartitionView, Target, TopicView, View};

/// How soon a step that waits for something is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How soon a source that refuses is asked again: a person has to change something there.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// How long the command waits for a source that has not been told yet.
const TELL_WAIT: Duration = Duration::from_secs(15);
/// How long a source may take to say whether it could come back.
const PLAN_TIMEOUT: Duration = Duration::from_secs(20);
/// The part of the board that says what a failback waits for.
const BOARD: &str = "failback";

/// Drives what follows a failover of a flow while this daemon is the steward; until cancelled.
pub(crate) async fn run(flow: Arc<Flow>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let view = flow.target.view();
        let mine = view.steward() == Some(flow.target.node_id());
        let Some(open) = last(&view, &flow.name).filter(|last| mine && last.step.is_open()) else {
            flow.board.set_problems(BOARD, Vec::new());
            wait_for_change(&flow, &cancel, view.index, Duration::from_secs(60)).await;
            continue;
        };
        let done = tokio::select! {
            () = cancel.cancelled() => break,
            done = step(&flow, &view, open) => done,
        };
        let (reason, pause) = match done {
            Ok(()) => {
                flow.board.set_problems(BOARD, Vec::new());
                continue;
            }
            Err(Halt::Waits(reason)) => (reason, PAUSE),
            Err(Halt::Never(reason)) => (reason, LONG_PAUSE),
        };
        let told = format!("failback is {}: {reason}", open.step.name());
        flow.board.set_problems(BOARD, vec![told]);
        // Not only for a change of the view: what it waits for may be at the source.
        wait_for_change(&flow, &cancel, view.index, pause).await;
    }
}

/// What follows the failover of a flow, once its topics are promoted.
fn last<'a>(view: &'a View, flow: &str) -> Option<&'a Failback> {
    let flow = view.flows.get(flow)?;
    flow.failback
        .as_ref()
        .filter(|_| flow.state == FlowState::Promoted)
}

/// One step. `Ok` means that the view has changed.
async fn step(flow: &Flow, view: &View, open: &Failback) -> Result<(), Halt> {
    let (name, attempt) = (flow.name.clone(), open.attempt);
    let command = match open.step {
        FailbackStep::Telling => tell(flow, view, open).await?,
        FailbackStep::Rescuing => rescue(flow, view, open).await?,
        FailbackStep::Lowering => {
            of_coordinators(flow, attempt, RegionWish::Lower).await?;
            let wish = RegionWish::Complete {
                region_epoch: open.region_epoch,
                topics: moved_topics(view, open, &flow.name),
            };
            agreed(ask(flow, attempt, wish).await?)?;
            RegionCommand::FailbackDone {
                flow: name,
                attempt,
                at_ms: flow.target.clock().now_ms(),
            }
        }
        FailbackStep::GaveWay | FailbackStep::Done => return Ok(()),
    };
    tracing::info!(
        flow = flow.name,
        attempt,
        step = open.step.name(),
        "failback goes on"
    );
    flow.target.region(command).await?;
    Ok(())
}

/// The topics that were promoted with the flow, each with its id at the source.
fn promoted<'a>(view: &'a View, flow: &'a str) -> impl Iterator<Item = (&'a Arc<TopicView>, TopicId)> {
    let ours = view.topics_of(flow);
    let data = ours.filter(|(_, bound)| bound.promoted && bound.source_topic != HEARTBEATS_TOPIC);
    data.map(|(topic, bound)| (topic, bound.source_topic_id))
}

async fn tell(flow: &Flow, view: &View, open: &Failback) -> Result<RegionCommand, Halt> {
    let wish = RegionWish::GiveWay {
        region_epoch: open.region_epoch,
        topics: promoted(view, &flow.name).map(|(_, there)| there).collect(),
    };
    match ask(flow, open.attempt, wish).await? {
        RegionAnswer::GaveWay { took_ms, topics } => Ok(RegionCommand::GaveWay {
            flow: flow.name.clone(),
            attempt: open.attempt,
            at_ms: flow.target.clock().now_ms(),
            took_ms,
            topics,
        }),
        RegionAnswer::EpochTooLow(theirs) => raise(&flow.name, open, theirs),
        answer => Err(disagreed(answer)),
    }
}

/// The source has a number that the failover's is not above. That is no reason not to give way: it has not heard of the
/// failover, and giving way takes nothing away. So the failover gets a number above, and is told again.
fn raise(flow: &str, open: &Failback, theirs: u64) -> Result<RegionCommand, Halt> {
    if theirs < open.region_epoch {
        return Err(Halt::Never(format!(
            "the source refuses region epoch {} although it says that it has {theirs}",
            open.region_epoch
        )));
    }
    tracing::warn!(
        flow,
        region_epoch = open.region_epoch,
        theirs,
        "the source has a region epoch that the failover's is not above: the failover gets a higher one"
    );
    Ok(RegionCommand::RaiseEpoch {
        flow: flow.to_owned(),
        attempt: open.attempt,
        refused: open.region_epoch,
        above: theirs,
    })
}

fn disagreed(answer: RegionAnswer) -> Halt {
    let waits = || Halt::Waits("the source answered something else".into());
    agreed(answer).err().unwrap_or_else(waits)
}

async fn rescue(flow: &Flow, view: &View, open: &Failback) -> Result<RegionCommand, Halt> {
    let histories = promoted(view, &flow.name).filter(|(_, there)| open.topics.contains(there));
    let histories = histories.map(|(topic, there)| (there, topic.partitions.iter().map(history).collect()));
    let wish = RegionWish::Rescue(histories.collect());
    let tails = match ask(flow, open.attempt, wish).await? {
        RegionAnswer::Rescued { done: true, tails } => tails,
        RegionAnswer::Rescued { tails, .. } => return Err(Halt::Waits(not_kept(view, &flow.name, &tails))),
        answer => return Err(disagreed(answer)),
    };
    let positions = of_coordinators(flow, open.attempt, RegionWish::Positions).await?;
    let (lowered, lowered_total) = lowered(view, &flow.name, &tails, positions);
    Ok(RegionCommand::TailsKept {
        flow: flow.name.clone(),
        attempt: open.attempt,
        tails,
        lowered,
        lowered_total,
    })
}

/// What a promoted partition has of the source's records.
fn history(partition: &PartitionView) -> History {
    // Without a cut it was made here, after the promotion.
    let cut = partition.cut.map_or(0, |cut| cut.offset);
    let below = partition.lineage.iter().filter(|entry| entry.target_first < cut);
    let epochs: Vec<_> = below
        .map(|entry| (entry.source_epoch, entry.target_first))
        .collect();
    let newest = epochs.len().saturating_sub(MAX_HISTORY);
    History {
        cut,
        epochs: epochs[newest..].to_vec(),
    }
}

fn not_kept(view: &View, flow: &str, tails: &BTreeMap<TopicId, Tails>) -> String {
    let mut open = tails.iter().flat_map(|(id, tails)| {
        let open = (0..)
            .zip(&tails.partitions)
            .filter(|(_, tail)| tail.kept.is_none());
        open.map(move |(partition, _): (i32, _)| (*id, partition))
    });
    let first = open.next().map(|(id, partition)| {
        let topic = promoted(view, flow).find(|(_, there)| *there == id);
        let name = topic.map_or_else(|| id.to_string(), |(topic, _)| topic.name.clone());
        format!("{name}/{partition}")
    });
    format!(
        "the source has not kept {} and {} other tails yet",
        first.unwrap_or_default(),
        open.count()
    )
}

/// The positions that stand above a cut: the first of them, and how many there are.
fn lowered(
    view: &View,
    flow: &str,
    tails: &BTreeMap<TopicId, Tails>,
    positions: Vec<GroupPosition>,
) -> (Vec<LoweredPosition>, u64) {
    let mut cuts = BTreeMap::new();
    for (topic, there) in promoted(view, flow) {
        let partitions = tails
            .get(&there)
            .into_iter()
            .flat_map(|tails| (0..).zip(&tails.partitions));
        cuts.extend(
            partitions
                .filter_map(|(number, tail): (i32, _)| Some(((topic.name.as_str(), number), tail.kept?.cut))),
        );
    }
    let (mut lowered, mut total) = (Vec::new(), 0);
    for position in positions {
        let cut = cuts.get(&(position.topic.as_str(), position.partition)).copied();
        if let Some(after) = cut.filter(|cut| position.offset > *cut) {
            total += 1;
            if lowered.len() < MAX_LOWERED {
                lowered.push(LoweredPosition {
                    group: position.group,
                    topic: position.topic,
                    partition: position.partition,
                    before: position.offset,
                    after,
                });
            }
        }
    }
    (lowered, total)
}

/// By id at the source, what each topic that gave way is here.
fn moved_topics(view: &View, open: &Failback, flow: &str) -> BTreeMap<TopicId, MovedTopic> {
    let ours = promoted(view, flow).filter(|(_, there)| open.topics.contains(there));
    ours.map(|(topic, there)| {
        let here = MovedTopic {
            name: topic.name.clone(),
            id: topic.id,
        };
        (there, here)
    })
    .collect()
}

/// Begins a failback, or finds one that is under way or done. Nothing changes unless the source would take part.
pub(crate) async fn begin(flow: &Flow) -> Result<(), FailbackError> {
    let refused = |reason: String| FailbackError::Refused {
        flow: flow.name.clone(),
        reason,
    };
    let clock = flow.target.clock();
    let deadline = clock.monotonic() + TELL_WAIT;
    loop {
        let view = flow.target.view();
        let Some(open) = last(&view, &flow.name) else {
            break;
        };
        match open.step {
            FailbackStep::GaveWay => {
                let plan = ask(flow, open.attempt, RegionWish::PlanFailback);
                let plan = tokio::time::timeout(PLAN_TIMEOUT, plan).await;
                let plan = plan.map_err(|_| refused("the source does not answer in time".into()))?;
                let plan = plan.map_err(|error| refused(error.to_string()))?;
                if let Err(Halt::Never(reason) | Halt::Waits(reason)) = agreed(plan) {
                    return Err(refused(reason));
                }
                break;
            }
            FailbackStep::Telling if clock.monotonic() < deadline => {
                let change = flow.target.changed(view.index);
                let _ = tokio::time::timeout(PAUSE, change).await;
            }
            FailbackStep::Telling => {
                let told = flow
                    .board
                    .problems()
                    .into_iter()
                    .find(|told| told.starts_with(BOARD));
                let told = told.unwrap_or_else(|| "it has not been reached yet".into());
                return Err(refused(format!(
                    "its source has not confirmed that its clients do not write there: {told}"
                )));
            }
            FailbackStep::Rescuing | FailbackStep::Lowering | FailbackStep::Done => break,
        }
    }
    let begun = flow.target.region(RegionCommand::BeginFailback {
        flow: flow.name.clone(),
        at_ms: clock.now_ms(),
    });
    begun.await.map_err(|error| match error {
        CommandError::Unavailable | CommandError::Stale => FailbackError::Unavailable(flow.name.clone()),
        error => refused(error.to_string()),
    })
}

/// How the failback of a flow stands. `reasons` are what it waits for, as this daemon says.
pub(crate) fn report(
    target: &Arc<dyn Target>,
    flow: &str,
    reasons: Vec<String>,
) -> Result<FailbackReport, FailbackError> {
    let view = target.view();
    let known = view.flows.get(flow);
    let known = known.ok_or_else(|| FailbackError::UnknownFlow(flow.to_owned()))?;
    let last = known.failback.as_ref();
    let last = last.ok_or_else(|| FailbackError::None(flow.to_owned()))?;
    let reason = reasons.into_iter().find(|reason| reason.starts_with(BOARD));
    Ok(FailbackReport::of(&view, flow, last, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_refused_is_raised_above_the_sources_and_only_then() {
        let open: Failback = serde_json::from_value(serde_json::json!({
            "attempt": 7, "step": "telling", "region_epoch": 2,
        }))
        .unwrap();
        let Ok(RegionCommand::RaiseEpoch {
            attempt,
            refused,
            above,
            ..
        }) = raise("east->west", &open, 5)
        else {
            panic!("not raised")
        };
        assert_eq!((attempt, refused, above), (7, 2, 5));
        assert!(raise("east->west", &open, 2).is_ok());
        assert!(matches!(raise("east->west", &open, 1), Err(Halt::Never(_))));
    }
}
