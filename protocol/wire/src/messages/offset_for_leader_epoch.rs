//! OffsetForLeaderEpoch: where a leader epoch ends, by which a reader finds out that its log has diverged (KIP-320).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api OffsetForLeaderEpoch, 2..=4, flexible 4: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse;

    /// Which epochs to look up.
    pub struct OffsetForLeaderEpochRequest {
        /// The broker that asks; -1 from a consumer, -2 from a tool.
        replica_id: i32 [3+; ignorable] = -2,
        /// The topics.
        topics: Vec<OffsetForLeaderTopic> [2+],
    }

    /// One topic.
    pub struct OffsetForLeaderTopic {
        /// The topic's name.
        topic: Str [2+],
        /// The partitions.
        partitions: Vec<OffsetForLeaderPartition> [2+],
    }

    /// One partition.
    pub struct OffsetForLeaderPartition {
        /// The partition's number.
        partition: i32 [2+],
        /// The leader epoch as the sender knows it, -1 if it does not; the broker refuses one that is not its own.
        current_leader_epoch: i32 [2+] = -1,
        /// The leader epoch to look up.
        leader_epoch: i32 [2+],
    }

    /// The ends of the epochs.
    pub struct OffsetForLeaderEpochResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [2+],
        /// The topics.
        topics: Vec<OffsetForLeaderTopicResult> [2+],
    }

    /// One topic.
    pub struct OffsetForLeaderTopicResult {
        /// The topic's name.
        topic: Str [2+],
        /// The partitions.
        partitions: Vec<EpochEndOffset> [2+],
    }

    /// Where a leader epoch ends.
    pub struct EpochEndOffset {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [2+],
        /// The partition's number.
        partition: i32 [2+],
        /// The leader epoch.
        leader_epoch: i32 [2+] = -1,
        /// The first offset that is not of the epoch, -1 if unknown.
        end_offset: i64 [2+] = -1,
    }
}
