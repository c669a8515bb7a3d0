//! What a broker checks before it takes a batch from a client: header, CRC, and every record down to its last byte.
//!
//! Followers and mirrors check header and CRC only: what they receive went through here once.

use super::record::{RecordError, RecordIter};
use super::{Batch, BatchError, NO_TIMESTAMP, RecordsError, TimestampType};
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
    /// Records break a rule (Kafka: INVALID_RECORD with record errors); the first one is named.
    #[error("record {index}: {reason}")]
    Record {
        /// The record's position in the batch.
        index: i32,
        /// The rule.
        reason: &'static str,
    },
    /// A record's time is outside the topic's bounds, or of the wrong type (Kafka: INVALID_TIMESTAMP).
    #[error("record {index}: timestamp {timestamp} is outside the bounds of the topic")]
    Timestamp {
        /// The record's position in the batch.
        index: i32,
        /// Its timestamp in ms.
        timestamp: i64,
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
    check_header(batch, rules)?;
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
        if rules.require_key && record.key.is_none() {
            return Err(InvalidBatch::Record {
                index,
                reason: "a compacted topic needs keys",
            });
        }
        if rules.timestamp_type == TimestampType::Create {
            let (earliest, latest) = rules.timestamps;
            let timestamp = record.timestamp;
            // -1 means that the producer gave no time; bounds do not concern it.
            if timestamp != NO_TIMESTAMP && !(earliest..=latest).contains(&timestamp) {
                return Err(InvalidBatch::Timestamp { index, timestamp });
            }
            max_timestamp = max_timestamp.max(timestamp);
        }
    }
    if rules.timestamp_type == TimestampType::Create {
        batch.restamp(TimestampType::Create, max_timestamp);
    }
    Ok(())
}

fn check_header(batch: &Batch, rules: &ClientRules) -> Result<(), InvalidBatch> {
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
    if rules.timestamp_type == TimestampType::Create && header.timestamp_type() == TimestampType::LogAppend {
        return Err(InvalidBatch::Timestamp {
            index: 0,
            timestamp: header.max_timestamp,
        });
    }
    Ok(())
}
