//! Fetch: reads record batches from partitions, waiting for them if asked to (KIP-74, KIP-227).

use crate::codec::{Records, Str};
use crate::ids::TopicId;
use crate::messages::declare::declare;

declare! {
    api Fetch, 4..=18, flexible 12: FetchRequest => FetchResponse;

    /// Where to read from, how much, and how long to wait for it.
    pub struct FetchRequest {
        /// The cluster that the sender believes to be talking to; only brokers say.
        cluster_id: Option<Str> [12+, tag 0; ignorable],
        /// The broker that fetches; -1 from a consumer. From version 15 in `replica_state`.
        replica_id: i32 [4-14] = -1,
        /// The broker that fetches, if one does.
        replica_state: ReplicaState [15+, tag 1; ignorable],
        /// For how many milliseconds to wait for `min_bytes`.
        max_wait_ms: i32 [4+],
        /// How many bytes are worth an answer before the wait is over.
        min_bytes: i32 [4+],
        /// How many bytes to answer with at most; a first batch larger than that is sent all the same.
        max_bytes: i32 [4+] = i32::MAX,
        /// Which records are visible: 0 for all, 1 for those of no transaction or of a committed one.
        isolation_level: i8 [4+],
        /// The fetch session, zero for none.
        session_id: i32 [7+; ignorable],
        /// The request's number in its session; -1 for no session, 0 for a new one.
        session_epoch: i32 [7+; ignorable] = -1,
        /// The topics to read; in a session, those that are new or changed.
        topics: Vec<FetchTopic> [4+],
        /// What to remove from the session.
        forgotten_topics_data: Vec<ForgottenTopic> [7+],
        /// The consumer's rack, empty if unknown.
        rack_id: Str [11+; ignorable],
    }

    /// The broker that fetches.
    pub struct ReplicaState {
        /// The broker's id, -1 for a consumer.
        replica_id: i32 [15+] = -1,
        /// The broker's epoch, -1 if unknown.
        replica_epoch: i64 [15+] = -1,
    }

    /// One topic to read.
    pub struct FetchTopic {
        /// The topic's name.
        topic: Str [4-12; ignorable],
        /// The topic's id.
        topic_id: TopicId [13+; ignorable],
        /// The partitions.
        partitions: Vec<FetchPartition> [4+],
    }

    /// One partition to read.
    pub struct FetchPartition {
        /// The partition's number.
        partition: i32 [4+],
        /// The leader epoch as the sender knows it, -1 if it does not; the broker refuses one that is not its own.
        current_leader_epoch: i32 [9+; ignorable] = -1,
        /// The first offset wanted.
        fetch_offset: i64 [4+],
        /// The leader epoch of the last record that the sender has, -1 if unknown.
        last_fetched_epoch: i32 [12+] = -1,
        /// The follower's first offset; -1 from a consumer.
        log_start_offset: i64 [5+; ignorable] = -1,
        /// How many bytes to send of this partition at most.
        partition_max_bytes: i32 [4+],
        /// The directory that a follower keeps the partition in.
        replica_directory_id: TopicId [17+, tag 0; ignorable],
        /// The high watermark as the follower knows it; `i64::MAX` from a consumer.
        high_watermark: i64 [18+, tag 1; ignorable] = i64::MAX,
    }

    /// Partitions to remove from the session.
    pub struct ForgottenTopic {
        /// The topic's name.
        topic: Str [7-12; ignorable],
        /// The topic's id.
        topic_id: TopicId [13+; ignorable],
        /// The partitions.
        partitions: Vec<i32> [7+],
    }

    /// Records, as far as there are any.
    pub struct FetchResponse {
        /// For how many milliseconds the broker holds the connection back for a quota; zero if it does not.
        throttle_time_ms: i32 [4+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [7+; ignorable],
        /// The fetch session, zero for none.
        session_id: i32 [7+],
        /// The topics; in a session, those with something to say.
        responses: Vec<FetchableTopicResponse> [4+],
        /// Where to reach the leaders named in partitions (KIP-951).
        node_endpoints: Vec<NodeEndpoint> [16+, tag 0; ignorable],
    }

    /// Records of one topic.
    pub struct FetchableTopicResponse {
        /// The topic's name.
        topic: Str [4-12; ignorable],
        /// The topic's id.
        topic_id: TopicId [13+; ignorable],
        /// The partitions.
        partitions: Vec<PartitionData> [4+],
    }

    /// Records of one partition.
    pub struct PartitionData {
        /// The partition's number.
        partition_index: i32 [4+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [4+],
        /// The first offset that is not committed yet, -1 with an error.
        high_watermark: i64 [4+],
        /// The first offset that belongs to an open transaction, or the high watermark.
        last_stable_offset: i64 [4+] = -1,
        /// The partition's first offset.
        log_start_offset: i64 [5+; ignorable] = -1,
        /// Where the follower's log and this one part.
        diverging_epoch: EpochEndOffset [12+, tag 0; ignorable],
        /// The leader that the client should turn to instead (KIP-951).
        current_leader: LeaderIdAndEpoch [12+, tag 1; ignorable],
        /// The snapshot to fetch instead; in Kafka's metadata log only.
        snapshot_id: SnapshotId [12+, tag 2; ignorable],
        /// The aborted transactions among the records; null where all records are visible.
        aborted_transactions: Option<Vec<AbortedTransaction>> [4+],
        /// The broker to read from instead, -1 for none.
        preferred_read_replica: i32 [11+] = -1,
        /// Record batches, one after the other.
        records: Records [4+],
    }

    /// Where a leader epoch ends.
    pub struct EpochEndOffset {
        /// The leader epoch.
        epoch: i32 [12+] = -1,
        /// The first offset that is not of the epoch, -1 if unknown.
        end_offset: i64 [12+] = -1,
    }

    /// Who leads a partition.
    pub struct LeaderIdAndEpoch {
        /// The leader's id, -1 if unknown.
        leader_id: i32 [12+] = -1,
        /// The leader epoch.
        leader_epoch: i32 [12+] = -1,
    }

    /// Names a snapshot of Kafka's metadata log.
    pub struct SnapshotId {
        /// The first offset that is not in the snapshot.
        end_offset: i64 [4+] = -1,
        /// The leader epoch of the last record in the snapshot.
        epoch: i32 [4+] = -1,
    }

    /// An aborted transaction.
    pub struct AbortedTransaction {
        /// The producer's id.
        producer_id: i64 [4+],
        /// The transaction's first offset in this partition.
        first_offset: i64 [4+],
    }

    /// Where a broker is reached.
    pub struct NodeEndpoint {
        /// The broker's id.
        node_id: i32 [16+],
        /// The host to connect to.
        host: Str [16+],
        /// The port to connect to.
        port: i32 [16+],
        /// The broker's rack, if it has one.
        rack: Option<Str> [16+],
    }
}
