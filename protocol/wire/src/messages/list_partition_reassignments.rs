//! ListPartitionReassignments: the moves of replicas that are not done (KIP-455).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api ListPartitionReassignments, 0..=0, flexible 0:
        ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse;

    /// Which partitions to look at.
    pub struct ListPartitionReassignmentsRequest {
        /// How many milliseconds the broker may take.
        timeout_ms: i32 [0+] = 60_000,
        /// The topics; null for all.
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [0+],
    }

    /// One topic.
    pub struct ListPartitionReassignmentsTopics {
        /// The topic's name.
        name: Str [0+],
        /// The partitions' numbers.
        partition_indexes: Vec<i32> [0+],
    }

    /// The moves that are not done.
    pub struct ListPartitionReassignmentsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What the error says.
        error_message: Option<Str> [0+],
        /// The topics that have a move.
        topics: Vec<OngoingTopicReassignment> [0+],
    }

    /// One topic.
    pub struct OngoingTopicReassignment {
        /// The topic's name.
        name: Str [0+],
        /// The partitions that have a move.
        partitions: Vec<OngoingPartitionReassignment> [0+],
    }

    /// One partition.
    pub struct OngoingPartitionReassignment {
        /// The partition's number.
        partition_index: i32 [0+],
        /// All brokers that have a replica, those to come and those to go included.
        replicas: Vec<i32> [0+],
        /// The brokers to come.
        adding_replicas: Vec<i32> [0+],
        /// The brokers to go.
        removing_replicas: Vec<i32> [0+],
    }
}
