//! Drills: the words in which a failover is rehearsed, shared by the mirror, the logs and the metadata log.
//!
//! A drill changes nothing that anybody could see: each leader makes a branch of its log, promotes the branch, looks at it
//! and drops it. What the metadata log keeps of it is a [`DrillNote`].

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, TopicId};

/// How many drills of a flow are remembered: the newest.
pub const MAX_DRILLS: usize = 10;
/// How long a drill may take, at most, in ms. One that never ended stands in nobody's way after that.
pub const MAX_DRILL_MS: i64 = 600_000;
/// How long the sentence may be that is remembered of a drill that failed, in bytes.
pub const MAX_DRILL_TEXT: usize = 500;

/// What is to be rehearsed of one partition, by the daemon that leads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The topic's id.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// Bytes that may be copied.
    pub copy_bytes: u64,
    /// Bytes whose digests are compared with the log's: of the newest whole batches, at least one unless it is zero.
    pub check_bytes: u64,
    /// How long it may take, in ms: waiting for its turn, making and opening the branch, and comparing.
    pub time_ms: u64,
    /// Where groups stand, as offsets of the source. What the branch does not reach means its end, as in a failover.
    pub positions: Vec<i64>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Where the partition would have been cut: its high watermark.
    pub cut: i64,
    /// The first offset that is kept.
    pub log_start: i64,
    /// Below this a consumer of committed records would have got everything; the cut, unless a transaction was open.
    pub stable: i64,
    /// The leader epoch under which the branch was written.
    pub leader_epoch: i32,
    /// Segments shared with the log.
    pub linked_segments: u64,
    /// Their bytes.
    pub linked_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// What took how long, in the order in which it was done.
    pub steps: Vec<Timed>,
    /// The offset of the first record that was written as a client would have.
    pub canary: Option<i64>,
    /// The digest of what the branch held below the cut.
    pub checksum: Option<Checksum>,
    /// What a group would have read next, per position that was asked for.
    pub positions: Vec<Found>,
    /// What was not as it should be.
    pub failures: Vec<String>,
}

/// How long a step took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// `branch`, `open`, `promote`, `canary`, `positions`, `checksum`, `drop`.
    pub step: String,
    /// In microseconds.
    pub micros: u64,
}

/// A digest of some offsets of a branch ([`crate::audit`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
    /// How many batches.
    pub batches: u32,
    /// Their bytes.
    pub bytes: u64,
    /// 64-bit FNV-1a, in hexadecimal.
    pub digest: String,
    /// Whether the log has the same there; null if it has removed or may have rewritten some of it meanwhile, and if there was
    /// nothing to compare.
    pub same: Option<bool>,
}

/// What a group would have read next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Where it would have gone on.
    pub offset: i64,
    /// The offset of the record that it would have got first: the first new one, if it stands at the cut.
    pub record: Option<i64>,
    /// The batch with that record, if it came from the source: base offset, offset after it, digest.
    pub batch: Option<(i64, i64, u64)>,
    /// Why it could not have gone on.
    pub problem: Option<String>,
}

/// What the metadata log keeps of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillNote {
    /// Drawn for this drill.
    pub id: TopicId,
    /// The daemon that was asked.
    pub node: NodeId,
    /// When it began, in ms since the epoch, by that daemon's clock.
    pub begun_ms: i64,
    /// The index of the entry that began it; whoever proposes it does not know it yet.
    #[serde(default)]
    pub index: u64,
    /// How it ended; none while it runs, and if the daemon did not live to say so.
    #[serde(default)]
    pub end: Option<DrillEnd>,
}

impl DrillNote {
    /// Whether it runs, as far as anybody can know: it has not ended, its time is not up, and its daemon has served since before
    /// it began. `session` is the entry with which that daemon began to; none if it is fenced or gone. What a daemon began
    /// before that it does not go on with.
    pub fn runs(&self, session: Option<u64>, now_ms: i64) -> bool {
        self.end.is_none()
            && session.is_some_and(|session| session < self.index)
            && now_ms.saturating_sub(self.begun_ms) < MAX_DRILL_MS
    }
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillEnd {
    /// When, in ms since the epoch.
    pub at_ms: i64,
    /// Whether all was as it should be.
    pub passed: bool,
    /// Records that the source was known to have and the branches had not; none if nobody knew.
    #[serde(default)]
    pub rpo_records: Option<i64>,
    /// For how long something had been behind, in ms.
    #[serde(default)]
    pub rpo_ms: Option<i64>,
    /// How long it took until the last partition took a record, in ms.
    pub rto_ms: i64,
    /// Group positions that were exact, and all.
    pub groups: (u64, u64),
    /// Partitions that were rehearsed.
    pub partitions: u64,
    /// The first thing that was not as it should be.
    #[serde(default)]
    pub failure: Option<String>,
}
