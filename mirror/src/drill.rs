//! `drill`: a failover of a flow that runs is rehearsed beside it, and everything measured.
//!
//! ```text
//! whoever is asked:  status ─ positions ─ note that it begins ─┬─────────────────────────────┬─ report ─ note how it ended
//! each leader:                                                 └ branch ─ promote ─ look ─ drop ┘   partition by partition
//! ```
//!
//! Nothing is paused, fenced or promoted: leaders make branches of their logs (the cluster's business), and this file decides
//! what is looked for in them and what it means. No position of a group is written; where each would have ended comes from
//! what is stored and the rule of a failover ([`failover::final_position`]). The record that it would get next is looked up
//! in the branch and, where the source answers, its batch is compared with the source's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tradewind_wire::drill::{DrillNote, Found, MAX_DRILL_MS, Rehearsal, Rehearsed};
use tradewind_wire::flow::HEARTBEATS_TOPIC;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::board::{PositionFacts, PositionStatus};
use crate::drill_report::{
    DrillError, DrillReport, DrillWish, DrilledGroups, DrilledPartition, DrilledPosition, Rpo,
};
use crate::failover;
use crate::flow::Flow;
use crate::peers::{self, Answer, Ask, ask_all};
use crate::runner::{Inner, Mirror};
use crate::source::track::Health;
use crate::status::FlowStatus;
use crate::target::{CommandError, FlowState, StoredPosition, Target, View};
use crate::verify::{self, Piece};

/// How long daemons have to say where groups stand.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// What an answer may take besides the drill's own time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Positions of groups that are looked at per partition, at most; the report says so if there are more.
const MAX_POSITIONS: usize = 1_000;
/// Batches per partition that are compared with the source's, at most, and how long that may take.
const MAX_COMPARED: usize = 32;
const COMPARE_TIME: Duration = Duration::from_secs(5);

/// Asks for a partition to be rehearsed by the daemon that leads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RehearseAsk {
    pub(crate) flow: String,
    /// The topic's name here.
    pub(crate) topic: String,
    pub(crate) rehearsal: Rehearsal,
}

/// What the leader of a partition found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartitionRehearsed {
    found: Rehearsed,
    /// The source's end as it was known when the rehearsal began.
    source_end: Option<i64>,
    /// Since when something may be missing, in ms.
    behind_since_ms: Option<i64>,
    /// Per position: whether the batch of its next record is the source's, if that was compared.
    at_source: Vec<Option<bool>>,
    /// Why its records are not the source's, if it has diverged.
    #[serde(default)]
    diverged: Option<String>,
}

impl Mirror {
    /// Rehearses a failover of a flow while it goes on: see [`crate::drill_report`]. Nothing is left of it but a note in the
    /// metadata log.
    pub async fn drill(&self, flow: &str, wish: DrillWish) -> Result<DrillReport, DrillError> {
        let (inner, name) = (Arc::clone(&self.inner), flow.to_owned());
        // Whoever asked may go away in the middle; how it ended is noted all the same.
        let drilling = self.inner.tasks.spawn(async move {
            tokio::select! {
                report = run(&inner, &name, &wish) => report,
                () = inner.cancel.cancelled() => Err(DrillError::Unavailable {
                    flow: name.clone(),
                    reason: "this daemon stops".into(),
                }),
            }
        });
        drilling.await.unwrap_or_else(|error| {
            Err(DrillError::Unavailable {
                flow: flow.to_owned(),
                reason: error.to_string(),
            })
        })
    }
}

/// One partition that is to be rehearsed.
struct Planned {
    topic: String,
    id: TopicId,
    partition: i32,
    /// Whether its records count: heartbeats are mirrored, but are nobody's data.
    counts: bool,
    leader: Option<NodeId>,
    positions: Vec<Standing>,
}

/// A position of a group before the drill.
#[derive(Debug, Clone)]
struct Standing {
    group: String,
    /// What the last pass found; none if the source tells of no such position.
    facts: Option<PositionFacts>,
    /// What is stored, if the flow has written something of the group.
    stored: Option<StoredPosition>,
}

impl Standing {
    /// Where it stands before the cut is known.
    fn at(&self) -> i64 {
        match (&self.stored, &self.facts) {
            (Some(stored), _) => stored
                .mark
                .as_ref()
                .map_or(stored.offset, |mark| mark.source_offset),
            (None, Some(facts)) if facts.status == PositionStatus::OwnedHere => facts.offset,
            (None, Some(facts)) => facts.source_offset,
            (None, None) => 0,
        }
    }

    fn is_owned(&self, flow: &str) -> bool {
        match (&self.stored, &self.facts) {
            (Some(stored), _) => stored.mark.as_ref().is_none_or(|mark| mark.flow != flow),
            (None, facts) => facts
                .as_ref()
                .is_some_and(|facts| facts.status == PositionStatus::OwnedHere),
        }
    }
}

/// Positions by topic here and partition.
type Standings = BTreeMap<(String, i32), Vec<Standing>>;

async fn run(inner: &Arc<Inner>, name: &str, wish: &DrillWish) -> Result<DrillReport, DrillError> {
    let view = inner.target.view();
    let state = may_drill(&view, name, wish)?;
    if inner.flow(name).is_none() {
        return Err(DrillError::Unavailable {
            flow: name.to_owned(),
            reason: "it does not run on this daemon yet".into(),
        });
    }
    let clock = inner.target.clock();
    let (begun_ms, began) = (clock.now_ms(), clock.monotonic());
    let status = inner.status(name.to_owned(), state).await;
    let mut failures = Vec::new();
    let positions = positions(inner, name, &mut failures).await;
    let mut note = DrillNote {
        id: inner.target.new_topic_id(),
        node: inner.target.node_id(),
        begun_ms,
        index: 0,
        end: None,
    };
    let noting = clock.monotonic();
    let noted = inner.target.note_drill(name, note.clone()).await;
    noted.map_err(|error| not_begun(name, &error))?;
    let metadata = clock.monotonic().saturating_sub(noting);
    tracing::info!(flow = name, id = %note.id, "a drill begins");
    let planned = planned(&inner.target.view(), name, wish, positions, &mut failures);
    let until = began + Duration::from_millis(wish.time_ms);
    let answers = rehearse_all(inner, name, wish, &planned, until).await;
    let mut report = DrillReport {
        id: note.id.to_string(),
        flow: name.to_owned(),
        begun_ms,
        took_ms: 0,
        passed: false,
        rpo: rpo(&status, &planned, &answers, begun_ms),
        rto_ms: millis(metadata) + slowest(&planned, &answers),
        metadata_ms: millis(metadata),
        groups: DrilledGroups::default(),
        partitions: Vec::new(),
        positions: Vec::new(),
        failures,
        attention: status.problems,
    };
    for (planned, answer) in planned.iter().zip(&answers) {
        enter(&mut report, planned, answer);
    }
    report.took_ms = i64::try_from(clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(i64::MAX);
    report.passed = report.failures.is_empty();
    note.end = Some(report.end(clock.now_ms()));
    if let Err(error) = inner.target.note_drill(name, note).await {
        report
            .failures
            .push(format!("how it ended is not in the metadata log: {error}"));
        report.passed = false;
    }
    tracing::info!(
        flow = name,
        id = report.id,
        passed = report.passed,
        "a drill has ended"
    );
    Ok(report)
}

fn may_drill(view: &View, name: &str, wish: &DrillWish) -> Result<FlowState, DrillError> {
    let declared = view.flows.get(name);
    let state = declared
        .ok_or_else(|| DrillError::UnknownFlow(name.to_owned()))?
        .state;
    let refused = |reason: String| DrillError::Refused {
        flow: name.to_owned(),
        reason,
    };
    match state {
        FlowState::Active | FlowState::Paused => {}
        FlowState::SwitchingOver => return Err(refused("it is being switched over".into())),
        FlowState::FailingOver | FlowState::Promoted => {
            return Err(refused("it was failed over: there is nothing to rehearse".into()));
        }
    }
    if !(1..=MAX_DRILL_MS.unsigned_abs()).contains(&wish.time_ms) {
        return Err(refused(format!(
            "a drill takes at most {} minutes",
            MAX_DRILL_MS / 60_000
        )));
    }
    let unknown = wish.topics.iter().find(|topic| {
        let mut bound = view.topics_of(name);
        !bound.any(|(here, binding)| here.name == **topic || binding.source_topic == **topic)
    });
    match unknown {
        Some(topic) => Err(DrillError::UnknownTopic {
            flow: name.to_owned(),
            topic: topic.clone(),
        }),
        None => Ok(state),
    }
}

fn not_begun(flow: &str, error: &CommandError) -> DrillError {
    let (flow, reason) = (flow.to_owned(), error.to_string());
    match error {
        CommandError::Unavailable => DrillError::Unavailable { flow, reason },
        _ => DrillError::Refused { flow, reason },
    }
}

/// Where the groups of the flow stand, by topic and partition: as of the pass that the status has just asked for, and as stored.
async fn positions(inner: &Inner, name: &str, failures: &mut Vec<String>) -> Standings {
    let flow = name.to_owned();
    let fresh = false;
    let report = Ask::Report {
        flow: flow.clone(),
        fresh,
    };
    let stored = Ask::Stored { flow };
    let (reported, reports, kept, keepers) = tokio::join!(
        inner.report(name, fresh),
        ask_all(&inner.target, &report, REPORT_TIMEOUT),
        stored_here(&inner.target, name),
        ask_all(&inner.target, &stored, REPORT_TIMEOUT)
    );
    let (mut facts, mut kept) = (reported.groups.positions, kept);
    for (node, answer) in reports.into_iter().chain(keepers) {
        match answer {
            Ok(Answer::Report(report)) => facts.extend(report.groups.positions),
            Ok(Answer::Stored(theirs)) => kept.extend(theirs),
            Ok(_) => failures.push(format!("daemon {node} answered something else")),
            Err(error) => failures.push(format!("positions of groups are missing: {error}")),
        }
    }
    let mut all: BTreeMap<(String, i32, String), Standing> = BTreeMap::new();
    let new = |group: &str| Standing {
        group: group.to_owned(),
        facts: None,
        stored: None,
    };
    // A group whose coordinator has just moved is known to two daemons, and counts once.
    for facts in facts {
        let at = (facts.topic.clone(), facts.partition, facts.group.clone());
        let standing = all.entry(at).or_insert_with(|| new(&facts.group));
        standing.facts = Some(facts);
    }
    for (group, stored) in kept {
        let at = (stored.topic.clone(), stored.partition, group.clone());
        let standing = all.entry(at).or_insert_with(|| new(&group));
        standing.stored = Some(stored);
    }
    let mut by_partition = Standings::new();
    for ((topic, partition, _), standing) in all {
        by_partition.entry((topic, partition)).or_default().push(standing);
    }
    by_partition
}

/// What is stored of the groups coordinated here of which the flow has written something, as far as it is the flow's topics.
pub(crate) async fn stored_here(target: &Arc<dyn Target>, flow: &str) -> Vec<(String, StoredPosition)> {
    let view = target.view();
    let ours: BTreeSet<&str> = view
        .topics_of(flow)
        .map(|(topic, _)| topic.name.as_str())
        .collect();
    let mut all = Vec::new();
    for group in target.mirrored_groups(flow).await {
        let stored = target.group_positions(&group).await.unwrap_or_default();
        let stored = stored
            .into_iter()
            .filter(|stored| ours.contains(stored.topic.as_str()));
        all.extend(stored.map(|stored| (group.clone(), stored)));
    }
    all
}

fn planned(
    view: &View,
    name: &str,
    wish: &DrillWish,
    mut by_partition: Standings,
    failures: &mut Vec<String>,
) -> Vec<Planned> {
    let mut all = Vec::new();
    for (topic, binding) in view.topics_of(name) {
        let wanted = |wanted: &String| *wanted == topic.name || *wanted == binding.source_topic;
        if !wish.topics.is_empty() && !wish.topics.iter().any(wanted) {
            continue;
        }
        for (number, partition) in (0..).zip(&topic.partitions) {
            let at = (topic.name.clone(), number);
            let mut positions = by_partition.remove(&at).unwrap_or_default();
            if positions.len() > MAX_POSITIONS {
                failures.push(format!(
                    "{}/{number}: only {MAX_POSITIONS} of {} positions are looked at",
                    topic.name,
                    positions.len()
                ));
                positions.truncate(MAX_POSITIONS);
            }
            all.push(Planned {
                topic: topic.name.clone(),
                id: topic.id,
                partition: number,
                counts: binding.source_topic != HEARTBEATS_TOPIC,
                leader: partition.leader,
                positions,
            });
        }
    }
    if wish.topics.is_empty() {
        for ((topic, partition), standings) in by_partition {
            let of = |standing: &Standing| {
                format!(
                    "group {} stands on {topic}/{partition}, which is not here",
                    standing.group
                )
            };
            failures.extend(standings.iter().map(of));
        }
    }
    all
}

type Answered = Result<PartitionRehearsed, String>;

/// Has every leader rehearse its partitions, one after the other; all leaders at once. Answers in the order of the plan.
async fn rehearse_all(
    inner: &Arc<Inner>,
    flow: &str,
    wish: &DrillWish,
    planned: &[Planned],
    until: Duration,
) -> Vec<Answered> {
    let leaders: BTreeSet<NodeId> = planned.iter().filter_map(|planned| planned.leader).collect();
    let each = leaders.into_iter().map(|leader| async move {
        let mut answers = Vec::new();
        for (i, planned) in planned.iter().enumerate() {
            if planned.leader == Some(leader) {
                answers.push((i, rehearse_at(inner, flow, wish, planned, leader, until).await));
            }
        }
        answers
    });
    let mut answers: BTreeMap<usize, Answered> = join_all(each).await.into_iter().flatten().collect();
    let nobody = || Err("nobody leads it here".to_owned());
    (0..planned.len())
        .map(|i| answers.remove(&i).unwrap_or_else(nobody))
        .collect()
}

async fn rehearse_at(
    inner: &Arc<Inner>,
    flow: &str,
    wish: &DrillWish,
    planned: &Planned,
    leader: NodeId,
    until: Duration,
) -> Answered {
    let left = until.saturating_sub(inner.target.clock().monotonic());
    if left.is_zero() {
        return Err("no time was left for it".into());
    }
    let ask = RehearseAsk {
        flow: flow.to_owned(),
        topic: planned.topic.clone(),
        rehearsal: Rehearsal {
            topic: planned.id,
            partition: planned.partition,
            copy_bytes: wish.copy_bytes,
            check_bytes: wish.check_bytes,
            time_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            positions: planned.positions.iter().map(Standing::at).collect(),
        },
    };
    let rehearsed = if leader == inner.target.node_id() {
        rehearse(inner.flow(flow), &ask).await?
    } else {
        let ask = Ask::Rehearse(ask).encode(&[]);
        match peers::ask(inner.target.as_ref(), leader, ask, left + ANSWER_TIMEOUT).await {
            Ok(Answer::Rehearsed(rehearsed)) => *rehearsed,
            Ok(Answer::Refused(reason)) => return Err(reason),
            Ok(_) => return Err("an answer to something else".into()),
            Err(error) => return Err(error.to_string()),
        }
    };
    let positions = planned.positions.len();
    if rehearsed.found.positions.len() != positions || rehearsed.at_source.len() != positions {
        return Err(format!("daemon {leader} answered for other positions"));
    }
    Ok(rehearsed)
}

/// Rehearses a partition led here.
pub(crate) async fn rehearse(flow: Option<Arc<Flow>>, ask: &RehearseAsk) -> Answered {
    let flow = flow.ok_or("the flow does not run on this daemon")?;
    let partitions = flow.board.partitions();
    let here = partitions
        .iter()
        .find(|(here, _)| here.name == ask.topic && here.partition == ask.rehearsal.partition);
    let facts = here.map(|(_, facts)| facts);
    let source_end = facts.and_then(|facts| facts.ends).map(|ends| ends.high_watermark);
    let behind_since_ms = facts.map(|facts| facts.behind_since_ms);
    let diverged = facts.filter(|facts| facts.health == Health::Diverged);
    let diverged = diverged.map(|facts| facts.reason.clone().unwrap_or_default());
    let found = flow.target.rehearse(ask.rehearsal.clone()).await?;
    let at_source = compare(&flow, ask, &found.positions).await;
    Ok(PartitionRehearsed {
        found,
        source_end,
        behind_since_ms,
        at_source,
        diverged,
    })
}

/// Compares the batches of the records that groups would get next with the source's. What cannot be compared is no fault.
async fn compare(flow: &Flow, ask: &RehearseAsk, positions: &[Found]) -> Vec<Option<bool>> {
    let batches: BTreeSet<(i64, i64, u64)> = positions.iter().filter_map(|found| found.batch).collect();
    let mut same = BTreeMap::new();
    let comparing = async {
        let piece = Piece {
            flow: flow.name.clone(),
            topic: ask.topic.clone(),
            partition: ask.rehearsal.partition,
            from: 0,
            to: 0,
            first: false,
        };
        // Compaction rewrites batches on either side by itself.
        if batches.is_empty() || flow.target.is_compacted(ask.rehearsal.topic) {
            return;
        }
        let Ok(pair) = verify::pair(flow, &piece).await else {
            return;
        };
        for batch in batches.iter().take(MAX_COMPARED) {
            let (base, next, digest) = *batch;
            let there = flow
                .source
                .audit(pair.leader, &pair.source, vec![base, next], true)
                .await;
            let Ok(there) = there else { return };
            let kept = there.log_start <= base && there.complete_to >= next;
            if !kept || there.compacted_to.is_some_and(|to| to > base) {
                continue;
            }
            let is_there = |item: &tradewind_wire::audit::AuditItem| {
                (item.base, item.next, item.digest) == (base, next, digest)
            };
            same.insert(*batch, there.items.iter().any(is_there));
        }
    };
    // What was compared until then counts.
    let _ = tokio::time::timeout(COMPARE_TIME, comparing).await;
    let of = |found: &Found| found.batch.and_then(|batch| same.get(&batch).copied());
    positions.iter().map(of).collect()
}

/// What would have been lost, as far as the leaders knew.
fn rpo(status: &FlowStatus, planned: &[Planned], answers: &[Answered], now_ms: i64) -> Rpo {
    let mut records = Some(0i64);
    let mut since_ms = now_ms;
    for (planned, answer) in planned.iter().zip(answers) {
        let Ok(answer) = answer else {
            records = None;
            continue;
        };
        if !planned.counts {
            continue;
        }
        let lost = lost(answer);
        records = records.zip(lost).map(|(sum, lost)| sum.saturating_add(lost));
        if lost != Some(0) {
            since_ms = since_ms.min(answer.behind_since_ms.unwrap_or(now_ms));
        }
    }
    let behind = (now_ms - since_ms).max(0) as f64 / 1_000.0;
    let unreachable = status.state == "source-unreachable" || status.state == "paused";
    Rpo {
        records,
        // Nobody knows what a source has written that is not looked at.
        seconds: match records {
            _ if unreachable => status.lag_seconds.map(|lag| lag.max(behind)),
            Some(_) => Some(behind),
            None => status.lag_seconds,
        },
    }
}

fn lost(answer: &PartitionRehearsed) -> Option<i64> {
    answer.source_end.map(|end| (end - answer.found.cut).max(0))
}

/// The milliseconds that the slowest leader took until the last of its partitions had taken a record.
fn slowest(planned: &[Planned], answers: &[Answered]) -> f64 {
    let mut by_leader: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (planned, answer) in planned.iter().zip(answers) {
        if let (Some(leader), Ok(answer)) = (planned.leader, answer) {
            *by_leader.entry(leader).or_default() += writable_micros(&answer.found);
        }
    }
    by_leader.into_values().max().unwrap_or(0) as f64 / 1_000.0
}

/// Everything up to the first record that a client could have written.
fn writable_micros(found: &Rehearsed) -> u64 {
    let until = |step: &&tradewind_wire::drill::Timed| {
        ["branch", "open", "promote", "canary"].contains(&step.step.as_str())
    };
    found.steps.iter().filter(until).map(|step| step.micros).sum()
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

/// Enters what came of a partition into the report.
fn enter(report: &mut DrillReport, planned: &Planned, answer: &Answered) {
    let of = format!("{}/{}", planned.topic, planned.partition);
    let mut line = DrilledPartition {
        topic: planned.topic.clone(),
        partition: planned.partition,
        node: planned.leader,
        cut: None,
        lost_records: None,
        stable: None,
        canary: None,
        linked_bytes: 0,
        copied_bytes: 0,
        steps: Vec::new(),
        checksum: None,
    };
    match answer {
        Err(reason) => report.failures.push(format!("{of} was not rehearsed: {reason}")),
        Ok(answer) => {
            let found = &answer.found;
            line.cut = Some(found.cut);
            line.lost_records = lost(answer);
            line.stable = Some(found.stable);
            line.canary = found.canary;
            line.linked_bytes = found.linked_bytes;
            line.copied_bytes = found.copied_bytes;
            line.steps.clone_from(&found.steps);
            line.checksum.clone_from(&found.checksum);
            let told = found.failures.iter().map(|reason| format!("{of}: {reason}"));
            report.failures.extend(told);
        }
    }
    report.partitions.push(line);
    for (i, standing) in planned.positions.iter().enumerate() {
        let position = judged(
            &report.flow,
            planned,
            standing,
            answer.as_ref().ok().map(|answer| (answer, i)),
        );
        report.groups.total += 1;
        report.groups.exact += u64::from(position.status == "exact");
        report.groups.compared += u64::from(position.at_source == Some(true));
        if let Some(problem) = &position.problem {
            report
                .failures
                .push(format!("group {} on {of}: {problem}", position.group));
        }
        report.positions.push(position);
    }
}

/// What a position would have come to; `answer` with its place in it.
fn judged(
    flow: &str,
    planned: &Planned,
    standing: &Standing,
    answer: Option<(&PartitionRehearsed, usize)>,
) -> DrilledPosition {
    let found = answer.and_then(|(answer, i)| answer.found.positions.get(i));
    let at_source = answer.and_then(|(answer, i)| answer.at_source.get(i).copied().flatten());
    let mut position = DrilledPosition {
        group: standing.group.clone(),
        topic: planned.topic.clone(),
        partition: planned.partition,
        offset: found.map_or(-1, |found| found.offset),
        status: "failed".to_owned(),
        record: found.and_then(|found| found.record),
        at_source,
        problem: None,
    };
    match came_to(flow, standing, answer.map(|(answer, _)| answer), found, at_source) {
        Ok((offset, status)) => {
            position.offset = offset;
            position.status = status;
        }
        Err(problem) => position.problem = Some(problem),
    }
    position
}

/// Where a position would have stood for good, and its status; or why not.
fn came_to(
    flow: &str,
    standing: &Standing,
    answer: Option<&PartitionRehearsed>,
    found: Option<&Found>,
    at_source: Option<bool>,
) -> Result<(i64, String), String> {
    let (Some(answer), Some(found)) = (answer, found) else {
        return Err("its partition was not rehearsed".to_owned());
    };
    let owned = standing.is_owned(flow);
    let seen = standing.facts.as_ref();
    if !owned && let Some(reason) = &answer.diverged {
        return Err(format!(
            "the partition has diverged ({reason}): the source's positions are none here"
        ));
    }
    if !owned && seen.is_some_and(|facts| facts.status == PositionStatus::Unmapped) {
        let reason = "where it stands at the source is nowhere here: the topic was created again there, or the partition has \
                      diverged or is missing";
        return Err(reason.to_owned());
    }
    let own = |found: &Found| match &found.problem {
        Some(problem) => Err(problem.clone()),
        None => Ok((found.offset, "owned-here".to_owned())),
    };
    let last = match &standing.stored {
        Some(stored) => failover::final_position(flow, &standing.group, stored, answer.found.cut).report(),
        // A failover leaves alone what is its own, and finishes only what is stored.
        None if owned => return own(found),
        None => return Err("no position is stored here yet: it would begin anew".to_owned()),
    };
    if at_source == Some(false) && !owned {
        return Err("the batch of its next record is not the source's".to_owned());
    }
    if let Some(problem) = &found.problem {
        return Err(problem.clone());
    }
    let source_offset = standing.stored.as_ref().and_then(|stored| stored.mark.as_ref());
    let outdated = seen.is_some_and(|facts| {
        facts.status == PositionStatus::Pending
            && source_offset.is_some_and(|mark| mark.source_offset != facts.source_offset)
    });
    let status = if outdated && !owned {
        "pending".to_owned()
    } else {
        last.status
    };
    Ok((last.offset, status))
}

#[cfg(test)]
#[path = "drill_tests.rs"]
mod tests;
