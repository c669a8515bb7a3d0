//! Consuming: a plain reader of one partition, and a member of a consumer group.
//!
//! ```text
//! GroupConsumer ── member (join, sync, heartbeats) ── assignor
//!       └── positions and fetches ── decode: batches to records
//! PartitionReader ─────────────────┘
//! ```

pub mod assignor;
mod decode;
mod group;
mod heartbeat;
mod member;
mod reader;

use bytes::Bytes;

pub use self::group::{GroupConfig, GroupConsumer};
pub use self::member::MemberError;
pub use self::reader::PartitionReader;
use crate::error::ClientError;

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The leader epoch under which it was written; -1 if not known.
    pub leader_epoch: i32,
    /// Milliseconds since the epoch: the producer's time, or the broker's.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers in order; keys may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Where to begin when there is no committed offset, or the offset is out of range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record.
    #[default]
    Earliest,
    /// Behind the last record.
    Latest,
    /// Nowhere: an error.
    Fail,
}

/// Why records could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The cluster cannot be asked, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Membership of the group failed for good.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A batch cannot be read.
    #[error("{topic}-{partition}: the batch at offset {offset} is broken: {problem}")]
    Broken {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The batch's base offset, or the offset asked for.
        offset: i64,
        /// What is wrong.
        problem: String,
    },
    /// The position is outside the log and there is no rule where to go instead.
    #[error("{topic}-{partition}: offset {offset} is out of range")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The position; -1 if there was none.
        offset: i64,
    },
}
