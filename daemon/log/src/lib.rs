//! One partition's log on disk: Kafka record batches back to back in segments, and what is needed to find, bound, check,
//! recover and forget them.
//!
//! The crate does no networking, waits for nothing but the disk, and decides nothing about replication: it is told leader
//! epochs and watermarks. A batch is written as it was received; only its base offset and leader epoch are stamped. Values
//! that come from peers or from the disk give errors, never panics.
//!
//! ```text
//! append / append_at ──> log.rs ──> segment.rs ──> files.rs          what is written
//!                          │   └──> tail.rs                          what readers want next, in memory
//!                          ├──> producers.rs, epochs.rs              what a log remembers besides its records
//! read, offset_for_… ──> read.rs, times.rs ──> index.rs, scan.rs     how it is found again
//! open ──> recovery.rs, suspect.rs                                   how a torn tail is cut, and what is not believed
//! compact ──> compaction/                                             how superseded records go
//! flush ──> flush.rs                                                   how it becomes durable
//! branch ──> branch.rs                                                 how it is tried out beside itself
//! DataDir, Checkpoints                                               the directory that holds all logs
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod append;
mod branch;
#[cfg(feature = "known-bugs")]
pub mod bugs;
#[cfg(not(feature = "known-bugs"))]
mod bugs;
mod checkpoints;
mod compaction;
mod config;
mod datadir;
mod epochs;
mod error;
mod files;
mod flush;
mod index;
mod log;
pub mod metrics;
mod producers;
mod read;
mod recovery;
mod retention;
mod room;
mod scan;
mod segment;
mod snapshot;
mod suspect;
mod tail;
mod times;
mod truncate;

#[cfg(test)]
mod tests;

pub use append::Appended;
pub use branch::{BranchError, BranchLimits, Branched};
pub use checkpoints::{CheckpointError, Checkpoints, PartitionCheckpoint};
pub use compaction::{CompactError, Compacted, Dirtiness, Pace, Step, Unpaced};
pub use config::LogConfig;
pub use datadir::{DataDir, DataDirError, Volume};
pub use error::{AppendError, OpenError, ReadError, SequenceError, TruncateError};
pub use files::FileCache;
pub use log::{Log, LogEnv, OpenHint};
pub use producers::{AbortedTransaction, ProducerState};
pub use read::ReadSlice;
pub use recovery::Recovered;
pub use room::Room;
pub use tail::TailCache;
pub use times::TimeMatch;
