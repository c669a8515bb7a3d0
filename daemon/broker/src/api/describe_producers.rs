//! DescribeProducers: what a partition remembers of its producers (KIP-664). Any copy answers, as in Kafka.

use tradewind_log::ProducerState as Remembered;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_producers::{PartitionResponse, ProducerState, TopicResponse};
use tradewind_wire::messages::{DescribeProducersRequest, DescribeProducersResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::topics;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| TopicResponse {
        partitions: topic
            .partition_indexes
            .iter()
            .map(|partition| describe(broker, &topic.name, *partition))
            .collect(),
        name: topic.name,
    });
    DescribeProducersResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn describe(broker: &Broker, topic: &str, partition: i32) -> PartitionResponse {
    let mut response = PartitionResponse {
        partition_index: partition,
        ..Default::default()
    };
    match producers(broker, topic, partition) {
        Ok(producers) => response.active_producers = producers.into_iter().map(told).collect(),
        Err((error, message)) => {
            response.error_code = error.code();
            response.error_message = Some(message.into());
        }
    }
    response
}

fn producers(
    broker: &Broker,
    topic: &str,
    partition: i32,
) -> Result<Vec<Remembered>, (ErrorCode, &'static str)> {
    if !topics::is_valid_name(topic) {
        return Err((
            ErrorCode::InvalidTopicException,
            "This is not the name of a topic.",
        ));
    }
    let image = broker.cluster().image();
    let found = image
        .topic(topic)
        .filter(|topic| topic.partition(partition).is_some());
    let unknown = (
        ErrorCode::UnknownTopicOrPartition,
        "This server does not host this topic-partition.",
    );
    let id = found.ok_or(unknown)?.id;
    let elsewhere = (
        ErrorCode::NotLeaderOrFollower,
        "No copy of the partition is here.",
    );
    let replica = broker.cluster().replica(id, partition).ok_or(elsewhere)?;
    Ok(replica.log().producer_states())
}

fn told(producer: Remembered) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.epoch),
        last_sequence: producer.last_sequence.unwrap_or(-1),
        last_timestamp: producer.last_timestamp.unwrap_or(-1),
        // Nobody writes transaction markers yet.
        coordinator_epoch: -1,
        current_txn_start_offset: producer.transaction_start.unwrap_or(-1),
    }
}
