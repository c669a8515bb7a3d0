//! DescribeQuorum (KIP-595, KIP-836, KIP-853): the Raft group of the metadata, in the words of Kafka's.
//!
//! Kafka's group is the topic `__cluster_metadata`; ours is none, but has the same to tell: a leader, its epoch, voters,
//! observers, how far each log reaches, in which data directory, and where daemons reach each other. When a member last
//! fetched is not known here: leaders push.

use tradewind_cluster::image::Image;
use tradewind_cluster::{Quorum, QuorumMember};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::DirectoryId;
use tradewind_wire::messages::describe_quorum::{Listener, Node, PartitionData, ReplicaState, TopicData};
use tradewind_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use crate::broker::{Broker, MESH_LISTENER};
use crate::dispatch::Call;
use crate::topics;

/// What the daemons' own listener is called here: Kafka's tools take only capitals for such a name.
const LISTENER: &str = "MESH";

/// The first version that tells data directories and addresses (KIP-853).
const DIRECTORIES_FROM: i16 = 2;

/// The topic that stands for the metadata.
const METADATA: &str = "__cluster_metadata";

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let quorum = match broker.cluster().quorum().await {
        Ok(quorum) => quorum,
        Err(error) => {
            tracing::debug!(%error, "the quorum cannot be described now");
            return DescribeQuorumResponse {
                // Retriable.
                error_code: ErrorCode::BrokerNotAvailable.code(),
                error_message: Some("The controller cannot be asked now.".into()),
                ..Default::default()
            };
        }
    };
    let now_ms = broker.cluster().clock().now_ms();
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|asked| {
                if topic.topic_name.as_str() == METADATA && asked.partition_index == 0 {
                    describe(&quorum, now_ms, call.version)
                } else {
                    unknown(asked.partition_index)
                }
            })
            .collect(),
    });
    // Not ignorable, as the directories: versions before this one have no room for it.
    let nodes = if call.version >= DIRECTORIES_FROM {
        nodes(&quorum, &broker.cluster().image())
    } else {
        Vec::new()
    };
    DescribeQuorumResponse {
        topics: topics.collect(),
        nodes,
        ..Default::default()
    }
}

/// Where the voters that have registered are reached by each other.
fn nodes(quorum: &Quorum, image: &Image) -> Vec<Node> {
    let found = quorum.voters.iter().filter_map(|voter| {
        let (host, port) = topics::address(image.nodes.get(&voter.node)?, MESH_LISTENER)?;
        let listener = Listener {
            name: LISTENER.into(),
            host: host.into(),
            port: u16::try_from(port).ok()?,
        };
        Some(Node {
            node_id: voter.node,
            listeners: vec![listener],
        })
    });
    found.collect()
}

fn unknown(partition: i32) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code: ErrorCode::UnknownTopicOrPartition.code(),
        error_message: Some("Only __cluster_metadata-0 has a quorum.".into()),
        leader_id: -1,
        ..Default::default()
    }
}

fn describe(quorum: &Quorum, now_ms: i64, version: i16) -> PartitionData {
    let offset = |end: u64| i64::try_from(end).unwrap_or(i64::MAX);
    let state = |member: &QuorumMember| {
        // The leader always has all that it has.
        let seen = if quorum.leader == Some(member.node) {
            now_ms
        } else {
            -1
        };
        ReplicaState {
            replica_id: member.node,
            replica_directory_id: if version >= DIRECTORIES_FROM {
                DirectoryId(member.storage_id)
            } else {
                DirectoryId::ZERO
            },
            log_end_offset: member.end.map_or(-1, offset),
            last_fetch_timestamp: seen,
            last_caught_up_timestamp: seen,
        }
    };
    PartitionData {
        partition_index: 0,
        leader_id: quorum.leader.unwrap_or(-1),
        leader_epoch: i32::try_from(quorum.term).unwrap_or(i32::MAX),
        high_watermark: offset(quorum.committed_end),
        current_voters: quorum.voters.iter().map(state).collect(),
        observers: quorum.learners.iter().map(state).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_the_end_of_their_log_and_the_leader_the_present_time() {
        let member = |node, end| QuorumMember {
            node,
            end,
            storage_id: [7; 16],
        };
        let quorum = Quorum {
            leader: Some(2),
            term: 7,
            committed_end: 40,
            voters: vec![member(1, Some(39)), member(2, Some(41))],
            learners: vec![member(3, None)],
        };
        let described = describe(&quorum, 1_000, 2);
        assert_eq!((described.leader_id, described.leader_epoch), (2, 7));
        assert_eq!(described.high_watermark, 40);
        let voters = described.current_voters.iter();
        let ends: Vec<_> = voters
            .map(|voter| (voter.log_end_offset, voter.last_caught_up_timestamp))
            .collect();
        assert_eq!(ends, [(39, -1), (41, 1_000)]);
        assert_eq!(described.observers[0].log_end_offset, -1);
        let directory = |version| describe(&quorum, 1_000, version).current_voters[0].replica_directory_id;
        assert_eq!(directory(1), DirectoryId::ZERO);
        assert_eq!(directory(2), DirectoryId([7; 16]));
    }
}
