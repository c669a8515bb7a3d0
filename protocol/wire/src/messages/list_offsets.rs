//! ListOffsets: which offset a partition begins or ends at, or has at a point in time (KIP-79).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api ListOffsets, 1..=10, flexible 6: ListOffsetsRequest => ListOffsetsResponse;

    /// Which offsets to look up.
    pub struct ListOffsetsRequest {
        /// The broker that asks; -1 from a consumer.
        replica_id: i32 [1+] = -1,
        /// Which records are visible: 0 for all, 1 for those of no transaction or of a committed one.
        isolation_level: i8 [2+],
        /// The topics.
        topics: Vec<ListOffsetsTopic> [1+],
        /// How many milliseconds the broker may take.
        timeout_ms: i32 [10+; ignorable],
    }

    /// One topic.
    pub struct ListOffsetsTopic {
        /// The topic's name.
        name: Str [1+],
        /// The partitions.
        partitions: Vec<ListOffsetsPartition> [1+],
    }

    /// One partition.
    pub struct ListOffsetsPartition {
        /// The partition's number.
        partition_index: i32 [1+],
        /// The leader epoch as the sender knows it, -1 if it does not; the broker refuses one that is not its own.
        current_leader_epoch: i32 [4+; ignorable] = -1,
        /// Milliseconds since 1970; or -1 for the end, -2 the beginning, -3 the record with the highest timestamp.
        timestamp: i64 [1+],
    }

    /// The offsets.
    pub struct ListOffsetsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [2+; ignorable],
        /// The topics.
        topics: Vec<ListOffsetsTopicResponse> [1+],
    }

    /// One topic.
    pub struct ListOffsetsTopicResponse {
        /// The topic's name.
        name: Str [1+],
        /// The partitions.
        partitions: Vec<ListOffsetsPartitionResponse> [1+],
    }

    /// One partition.
    pub struct ListOffsetsPartitionResponse {
        /// The partition's number.
        partition_index: i32 [1+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [1+],
        /// The timestamp of the record found, -1 if it was not asked for by time.
        timestamp: i64 [1+] = -1,
        /// The offset found, -1 for none.
        offset: i64 [1+] = -1,
        /// The leader epoch of the record found, -1 if unknown.
        leader_epoch: i32 [4+] = -1,
    }
}
