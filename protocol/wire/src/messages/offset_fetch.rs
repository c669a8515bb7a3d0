//! OffsetFetch: a group's stored positions.

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api OffsetFetch, 1..=9, flexible 6: OffsetFetchRequest => OffsetFetchResponse;

    /// Whose positions are wanted.
    pub struct OffsetFetchRequest {
        /// The group's id.
        group_id: Str [1-7],
        /// The topics; null for all that the group has positions in.
        topics: Option<Vec<OffsetFetchRequestTopic>> [1-7, null 2+],
        /// The groups.
        groups: Vec<OffsetFetchRequestGroup> [8+],
        /// Whether to refuse positions that an open transaction may still change.
        require_stable: bool [7+],
    }

    /// One topic.
    pub struct OffsetFetchRequestTopic {
        /// The topic's name.
        name: Str [1-7],
        /// The partitions' numbers.
        partition_indexes: Vec<i32> [1-7],
    }

    /// One group.
    pub struct OffsetFetchRequestGroup {
        /// The group's id.
        group_id: Str [8+],
        /// The id of the member that asks.
        member_id: Option<Str> [9+; ignorable],
        /// The epoch of the member that asks (KIP-848), -1 for none.
        member_epoch: i32 [9+; ignorable] = -1,
        /// The topics; null for all that the group has positions in.
        topics: Option<Vec<OffsetFetchRequestTopics>> [8+],
    }

    /// One topic.
    pub struct OffsetFetchRequestTopics {
        /// The topic's name.
        name: Str [8+; ignorable],
        /// The partitions' numbers.
        partition_indexes: Vec<i32> [8+],
    }

    /// The positions.
    pub struct OffsetFetchResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [3+; ignorable],
        /// The topics.
        topics: Vec<OffsetFetchResponseTopic> [1-7],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [2-7; ignorable],
        /// The groups.
        groups: Vec<OffsetFetchResponseGroup> [8+],
    }

    /// Positions in one topic.
    pub struct OffsetFetchResponseTopic {
        /// The topic's name.
        name: Str [1-7],
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartition> [1-7],
    }

    /// The position in one partition.
    pub struct OffsetFetchResponsePartition {
        /// The partition's number.
        partition_index: i32 [1-7],
        /// The offset of the next record to be read, -1 for none.
        committed_offset: i64 [1-7],
        /// The leader epoch of the last record read, -1 if unknown.
        committed_leader_epoch: i32 [5-7; ignorable] = -1,
        /// The note that was stored with it.
        metadata: Option<Str> [1-7],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [1-7],
    }

    /// One group's positions.
    pub struct OffsetFetchResponseGroup {
        /// The group's id.
        group_id: Str [8+],
        /// The topics.
        topics: Vec<OffsetFetchResponseTopics> [8+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [8+],
    }

    /// Positions in one topic.
    pub struct OffsetFetchResponseTopics {
        /// The topic's name.
        name: Str [8+; ignorable],
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartitions> [8+],
    }

    /// The position in one partition.
    pub struct OffsetFetchResponsePartitions {
        /// The partition's number.
        partition_index: i32 [8+],
        /// The offset of the next record to be read, -1 for none.
        committed_offset: i64 [8+],
        /// The leader epoch of the last record read, -1 if unknown.
        committed_leader_epoch: i32 [8+; ignorable] = -1,
        /// The note that was stored with it.
        metadata: Option<Str> [8+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [8+],
    }
}
