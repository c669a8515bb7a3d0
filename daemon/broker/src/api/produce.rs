//! Produce: checks batches, appends them, and answers when as many copies have them as the client asked for.
//!
//! Checking and appending happen before [`handle`] returns, in the order of the request; only the wait for replication
//! goes on behind it, so that the connection's next batches can follow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;
use tradewind_cluster::image::{Image, Topic};
use tradewind_cluster::replica::{Replica, ReplicaError};
use tradewind_wire::api::ApiKey;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use tradewind_wire::messages::{ProduceRequest, ProduceResponse};

use crate::broker::{Broker, Reply};
use crate::dispatch::{self, Call};
use crate::validation::{self, Refusal, TopicRules};
use crate::{errors, metrics, topics};

use super::limit;

/// An append whose replication is awaited.
struct Waiting {
    topic: usize,
    partition: usize,
    replica: Arc<Replica>,
    last_offset: i64,
    leader_epoch: i32,
}

pub(crate) async fn handle(broker: &Broker, call: Call<'_>, request: ProduceRequest) -> Reply {
    let (acks, timeout) = (request.acks, limit(request.timeout_ms));
    let image = broker.cluster().image();
    let (mut responses, mut waiting) = (
        Vec::with_capacity(request.topic_data.len().min(1_000)),
        Vec::new(),
    );
    let transactional = request.transactional_id.is_some();
    for data in request.topic_data {
        let topic = topics::find(&image, &data.name, data.topic_id);
        let rules = topic.ok().map(|topic| TopicRules::of(broker.cluster(), topic));
        let mut partitions = Vec::with_capacity(data.partition_data.len().min(1_000));
        for part in data.partition_data {
            let bytes = apart(part.records.to_bytes(), call.frame_bytes);
            let appended = match (topic, &rules) {
                (Ok(topic), Some(rules)) => {
                    let target = Target {
                        broker,
                        topic,
                        rules,
                        acks,
                        transactional,
                        version: call.version,
                    };
                    target.append(part.index, bytes).await
                }
                (Err(error), _) => Err(Failure::plain(error, "This server does not host this topic.")),
                (Ok(_), None) => Err(Failure::plain(ErrorCode::UnknownServerError, "")),
            };
            let response = match appended {
                Ok((response, Some((replica, last_offset, leader_epoch)))) => {
                    let (topic, partition) = (responses.len(), partitions.len());
                    waiting.push(Waiting {
                        topic,
                        partition,
                        replica,
                        last_offset,
                        leader_epoch,
                    });
                    response
                }
                Ok((response, None)) => response,
                Err(failure) => failure.respond(part.index),
            };
            partitions.push(response);
        }
        responses.push(TopicProduceResponse {
            name: data.name,
            topic_id: data.topic_id,
            partition_responses: partitions,
        });
    }
    let mut response = ProduceResponse {
        responses,
        ..Default::default()
    };
    if acks == 0 {
        return unanswered(&response);
    }
    let (version, correlation_id) = (call.version, call.correlation_id);
    let (listener, broker) = (call.connection.listener.clone(), broker.clone());
    let finish = async move {
        await_replication(&mut response, waiting, timeout).await;
        if version >= 10 {
            let image = broker.cluster().image();
            response.node_endpoints = name_leaders(&response.responses, &image, &listener);
        }
        dispatch::encode(ApiKey::Produce, version, correlation_id, &response)
    };
    if acks == -1 {
        Reply::Later(finish.boxed())
    } else {
        finish.await
    }
}

/// Batches that are less than this part of their request are copied out of it: the log keeps the newest batches in memory,
/// and a small one would keep the whole request there.
const PART_OF_FRAME: usize = 8;

/// The records of one partition, in a buffer of their own if they are a small part of a request of `frame_bytes`.
fn apart(records: Bytes, frame_bytes: usize) -> Bytes {
    if records.len() >= frame_bytes / PART_OF_FRAME {
        return records;
    }
    Bytes::copy_from_slice(&records)
}

/// With acks=0 there is nobody to tell of an error, except by closing the connection: then the client looks for the
/// leader again.
fn unanswered(response: &ProduceResponse) -> Reply {
    let mut all = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    match all.find(|partition| partition.error_code != ErrorCode::None.code()) {
        Some(failed) => {
            let code = ErrorCode::from_code(failed.error_code);
            Reply::Close(format!(
                "produce with acks=0 to partition {} failed: {}",
                failed.index,
                code.name()
            ))
        }
        None => Reply::None,
    }
}

async fn await_replication(response: &mut ProduceResponse, waiting: Vec<Waiting>, timeout: Duration) {
    let outcomes = join_all(waiting.into_iter().map(|waiting| async move {
        let committed = waiting
            .replica
            .committed(waiting.last_offset, waiting.leader_epoch, timeout)
            .await;
        (waiting.topic, waiting.partition, committed)
    }));
    for (topic, partition, outcome) in outcomes.await {
        let Err(error) = outcome else { continue };
        let topic = response.responses.get_mut(topic);
        if let Some(partition) = topic.and_then(|topic| topic.partition_responses.get_mut(partition)) {
            *partition = Failure::plain(errors::of_commit(error), error.to_string()).respond(partition.index);
        }
    }
}

/// Where the batches of one topic go.
struct Target<'a> {
    broker: &'a Broker,
    topic: &'a Arc<Topic>,
    rules: &'a TopicRules,
    acks: i16,
    transactional: bool,
    version: i16,
}

/// The response so far, and what is to be waited for.
type Appended = (PartitionProduceResponse, Option<(Arc<Replica>, i64, i32)>);

impl Target<'_> {
    async fn append(&self, partition: i32, records: Bytes) -> Result<Appended, Failure> {
        self.check_request(partition)?;
        let size = records.len();
        let batch = validation::check(self.broker, records, self.version, self.rules).await?;
        let replica = self.broker.cluster().replica(self.topic.id, partition);
        let replica = replica.ok_or_else(|| self.elsewhere(partition))?;
        let (appended, leader_epoch) = replica.append(batch, self.acks)?;
        metrics::produced(size);
        let response = PartitionProduceResponse {
            index: partition,
            base_offset: appended.base_offset,
            log_append_time_ms: appended.log_append_time_ms,
            log_start_offset: replica.log().start(),
            ..Default::default()
        };
        let wait = (self.acks == -1).then_some((replica, appended.last_offset, leader_epoch));
        Ok((response, wait))
    }

    /// There is no replica here, or not yet: the image knows who leads.
    fn elsewhere(&self, partition: i32) -> Failure {
        let led = self.topic.partition(partition);
        Failure {
            leader: led.map(|partition| (partition.leader, partition.leader_epoch)),
            ..Failure::plain(ErrorCode::NotLeaderOrFollower, "No replica here.")
        }
    }

    fn check_request(&self, partition: i32) -> Result<(), Failure> {
        if !(-1..=1).contains(&self.acks) {
            return Err(Failure::plain(
                ErrorCode::InvalidRequiredAcks,
                "acks must be 0, 1 or -1.",
            ));
        }
        if self.transactional {
            return Err(Failure::plain(
                ErrorCode::InvalidTxnState,
                "Transactions are not supported.",
            ));
        }
        if self.topic.partition(partition).is_none() {
            return Err(Failure::plain(
                ErrorCode::UnknownTopicOrPartition,
                "No such partition.",
            ));
        }
        if self.topic.internal {
            return Err(Failure::plain(
                ErrorCode::InvalidTopicException,
                "The topic belongs to the cluster.",
            ));
        }
        if let Some(fence) = &self.topic.fence {
            let message = format!(
                "Topic '{}' is being moved to another cluster, or has been, by flow '{}'.",
                self.topic.name, fence.flow
            );
            return Err(Failure::plain(ErrorCode::NotLeaderOrFollower, message));
        }
        if let Some(message) = self.broker.guard().refusal(self.topic.id, &self.topic.name) {
            return Err(Failure::plain(ErrorCode::NotLeaderOrFollower, message));
        }
        match &self.topic.mirror {
            Some(mirror) if self.topic.is_mirroring() => {
                let message = format!(
                    "Topic '{}' mirrors '{}' and is read-only until flow '{}' is failed over.",
                    self.topic.name, mirror.source_topic, mirror.flow
                );
                Err(Failure::plain(ErrorCode::PolicyViolation, message))
            }
            _ => Ok(()),
        }
    }
}

/// Why a partition's batch is not in the log.
struct Failure {
    refusal: Refusal,
    leader: Option<(Option<NodeId>, i32)>,
}

impl Failure {
    fn plain(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            refusal: Refusal::new(code, message),
            leader: None,
        }
    }

    fn respond(self, partition: i32) -> PartitionProduceResponse {
        metrics::refused(self.refusal.code.name());
        tracing::debug!(
            partition,
            code = self.refusal.code.name(),
            message = self.refusal.message,
            "batch refused"
        );
        let record_errors = self.refusal.records.into_iter();
        let record_errors = record_errors.map(|(index, message)| BatchIndexAndErrorMessage {
            batch_index: index,
            batch_index_error_message: Some(message.into()),
        });
        let current_leader = self
            .leader
            .map_or_else(LeaderIdAndEpoch::default, |(leader, epoch)| LeaderIdAndEpoch {
                leader_id: leader.unwrap_or(-1),
                leader_epoch: epoch,
            });
        PartitionProduceResponse {
            index: partition,
            error_code: self.refusal.code.code(),
            base_offset: -1,
            record_errors: record_errors.collect(),
            error_message: Some(self.refusal.message.into()),
            current_leader,
            ..Default::default()
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            leader: None,
        }
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        let leader = match &error {
            ReplicaError::NotLeader { leader, epoch } => Some((*leader, *epoch)),
            _ => None,
        };
        Self {
            refusal: Refusal::new(errors::of_replica(&error), error.to_string()),
            leader,
        }
    }
}

/// Where to reach the leaders that responses name (KIP-951). A leader that cannot be named by address is not named.
fn name_leaders(responses: &[TopicProduceResponse], image: &Image, listener: &str) -> Vec<NodeEndpoint> {
    let named = responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|partition| partition.current_leader.leader_id);
    topics::endpoints(image, listener, named, |node_id, host, port, rack| NodeEndpoint {
        node_id,
        host,
        port,
        rack,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_of_a_request_is_copied_out_of_it() {
        let frame = Bytes::from(vec![7; 8_000]);
        let (large, small) = (frame.slice(..1_000), frame.slice(..999));
        assert_eq!(apart(large, frame.len()).as_ptr(), frame.as_ptr());
        let copied = apart(small.clone(), frame.len());
        assert_eq!(copied, small);
        assert_ne!(copied.as_ptr(), frame.as_ptr());
    }
}
