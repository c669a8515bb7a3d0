//! DeleteRecords: moves the beginning of partitions forward (KIP-107).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DeleteRecords, 0..=2, flexible 2: DeleteRecordsRequest => DeleteRecordsResponse;

    /// Where partitions shall begin.
    pub struct DeleteRecordsRequest {
        /// The topics.
        topics: Vec<DeleteRecordsTopic> [0+],
        /// How many milliseconds the broker may take.
        timeout_ms: i32 [0+],
    }

    /// One topic.
    pub struct DeleteRecordsTopic {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<DeleteRecordsPartition> [0+],
    }

    /// One partition.
    pub struct DeleteRecordsPartition {
        /// The partition's number.
        partition_index: i32 [0+],
        /// The first offset to keep; -1 for the high watermark.
        offset: i64 [0+],
    }

    /// Where partitions begin now.
    pub struct DeleteRecordsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The topics.
        topics: Vec<DeleteRecordsTopicResult> [0+],
    }

    /// One topic.
    pub struct DeleteRecordsTopicResult {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<DeleteRecordsPartitionResult> [0+],
    }

    /// One partition.
    pub struct DeleteRecordsPartitionResult {
        /// The partition's number.
        partition_index: i32 [0+],
        /// The partition's first offset now.
        low_watermark: i64 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
    }
}
