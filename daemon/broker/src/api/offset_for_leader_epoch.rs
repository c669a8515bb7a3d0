//! OffsetForLeaderEpoch: where a leader epoch ended, so that a client can tell whether its position still holds (KIP-320).

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use tradewind_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::errors;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let respond = |topic: &str, wanted: &OffsetForLeaderPartition| {
        let (error, (leader_epoch, end_offset)) = match find(broker, topic, wanted) {
            Ok(found) => (ErrorCode::None, found),
            Err(error) => (error, (-1, -1)),
        };
        EpochEndOffset {
            error_code: error.code(),
            partition: wanted.partition,
            leader_epoch,
            end_offset,
        }
    };
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetForLeaderTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|wanted| respond(&topic.topic, wanted))
                .collect(),
            topic: topic.topic,
        });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn find(broker: &Broker, topic: &str, wanted: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let image = broker.cluster().image();
    let topic = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic
        .partition(wanted.partition)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let replica = broker
        .cluster()
        .replica(topic.id, wanted.partition)
        .ok_or(ErrorCode::NotLeaderOrFollower)?;
    let expected = (wanted.current_leader_epoch >= 0).then_some(wanted.current_leader_epoch);
    let view = replica
        .leader(expected)
        .map_err(|error| errors::of_replica(&error))?;
    // Consumers of the source come here with its epochs: everything below the promotion was one history up to the cut.
    if let Some(cut) = &partition.cut
        && (0..cut.leader_epoch).contains(&wanted.leader_epoch)
    {
        return Ok((wanted.leader_epoch, cut.target_end));
    }
    if wanted.leader_epoch == view.epoch {
        return Ok((view.epoch, view.end));
    }
    Ok(replica.epoch_end(wanted.leader_epoch).unwrap_or((-1, -1)))
}
