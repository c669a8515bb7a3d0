//! CreatePartitions: adds partitions to topics (KIP-195).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api CreatePartitions, 0..=3, flexible 2: CreatePartitionsRequest => CreatePartitionsResponse;

    /// The topics to extend.
    pub struct CreatePartitionsRequest {
        /// The topics.
        topics: Vec<CreatePartitionsTopic> [0+],
        /// How many milliseconds the broker may take.
        timeout_ms: i32 [0+],
        /// Whether to check the request only, and change nothing.
        validate_only: bool [0+],
    }

    /// One topic to extend.
    pub struct CreatePartitionsTopic {
        /// The topic's name.
        name: Str [0+],
        /// How many partitions it shall have then.
        count: i32 [0+],
        /// Where each new partition goes; null to leave that to the cluster.
        assignments: Option<Vec<CreatePartitionsAssignment>> [0+],
    }

    /// Where one new partition goes.
    pub struct CreatePartitionsAssignment {
        /// The brokers to have a replica, the preferred leader first.
        broker_ids: Vec<i32> [0+],
    }

    /// What became of each topic.
    pub struct CreatePartitionsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The topics.
        results: Vec<CreatePartitionsTopicResult> [0+],
    }

    /// What became of one topic.
    pub struct CreatePartitionsTopicResult {
        /// The topic's name.
        name: Str [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [0+],
    }
}
