//! What is checked of a producer's batch before it may be appended, and the recompression that some topics ask for.
//!
//! Small batches are checked where they arrive, large ones on blocking threads, so that one producer's megabytes do not
//! hold up everyone on the same worker. Decompressed records go into scratch memory that is reused.

use std::cell::RefCell;

use bytes::Bytes;
use tradewind_cluster::Cluster;
use tradewind_cluster::image::Topic;
use tradewind_wire::batch::{
    Batch, BatchBuilder, BatchError, ClientRules, InvalidBatch, TimestampType, validate_client,
};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

use crate::broker::Broker;
use crate::errors;

/// Batches above this size are checked on blocking threads.
const INLINE_BYTES: usize = 64 * 1024;
/// Batches that unpack to more than this are, too: a few bytes can unpack to very many.
const INLINE_UNPACKED: usize = 1 << 20;
/// Scratch memory above this size is given back after use.
const KEEP_SCRATCH: usize = 4 << 20;
/// Produce below this version knows no zstd.
const ZSTD_FROM: i16 = 7;

/// What one topic demands.
#[derive(Debug, Clone)]
pub(crate) struct TopicRules {
    max_message_bytes: usize,
    client: ClientRules,
    /// The codec that batches are to have; `None` keeps the producer's.
    codec: Option<Codec>,
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// The records at fault, and what is wrong with each.
    pub(crate) records: Vec<(i32, String)>,
    /// The records are larger, unpacked, than they were allowed to be.
    unpacks_to_more: bool,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            records: Vec::new(),
            unpacks_to_more: false,
        }
    }
}

impl From<InvalidBatch> for Refusal {
    fn from(error: InvalidBatch) -> Self {
        let records = match &error {
            InvalidBatch::Record { index, reason } => vec![(*index, (*reason).to_owned())],
            InvalidBatch::Records { faults, .. } => {
                faults.iter().map(|f| (f.index, f.fault.to_string())).collect()
            }
            _ => Vec::new(),
        };
        Self {
            code: errors::of_batch(&error),
            message: error.to_string(),
            records,
            unpacks_to_more: matches!(error, InvalidBatch::TooLarge { .. }),
        }
    }
}

impl TopicRules {
    /// The rules of a topic as they hold on this daemon now.
    pub(crate) fn of(cluster: &Cluster, topic: &Topic) -> Self {
        let text = |key: &str| cluster.topic_config(Some(topic), key);
        let number = |key: &str, default: i64| {
            text(key)
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(default)
        };
        let now = cluster.clock().now_ms();
        let before: i64 = number("message.timestamp.before.max.ms", i64::MAX);
        let after: i64 = number("message.timestamp.after.max.ms", i64::MAX);
        let timestamp_type = match text("message.timestamp.type").as_deref() {
            Some("LogAppendTime") => TimestampType::LogAppend,
            _ => TimestampType::Create,
        };
        let codec = match text("compression.type").as_deref() {
            Some("none" | "uncompressed") => Some(Codec::None),
            Some("gzip") => Some(Codec::Gzip),
            Some("snappy") => Some(Codec::Snappy),
            Some("lz4") => Some(Codec::Lz4),
            Some("zstd") => Some(Codec::Zstd),
            _ => None,
        };
        Self {
            max_message_bytes: usize::try_from(number("max.message.bytes", 1_048_588)).unwrap_or(0),
            client: ClientRules {
                require_key: text("cleanup.policy")
                    .is_some_and(|policy| policy.split(',').any(|word| word.trim() == "compact")),
                timestamp_type,
                timestamps: (now.saturating_sub(before), now.saturating_add(after)),
                ..ClientRules::default()
            },
            codec,
        }
    }
}

/// Checks what a client sent for one partition and answers the batch to append.
pub(crate) async fn check(
    broker: &Broker,
    records: Bytes,
    version: i16,
    rules: &TopicRules,
) -> Result<Batch, Refusal> {
    if records.len() <= INLINE_BYTES {
        let mut inline = rules.clone();
        inline.client.max_decompressed = INLINE_UNPACKED.min(rules.client.max_decompressed);
        match check_now(records.clone(), version, &inline) {
            Err(refusal) if refusal.unpacks_to_more => {}
            checked => return checked,
        }
    }
    let permit = broker.inner().validation.acquire().await;
    let rules = rules.clone();
    let checked = tokio::task::spawn_blocking(move || check_now(records, version, &rules)).await;
    drop(permit);
    checked.unwrap_or_else(|_| {
        Err(Refusal::new(
            ErrorCode::UnknownServerError,
            "the check of the batch ended early",
        ))
    })
}

fn check_now(mut records: Bytes, version: i16, rules: &TopicRules) -> Result<Batch, Refusal> {
    let batch = Batch::split_off_front(&mut records).map_err(|error| match error {
        BatchError::Magic { .. } => Refusal::new(ErrorCode::InvalidRecord, error.to_string()),
        other => Refusal::new(ErrorCode::CorruptMessage, other.to_string()),
    })?;
    let Some(mut batch) = batch else {
        return Err(Refusal::new(
            ErrorCode::InvalidRecord,
            "a partition without a record batch",
        ));
    };
    if !records.is_empty() {
        return Err(Refusal::new(
            ErrorCode::InvalidRecord,
            "more than one record batch for a partition",
        ));
    }
    if batch.header().compression() == Some(Codec::Zstd) && version < ZSTD_FROM {
        let message = format!("Produce version {version} knows no zstd");
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    if batch.size() > rules.max_message_bytes {
        let message = format!(
            "a batch of {} bytes; the topic allows {}",
            batch.size(),
            rules.max_message_bytes
        );
        return Err(Refusal::new(ErrorCode::MessageTooLarge, message));
    }
    if batch.header().is_transactional() {
        return Err(Refusal::new(
            ErrorCode::InvalidTxnState,
            "transactions are not supported",
        ));
    }
    with_scratch(|scratch| validate_client(&mut batch, &rules.client, scratch))?;
    match rules.codec {
        Some(codec) if batch.header().compression() != Some(codec) => recompress(&batch, codec, rules),
        _ => Ok(batch),
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = work(scratch);
        scratch.clear();
        if scratch.capacity() > KEEP_SCRATCH {
            *scratch = Vec::new();
        }
        result
    })
}

/// Writes the same records with another codec: the one case in which a batch is built again.
fn recompress(batch: &Batch, codec: Codec, rules: &TopicRules) -> Result<Batch, Refusal> {
    let header = batch.header();
    let records = batch
        .records(rules.client.max_decompressed)
        .map_err(|error| Refusal::from(InvalidBatch::from(error)))?;
    let mut builder = BatchBuilder::new(codec, header.timestamp_type());
    for record in &records {
        let corrupt =
            |error: &dyn std::fmt::Display| Refusal::new(ErrorCode::CorruptMessage, error.to_string());
        let record = record.map_err(|error| corrupt(&error))?;
        let headers: Vec<_> = record.headers.collect();
        builder.append(record.timestamp, record.key, record.value, &headers);
    }
    if header.has_producer() {
        builder.producer(header.producer_id, header.producer_epoch, header.base_sequence);
    }
    Batch::parse(builder.build()).map_err(|error| Refusal::new(ErrorCode::CorruptMessage, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> TopicRules {
        TopicRules {
            max_message_bytes: 10_000,
            client: ClientRules::default(),
            codec: None,
        }
    }

    fn batch(codec: Codec) -> Bytes {
        let mut builder = BatchBuilder::new(codec, TimestampType::Create);
        builder.append(1_000, Some(b"k"), Some(b"v"), &[(b"h", Some(b"1")), (b"h", None)]);
        builder.append(1_001, None, Some(b""), &[]);
        builder.producer(7, 1, 5);
        builder.build()
    }

    fn code(records: Bytes, version: i16, rules: &TopicRules) -> ErrorCode {
        check_now(records, version, rules).unwrap_err().code
    }

    #[test]
    fn a_good_batch_is_kept_byte_for_byte() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bytes = batch(codec);
            assert_eq!(check_now(bytes.clone(), 9, &rules()).unwrap().to_bytes(), bytes);
        }
    }

    #[test]
    fn bad_batches_are_told_apart_as_kafka_does() {
        let good = batch(Codec::None);
        assert_eq!(code(Bytes::new(), 9, &rules()), ErrorCode::InvalidRecord);
        assert_eq!(
            code([&good[..], &good[..]].concat().into(), 9, &rules()),
            ErrorCode::InvalidRecord
        );
        assert_eq!(
            code(good.slice(..good.len() - 1), 9, &rules()),
            ErrorCode::CorruptMessage
        );
        let mut broken = good.to_vec();
        broken[70] ^= 1;
        assert_eq!(code(broken.into(), 9, &rules()), ErrorCode::CorruptMessage);
        let mut old = good.to_vec();
        old[16] = 1;
        assert_eq!(code(old.into(), 9, &rules()), ErrorCode::InvalidRecord);
        assert_eq!(
            code(batch(Codec::Zstd), 6, &rules()),
            ErrorCode::UnsupportedCompressionType
        );
        let small = TopicRules {
            max_message_bytes: 80,
            ..rules()
        };
        assert_eq!(code(good.clone(), 9, &small), ErrorCode::MessageTooLarge);
        let compacted = TopicRules {
            client: ClientRules {
                require_key: true,
                ..ClientRules::default()
            },
            ..rules()
        };
        let refusal = check_now(good.clone(), 9, &compacted).unwrap_err();
        assert_eq!(
            (refusal.code, refusal.records),
            (
                ErrorCode::InvalidRecord,
                vec![(1, "a compacted topic needs keys".to_owned())]
            )
        );
        let late = TopicRules {
            client: ClientRules {
                timestamps: (2_000, 3_000),
                ..ClientRules::default()
            },
            ..rules()
        };
        assert_eq!(code(good, 9, &late), ErrorCode::InvalidTimestamp);
    }

    #[test]
    fn what_unpacks_to_much_is_left_to_a_blocking_thread() {
        let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::Create);
        builder.append(1_000, None, Some(&vec![0; 2 * INLINE_UNPACKED]), &[]);
        let bytes = builder.build();
        assert!(bytes.len() < 10_000);
        let mut inline = rules();
        inline.client.max_decompressed = INLINE_UNPACKED;
        assert!(check_now(bytes.clone(), 9, &inline).unwrap_err().unpacks_to_more);
        assert_eq!(check_now(bytes.clone(), 9, &rules()).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn recompression_keeps_records_headers_and_producer() {
        let rules = TopicRules {
            codec: Some(Codec::Lz4),
            ..rules()
        };
        let changed = check_now(batch(Codec::None), 9, &rules).unwrap();
        assert_eq!(changed.header().compression(), Some(Codec::Lz4));
        assert_eq!(
            (changed.header().producer_id, changed.header().base_sequence),
            (7, 5)
        );
        let records = changed.records(1_000).unwrap();
        let records: Vec<_> = records.iter().map(Result::unwrap).collect();
        assert_eq!(
            (records[0].key, records[1].key, records[1].value),
            (Some(&b"k"[..]), None, Some(&b""[..]))
        );
        assert_eq!(
            records[0].headers.collect::<Vec<_>>(),
            [(&b"h"[..], Some(&b"1"[..])), (b"h", None)]
        );
        assert_eq!((records[0].timestamp, records[1].timestamp), (1_000, 1_001));
    }
}
