//! What can go wrong with one partition's copy. The broker maps these to Kafka's codes.

use tradewind_log::{AppendError, ReadError, TruncateError};
use tradewind_wire::ids::NodeId;

use super::LeaderView;

/// Why a replica does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// Another daemon, or none, leads the partition.
    #[error("not the leader; leader is {leader:?} at epoch {epoch}")]
    NotLeader {
        /// The leader as far as this daemon knows.
        leader: Option<NodeId>,
        /// Its epoch.
        epoch: i32,
    },
    /// The caller's leader epoch is older than the current one.
    #[error("leader epoch is fenced; current is {current}")]
    FencedEpoch {
        /// The current leader epoch.
        current: i32,
    },
    /// The caller's leader epoch is newer than what this daemon knows.
    #[error("leader epoch is unknown; current is {current}")]
    UnknownEpoch {
        /// The leader epoch known here.
        current: i32,
    },
    /// Too few copies are in sync for acks=all; nothing was written.
    #[error("only {in_sync} replicas are in sync")]
    NotEnoughReplicas {
        /// How many are in sync.
        in_sync: usize,
    },
    /// The offset lies outside the log.
    #[error("offset outside {}..={}", view.log_start, view.end)]
    OffsetOutOfRange {
        /// Where the log stands.
        view: LeaderView,
    },
    /// Batches do not continue the log.
    #[error("batches continue {given}, the log ends at {expected}")]
    WrongPosition {
        /// The log's end.
        expected: i64,
        /// What the batches follow.
        given: i64,
    },
    /// The topic moves to another cluster, or has moved: clients write there.
    #[error("writes are fenced: the topic moves to another cluster")]
    WritesFenced,
    /// The copy is unusable.
    #[error("replica failed: {reason}")]
    Storage {
        /// What happened.
        reason: String,
    },
    /// The log refused the batch.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log could not be cut.
    #[error(transparent)]
    Truncate(#[from] TruncateError),
}

/// Why an append is not known to be committed. The records may still become so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Not in time, with enough replicas in sync.
    #[error("not replicated in time")]
    TimedOut,
    /// The in-sync set fell below `min.insync.replicas` after the append.
    #[error("too few replicas in sync after the append")]
    NotEnoughReplicasAfterAppend,
    /// Leadership ended first.
    #[error("leadership ended before the records were committed")]
    NotLeader,
}
