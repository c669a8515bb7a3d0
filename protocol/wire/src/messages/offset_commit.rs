//! OffsetCommit: stores a group's positions.

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api OffsetCommit, 2..=9, flexible 8: OffsetCommitRequest => OffsetCommitResponse;

    /// The positions to store.
    pub struct OffsetCommitRequest {
        /// The group's id.
        group_id: Str [2+],
        /// The group's generation, or the member's epoch in the newer protocol; -1 outside of either.
        generation_id_or_member_epoch: i32 [2+] = -1,
        /// The member's id, as the coordinator gave it.
        member_id: Str [2+],
        /// The name that a static member chose for itself (KIP-345).
        group_instance_id: Option<Str> [7+],
        /// How many milliseconds to keep the positions; -1 for the broker's rule.
        retention_time_ms: i64 [2-4; ignorable] = -1,
        /// The topics.
        topics: Vec<OffsetCommitRequestTopic> [2+],
    }

    /// Positions in one topic.
    pub struct OffsetCommitRequestTopic {
        /// The topic's name.
        name: Str [2+],
        /// The partitions.
        partitions: Vec<OffsetCommitRequestPartition> [2+],
    }

    /// The position in one partition.
    pub struct OffsetCommitRequestPartition {
        /// The partition's number.
        partition_index: i32 [2+],
        /// The position: the offset of the next record to be read.
        committed_offset: i64 [2+],
        /// The leader epoch of the last record read, -1 if unknown.
        committed_leader_epoch: i32 [6+; ignorable] = -1,
        /// A note that the client keeps with it.
        committed_metadata: Option<Str> [2+],
    }

    /// What became of each position.
    pub struct OffsetCommitResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [3+; ignorable],
        /// The topics.
        topics: Vec<OffsetCommitResponseTopic> [2+],
    }

    /// One topic.
    pub struct OffsetCommitResponseTopic {
        /// The topic's name.
        name: Str [2+],
        /// The partitions.
        partitions: Vec<OffsetCommitResponsePartition> [2+],
    }

    /// One partition.
    pub struct OffsetCommitResponsePartition {
        /// The partition's number.
        partition_index: i32 [2+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [2+],
    }
}
