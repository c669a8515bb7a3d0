//! OffsetCommit: stores a group's positions. The answer comes when they are replicated.

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use tradewind_wire::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::{Committer, GroupError, Position};

use super::owned;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = broker.cluster().image();
    let known = |topic: &str, partition: i32| {
        image
            .topic(topic)
            .is_some_and(|topic| topic.partition(partition).is_some())
    };
    let mut positions = Vec::new();
    for topic in &request.topics {
        for partition in topic
            .partitions
            .iter()
            .filter(|partition| known(&topic.name, partition.partition_index))
        {
            positions.push(Position {
                topic: topic.name.to_string(),
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition
                    .committed_metadata
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                // Zero and less stand for the daemon's own setting.
                retention_ms: Some(request.retention_time_ms).filter(|retention| *retention > 0),
            });
        }
    }
    let committer = Committer {
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
        knows_epochs: call.version >= 9,
    };
    let outcomes = if request.group_id.is_empty() && committer.generation >= 0 {
        Err(GroupError::InvalidGroup)
    } else {
        broker
            .coordinator()
            .commit(&request.group_id, &committer, positions)
            .await
    };
    let mut outcomes = match outcomes {
        Ok(outcomes) => Ok(outcomes.into_iter()),
        Err(error) => Err(code_of(error, call.version)),
    };
    let mut outcome = |topic: &str, partition: i32| match &mut outcomes {
        _ if !known(topic, partition) => ErrorCode::UnknownTopicOrPartition,
        Err(code) => *code,
        Ok(outcomes) => outcomes
            .next()
            .map_or(ErrorCode::None, |outcome| errors::of_group_result(&outcome)),
    };
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: outcome(&topic.name, partition.partition_index).code(),
                })
                .collect(),
        })
        .collect();
    OffsetCommitResponse {
        topics,
        ..Default::default()
    }
}

fn code_of(error: GroupError, version: i16) -> ErrorCode {
    match error {
        // Clients before version 9 do not know the code.
        GroupError::GroupNotFound if version < 9 => ErrorCode::IllegalGeneration,
        other => errors::of_group(other),
    }
}
