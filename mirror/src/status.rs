//! What is told to the outside about flows: the JSON of `mirror status` and `failover`.

use serde::{Deserialize, Serialize};

/// One line of `mirror status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// `source->target`.
    pub flow: String,
    /// `starting`, `active`, `catching-up`, `source-unreachable`, `degraded`, `failed`, `paused`, `failing-over`, `promoted`.
    pub state: String,
    /// Records that the source has and this cluster has not, over all matching partitions; null until the source's
    /// current metadata are known.
    pub lag_records: Option<i64>,
    /// For how long something has been behind, in seconds; zero when nothing is, null when unknown.
    pub lag_seconds: Option<f64>,
    /// Topics that match the flow at the source.
    pub topics: usize,
    /// Group positions.
    pub groups: GroupCounts,
    /// What needs attention, one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
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
