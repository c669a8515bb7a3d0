//! Records: moving the beginning of partitions forward.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use tradewind_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::client::{ANY_VERSION, Client};
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;
use crate::net::pool::Lane;

/// What came of each partition: where it begins now, or why it was not changed.
pub type Deleted = BTreeMap<TopicPartition, Result<i64, ClientError>>;

impl Client {
    /// Deletes the records below an offset of each partition (-1: all that are committed), asked of their leaders
    /// (KIP-107). Partitions whose leader moves are asked again: a second deletion changes nothing.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Deleted, ClientError> {
        let settled = Mutex::new(Deleted::new());
        let outcome = self.retrying(|| self.delete_open(before, &settled)).await;
        let mut settled = settled.into_inner();
        if let Err(error) = outcome {
            // What is settled stays told; the rest failed with this.
            if settled.is_empty() {
                return Err(error);
            }
            for partition in before.keys() {
                settled
                    .entry(partition.clone())
                    .or_insert_with(|| Err(error.clone()));
            }
        }
        Ok(settled)
    }

    /// Asks about the partitions that are not settled yet.
    async fn delete_open(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
        settled: &Mutex<Deleted>,
    ) -> Result<(), ClientError> {
        let mut by_leader: BTreeMap<NodeId, BTreeMap<&str, Vec<DeleteRecordsPartition>>> = BTreeMap::new();
        for ((topic, partition), offset) in before {
            let key = (topic.clone(), *partition);
            if settled.lock().contains_key(&key) {
                continue;
            }
            let node = match self.leader(topic, *partition).await {
                Ok((node, _)) => node,
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                    settled.lock().insert(key, Err(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let topics = by_leader.entry(node).or_default();
            topics.entry(topic).or_default().push(DeleteRecordsPartition {
                partition_index: *partition,
                offset: *offset,
            });
        }
        let asked = by_leader.into_iter().map(|(node, topics)| async move {
            let names: Vec<&str> = topics.keys().copied().collect();
            let topic = |(name, partitions): (&str, _)| DeleteRecordsTopic {
                name: name.into(),
                partitions,
            };
            let request = DeleteRecordsRequest {
                topics: topics.into_iter().map(topic).collect(),
                timeout_ms: self.timeout_ms(),
            };
            let limit = self.config().request_timeout;
            let answer = self
                .send_built(node, Lane::Short, limit, ANY_VERSION, |_| request)
                .await;
            let worked_in = answer.and_then(|answer| settle(&answer, settled));
            if let Err(error) = &worked_in {
                self.leaders_moved(error, &names).await;
            }
            worked_in
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }
}

/// Keeps what an answer settles; returns the first error that may pass.
fn settle(answer: &DeleteRecordsResponse, settled: &Mutex<Deleted>) -> Result<(), ClientError> {
    let mut settled = settled.lock();
    let mut passing = None;
    for topic in &answer.topics {
        for told in &topic.partitions {
            let key = (topic.name.to_string(), told.partition_index);
            let what = format!("delete records of {}-{}", topic.name, told.partition_index);
            match ErrorCode::from_code(told.error_code) {
                ErrorCode::None => {
                    settled.insert(key, Ok(told.low_watermark));
                }
                code if code.is_retriable() => {
                    passing.get_or_insert_with(|| ClientError::broker(what, code, None));
                }
                code => {
                    settled.insert(key, Err(ClientError::broker(what, code, None)));
                }
            }
        }
    }
    passing.map_or(Ok(()), Err)
}
