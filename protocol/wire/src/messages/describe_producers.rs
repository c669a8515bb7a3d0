//! DescribeProducers: what a partition's leader remembers of its producers (KIP-664).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api DescribeProducers, 0..=0, flexible 0: DescribeProducersRequest => DescribeProducersResponse;

    /// Which partitions to look at.
    pub struct DescribeProducersRequest {
        /// The topics.
        topics: Vec<TopicRequest> [0+],
    }

    /// One topic.
    pub struct TopicRequest {
        /// The topic's name.
        name: Str [0+],
        /// The partitions' numbers.
        partition_indexes: Vec<i32> [0+],
    }

    /// The producers.
    pub struct DescribeProducersResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [0+],
        /// The topics.
        topics: Vec<TopicResponse> [0+],
    }

    /// One topic.
    pub struct TopicResponse {
        /// The topic's name.
        name: Str [0+],
        /// The partitions.
        partitions: Vec<PartitionResponse> [0+],
    }

    /// One partition.
    pub struct PartitionResponse {
        /// The partition's number.
        partition_index: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What the error says.
        error_message: Option<Str> [0+],
        /// The producers that are remembered.
        active_producers: Vec<ProducerState> [0+],
    }

    /// One producer.
    pub struct ProducerState {
        /// Its id.
        producer_id: i64 [0+],
        /// Its epoch.
        producer_epoch: i32 [0+],
        /// The sequence number of its last record, -1 if it has none.
        last_sequence: i32 [0+] = -1,
        /// The timestamp of its last batch in milliseconds since 1970, -1 if it has none.
        last_timestamp: i64 [0+] = -1,
        /// The epoch of the coordinator that wrote its last marker, -1 if none did.
        coordinator_epoch: i32 [0+],
        /// The first offset of its open transaction, -1 if it has none.
        current_txn_start_offset: i64 [0+] = -1,
    }
}
