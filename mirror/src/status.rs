//! What is told to the outside about flows: the JSON of `mirror status` and `failover`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tradewind_wire::failback::Failback;
use tradewind_wire::flow::Pause;
use tradewind_wire::ids::TopicId;
use tradewind_wire::region::Switchover;

use crate::board::{GroupsFacts, Observation, PositionStatus};
use crate::drill_report::DrillLine;
use crate::failback_report::FailbackLine;
use crate::switchover_report::SwitchoverLine;
use crate::target::{FlowState, View};

/// One line of `mirror status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// `source->target`.
    pub flow: String,
    /// `starting`, `active`, `degraded` (see `problems`), `source-unreachable`, `paused`, `switching-over`, `failing-over`,
    /// `promoted`; `removed` while mirror topics of it are left.
    pub state: String,
    /// Records that the source has and this cluster has not, over all matching partitions; null until the source's
    /// current metadata are known.
    pub lag_records: Option<i64>,
    /// For how long something has been behind, in seconds: zero when nothing is, null while `lag_records` is. While the
    /// source is unreachable at least the time since it was last seen, since nobody knows what it has written.
    pub lag_seconds: Option<f64>,
    /// Topics that match the flow at the source.
    pub topics: usize,
    /// Group positions.
    pub groups: GroupCounts,
    /// What needs attention, one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What is as it should be and may still surprise, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What an operator has stand still.
    #[serde(default)]
    pub paused: Vec<Paused>,
    /// The last switchover, unless it is long done: while something of it is open, or it was given up.
    #[serde(default)]
    pub switchover: Option<SwitchoverLine>,
    /// Whether the lost source of a failed-over flow has given way, and how far its way back is.
    #[serde(default)]
    pub failback: Option<FailbackLine>,
    /// The last drill.
    #[serde(default)]
    pub drill: Option<DrillLine>,
}

impl FlowStatus {
    /// Of a flow that was removed and has left these mirror topics.
    pub(crate) fn removed(flow: &str, topics: &[String]) -> Self {
        let note = format!(
            "removed; its mirror topics stay, read-only: {}",
            topics.join(", ")
        );
        Self {
            flow: flow.to_owned(),
            state: "removed".to_owned(),
            lag_records: None,
            lag_seconds: None,
            topics: topics.len(),
            groups: GroupCounts::default(),
            problems: Vec::new(),
            notes: vec![note],
            paused: Vec::new(),
            switchover: None,
            failback: None,
            drill: None,
        }
    }
}

/// A flow, or a topic of one, that an operator has stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The topic's name here; null if it is the whole flow.
    pub topic: Option<String>,
    /// Since when, in ms since the epoch.
    pub since_ms: i64,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
}

/// What of `flow` stands still, or did when it was failed over.
pub fn paused(view: &View, flow: &str) -> Vec<Paused> {
    let told = |topic: Option<&str>, pause: &Pause| Paused {
        topic: topic.map(str::to_owned),
        since_ms: pause.since_ms,
        reason: pause.reason.clone(),
    };
    let whole = view.flows.get(flow).and_then(|flow| flow.paused.as_ref());
    let topics = view.topics_of(flow).filter_map(|(topic, _)| {
        let pause = topic.paused.as_ref()?;
        Some(told(Some(&topic.name), pause))
    });
    let whole = whole.map(|pause| told(None, pause));
    whole.into_iter().chain(topics).collect()
}

/// Group positions of a flow, counted per group and partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// Those that stand here exactly where they stand at the source.
    pub exact: usize,
    /// Those with a commit at the source on a mirrored topic.
    pub total: usize,
}

/// What a failover did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// `source->target`.
    pub flow: String,
    /// Every topic that was promoted.
    pub topics: Vec<PromotedTopic>,
    /// Every group position that the flow knew of.
    pub groups: Vec<PromotedPosition>,
    /// What stood still when it was failed over: there the source may have more than was ever known here.
    #[serde(default)]
    pub paused: Vec<Paused>,
    /// Transactions that were open at the cut, and were aborted: nobody was left to end them.
    #[serde(default)]
    pub aborted: Vec<AbortedTransaction>,
    /// Partitions of which nobody says yet whether a transaction was open at their cut: they have no leader, or too few copies
    /// in sync. The rest of the report is whole; their next leader ends what is open.
    #[serde(default)]
    pub unanswered: Vec<UnansweredPartition>,
}

/// A partition that nobody has answered for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnansweredPartition {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// A transaction that a failover aborted. Its records stay, but readers of committed records do not get them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AbortedTransaction {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Its first record.
    pub first_offset: i64,
    /// Its producer's id at the source.
    pub producer_id: i64,
    /// Where its abort marker is, at or above the cut.
    pub marker: i64,
}

/// A topic that belongs to this cluster now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotedTopic {
    /// Its name here.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<PromotedPartition>,
}

/// Where a partition was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotedPartition {
    /// The partition.
    pub partition: i32,
    /// The first offset that clients write here.
    pub cut: i64,
    /// Records known at the source that are not here; null if the source's end was never seen.
    pub lost_records: Option<i64>,
}

/// Where a group stands after a failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotedPosition {
    /// The group.
    pub group: String,
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where the group goes on; what OffsetFetch answers.
    pub offset: i64,
    /// `exact`, `cut` (the group had read further at the source; it goes on at the cut), `owned-here`, `pending`.
    pub status: String,
}

/// Why a failover did not finish. Repeating it continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailoverError {
    /// No such flow.
    #[error("no flow `{0}` into this cluster")]
    UnknownFlow(String),
    /// The metadata log refused a step.
    #[error("flow `{flow}`: {reason}")]
    Refused {
        /// The flow.
        flow: String,
        /// What was refused and why.
        reason: String,
    },
    /// Some partitions have no cut yet.
    #[error("flow `{flow}`: {open} partitions are not cut yet, the first is {first}; repeat the command")]
    NotFinished {
        /// The flow.
        flow: String,
        /// How many.
        open: usize,
        /// One of them.
        first: String,
    },
}

/// What one daemon knows of a flow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DaemonReport {
    /// The partitions of the flow's topics that it leads.
    pub partitions: Vec<PartitionReport>,
    /// The groups that it coordinates.
    pub groups: GroupsFacts,
    /// Its newest complete look at the source.
    pub observation: Option<Observation>,
    /// What needs attention.
    pub problems: Vec<String>,
    /// What does not.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A mirror partition as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// The topic's name here.
    pub topic: String,
    /// Its id here.
    #[serde(default)]
    pub id: TopicId,
    /// The partition.
    pub partition: i32,
    /// Its high watermark here.
    pub high_watermark: i64,
    /// The source's high watermark as its link last heard it.
    pub source_end: Option<i64>,
    /// Since when something may be missing, in ms.
    pub behind_since_ms: Option<i64>,
    /// Whether the source has another history.
    #[serde(default)]
    pub diverged: bool,
}

/// What is known of a flow when its status is asked for.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The newest complete look at the source, by anyone.
    pub observation: Option<Observation>,
    /// Why the source could not be looked at just now, if so.
    pub unreachable: Option<String>,
    /// What the daemons answered.
    pub reports: Vec<DaemonReport>,
    /// High watermarks here as last heard, for partitions that nobody reports on just now.
    pub last_known: BTreeMap<(String, i32), i64>,
    /// Other complaints.
    pub problems: Vec<String>,
    /// What stands still.
    pub paused: Vec<Paused>,
    /// Its last switchover.
    pub switchover: Option<Switchover>,
    /// What is known of its source since a failover.
    pub failback: Option<Failback>,
    /// Its last drill.
    pub drill: Option<DrillLine>,
}

/// Why a flow was not paused or resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PauseError {
    /// No such flow.
    #[error("no flow `{0}` into this cluster: `mirror status` names them")]
    UnknownFlow(String),
    /// It has no such topic.
    #[error("flow `{flow}` writes no topic `{topic}` here")]
    UnknownTopic {
        /// The flow.
        flow: String,
        /// The name that was given.
        topic: String,
    },
    /// The flow is failing over or promoted: it copies nothing that could be paused.
    #[error("flow `{0}` was failed over: it copies nothing any more")]
    FailedOver(String),
    /// The metadata log refused it.
    #[error("flow `{flow}`: {reason}")]
    Refused {
        /// The flow.
        flow: String,
        /// Why.
        reason: String,
    },
    /// The metadata log did not answer; it may or may not have taken effect.
    #[error("flow `{0}`: no answer from the controller; repeat the command")]
    Unavailable(String),
}

/// What is said of a topic that waits for the source's word.
pub(crate) fn awaits(topic: &str) -> String {
    format!("{topic}: the source has not said yet whether it is a mirror; it is copied when that is known")
}

/// Puts together the status of one flow.
pub fn flow_status(flow: &str, state: FlowState, known: &Known, now_ms: i64) -> FlowStatus {
    let lag = known
        .observation
        .as_ref()
        .map(|observation| lag(observation, known, now_ms));
    let mut problems: Vec<String> = known
        .reports
        .iter()
        .flat_map(|report| &report.problems)
        .chain(&known.problems)
        .cloned()
        .collect();
    problems.extend(unattended(&known.reports));
    let awaited = known.observation.iter().flat_map(|seen| &seen.awaited);
    problems.extend(awaited.map(|topic| awaits(topic)));
    problems.extend(known.unreachable.clone());
    problems.sort();
    problems.dedup();
    let mut notes: Vec<String> = known
        .reports
        .iter()
        .flat_map(|report| report.notes.iter().cloned())
        .collect();
    notes.sort();
    notes.dedup();
    let state = match state {
        FlowState::Paused => "paused",
        FlowState::SwitchingOver => "switching-over",
        FlowState::FailingOver => "failing-over",
        FlowState::Promoted => "promoted",
        FlowState::Active if known.unreachable.is_some() => "source-unreachable",
        FlowState::Active if known.observation.is_none() => "starting",
        FlowState::Active if !problems.is_empty() => "degraded",
        FlowState::Active => "active",
    };
    FlowStatus {
        flow: flow.to_owned(),
        state: state.to_owned(),
        lag_records: lag.as_ref().map(|lag| lag.records),
        lag_seconds: lag.as_ref().map(|lag| lag.seconds),
        topics: known
            .observation
            .as_ref()
            .map_or(0, |observation| observation.topics),
        groups: group_counts(&known.reports),
        problems,
        notes,
        paused: known.paused.clone(),
        switchover: known.switchover.as_ref().and_then(SwitchoverLine::of),
        failback: known.failback.as_ref().map(FailbackLine::of),
        drill: known.drill.clone(),
    }
}

/// A group of the source that no daemon looked after is missing in the counts: its coordinator is moving, or the source
/// keeps its positions to itself.
fn unattended(reports: &[DaemonReport]) -> Vec<String> {
    let all = |which: fn(&GroupsFacts) -> &Vec<String>| -> BTreeSet<&str> {
        reports
            .iter()
            .flat_map(|report| which(&report.groups))
            .map(String::as_str)
            .collect()
    };
    let done = all(|groups| &groups.done);
    let untold: BTreeMap<&str, &str> = reports
        .iter()
        .flat_map(|report| &report.groups.untold)
        .map(|(group, reason)| (group.as_str(), reason.as_str()))
        .collect();
    let missing = all(|groups| &groups.seen)
        .into_iter()
        .filter(|group| !done.contains(group));
    let said = |group: &str| match untold.get(group) {
        Some(reason) => format!(
            "group {group}: the source does not tell its positions ({reason}); let the flow's user describe the group there"
        ),
        None => format!("group {group} has no coordinator here at present"),
    };
    missing.map(said).collect()
}

struct Lag {
    records: i64,
    seconds: f64,
}

fn lag(observation: &Observation, known: &Known, now_ms: i64) -> Lag {
    let here: BTreeMap<(&str, i32), &PartitionReport> = known
        .reports
        .iter()
        .flat_map(|report| &report.partitions)
        .map(|partition| ((partition.topic.as_str(), partition.partition), partition))
        .collect();
    let mut records = 0i64;
    let mut since_ms = now_ms;
    for observed in &observation.partitions {
        // Of another topic of the same name nothing is here.
        let report = here.get(&(observed.here.as_str(), observed.partition)).copied();
        let report = report.filter(|_| !observed.another);
        let last_known = || {
            known
                .last_known
                .get(&(observed.here.clone(), observed.partition))
                .copied()
                .filter(|_| !observed.another)
        };
        let have = report
            .map(|report| report.high_watermark)
            .or_else(last_known)
            .unwrap_or(0);
        let heard = report.and_then(|report| report.source_end).unwrap_or(0);
        // What the source no longer has cannot be copied any more and is not lag.
        let behind = observed.high_watermark.max(heard) - have.max(observed.start);
        if behind > 0 {
            records = records.saturating_add(behind);
            let seen = report.and_then(|report| report.behind_since_ms);
            // What is paused is not looked at: it may be behind since then.
            let stands = known.paused.iter().filter(|paused| {
                let topic = paused.topic.as_ref();
                topic.is_none_or(|topic| *topic == observed.here)
            });
            let since = stands.map(|paused| paused.since_ms).chain(seen).min();
            since_ms = since_ms.min(since.unwrap_or(observation.at_ms));
        }
    }
    if known.unreachable.is_some() {
        since_ms = since_ms.min(observation.at_ms);
    }
    Lag {
        records,
        seconds: (now_ms - since_ms).max(0) as f64 / 1_000.0,
    }
}

fn group_counts(reports: &[DaemonReport]) -> GroupCounts {
    let partitions = reports.iter().flat_map(|report| &report.partitions);
    let diverged: BTreeSet<(&str, i32)> = partitions
        .filter(|partition| partition.diverged)
        .map(|partition| (partition.topic.as_str(), partition.partition))
        .collect();
    let positions: BTreeMap<(&str, &str, i32), PositionStatus> = reports
        .iter()
        .flat_map(|report| &report.groups.positions)
        .map(|facts| {
            (
                (facts.group.as_str(), facts.topic.as_str(), facts.partition),
                facts.status,
            )
        })
        .collect();
    GroupCounts {
        exact: positions
            .iter()
            .filter(|((_, topic, partition), status)| {
                **status == PositionStatus::Exact && !diverged.contains(&(*topic, *partition))
            })
            .count(),
        total: positions.len(),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
