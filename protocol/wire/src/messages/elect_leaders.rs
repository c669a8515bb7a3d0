//! ElectLeaders: has partitions elect their leaders anew (KIP-460).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api ElectLeaders, 0..=2, flexible 2: ElectLeadersRequest => ElectLeadersResponse;

    /// Which partitions shall elect, and how.
    pub struct ElectLeadersRequest {
        /// 0: the preferred replica; 1: any replica, even one that lacks records.
        election_type: i8 [1+],
        /// The partitions; null for all.
        topic_partitions: Option<Vec<TopicPartitions>> [0+] = Some(Vec::new()),
        /// How many milliseconds the election may take.
        timeout_ms: i32 [0+] = 60_000,
    }

    /// One topic.
    pub struct TopicPartitions {
        /// The topic's name.
        topic: Str [0+],
        /// The partitions' numbers.
        partitions: Vec<i32> [0+],
    }

    /// What came of it.
    pub struct ElectLeadersResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode) of the request as a whole, zero for none.
        error_code: i16 [1+],
        /// The topics.
        replica_election_results: Vec<ReplicaElectionResult> [0+],
    }

    /// One topic.
    pub struct ReplicaElectionResult {
        /// The topic's name.
        topic: Str [0+],
        /// The partitions.
        partition_result: Vec<PartitionResult> [0+],
    }

    /// One partition.
    pub struct PartitionResult {
        /// The partition's number.
        partition_id: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What the error says.
        error_message: Option<Str> [0+],
    }
}
