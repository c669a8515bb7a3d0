//! ListPartitionReassignments (KIP-455): the moves of replicas that are not done.

use tradewind_cluster::image::{Image, Topic};
use tradewind_wire::messages::list_partition_reassignments::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use tradewind_wire::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image: &Image = &broker.cluster().image();
    let topics = match request.topics {
        None => image
            .names
            .values()
            .filter_map(|id| ongoing(image.topic_by_id(*id)?, None))
            .collect(),
        // What is unknown has no move.
        Some(asked) => asked
            .iter()
            .filter_map(|asked| ongoing(image.topic(&asked.name)?, Some(&asked.partition_indexes)))
            .collect(),
    };
    ListPartitionReassignmentsResponse {
        topics,
        ..Default::default()
    }
}

/// The topic's moves, of these partitions or of all; none if there is none.
fn ongoing(topic: &Topic, of: Option<&[i32]>) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<_> = (0..)
        .zip(&topic.partitions)
        .filter(|(number, partition)| {
            partition.reassignment.is_some() && of.is_none_or(|wanted| wanted.contains(number))
        })
        .map(|(number, partition)| OngoingPartitionReassignment {
            partition_index: number,
            replicas: partition.replicas.clone(),
            adding_replicas: partition.adding(),
            removing_replicas: partition.removing(),
        })
        .collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment {
        name: topic.name.as_str().into(),
        partitions,
    })
}
