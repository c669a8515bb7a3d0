//! What is told to the outside about drills: the JSON of `drill`, and of the last one in `mirror status`.

use serde::{Deserialize, Serialize};
use tradewind_wire::drill::{Checksum, DrillEnd, DrillNote, MAX_DRILL_TEXT, Timed};

use crate::target::View;

/// What a drill is to do, and what it may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillWish {
    /// Only these topics, by their names here or at the source; all without any.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Bytes that may be copied per partition.
    pub copy_bytes: u64,
    /// Bytes per partition whose digests are compared with the log's.
    pub check_bytes: u64,
    /// How long it may take, in ms: partitions whose turn has not come by then are not rehearsed. At most
    /// [`MAX_DRILL_MS`](tradewind_wire::drill::MAX_DRILL_MS).
    pub time_ms: u64,
}

impl Default for DrillWish {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            copy_bytes: 2 << 30,
            check_bytes: 64 << 20,
            time_ms: 60_000,
        }
    }
}

/// What a drill came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Drawn for this drill.
    pub id: String,
    /// `source->target`.
    pub flow: String,
    /// When it began, in ms since the epoch.
    pub begun_ms: i64,
    /// How long all of it took, in ms.
    pub took_ms: i64,
    /// Whether all was as it should be: `failures` is empty.
    pub passed: bool,
    /// What would have been lost.
    pub rpo: Rpo,
    /// How long until clients could have written everywhere, in ms: an entry of the metadata log, and what the slowest daemon
    /// took for its partitions up to their first records.
    pub rto_ms: f64,
    /// How long the entry of the metadata log took, in ms.
    pub metadata_ms: f64,
    /// Positions of groups, counted.
    pub groups: DrilledGroups,
    /// Every partition that was to be rehearsed.
    pub partitions: Vec<DrilledPartition>,
    /// Every position of a group on them.
    pub positions: Vec<DrilledPosition>,
    /// What was not as it should be.
    pub failures: Vec<String>,
    /// What `mirror status` said needs attention.
    pub attention: Vec<String>,
}

/// What would have been lost had the source gone when the drill began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rpo {
    /// Records that the source was known to have above the cuts; null where its end was never seen.
    pub records: Option<i64>,
    /// For how long something had been behind, in seconds. While the source is unreachable at least that long.
    pub seconds: Option<f64>,
}

/// Positions of groups, counted per group and partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledGroups {
    /// Those that would have gone on with the very record.
    pub exact: u64,
    /// Those whose next record was compared with the source's batch, and is the same.
    pub compared: u64,
    /// All of them.
    pub total: u64,
}

/// One partition of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrilledPartition {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The daemon that leads it; null if none does.
    pub node: Option<i32>,
    /// Where it would have been cut; null if it was not rehearsed.
    pub cut: Option<i64>,
    /// Records that the source was known to have above the cut; null if unknown.
    pub lost_records: Option<i64>,
    /// Below this consumers of committed records would have got everything; below the cut if a transaction was open.
    pub stable: Option<i64>,
    /// The offset of the first record that was written as a client would have.
    pub canary: Option<i64>,
    /// Bytes shared with the log.
    pub linked_bytes: u64,
    /// Bytes copied.
    pub copied_bytes: u64,
    /// What took how long.
    pub steps: Vec<Timed>,
    /// The digest of the newest part of it, of `check_bytes` at most.
    pub checksum: Option<Checksum>,
}

/// One position of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledPosition {
    /// The group.
    pub group: String,
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where it would have gone on.
    pub offset: i64,
    /// As a failover would say: `exact`, `cut` (it had read further at the source), `owned-here`. `pending` if the source has
    /// another position by now, which could not be written here: it would have gone on with the one that is stored. Or `failed`:
    /// see `problem`.
    pub status: String,
    /// The record that it would have got first.
    pub record: Option<i64>,
    /// Whether that record's batch is the source's; null if that was not compared.
    pub at_source: Option<bool>,
    /// Why it would not have gone on as it should.
    pub problem: Option<String>,
}

impl DrillReport {
    /// What the metadata log keeps of it.
    pub(crate) fn end(&self, at_ms: i64) -> DrillEnd {
        let failure = self.failures.first().map(|text| {
            let mut text = text.clone();
            while text.len() > MAX_DRILL_TEXT {
                text.pop();
            }
            text
        });
        DrillEnd {
            at_ms,
            passed: self.passed,
            rpo_records: self.rpo.records,
            rpo_ms: self.rpo.seconds.map(|seconds| (seconds * 1_000.0) as i64),
            rto_ms: self.rto_ms.ceil() as i64,
            groups: (self.groups.exact, self.groups.total),
            partitions: self.partitions.len() as u64,
            failure,
        }
    }
}

/// The last drill, in a line of `mirror status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillLine {
    /// When it began, in ms since the epoch.
    pub begun_ms: i64,
    /// How long ago that is, in seconds.
    pub age_seconds: i64,
    /// `running`, `passed`, `failed`, or `cut-short`: the daemon did not live to tell.
    pub verdict: String,
    /// Records that would have been lost; null if unknown.
    pub rpo_records: Option<i64>,
    /// For how long something had been behind, in seconds.
    pub rpo_seconds: Option<f64>,
    /// How long until clients could have written, in seconds.
    pub rto_seconds: Option<f64>,
    /// Group positions that were exact, and all.
    pub groups: Option<(u64, u64)>,
    /// The first thing that was not as it should be.
    pub failure: Option<String>,
}

impl DrillLine {
    /// The line of a flow's last drill, as of now; none before the first.
    pub(crate) fn last(view: &View, flow: &str, now_ms: i64) -> Option<Self> {
        let note = view.flows.get(flow)?.drills.last()?;
        Some(Self::of(note, view.sessions.get(&note.node).copied(), now_ms))
    }

    /// The line of a drill, as of now; `session` as in [`DrillNote::runs`].
    pub(crate) fn of(note: &DrillNote, session: Option<u64>, now_ms: i64) -> Self {
        let age_ms = now_ms.saturating_sub(note.begun_ms).max(0);
        let end = note.end.as_ref();
        let verdict = match end {
            Some(end) if end.passed => "passed",
            Some(_) => "failed",
            None if note.runs(session, now_ms) => "running",
            None => "cut-short",
        };
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        Self {
            begun_ms: note.begun_ms,
            age_seconds: age_ms / 1_000,
            verdict: verdict.to_owned(),
            rpo_records: end.and_then(|end| end.rpo_records),
            rpo_seconds: end.and_then(|end| end.rpo_ms).map(seconds),
            rto_seconds: end.map(|end| seconds(end.rto_ms)),
            groups: end.map(|end| end.groups),
            failure: end.and_then(|end| end.failure.clone()),
        }
    }
}

/// Why a flow was not drilled. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrillError {
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
    /// It cannot be now.
    #[error("flow `{flow}`: {reason}")]
    Refused {
        /// The flow.
        flow: String,
        /// Why.
        reason: String,
    },
    /// The metadata log did not answer, or the daemon stops.
    #[error("flow `{flow}`: {reason}")]
    Unavailable {
        /// The flow.
        flow: String,
        /// What is missing.
        reason: String,
    },
}
