//! ListOffsets: first, last, and by time. Only the leader answers, and only below what consumers may see.

use std::collections::HashSet;
use std::sync::Arc;

use tradewind_cluster::replica::{LeaderView, Replica};
use tradewind_log::TimeMatch;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use tradewind_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// There is no tiered storage, so what is local is everything.
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub(crate) async fn handle(
    broker: &Broker,
    call: Call<'_>,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let read_committed = request.isolation_level == 1;
    let mut seen = HashSet::new();
    let mut repeated = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                repeated.insert(key);
            }
        }
    }
    let mut topics = Vec::with_capacity(request.topics.len().min(1_000));
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len().min(1_000));
        for wanted in topic.partitions {
            let found = if repeated.contains(&(topic.name.clone(), wanted.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else {
                find(broker, call.version, &topic.name, &wanted, read_committed).await
            };
            let (error_code, found) = match found {
                Ok(found) => (ErrorCode::None, found),
                Err(error) => (error, NOTHING),
            };
            partitions.push(ListOffsetsPartitionResponse {
                partition_index: wanted.partition_index,
                error_code: error_code.code(),
                timestamp: found.timestamp,
                offset: found.offset,
                // Null before version 4, where -1 stands for the field's absence.
                leader_epoch: if call.version >= 4 { found.leader_epoch } else { -1 },
            });
        }
        topics.push(ListOffsetsTopicResponse {
            name: topic.name,
            partitions,
        });
    }
    ListOffsetsResponse {
        topics,
        ..Default::default()
    }
}

/// No record fits: not an error.
const NOTHING: TimeMatch = TimeMatch {
    offset: -1,
    timestamp: -1,
    leader_epoch: -1,
};

async fn find(
    broker: &Broker,
    version: i16,
    topic: &str,
    wanted: &ListOffsetsPartition,
    read_committed: bool,
) -> Result<TimeMatch, ErrorCode> {
    let image = broker.cluster().image();
    let topic = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.partition(wanted.partition_index).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let replica = broker
        .cluster()
        .replica(topic.id, wanted.partition_index)
        .ok_or(ErrorCode::NotLeaderOrFollower)?;
    let expected = (wanted.current_leader_epoch >= 0).then_some(wanted.current_leader_epoch);
    let view = replica
        .leader(expected)
        .map_err(|error| errors::of_replica(&error))?;
    let up_to = if read_committed {
        view.last_stable_offset
    } else {
        view.high_watermark
    };
    let at = |offset: i64, leader_epoch: i32| TimeMatch {
        offset,
        timestamp: -1,
        leader_epoch,
    };
    match wanted.timestamp {
        LATEST if !is_settled(&view) => Err(if version >= 5 {
            ErrorCode::OffsetNotAvailable
        } else {
            ErrorCode::LeaderNotAvailable
        }),
        LATEST => Ok(at(up_to, view.epoch)),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = replica.log().epoch_of(view.log_start).unwrap_or(-1);
            Ok(at(view.log_start, epoch))
        }
        LATEST_TIERED => Ok(NOTHING),
        MAX_TIMESTAMP => by_time(replica, move |replica| replica.log().max_timestamp(up_to)).await,
        time if time >= 0 => {
            by_time(replica, move |replica| {
                replica.log().offset_for_timestamp(time, up_to)
            })
            .await
        }
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

/// Whether the watermark has reached what was in the log when this leader was elected. Before that "latest" could go back
/// behind an answer of the leader before.
fn is_settled(view: &LeaderView) -> bool {
    view.high_watermark >= view.epoch_start
}

async fn by_time<F>(replica: Arc<Replica>, lookup: F) -> Result<TimeMatch, ErrorCode>
where
    F: FnOnce(&Replica) -> Result<Option<TimeMatch>, tradewind_log::ReadError> + Send + 'static,
{
    let looked_up = tokio::task::spawn_blocking(move || lookup(&replica)).await;
    match looked_up {
        Ok(Ok(found)) => Ok(found.unwrap_or(NOTHING)),
        Ok(Err(error)) => {
            tracing::warn!(%error, "lookup by time failed");
            Err(ErrorCode::KafkaStorageError)
        }
        Err(_) => Err(ErrorCode::UnknownServerError),
    }
}
