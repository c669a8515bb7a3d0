//! Produce: appends record batches to partitions.

use crate::codec::{Records, Str};
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api Produce, 3..=13, flexible 9: ProduceRequest => ProduceResponse;

    /// Batches for any number of partitions.
    pub struct ProduceRequest {
        /// The transactional id, null outside of transactions.
        transactional_id: Option<Str> [3+],
        /// Who must have the records before the answer: 0 nobody (and no answer), 1 the leader, -1 the in-sync set.
        acks: i16 [3+],
        /// How many milliseconds the in-sync set may take.
        timeout_ms: i32 [3+],
        /// The topics produced to.
        topic_data: Vec<TopicProduceData> [3+],
    }

    /// Batches for one topic.
    pub struct TopicProduceData {
        /// The topic's name.
        name: Str [3-12; ignorable],
        /// The topic's id.
        topic_id: TopicId [13+; ignorable],
        /// The partitions produced to.
        partition_data: Vec<PartitionProduceData> [3+],
    }

    /// Batches for one partition.
    pub struct PartitionProduceData {
        /// The partition's number.
        index: i32 [3+],
        /// Record batches, one after the other.
        records: Records [3+],
    }

    /// What became of each partition's batches.
    pub struct ProduceResponse {
        /// The topics produced to.
        responses: Vec<TopicProduceResponse> [3+],
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [3+],
        /// Where to reach the leaders named in partitions (KIP-951).
        node_endpoints: Vec<NodeEndpoint> [10+, tag 0; ignorable],
    }

    /// What became of one topic's batches.
    pub struct TopicProduceResponse {
        /// The topic's name.
        name: Str [3-12; ignorable],
        /// The topic's id.
        topic_id: TopicId [13+; ignorable],
        /// The partitions produced to.
        partition_responses: Vec<PartitionProduceResponse> [3+],
    }

    /// What became of one partition's batches.
    pub struct PartitionProduceResponse {
        /// The partition's number.
        index: i32 [3+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [3+],
        /// The offset of the first record appended.
        base_offset: i64 [3+],
        /// When the broker appended them, in milliseconds since 1970; -1 if records keep their producer's time.
        log_append_time_ms: i64 [3+] = -1,
        /// The partition's first offset.
        log_start_offset: i64 [5+; ignorable] = -1,
        /// The records for which the batch was refused.
        record_errors: Vec<BatchIndexAndErrorMessage> [8+; ignorable],
        /// What went wrong, in words.
        error_message: Option<Str> [8+; ignorable],
        /// The leader that the client should turn to instead (KIP-951).
        current_leader: LeaderIdAndEpoch [10+, tag 0; ignorable],
    }

    /// A record for which a batch was refused.
    pub struct BatchIndexAndErrorMessage {
        /// The record's place in the batch.
        batch_index: i32 [8+],
        /// What is wrong with it, in words.
        batch_index_error_message: Option<Str> [8+],
    }

    /// Who leads a partition.
    pub struct LeaderIdAndEpoch {
        /// The leader's id, -1 if unknown.
        leader_id: i32 [10+] = -1,
        /// The leader epoch.
        leader_epoch: i32 [10+] = -1,
    }

    /// Where a broker is reached.
    pub struct NodeEndpoint {
        /// The broker's id.
        node_id: i32 [10+],
        /// The host to connect to.
        host: Str [10+],
        /// The port to connect to.
        port: i32 [10+],
        /// The broker's rack, if it has one.
        rack: Option<Str> [10+],
    }
}
