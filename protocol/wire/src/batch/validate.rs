//! What a broker checks before it takes a batch from a client: header, CRC, and every record down to its last byte.
//!
//! Followers and mirrors check header and CRC only: what they receive went through here once.

use super::record::{RecordError, RecordIter, RecordView};
use super::{Batch, BatchError, BatchHeader, NO_TIMESTAMP, RecordsError, TimestampType};
use crate::compression::{Codec, DecompressError, decompress_into};

/// What one topic demands of a client's batch.
#[derive(Debug, Clone)]
pub struct ClientRules {
    /// Whether every record needs a key: the topic is compacted.
    pub require_key: bool,
    /// The topic's `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// The earliest and latest timestamp allowed, in ms; not looked at with `LogAppend`.
    pub timestamps: (i64, i64),
    /// The most bytes that the records may decompress to.
    pub max_decompressed: usize,
}

impl Default for ClientRules {
    fn default() -> Self {
        Self {
            require_key: false,
            timestamp_type: TimestampType::Create,
            timestamps: (i64::MIN, i64::MAX),
            max_decompressed: 256 << 20,
        }
    }
}

/// Why a client's batch is refused. The broker maps it to Kafka's codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBatch {
    /// The bytes are damaged (Kafka: CORRUPT_MESSAGE).
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// The batch breaks a rule as a whole (Kafka: INVALID_RECORD).
    #[error("invalid batch: {0}")]
    Invalid(&'static str),
    /// The records cannot be read, or not at the offsets that the header gives them (Kafka: INVALID_RECORD).
    #[error("record {index}: {reason}")]
    Record {
        /// The record's position in the batch.
        index: i32,
        /// The rule.
        reason: &'static str,
    },
    /// Records break a rule of the topic (Kafka: INVALID_TIMESTAMP if one breaks a rule on time, else INVALID_RECORD).
    #[error("{total} records break a rule of the topic; the first is record {}: {}", faults[0].index, faults[0].fault)]
    Records {
        /// What is wrong with each, in their order; never empty, at most [`FAULTS_MAX`].
        faults: Vec<RecordFault>,
        /// How many there are.
        total: usize,
    },
    /// The codec does not exist (Kafka: UNSUPPORTED_COMPRESSION_TYPE).
    #[error("compression {id} does not exist")]
    UnknownCodec {
        /// The codec's id as read.
        id: u8,
    },
    /// The records decompress to more than is allowed (Kafka: MESSAGE_TOO_LARGE).
    #[error("records decompress to more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

/// How many records of a refused batch are named.
pub const FAULTS_MAX: usize = 1_000;

/// One record that breaks a rule of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFault {
    /// The record's position in the batch.
    pub index: i32,
    /// The rule.
    pub fault: Fault,
}

/// A rule of a topic for its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `cleanup.policy` names `compact`.
    #[error("a compacted topic needs keys")]
    NoKey,
    /// `message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`.
    #[error("timestamp {timestamp} is outside the topic's bounds, {earliest} to {latest}")]
    Time {
        /// The record's timestamp in ms.
        timestamp: i64,
        /// The first allowed.
        earliest: i64,
        /// The last allowed.
        latest: i64,
    },
    /// The batch says that its times are a broker's.
    #[error("a producer may not set the timestamp type to LogAppendTime")]
    TimeType,
}

impl Fault {
    fn is_about_time(self) -> bool {
        !matches!(self, Self::NoKey)
    }
}

impl InvalidBatch {
    /// Whether a record breaks a rule on time.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Records { faults, .. } if faults.iter().any(|f| f.fault.is_about_time()))
    }
}

impl From<BatchError> for InvalidBatch {
    fn from(error: BatchError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<RecordsError> for InvalidBatch {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::UnknownCodec { id } => Self::UnknownCodec { id },
            RecordsError::Decompress(error) => error.into(),
        }
    }
}

impl From<DecompressError> for InvalidBatch {
    fn from(error: DecompressError) -> Self {
        match error {
            DecompressError::TooLarge { limit, .. } => Self::TooLarge { limit },
            error @ DecompressError::Invalid { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

/// Checks a batch that a client produced. `scratch` receives the decompressed records and is reused from call to call.
///
/// A wrong largest timestamp is mended rather than refused, as Kafka does: time lookups and retention rely on it.
pub fn validate_client(
    batch: &mut Batch,
    rules: &ClientRules,
    scratch: &mut Vec<u8>,
) -> Result<(), InvalidBatch> {
    check_header(batch)?;
    batch.check_crc()?;
    let header = *batch.header();
    let payload = batch.payload();
    let data = match header.compression() {
        Some(Codec::None) => &payload[..],
        Some(codec) => {
            decompress_into(codec, &payload, rules.max_decompressed, scratch)?;
            &scratch[..]
        }
        None => {
            return Err(InvalidBatch::UnknownCodec {
                id: (header.attributes & super::CODEC_MASK) as u8,
            });
        }
    };
    let mut max_timestamp = NO_TIMESTAMP;
    let (mut faults, mut total) = (Vec::new(), 0);
    for (index, record) in (0..).zip(RecordIter::new(&header, data)) {
        let record = record.map_err(|error| match error {
            RecordError::Cut { index } | RecordError::Varint { index } | RecordError::Length { index } => {
                InvalidBatch::Record {
                    index,
                    reason: "malformed",
                }
            }
            RecordError::Trailing { .. } => InvalidBatch::Invalid("bytes follow the last record"),
        })?;
        if record.offset_delta != index {
            return Err(InvalidBatch::Record {
                index,
                reason: "offset delta is not the record's position",
            });
        }
        if let Some(fault) = rules.fault(&header, &record) {
            total += 1;
            if faults.len() < FAULTS_MAX {
                faults.push(RecordFault { index, fault });
            }
        }
        max_timestamp = max_timestamp.max(record.timestamp);
    }
    if total > 0 {
        return Err(InvalidBatch::Records { faults, total });
    }
    if rules.timestamp_type == TimestampType::Create {
        batch.restamp(TimestampType::Create, max_timestamp);
    }
    Ok(())
}

impl ClientRules {
    /// The rule of the topic that a record breaks first, if any.
    fn fault(&self, header: &BatchHeader, record: &RecordView<'_>) -> Option<Fault> {
        if self.require_key && record.key.is_none() {
            return Some(Fault::NoKey);
        }
        let (earliest, latest) = self.timestamps;
        let timestamp = record.timestamp;
        // -1 means that the producer gave no time; bounds do not concern it.
        let bounded = self.timestamp_type == TimestampType::Create && timestamp != NO_TIMESTAMP;
        if bounded && !(earliest..=latest).contains(&timestamp) {
            return Some(Fault::Time {
                timestamp,
                earliest,
                latest,
            });
        }
        (header.timestamp_type() == TimestampType::LogAppend).then_some(Fault::TimeType)
    }
}

fn check_header(batch: &Batch) -> Result<(), InvalidBatch> {
    let header = batch.header();
    let rule = |holds: bool, reason| {
        if holds {
            Ok(())
        } else {
            Err(InvalidBatch::Invalid(reason))
        }
    };
    rule(header.base_offset == 0, "base offset is not 0")?;
    rule(header.records_count > 0, "no records")?;
    rule(
        header.last_offset_delta == header.records_count - 1,
        "last offset delta and record count differ",
    )?;
    rule(!header.is_control(), "clients may not write control batches")?;
    rule(
        !header.has_delete_horizon(),
        "clients may not set a delete horizon",
    )?;
    if header.has_producer() {
        rule(header.base_sequence >= 0, "producer id without a sequence")?;
        rule(header.producer_epoch >= 0, "producer id without an epoch")?;
    } else {
        rule(!header.is_transactional(), "transaction without a producer id")?;
    }
    Ok(())
}
