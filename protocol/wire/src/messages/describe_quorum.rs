//! DescribeQuorum: who holds the cluster's metadata, and how far each is (KIP-595, KIP-836, KIP-853).

use crate::codec::Str;
use crate::ids::DirectoryId;
use crate::messages::declare::declare;

/// The structures of the request that the response has others of under the same names.
pub mod asked {
    use super::{Str, declare};

    declare! {
        /// One topic.
        pub struct TopicData {
            /// The topic's name.
            topic_name: Str [0+],
            /// The partitions.
            partitions: Vec<PartitionData> [0+],
        }

        /// One partition.
        pub struct PartitionData {
            /// The partition's number.
            partition_index: i32 [0+],
        }
    }
}

declare! {
    api DescribeQuorum, 0..=2, flexible 0: DescribeQuorumRequest => DescribeQuorumResponse;

    /// Which quorum to describe: that of `__cluster_metadata`, partition 0.
    pub struct DescribeQuorumRequest {
        /// The topics.
        topics: Vec<asked::TopicData> [0+],
    }

    /// The quorum.
    pub struct DescribeQuorumResponse {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [2+; ignorable],
        /// The topics.
        topics: Vec<TopicData> [0+],
        /// Where the voters are reached.
        nodes: Vec<Node> [2+],
    }

    /// One topic.
    pub struct TopicData {
        /// The topic's name.
        topic_name: Str [0+],
        /// The partitions.
        partitions: Vec<PartitionData> [0+],
    }

    /// One partition.
    pub struct PartitionData {
        /// The partition's number.
        partition_index: i32 [0+],
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [2+; ignorable],
        /// The leader's id, -1 if unknown.
        leader_id: i32 [0+],
        /// The leader's epoch.
        leader_epoch: i32 [0+],
        /// The high watermark: what a majority holds.
        high_watermark: i64 [0+],
        /// Those whose vote counts.
        current_voters: Vec<ReplicaState> [0+],
        /// Those that only read along.
        observers: Vec<ReplicaState> [0+],
    }

    /// One member.
    pub struct ReplicaState {
        /// Its id.
        replica_id: i32 [0+],
        /// Its data directory, zero if unknown.
        replica_directory_id: DirectoryId [2+],
        /// The end of its log, -1 if unknown.
        log_end_offset: i64 [0+],
        /// When it last fetched, in the leader's milliseconds since 1970; -1 if unknown.
        last_fetch_timestamp: i64 [1+; ignorable] = -1,
        /// When it last had all that the leader had, in the leader's milliseconds since 1970; -1 if unknown.
        last_caught_up_timestamp: i64 [1+; ignorable] = -1,
    }
    /// Where one voter is reached.
    pub struct Node {
        /// Its id.
        node_id: i32 [2+],
        /// The listeners by which the voters reach each other.
        listeners: Vec<Listener> [2+],
    }

    /// One listener.
    pub struct Listener {
        /// Its name.
        name: Str [2+],
        /// The host to connect to.
        host: Str [2+],
        /// The port to connect to.
        port: u16 [2+],
    }
}
