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

/// The asker that looks into any copy: a tool (`ListOffsetsRequest.DEBUGGING_REPLICA_ID`).
const DEBUGGING: i32 = -2;

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
                let at = (topic.name.as_ref(), &wanted);
                find(broker, call.version, at, request.replica_id, read_committed).await
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
    (topic, wanted): (&str, &ListOffsetsPartition),
    asker: i32,
    read_committed: bool,
) -> Result<TimeMatch, ErrorCode> {
    if !is_known(wanted.timestamp, version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
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
        .view(expected, asker == DEBUGGING)
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
    let not_yet = if version >= 5 {
        ErrorCode::OffsetNotAvailable
    } else {
        ErrorCode::LeaderNotAvailable
    };
    match wanted.timestamp {
        LATEST if !is_settled(&view) => Err(not_yet),
        LATEST => Ok(at(up_to, view.epoch)),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = replica.log().epoch_of(view.log_start);
            Ok(at(view.log_start, epoch.unwrap_or(-1)))
        }
        LATEST_TIERED => Ok(NOTHING),
        time => {
            let found = by_time(replica, move |replica| match time {
                MAX_TIMESTAMP => replica.log().max_timestamp(up_to),
                time => replica.log().offset_for_timestamp(time, up_to),
            });
            match found.await? {
                Some(found) => Ok(found),
                // What is asked for may be among the records whose fate this leader does not know yet.
                None if !is_settled(&view) => Err(not_yet),
                None => Ok(NOTHING),
            }
        }
    }
}

/// Whether a request of this version may ask for this time: the negative ones stand for something else.
fn is_known(timestamp: i64, version: i16) -> bool {
    let from = match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        _ => return false,
    };
    version >= from
}

/// Whether the watermark has reached what was in the log when this leader was elected. Before that "latest" could go back
/// behind an answer of the leader before.
fn is_settled(view: &LeaderView) -> bool {
    view.high_watermark >= view.epoch_start
}

async fn by_time<F>(replica: Arc<Replica>, lookup: F) -> Result<Option<TimeMatch>, ErrorCode>
where
    F: FnOnce(&Replica) -> Result<Option<TimeMatch>, tradewind_log::ReadError> + Send + 'static,
{
    let looked_up = tokio::task::spawn_blocking(move || lookup(&replica)).await;
    match looked_up {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(%error, "lookup by time failed");
            Err(ErrorCode::KafkaStorageError)
        }
        Err(_) => Err(ErrorCode::UnknownServerError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_times_are_known_from_their_versions_on() {
        for (timestamp, from) in [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (0, 1), (i64::MAX, 1)] {
            assert!(is_known(timestamp, from), "{timestamp}");
            assert!(!is_known(timestamp, from - 1), "{timestamp}");
        }
        // The first record that is not in tiered storage yet: version 11, which is not served.
        assert!(!is_known(-6, 10) && !is_known(i64::MIN, 10));
    }
}
