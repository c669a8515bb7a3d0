//! What a topic's configuration means to its logs. Parsing and defaults of topic configs are the broker's business; the
//! defaults here are Kafka's.

use tradewind_wire::batch::TimestampType;

/// The settings of one log, from its topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is closed before it grows past this.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is closed when its first append is older than this.
    pub segment_ms: i64,
    /// `retention.ms`: closed segments whose newest record is older are deleted; -1 keeps them.
    pub retention_ms: i64,
    /// `retention.bytes`: the oldest closed segments beyond this are deleted; -1 keeps them.
    pub retention_bytes: i64,
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
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            delete: true,
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
}
