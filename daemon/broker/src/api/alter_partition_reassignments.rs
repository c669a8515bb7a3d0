//! AlterPartitionReassignments (KIP-455): begins, changes and takes back moves of replicas. A move that is accepted goes on
//! by itself; ListPartitionReassignments tells when it is done.

use tradewind_cluster::command::{Command, MetaError, Move, Outcome};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::alter_partition_reassignments::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use tradewind_wire::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

use super::limit;

/// How many moves one entry of the metadata log carries.
const AT_ONCE: usize = 1_000;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let resize = request.allow_replication_factor_change;
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: resize,
        ..Default::default()
    };
    let image = broker.cluster().image();
    let known: Vec<Move> = request
        .topics
        .iter()
        .filter_map(|topic| Some((image.topic(&topic.name)?.id, topic)))
        .flat_map(|(id, topic)| topic.partitions.iter().map(move |partition| (id, partition)))
        .map(|(topic, partition)| Move {
            topic,
            partition: partition.partition_index,
            replicas: partition.replicas.clone(),
        })
        .collect();
    let mut done = Vec::with_capacity(known.len());
    for some in known.chunks(AT_ONCE) {
        let command = Command::Reassign {
            moves: some.to_vec(),
            resize,
        };
        let (error, message) = match broker.cluster().propose(command, limit(request.timeout_ms)).await {
            Ok(Outcome::Reassigned(results)) => {
                done.extend(results);
                continue;
            }
            Ok(other) => (ErrorCode::UnknownServerError, format!("{other:?}")),
            Err(error) => errors::of_propose(&error),
        };
        response.error_code = error.code();
        response.error_message = Some(message.into());
        return response;
    }
    let mut done = done.into_iter();
    for topic in request.topics {
        let exists = image.topic(&topic.name).is_some();
        let partitions = topic.partitions.iter().map(|partition| {
            let result = if exists { done.next() } else { None };
            result_of(partition.partition_index, result)
        });
        response.responses.push(ReassignableTopicResponse {
            partitions: partitions.collect(),
            name: topic.name,
        });
    }
    response
}

fn result_of(number: i32, result: Option<Result<(), MetaError>>) -> ReassignablePartitionResponse {
    let (error, message) = match result {
        Some(Ok(())) => (ErrorCode::None, None),
        None | Some(Err(MetaError::UnknownTopic(_) | MetaError::UnknownPartition(_))) => (
            ErrorCode::UnknownTopicOrPartition,
            Some("This server does not host this topic-partition.".to_owned()),
        ),
        Some(Err(error)) => (errors::of_meta(&error), Some(error.to_string())),
    };
    ReassignablePartitionResponse {
        partition_index: number,
        error_code: error.code(),
        error_message: message.map(Into::into),
    }
}
