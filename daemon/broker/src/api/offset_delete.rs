//! OffsetDelete: removes a group's stored positions in topics that it does not read (KIP-496).

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use tradewind_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;
use crate::groups::GroupError;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = broker.cluster().image();
    let known = |topic: &str, partition: i32| {
        let topic = image.topic(topic);
        topic.is_some_and(|topic| topic.partition(partition).is_some())
    };
    let mut positions = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if known(&topic.name, partition.partition_index) {
                positions.push((topic.name.to_string(), partition.partition_index));
            }
        }
    }
    let deleted = if request.group_id.is_empty() {
        Err(GroupError::InvalidGroup)
    } else {
        broker
            .coordinator()
            .delete_positions(&request.group_id, &positions)
            .await
    };
    let mut outcomes = match deleted {
        Ok(outcomes) => outcomes.into_iter(),
        Err(error) => {
            return OffsetDeleteResponse {
                error_code: errors::of_group(error).code(),
                ..Default::default()
            };
        }
    };
    let mut outcome = |topic: &str, partition: i32| {
        if !known(topic, partition) {
            return ErrorCode::UnknownTopicOrPartition;
        }
        let outcome = outcomes.next();
        outcome.map_or(ErrorCode::None, |outcome| errors::of_group_result(&outcome))
    };
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetDeleteResponseTopic {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetDeleteResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: outcome(&topic.name, partition.partition_index).code(),
                })
                .collect(),
        })
        .collect();
    OffsetDeleteResponse {
        topics,
        ..Default::default()
    }
}
