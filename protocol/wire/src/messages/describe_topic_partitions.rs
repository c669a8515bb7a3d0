//! DescribeTopicPartitions: topics and partitions page by page (KIP-966).

use crate::codec::Str;
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api DescribeTopicPartitions, 0..=0, flexible 0: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;

    /// Which topics to describe, and from where on.
    pub struct DescribeTopicPartitionsRequest {
        /// The topics; empty for all.
        topics: Vec<TopicRequest> [0+],
        /// How many partitions one answer may have at most.
        response_partition_limit: i32 [0+] = 2000,
        /// Where to go on; null to begin.
        cursor: Option<Cursor> [0+],
    }

    /// One topic.
    pub struct TopicRequest {
        /// The topic's name.
        name: Str [0+],
    }

    /// A place in the list of topics and partitions.
    pub struct Cursor {
        /// The topic to go on with.
        topic_name: Str [0+],
        /// The partition to go on with.
        partition_index: i32 [0+],
    }

    /// One page of topics and partitions.
    pub struct DescribeTopicPartitionsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The topics.
        topics: Vec<DescribeTopicPartitionsResponseTopic> [0+],
        /// Where the next page begins; null if there is none.
        next_cursor: Option<Cursor> [0+],
    }

    /// One topic.
    pub struct DescribeTopicPartitionsResponseTopic {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The topic's name.
        name: Option<Str> [0+],
        /// The topic's id.
        topic_id: TopicId [0+],
        /// Whether the topic is the cluster's own.
        is_internal: bool [0+],
        /// The partitions.
        partitions: Vec<DescribeTopicPartitionsResponsePartition> [0+],
        /// What the client may do with the topic, one bit per operation; `i32::MIN` if not asked for.
        topic_authorized_operations: i32 [0+] = i32::MIN,
    }

    /// One partition.
    pub struct DescribeTopicPartitionsResponsePartition {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The partition's number.
        partition_index: i32 [0+],
        /// The leader's id, -1 if unknown.
        leader_id: i32 [0+],
        /// The leader's epoch, -1 if unknown.
        leader_epoch: i32 [0+] = -1,
        /// The brokers that have a replica, the preferred leader first.
        replica_nodes: Vec<i32> [0+],
        /// The brokers in the in-sync set.
        isr_nodes: Vec<i32> [0+],
        /// Brokers outside of the in-sync set that could lead without loss (KIP-966).
        eligible_leader_replicas: Option<Vec<i32>> [0+],
        /// The last brokers that could lead without loss.
        last_known_elr: Option<Vec<i32>> [0+],
        /// The brokers whose replica cannot be reached.
        offline_replicas: Vec<i32> [0+],
    }
}
