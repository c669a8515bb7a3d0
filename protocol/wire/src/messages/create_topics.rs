//! CreateTopics: new topics, placed by the cluster or by hand (KIP-4).

use crate::codec::Str;
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api CreateTopics, 2..=7, flexible 5: CreateTopicsRequest => CreateTopicsResponse;

    /// The topics to create.
    pub struct CreateTopicsRequest {
        /// The topics.
        topics: Vec<CreatableTopic> [2+],
        /// How many milliseconds the broker may take.
        timeout_ms: i32 [2+] = 60000,
        /// Whether to check the request only, and change nothing.
        validate_only: bool [2+],
    }

    /// One topic to create.
    pub struct CreatableTopic {
        /// The topic's name.
        name: Str [2+],
        /// How many partitions; -1 for the default, or with `assignments`.
        num_partitions: i32 [2+],
        /// How many replicas each; -1 for the default, or with `assignments`.
        replication_factor: i16 [2+],
        /// Where each partition goes; empty to leave that to the cluster.
        assignments: Vec<CreatableReplicaAssignment> [2+],
        /// The topic's own configuration.
        configs: Vec<CreatableTopicConfig> [2+],
    }

    /// Where one partition goes.
    pub struct CreatableReplicaAssignment {
        /// The partition's number.
        partition_index: i32 [2+],
        /// The brokers to have a replica, the preferred leader first.
        broker_ids: Vec<i32> [2+],
    }

    /// A configuration key.
    pub struct CreatableTopicConfig {
        /// The key.
        name: Str [2+],
        /// The value.
        value: Option<Str> [2+],
    }

    /// What became of each topic.
    pub struct CreateTopicsResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [2+],
        /// The topics.
        topics: Vec<CreatableTopicResult> [2+],
    }

    /// What became of one topic.
    pub struct CreatableTopicResult {
        /// The topic's name.
        name: Str [2+],
        /// The topic's id.
        topic_id: TopicId [7+; ignorable],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [2+],
        /// What went wrong, in words.
        error_message: Option<Str> [2+],
        /// Why `configs` is missing: an error code, zero for none.
        topic_config_error_code: i16 [5+, tag 0; ignorable],
        /// How many partitions the topic has got, -1 if unknown.
        num_partitions: i32 [5+; ignorable] = -1,
        /// How many replicas each has got, -1 if unknown.
        replication_factor: i16 [5+; ignorable] = -1,
        /// The topic's configuration; null if the client may not see it.
        configs: Option<Vec<CreatableTopicConfigs>> [5+; ignorable],
    }

    /// A configuration key of the new topic.
    pub struct CreatableTopicConfigs {
        /// The key.
        name: Str [5+],
        /// The value.
        value: Option<Str> [5+],
        /// Whether the value cannot be changed.
        read_only: bool [5+],
        /// Where the value comes from: 1 topic, 2 this broker, 3 all brokers, 4 broker's file, 5 default.
        config_source: i8 [5+; ignorable] = -1,
        /// Whether the value is a secret, and therefore withheld.
        is_sensitive: bool [5+],
    }
}
