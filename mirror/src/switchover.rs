//! Moving a region without loss: the target of a flow drives the steps at both sides.
//!
//! The steward does the next step that the view asks for ([`tradewind_wire::region`]) until none is left; another daemon
//! goes on if it is lost. Every step may be repeated, by two daemons at once too: what was decided stands in the metadata
//! log of the side that it concerns, with the number of the attempt. Nothing here is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tradewind_wire::flow::HEARTBEATS_TOPIC;
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::{
    GroupPosition, MovedTopic, RegionAnswer, RegionAsk, RegionCommand, RegionWish, SwitchStep, Switchover,
};

use crate::checkpoint::{Here, decide};
use crate::failover;
use crate::flow::{Flow, wait_for_change};
use crate::passes::led_here;
use crate::peers::{Answer, Ask, ask_all};
use crate::problems::GAPPED;
use crate::source::{Committed, SourceError};
use crate::status::{FailoverError, FlowStatus};
use crate::switchover_report::{SwitchoverError, SwitchoverReport, SwitchoverWish};
use crate::target::{
    CommandError, CommitOutcome, FlowState, GroupError, MirrorBinding, Target, TopicView, View,
};

/// How soon a step that waits for something is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the daemons here have to say how far their partitions are, or to settle their groups.
const PEERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a source may take to say whether it would let itself be fenced.
const PLAN_TIMEOUT: Duration = Duration::from_secs(20);
/// The part of the board that says what a switchover waits for.
const BOARD: &str = "switchover";

/// Why a step was not done.
pub(crate) enum Halt {
    /// Something that should pass.
    Waits(String),
    /// It cannot be: the attempt is given up, as long as that is possible.
    Never(String),
}

impl From<SourceError> for Halt {
    fn from(error: SourceError) -> Self {
        Self::Waits(error.to_string())
    }
}

impl From<CommandError> for Halt {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(_) | CommandError::Conflict(_) => Self::Never(error.to_string()),
            CommandError::Stale | CommandError::Unavailable => Self::Waits(error.to_string()),
        }
    }
}

/// Drives the switchover of a flow while this daemon is the steward; until cancelled.
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
        let reason = match done {
            Ok(()) => {
                flow.board.set_problems(BOARD, Vec::new());
                continue;
            }
            Err(Halt::Never(reason)) if open.step.may_abort() => {
                if give_up(&flow, open, reason.clone()).await.is_ok() {
                    continue;
                }
                reason
            }
            Err(Halt::Never(reason) | Halt::Waits(reason)) => reason,
        };
        let told = format!("switchover is {}: {reason}", open.step.name());
        flow.board.set_problems(BOARD, vec![told]);
        if open.step.may_abort() && flow.target.clock().now_ms() >= open.deadline_ms {
            let reason = format!("not done in time while {}: {reason}", open.step.name());
            if let Err(error) = give_up(&flow, open, reason).await {
                tracing::warn!(flow = flow.name, %error, "a switchover cannot be given up yet");
            }
            continue;
        }
        // Not only for a change of the view: what it waits for may be at the source.
        wait_for_change(&flow, &cancel, view.index, PAUSE).await;
    }
}

fn last<'a>(view: &'a View, flow: &str) -> Option<&'a Switchover> {
    view.flows.get(flow)?.switchover.as_ref()
}

async fn give_up(flow: &Flow, open: &Switchover, reason: String) -> Result<(), CommandError> {
    tracing::warn!(flow = flow.name, reason, "a switchover is given up");
    flow.target
        .region(RegionCommand::Abort {
            flow: flow.name.clone(),
            attempt: open.attempt,
            at_ms: flow.target.clock().now_ms(),
            reason,
        })
        .await
}

/// One step. `Ok` means that the view has changed.
async fn step(flow: &Flow, view: &View, open: &Switchover) -> Result<(), Halt> {
    let (name, attempt) = (flow.name.clone(), open.attempt);
    let at_ms = flow.target.clock().now_ms();
    let command = match open.step {
        SwitchStep::Fencing => fence_source(flow, view, attempt).await?,
        SwitchStep::Draining => {
            arrived(flow, view, open).await?;
            drained(flow, view, open, at_ms).await?;
            agreed(ask(flow, attempt, RegionWish::FenceGroups).await?)?;
            RegionCommand::GroupsFenced { flow: name, attempt }
        }
        SwitchStep::Settling => {
            arrived(flow, view, open).await?;
            settle_everywhere(flow, attempt).await?;
            RegionCommand::Promote {
                flow: name,
                attempt,
                at_ms: flow.target.clock().now_ms(),
            }
        }
        SwitchStep::Promoted => {
            let wish = RegionWish::Complete {
                region_epoch: open.region_epoch,
                topics: moved_topics(view, open),
            };
            agreed(ask(flow, attempt, wish).await?)?;
            RegionCommand::End { flow: name, attempt }
        }
        SwitchStep::Aborting => {
            agreed(ask(flow, attempt, RegionWish::Release).await?)?;
            RegionCommand::End { flow: name, attempt }
        }
        SwitchStep::Done | SwitchStep::Aborted | SwitchStep::FailedOver => return Ok(()),
    };
    tracing::info!(flow = flow.name, attempt, ?command, "switchover");
    flow.target.region(command).await?;
    Ok(())
}

/// Asks any daemon of the source.
pub(crate) async fn ask(flow: &Flow, attempt: u64, wish: RegionWish) -> Result<RegionAnswer, SourceError> {
    if flow.source.nodes().is_empty() {
        flow.topics().await?;
    }
    flow.source.region(None, &question(flow, attempt, wish)).await
}

fn question(flow: &Flow, attempt: u64, wish: RegionWish) -> RegionAsk {
    RegionAsk {
        flow: flow.spec.clone(),
        cluster_id: flow.target.view().cluster_id.clone(),
        attempt,
        wish,
    }
}

/// Whether the source has done what it was asked for.
pub(crate) fn agreed(answer: RegionAnswer) -> Result<(), Halt> {
    match answer {
        RegionAnswer::Done => Ok(()),
        RegionAnswer::NotYet(reason) => Err(Halt::Waits(reason)),
        RegionAnswer::Refused(reason) => Err(Halt::Never(reason)),
        other => Err(Halt::Waits(format!(
            "the source answered something else: {other:?}"
        ))),
    }
}

/// The topics that move, with what they are at the source.
fn moving<'a>(
    view: &'a View,
    flow: &'a str,
) -> impl Iterator<Item = (&'a Arc<TopicView>, &'a MirrorBinding)> {
    let ours = view.topics_of(flow);
    ours.filter(|(_, bound)| !bound.promoted && bound.source_topic != HEARTBEATS_TOPIC)
}

/// What was promoted: by id at the source, what it is here.
fn moved_topics(view: &View, open: &Switchover) -> BTreeMap<TopicId, MovedTopic> {
    let moved = view
        .topics
        .values()
        .filter(|topic| open.ends.contains_key(&topic.id));
    moved
        .filter_map(|topic| {
            let there = topic.mirror.as_ref()?.source_topic_id;
            let here = MovedTopic {
                name: topic.name.clone(),
                id: topic.id,
            };
            Some((there, here))
        })
        .collect()
}

async fn fence_source(flow: &Flow, view: &View, attempt: u64) -> Result<RegionCommand, Halt> {
    let ids: Vec<TopicId> = moving(view, &flow.name)
        .map(|(_, bound)| bound.source_topic_id)
        .collect();
    let (region_epoch, there) = match ask(flow, attempt, RegionWish::Fence(ids)).await? {
        RegionAnswer::Fenced { region_epoch, ends } => (region_epoch, ends),
        answer => {
            return Err(agreed(answer)
                .err()
                .unwrap_or_else(|| Halt::Waits("no ends yet".into())));
        }
    };
    let mut ends = BTreeMap::new();
    for (topic, bound) in moving(view, &flow.name) {
        let id = bound.source_topic_id;
        let known = there.get(&id).map_or(&[][..], Vec::as_slice);
        let known: Option<Vec<_>> = known.iter().copied().collect();
        let known = known.ok_or_else(|| {
            Halt::Waits(format!(
                "the source's leaders have not all said where {} ends",
                topic.name
            ))
        })?;
        ends.insert(topic.id, known);
    }
    Ok(RegionCommand::SourceFenced {
        flow: flow.name.clone(),
        attempt,
        at_ms: flow.target.clock().now_ms(),
        region_epoch,
        ends,
    })
}

/// Whether every record of the source is committed here. A high watermark that was once true stays true.
async fn arrived(flow: &Flow, view: &View, open: &Switchover) -> Result<(), Halt> {
    let question = Ask::Watermarks {
        flow: flow.name.clone(),
    };
    let mut have: BTreeMap<(String, i32), i64> = BTreeMap::new();
    let mut heard = led_here(flow.target.as_ref(), &flow.name);
    for (_, answer) in ask_all(&flow.target, &question, PEERS_TIMEOUT).await {
        if let Ok(Answer::Watermarks(theirs)) = answer {
            heard.extend(theirs);
        }
    }
    for (topic, partition, mark) in heard {
        let known = have.entry((topic, partition)).or_insert(mark);
        *known = mark.max(*known);
    }
    for topic in view.topics.values() {
        let Some(ends) = open.ends.get(&topic.id) else {
            continue;
        };
        for (number, end) in (0..).zip(ends) {
            let mark = have.get(&(topic.name.clone(), number)).copied();
            if mark.is_none_or(|mark| mark < end.end) {
                let mark = mark.map_or_else(|| "unknown".to_owned(), |mark| mark.to_string());
                let end = end.end;
                return Err(Halt::Waits(format!(
                    "{}/{number} is at {mark} of {end}",
                    topic.name
                )));
            }
        }
    }
    Ok(())
}

/// Whether groups have had their time to commit at the source, or all of them stand at the ends.
async fn drained(flow: &Flow, view: &View, open: &Switchover, now_ms: i64) -> Result<(), Halt> {
    let until_ms = open.fenced_ms.unwrap_or(open.begun_ms) + open.group_drain_ms;
    if now_ms >= until_ms {
        return Ok(());
    }
    let mut groups = flow.source.groups().await?;
    groups.retain(|group| flow.names.takes_group(group));
    let ends: BTreeMap<&str, &Vec<_>> = view
        .topics
        .values()
        .filter_map(|topic| Some((topic.name.as_str(), open.ends.get(&topic.id)?)))
        .collect();
    for (group, told) in flow.source.committed(&groups).await? {
        for position in told.unwrap_or_default() {
            let Some(ends) = ends.get(position.topic.as_str()) else {
                continue;
            };
            let end = usize::try_from(position.partition)
                .ok()
                .and_then(|number| ends.get(number));
            if position.offset >= 0 && end.is_some_and(|end| position.offset < end.end) {
                let left_ms = until_ms - now_ms;
                return Err(Halt::Waits(format!(
                    "group {group} may commit for {left_ms} ms more"
                )));
            }
        }
    }
    Ok(())
}

/// Reads every group's final position at the source and has it written here by the group's coordinator.
async fn settle_everywhere(flow: &Flow, attempt: u64) -> Result<(), Halt> {
    let positions = final_positions(flow, attempt).await?;
    let wanted: BTreeSet<&str> = positions.iter().map(|position| position.group.as_str()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let question = Ask::Settle {
        flow: flow.name.clone(),
        attempt,
        positions: positions.clone(),
    };
    let (mine, theirs) = tokio::join!(
        settle(flow, attempt, &positions),
        ask_all(&flow.target, &question, PEERS_TIMEOUT)
    );
    let mut settled = BTreeSet::new();
    let mut reason = None;
    for answer in std::iter::once(settled_answer(mine)).chain(theirs.into_iter().map(|(_, answer)| answer)) {
        match answer {
            Ok(Answer::Settled(groups)) => settled.extend(groups),
            Ok(Answer::Refused(refusal)) => reason = Some(refusal),
            Ok(_) => reason = Some("a daemon answered something else".to_owned()),
            Err(error) => reason = Some(error.to_string()),
        }
    }
    match wanted.into_iter().find(|group| !settled.contains(*group)) {
        None => Ok(()),
        Some(group) => {
            Err(Halt::Waits(reason.unwrap_or_else(|| {
                format!("group {group} has no coordinator here at present")
            })))
        }
    }
}

fn settled_answer(settled: Result<Vec<String>, String>) -> Result<Answer, crate::target::CallError> {
    Ok(self::settled(settled))
}

/// What a daemon answers to [`Ask::Settle`].
pub(crate) fn settled(settled: Result<Vec<String>, String>) -> Answer {
    match settled {
        Ok(groups) => Answer::Settled(groups),
        Err(reason) => Answer::Refused(reason),
    }
}

/// Where the source's groups stand for good, as far as the flow takes them.
async fn final_positions(flow: &Flow, attempt: u64) -> Result<Vec<GroupPosition>, Halt> {
    let mut all = of_coordinators(flow, attempt, RegionWish::Positions).await?;
    all.retain(|position| flow.names.takes_group(&position.group));
    Ok(all)
}

/// What all coordinators of the source's groups answer, which have loaded them since they were fenced.
pub(crate) async fn of_coordinators(
    flow: &Flow,
    attempt: u64,
    wish: RegionWish,
) -> Result<Vec<GroupPosition>, Halt> {
    // The daemons as they are now.
    flow.topics().await?;
    let question = question(flow, attempt, wish);
    let nodes = flow.source.nodes();
    let answers = join_all(
        nodes
            .iter()
            .map(|node| flow.source.region(Some(*node), &question)),
    )
    .await;
    let mut missing = "no daemon of the source answers for its groups".to_owned();
    let (mut of, mut partitions, mut all) = (None, BTreeSet::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(RegionAnswer::Positions {
                of: count,
                partitions: theirs,
                positions,
            }) => {
                of = Some(count);
                partitions.extend(theirs);
                all.extend(positions);
            }
            Ok(RegionAnswer::NotYet(reason) | RegionAnswer::Refused(reason)) => missing = reason,
            Ok(other) => missing = format!("the source answered something else: {other:?}"),
            Err(error) => missing = error.to_string(),
        }
    }
    let open = of.and_then(|of| (0..of).find(|number| !partitions.contains(number)));
    match (of, open) {
        (Some(_), None) => Ok(all),
        (Some(_), Some(number)) => Err(Halt::Waits(format!(
            "partition {number} of the source's groups is not loaded yet"
        ))),
        (None, _) => Err(Halt::Waits(missing)),
    }
}

/// Writes the final positions of the groups that are coordinated here; answers those groups. No pass writes any more.
pub(crate) async fn settle(
    flow: &Flow,
    attempt: u64,
    positions: &[GroupPosition],
) -> Result<Vec<String>, String> {
    // Passes look at the view before each write, and one that was under way ends before the lock is free.
    let _pass = flow.pass.lock().await;
    let view = flow.target.view();
    let open = last(&view, &flow.name)
        .filter(|last| last.attempt == attempt && last.step == SwitchStep::Settling)
        .ok_or_else(|| format!("daemon {} is not at this step yet", flow.target.node_id()))?;
    let here = picture(&view, &flow.name, open);
    let mut groups: BTreeMap<&str, Vec<Committed>> = BTreeMap::new();
    for position in positions {
        groups.entry(&position.group).or_default().push(Committed {
            topic: position.topic.clone(),
            partition: position.partition,
            offset: position.offset,
            metadata: position.metadata.clone(),
        });
    }
    let mut done = Vec::new();
    for (group, committed) in groups {
        match settle_group(flow, group, &committed, &here).await {
            Ok(()) => done.push(group.to_owned()),
            Err(GroupError::NotCoordinator) => {}
            Err(error) => return Err(format!("group {group}: {error}")),
        }
    }
    Ok(done)
}

/// All that moves is here up to its end.
fn picture(view: &View, flow: &str, open: &Switchover) -> Here {
    let mut here = Here::default();
    for (topic, bound) in view.topics_of(flow) {
        let Some(ends) = open.ends.get(&topic.id) else {
            continue;
        };
        let count = i32::try_from(ends.len()).unwrap_or(i32::MAX);
        here.topics
            .insert(bound.source_topic.clone(), (topic.name.clone(), count));
        let marks = (0..)
            .zip(ends)
            .map(|(number, end)| ((topic.name.clone(), number), end.end));
        here.high_watermarks.extend(marks);
        if topic.has_moved() {
            here.moved.insert(topic.name.clone());
        }
    }
    here
}

async fn settle_group(
    flow: &Flow,
    group: &str,
    committed: &[Committed],
    here: &Here,
) -> Result<(), GroupError> {
    let stored = flow.target.group_positions(group).await?;
    let now_ms = flow.target.clock().now_ms();
    let decisions = decide(&flow.name, group, committed, &stored, here, now_ms);
    let writes: Vec<_> = decisions
        .into_iter()
        .filter_map(|decision| decision.write)
        .collect();
    if writes.is_empty() {
        return Ok(());
    }
    let outcomes = flow.target.mirrored_commit(group, writes).await?;
    if outcomes.contains(&CommitOutcome::Outdated) {
        return Err(GroupError::NotCommitted("its positions have just changed".into()));
    }
    Ok(())
}

/// Begins a switchover, or finds one that is under way or done. Nothing changes unless all looks well now.
pub(crate) async fn begin(
    flow: &Flow,
    healthy: Result<(), String>,
    wish: SwitchoverWish,
) -> Result<(), SwitchoverError> {
    let refused = |reason: String| SwitchoverError::Refused {
        flow: flow.name.clone(),
        reason,
    };
    let view = flow.target.view();
    let state = view.flows.get(&flow.name).map(|flow| flow.state);
    if !matches!(state, Some(FlowState::SwitchingOver | FlowState::Promoted)) {
        healthy.map_err(refused)?;
        if let Some((topic, bound)) =
            moving(&view, &flow.name).find(|(_, bound)| !flow.names.takes_topic(&bound.source_topic, false))
        {
            return Err(refused(format!(
                "{} is not copied any more, because the flow's filters do not take {}, and would never be whole: let them take it \
                 again, or delete the mirror",
                topic.name, bound.source_topic
            )));
        }
        let ids: Vec<TopicId> = moving(&view, &flow.name)
            .map(|(_, bound)| bound.source_topic_id)
            .collect();
        let plan = tokio::time::timeout(PLAN_TIMEOUT, ask(flow, 0, RegionWish::Plan(ids))).await;
        let plan = plan.map_err(|_| refused("the source does not answer in time".into()))?;
        let plan = plan.map_err(|error| refused(error.to_string()))?;
        if let Err(Halt::Never(reason) | Halt::Waits(reason)) = agreed(plan) {
            return Err(refused(reason));
        }
    }
    let at_ms = flow.target.clock().now_ms();
    let begun = flow.target.region(RegionCommand::Begin {
        flow: flow.name.clone(),
        at_ms,
        deadline_ms: at_ms.saturating_add(wish.timeout_ms),
        group_drain_ms: wish.group_drain_ms,
    });
    begun.await.map_err(|error| match error {
        CommandError::Unavailable | CommandError::Stale => SwitchoverError::Unavailable(flow.name.clone()),
        error => refused(error.to_string()),
    })
}

/// Gives a switchover up, if it is not promoted yet.
pub(crate) async fn abort(target: &Arc<dyn Target>, flow: &str) -> Result<(), SwitchoverError> {
    let view = target.view();
    let open = known(&view, flow)?;
    let aborted = target.region(RegionCommand::Abort {
        flow: flow.to_owned(),
        attempt: open.attempt,
        at_ms: target.clock().now_ms(),
        reason: "given up by the operator".into(),
    });
    aborted.await.map_err(|error| match error {
        CommandError::Unavailable | CommandError::Stale => SwitchoverError::Unavailable(flow.to_owned()),
        error => SwitchoverError::Refused {
            flow: flow.to_owned(),
            reason: error.to_string(),
        },
    })
}

fn known<'a>(view: &'a View, flow: &str) -> Result<&'a Switchover, SwitchoverError> {
    if !view.flows.contains_key(flow) {
        return Err(SwitchoverError::UnknownFlow(flow.to_owned()));
    }
    last(view, flow).ok_or_else(|| SwitchoverError::None(flow.to_owned()))
}

/// How the last switchover of a flow stands; with the groups once it is promoted. `reasons` are what it waits for, as the
/// daemons say.
pub(crate) async fn report(
    target: &Arc<dyn Target>,
    flow: &str,
    reasons: Vec<String>,
) -> Result<SwitchoverReport, SwitchoverError> {
    let view = target.view();
    let last = known(&view, flow)?;
    let reason = reasons.into_iter().find(|reason| reason.starts_with(BOARD));
    let mut report = SwitchoverReport::of(&view, flow, last, reason);
    if report.promoted {
        let deadline = target.clock().monotonic() + PEERS_TIMEOUT;
        report.groups = match failover::finish_everywhere(target, flow, deadline).await {
            Ok(groups) => groups,
            Err(FailoverError::Refused { reason, .. }) => {
                report.reason = reason;
                Vec::new()
            }
            Err(error) => {
                report.reason = error.to_string();
                Vec::new()
            }
        };
    }
    Ok(report)
}

/// Whether a flow of this status may be switched over. A gap is no obstacle: the source does not have those records any more.
pub(crate) fn may_move(status: &FlowStatus) -> Result<(), String> {
    match status.state.as_str() {
        "active" => Ok(()),
        "degraded" => {
            let problems = status.problems.iter().map(String::as_str);
            let open: Vec<&str> = problems.filter(|problem| !problem.contains(GAPPED)).collect();
            if open.is_empty() {
                return Ok(());
            }
            Err(format!("it needs attention first: {}", open.join("; ")))
        }
        other => Err(format!("it is {other}; only an active flow can be switched over")),
    }
}
