//! DescribeQuorum (KIP-595, KIP-836): the Raft group of the metadata, in the words of Kafka's.
//!
//! Kafka's group is the topic `__cluster_metadata`; ours is none, but has the same to tell: a leader, its epoch, voters,
//! observers, and how far each log reaches. When a member last fetched is not known here: leaders push.

use tradewind_cluster::{Quorum, QuorumMember};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_quorum::{PartitionData, ReplicaState, TopicData};
use tradewind_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use crate::broker::Broker;
use crate::dispatch::Call;

/// The topic that stands for the metadata.
const METADATA: &str = "__cluster_metadata";

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let quorum = match broker.cluster().quorum().await {
        Ok(quorum) => quorum,
        Err(error) => {
            tracing::debug!(%error, "the quorum cannot be described now");
            return DescribeQuorumResponse {
                // Retriable.
                error_code: ErrorCode::BrokerNotAvailable.code(),
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
                    describe(&quorum, now_ms)
                } else {
                    unknown(asked.partition_index)
                }
            })
            .collect(),
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn unknown(partition: i32) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code: ErrorCode::UnknownTopicOrPartition.code(),
        leader_id: -1,
        ..Default::default()
    }
}

fn describe(quorum: &Quorum, now_ms: i64) -> PartitionData {
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
        let member = |node, end| QuorumMember { node, end };
        let described = describe(
            &Quorum {
                leader: Some(2),
                term: 7,
                committed_end: 40,
                voters: vec![member(1, Some(39)), member(2, Some(41))],
                learners: vec![member(3, None)],
            },
            1_000,
        );
        assert_eq!((described.leader_id, described.leader_epoch), (2, 7));
        assert_eq!(described.high_watermark, 40);
        let voters = described.current_voters.iter();
        let ends: Vec<_> = voters
            .map(|voter| (voter.log_end_offset, voter.last_caught_up_timestamp))
            .collect();
        assert_eq!(ends, [(39, -1), (41, 1_000)]);
        assert_eq!(described.observers[0].log_end_offset, -1);
    }
}
