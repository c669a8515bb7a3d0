//! What can go wrong, one enum per operation. The broker and the cluster map these to Kafka's codes.

use std::io;
use std::path::PathBuf;

use tradewind_wire::batch::BatchError;

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// An earlier write or flush failed; the log takes nothing more until the replica is rebuilt.
    #[error("log is out of service after an I/O error: {0}")]
    Poisoned(String),
    /// The log was closed.
    #[error("log is closed")]
    Closed,
    /// No space is left on the device. The log itself is whole.
    #[error("no space left on the device")]
    DiskFull,
    /// The write failed; the log is poisoned now.
    #[error("write failed: {0}")]
    Io(#[source] io::Error),
    /// The batch is larger than `max.message.bytes` (Kafka: MESSAGE_TOO_LARGE).
    #[error("batch of {size} bytes is larger than the topic's limit of {limit}")]
    TooLarge {
        /// The batch's size in bytes, header included.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The batch does not fit into any segment (Kafka: RECORD_LIST_TOO_LARGE).
    #[error("batch of {size} bytes is larger than a segment of {limit}")]
    LargerThanSegment {
        /// The batch's size in bytes, header included.
        size: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// The leader epoch is older than one that the log has already seen.
    #[error("leader epoch {epoch} is older than the log's {last}")]
    StaleEpoch {
        /// The epoch of the append.
        epoch: i32,
        /// The log's newest epoch.
        last: i32,
    },
    /// An offset-keeping append does not continue the log.
    #[error("batch starts at offset {found}, the log ends at {end}")]
    OffsetOrder {
        /// Where the log (or the batch before) ends.
        end: i64,
        /// The base offset of the batch.
        found: i64,
    },
    /// The header's fields contradict each other.
    #[error("batch at offset {base_offset}: {reason}")]
    Malformed {
        /// The base offset of the batch.
        base_offset: i64,
        /// The contradiction.
        reason: &'static str,
    },
    /// Offsets or sequence of 64 bits are used up.
    #[error("offset {base_offset} leaves no room for the batch")]
    OffsetsExhausted {
        /// Where the batch would have started.
        base_offset: i64,
    },
    /// The bytes are no batch, or their CRC does not match.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The batch breaks its producer's sequence.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
}

/// How a batch breaks its producer's sequence (kafka-compat: idempotence).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// Batches before this one are missing (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {producer_id} epoch {epoch}: expected sequence {expected}, got {found}")]
    OutOfOrder {
        /// The producer.
        producer_id: i64,
        /// Its epoch in the batch.
        epoch: i16,
        /// The sequence that would have continued the log.
        expected: i32,
        /// The batch's first sequence.
        found: i32,
    },
    /// The batch was written long ago; where is no longer known (Kafka: DUPLICATE_SEQUENCE_NUMBER).
    #[error(
        "producer {producer_id} epoch {epoch}: sequence {found} was written before the last five batches"
    )]
    TooOld {
        /// The producer.
        producer_id: i64,
        /// Its epoch in the batch.
        epoch: i16,
        /// The batch's first sequence.
        found: i32,
    },
    /// A newer instance of the producer has taken over (Kafka: INVALID_PRODUCER_EPOCH).
    #[error("producer {producer_id}: epoch {epoch} is older than {current}")]
    StaleEpoch {
        /// The producer.
        producer_id: i64,
        /// Its epoch in the batch.
        epoch: i16,
        /// The newest epoch seen.
        current: i16,
    },
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset is not in the log (Kafka: OFFSET_OUT_OF_RANGE).
    #[error("offset {offset} is outside the log, which spans {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The log start.
        start: i64,
        /// The log end.
        end: i64,
    },
    /// The bytes on disk are no batch.
    #[error("{path}: damaged at byte {position}: {reason}")]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file that was read.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Why a log could not be cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TruncateError {
    /// An earlier write or flush failed.
    #[error("log is out of service after an I/O error: {0}")]
    Poisoned(String),
    /// The log was closed.
    #[error("log is closed")]
    Closed,
    /// The offset is not in the log.
    #[error("offset {offset} is outside the log, which spans {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The log start.
        start: i64,
        /// The log end.
        end: i64,
    },
    /// A branch shares what is to be cut, and there is no room for a copy of it. The log is as it was; without the branch nothing
    /// is copied.
    #[error("no room to copy what a branch shares")]
    NoRoom,
    /// The disk failed; the log is poisoned now.
    #[error("truncation failed: {0}")]
    Io(#[from] io::Error),
}
