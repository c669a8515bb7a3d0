//! AlterPartitionReassignments: moves replicas to other brokers, or takes a move back (KIP-455).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api AlterPartitionReassignments, 0..=1, flexible 0:
        AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse;

    /// Where replicas shall be.
    pub struct AlterPartitionReassignmentsRequest {
        /// How many milliseconds the broker may take to accept it; the move itself takes as long as it takes.
        timeout_ms: i32 [0+] = 60_000,
        /// Whether a move may change how many replicas a partition has (KIP-860).
        allow_replication_factor_change: bool [1+] = true,
        /// The topics.
        topics: Vec<ReassignableTopic> [0+],
    }

    /// One topic.
    pub struct ReassignableTopic {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<ReassignablePartition> [0+],
    }

    /// One partition.
    pub struct ReassignablePartition {
        /// The partition's number.
        partition_index: i32 [0+],
        /// The brokers, the preferred leader first; null takes a pending move back.
        replicas: Option<Vec<i32>> [0+],
    }

    /// Which moves were accepted.
    pub struct AlterPartitionReassignmentsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// What the request said of it.
        allow_replication_factor_change: bool [1+; ignorable] = true,
        /// An [`ErrorCode`](crate::error::ErrorCode) of the request as a whole, zero for none.
        error_code: i16 [0+],
        /// What that error says.
        error_message: Option<Str> [0+],
        /// The topics.
        responses: Vec<ReassignableTopicResponse> [0+],
    }

    /// One topic.
    pub struct ReassignableTopicResponse {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<ReassignablePartitionResponse> [0+],
    }

    /// One partition.
    pub struct ReassignablePartitionResponse {
        /// The partition's number.
        partition_index: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What the error says.
        error_message: Option<Str> [0+],
    }
}
