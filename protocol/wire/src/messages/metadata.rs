//! Metadata: brokers, topics, partitions, and who leads them.

use crate::codec::Str;
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api Metadata, 0..=13, flexible 9: MetadataRequest => MetadataResponse;

    /// Which topics to describe.
    pub struct MetadataRequest {
        /// The topics; null for all. In version 0 an empty list asks for all.
        topics: Option<Vec<MetadataRequestTopic>> [0+, null 1+],
        /// Whether topics that do not exist may be created by asking for them.
        allow_auto_topic_creation: bool [4+] = true,
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool [8-10],
        /// Whether to say what the client may do with each topic.
        include_topic_authorized_operations: bool [8+],
    }

    /// One topic, by name or by id.
    pub struct MetadataRequestTopic {
        /// The topic's id; zero if it is named.
        topic_id: TopicId [10+; ignorable],
        /// The topic's name; null if it is asked for by id.
        name: Option<Str> [0+, null 10+],
    }

    /// The cluster as this broker sees it.
    pub struct MetadataResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [3+; ignorable],
        /// The brokers that are alive.
        brokers: Vec<MetadataResponseBroker> [0+],
        /// The cluster's id.
        cluster_id: Option<Str> [2+; ignorable],
        /// The broker that takes administrative requests, -1 if unknown.
        controller_id: i32 [1+; ignorable] = -1,
        /// The topics.
        topics: Vec<MetadataResponseTopic> [0+],
        /// What the client may do with the cluster, one bit per operation; `i32::MIN` if not asked for.
        cluster_authorized_operations: i32 [8-10] = i32::MIN,
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [13+; ignorable],
    }

    /// One broker.
    pub struct MetadataResponseBroker {
        /// The broker's id.
        node_id: i32 [0+],
        /// The host to connect to.
        host: Str [0+],
        /// The port to connect to.
        port: i32 [0+],
        /// The broker's rack, if it has one.
        rack: Option<Str> [1+; ignorable],
    }

    /// One topic.
    pub struct MetadataResponseTopic {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The topic's name; null if an unknown id was asked for.
        name: Option<Str> [0+, null 12+],
        /// The topic's id; zero if an unknown name was asked for.
        topic_id: TopicId [10+; ignorable],
        /// Whether the topic is the cluster's own.
        is_internal: bool [1+; ignorable],
        /// The partitions.
        partitions: Vec<MetadataResponsePartition> [0+],
        /// What the client may do with the topic, one bit per operation; `i32::MIN` if not asked for.
        topic_authorized_operations: i32 [8+] = i32::MIN,
    }

    /// One partition.
    pub struct MetadataResponsePartition {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The partition's number.
        partition_index: i32 [0+],
        /// The leader's id, -1 if unknown.
        leader_id: i32 [0+],
        /// The leader's epoch, -1 if unknown.
        leader_epoch: i32 [7+; ignorable] = -1,
        /// The brokers that have a replica, the preferred leader first.
        replica_nodes: Vec<i32> [0+],
        /// The brokers in the in-sync set.
        isr_nodes: Vec<i32> [0+],
        /// The brokers whose replica cannot be reached.
        offline_replicas: Vec<i32> [5+; ignorable],
    }
}
