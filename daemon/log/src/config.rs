//! What a topic's configuration means to its logs. Parsing and defaults of topic configs are the broker's business; the
//! defaults here are Kafka's.

use tradewind_wire::batch::TimestampType;

/// The settings of one log, from its topic's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is closed before it grows past this.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is closed when its first append is older than this.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: at most this is taken off `segment_ms`, another amount for each segment, so that not all logs
    /// begin a segment at once.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment is closed when one of its indexes is as large as this.
    pub segment_index_bytes: u64,
    /// `retention.ms`: closed segments whose newest record is older are deleted; -1 keeps them.
    pub retention_ms: i64,
    /// `retention.bytes`: the oldest closed segments beyond this are deleted; -1 keeps them.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` names `compact`.
    pub compact: bool,
    /// `delete.retention.ms`: how long a tombstone or the marker of an empty transaction is kept after the pass that finds
    /// nothing else to keep it for.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`: records younger than this are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: records older than this are compacted whatever else holds.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`: the share of dirty bytes, 0 to 1, above which compaction is due.
    pub min_cleanable_ratio: f64,
    /// Whether a mirror writes the log: delete horizons that come with its batches began elsewhere, and do not end before
    /// `delete_retention_ms` have passed here.
    pub mirrored: bool,
    /// Whether `cleanup.policy` names `delete`. Without it only [`crate::Log::trim_to`] removes segments.
    pub delete: bool,
    /// `index.interval.bytes`: log bytes between two index entries.
    pub index_interval_bytes: u64,
    /// `max.message.bytes`: the largest batch a leader takes, header included.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `producer.id.expiration.ms`: how long an idle producer is remembered.
    pub producer_expiry_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            delete: true,
            compact: false,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_ratio: 0.5,
            mirrored: false,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::Create,
            producer_expiry_ms: DAY_MS,
        }
    }
}

/// Positions in Kafka's index files are 31 bits wide, whatever `segment.bytes` says.
pub(crate) const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

impl LogConfig {
    /// `segment_bytes` within what the format can hold.
    pub(crate) fn segment_limit(&self) -> u64 {
        self.segment_bytes.clamp(1, MAX_SEGMENT_BYTES)
    }

    /// The age at which a segment is closed: `segment.ms` less its share of the jitter, which `seed` decides. A compacted
    /// log closes them early enough for `max.compaction.lag.ms`.
    pub(crate) fn segment_age_limit(&self, seed: u64) -> i64 {
        let limit = if self.compact {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        };
        let range = u64::try_from(self.segment_jitter_ms.min(limit)).unwrap_or(0);
        let jitter = if range == 0 { 0 } else { seed % range };
        limit - i64::try_from(jitter).unwrap_or(0)
    }
}
