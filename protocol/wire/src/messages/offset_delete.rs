//! OffsetDelete: removes a group's stored positions (KIP-496).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api OffsetDelete, 0..=0, flexible never: OffsetDeleteRequest => OffsetDeleteResponse;

    /// Which positions to remove.
    pub struct OffsetDeleteRequest {
        /// The group's id.
        group_id: Str [0+],
        /// The topics.
        topics: Vec<OffsetDeleteRequestTopic> [0+],
    }

    /// One topic.
    pub struct OffsetDeleteRequestTopic {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<OffsetDeleteRequestPartition> [0+],
    }

    /// One partition.
    pub struct OffsetDeleteRequestPartition {
        /// The partition's number.
        partition_index: i32 [0+],
    }

    /// What was removed.
    pub struct OffsetDeleteResponse {
        /// An [`ErrorCode`](crate::error::ErrorCode) of the group as a whole, zero for none.
        error_code: i16 [0+],
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+; ignorable],
        /// The topics.
        topics: Vec<OffsetDeleteResponseTopic> [0+],
    }

    /// One topic.
    pub struct OffsetDeleteResponseTopic {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<OffsetDeleteResponsePartition> [0+],
    }

    /// One partition.
    pub struct OffsetDeleteResponsePartition {
        /// The partition's number.
        partition_index: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
    }
}
