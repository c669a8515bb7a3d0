//! DeleteRecords: moves the beginning of partitions forward (KIP-107).
//!
//! All partitions of a request are trimmed first and then waited for together, so that they share the writing down.

use std::sync::Arc;

use futures::future::join_all;
use tradewind_cluster::image::Topic;
use tradewind_cluster::replica::Replica;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::delete_records::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use tradewind_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

use super::limit;

/// The high watermark, as an offset to delete up to.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark of a partition that was not looked at.
const UNKNOWN: i64 = -1;

/// A trimmed partition: its place in the answer, where it is to begin, and the epoch in which it was trimmed.
struct Trimmed {
    place: (usize, usize),
    replica: Arc<Replica>,
    target: i64,
    leader_epoch: i32,
}

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let timeout = limit(request.timeout_ms);
    let image = broker.cluster().image();
    let (mut topics, mut found) = (Vec::new(), Vec::new());
    for asked in request.topics {
        let topic = image.topic(&asked.name);
        let refused = topic.and_then(|topic| refusal(broker, topic));
        let mut partitions = Vec::new();
        for part in asked.partitions {
            let replica = match (topic, refused) {
                (None, _) => Err(ErrorCode::UnknownTopicOrPartition),
                (Some(topic), _) if topic.partition(part.partition_index).is_none() => {
                    Err(ErrorCode::UnknownTopicOrPartition)
                }
                (_, Some(refused)) => Err(refused),
                (Some(topic), None) => broker
                    .cluster()
                    .replica(topic.id, part.partition_index)
                    .ok_or(ErrorCode::NotLeaderOrFollower),
            };
            let error_code = match replica {
                Ok(replica) => {
                    found.push(((topics.len(), partitions.len()), replica, part.offset));
                    ErrorCode::None
                }
                Err(error) => error,
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: part.partition_index,
                low_watermark: UNKNOWN,
                error_code: error_code.code(),
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: asked.name,
            partitions,
        });
    }
    let places: Vec<_> = found.iter().map(|(place, ..)| *place).collect();
    let trimmed = tokio::task::spawn_blocking(move || found.into_iter().map(trim).collect::<Vec<_>>()).await;
    // Whatever was not trimmed because the thread ended has failed for a reason of its own.
    let trimmed = trimmed.unwrap_or_else(|_| {
        let failed = |place| Err((place, ErrorCode::UnknownServerError));
        places.into_iter().map(failed).collect()
    });
    let waiting = trimmed.into_iter().map(|trimmed| async move {
        match trimmed {
            Ok(trimmed) => (trimmed.place, wait(&trimmed, timeout).await),
            Err((place, error)) => (place, (error, UNKNOWN)),
        }
    });
    for ((topic, partition), (error, low_watermark)) in join_all(waiting).await {
        let result: &mut DeleteRecordsTopicResult = &mut topics[topic];
        result.partitions[partition].error_code = error.code();
        result.partitions[partition].low_watermark = low_watermark;
    }
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

/// Why nothing may be deleted from a topic, whatever the partition.
fn refusal(broker: &Broker, topic: &Topic) -> Option<ErrorCode> {
    if topic.internal {
        return Some(ErrorCode::InvalidTopicException);
    }
    if broker.guard().waits_for(topic.id).is_some() {
        return Some(ErrorCode::NotLeaderOrFollower);
    }
    let policy = broker.cluster().topic_config(Some(topic), "cleanup.policy");
    let policy: Vec<&str> = policy
        .iter()
        .flat_map(|policy| policy.split(','))
        .map(str::trim)
        .collect();
    let keeps_last_values = policy.contains(&"compact") && !policy.contains(&"delete");
    // What a flow mirrors is as read-only for this as for Produce.
    (topic.is_mirroring() || keeps_last_values).then_some(ErrorCode::PolicyViolation)
}

fn trim(
    (place, replica, offset): ((usize, usize), Arc<Replica>, i64),
) -> Result<Trimmed, ((usize, usize), ErrorCode)> {
    let wanted = (offset != HIGH_WATERMARK).then_some(offset);
    match replica.delete_records(wanted) {
        Ok((target, leader_epoch)) => Ok(Trimmed {
            place,
            replica,
            target,
            leader_epoch,
        }),
        Err(error) => {
            tracing::debug!(topic = %replica.topic_name, partition = replica.partition, offset, %error, "not deleted");
            Err((place, errors::of_replica(&error)))
        }
    }
}

async fn wait(trimmed: &Trimmed, timeout: std::time::Duration) -> (ErrorCode, i64) {
    let Trimmed {
        replica,
        target,
        leader_epoch,
        ..
    } = trimmed;
    match replica.records_deleted(*target, *leader_epoch, timeout).await {
        Ok(low_watermark) => (ErrorCode::None, low_watermark),
        Err(error) => {
            let reached = replica.low_watermark(*leader_epoch);
            (errors::of_commit(error), reached.unwrap_or(UNKNOWN))
        }
    }
}
