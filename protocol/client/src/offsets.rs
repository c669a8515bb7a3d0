//! Where partitions begin and end, and where their epochs end, as their leaders say.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use tradewind_wire::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use tradewind_wire::messages::{ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest};

use crate::client::{ANY_VERSION, Client};
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;
use crate::fetch::Isolation;
use crate::net::pool::Lane;

/// What is settled about partitions: the offset, or that there is none.
type Settled = BTreeMap<TopicPartition, Option<ListedOffset>>;

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetSpec {
    /// The first one.
    Earliest,
    /// The one after the last visible one.
    Latest,
    /// That of the record with the largest timestamp.
    MaxTimestamp,
    /// The first one that the leader itself keeps, others being in tiered storage (KIP-405).
    EarliestLocal,
    /// The last one in tiered storage (KIP-1005); none where there is no such storage.
    LatestTiered,
    /// The first one whose record has this timestamp (ms since the epoch) or a later one.
    At(i64),
}

impl OffsetSpec {
    fn code(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::LatestTiered => -5,
            Self::At(timestamp) => timestamp,
        }
    }

    /// The first version of ListOffsets whose brokers know what this means.
    fn since(self) -> i16 {
        match self {
            Self::Latest | Self::Earliest | Self::At(_) => 1,
            Self::MaxTimestamp => 7,
            Self::EarliestLocal => 8,
            Self::LatestTiered => 9,
        }
    }
}

/// An offset that a leader told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: i64,
    /// Its record's timestamp; -1 if none was asked for.
    pub timestamp: i64,
    /// The leader epoch of that offset; -1 if not told.
    pub leader_epoch: i32,
}

impl Client {
    /// The offset that `spec` names in one partition, asked of its leader; `None` if there is no such record.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, ClientError> {
        let listed = self
            .list_offsets(&[(topic.to_owned(), partition)], spec, isolation)
            .await?;
        Ok(listed.into_values().next())
    }

    /// The offsets that `spec` names in several partitions, asked of their leaders, one request per leader. Partitions
    /// whose leader moves are asked about again; any other error of one is an error of the whole. A partition without
    /// such a record is missing in the result.
    pub async fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>, ClientError> {
        let settled = Mutex::new(Settled::new());
        self.retrying(|| self.list_open(partitions, &settled, spec, isolation))
            .await?;
        let settled = settled.into_inner();
        if let Some((topic, partition)) = partitions.iter().find(|asked| !settled.contains_key(*asked)) {
            return Err(ClientError::Missing {
                what: format!("offsets of {topic}-{partition}"),
            });
        }
        let found = settled.into_iter();
        Ok(found
            .filter_map(|(partition, listed)| Some((partition, listed?)))
            .collect())
    }

    /// The largest epoch at the leader that is not above `epoch`, and where it ends there; `None` if there is none.
    pub async fn offset_for_leader_epoch(
        &self,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<Option<(i32, i64)>, ClientError> {
        self.retrying(|| async move {
            let answer = self.epoch_end_once(topic, partition, epoch).await;
            if let Err(error) = &answer {
                self.leader_moved(error, topic).await;
            }
            answer
        })
        .await
    }

    /// Asks about the partitions that are not settled yet. The first error that may pass is returned after all answers
    /// have been worked in, so that the next round asks about less.
    async fn list_open(
        &self,
        partitions: &[TopicPartition],
        settled: &Mutex<Settled>,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<(), ClientError> {
        let mut by_leader: BTreeMap<NodeId, BTreeMap<&str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
        for (topic, partition) in partitions {
            if settled.lock().contains_key(&(topic.clone(), *partition)) {
                continue;
            }
            let (node, epoch) = self.leader(topic, *partition).await?;
            let topics = by_leader.entry(node).or_default();
            topics.entry(topic).or_default().push(ListOffsetsPartition {
                partition_index: *partition,
                current_leader_epoch: epoch,
                timestamp: spec.code(),
            });
        }
        let asked = by_leader.into_iter().map(|(node, topics)| async move {
            let names: Vec<&str> = topics.keys().copied().collect();
            let answer = self.list_at(node, topics, spec, isolation).await;
            let worked_in = answer.and_then(|answer| settle(&answer, settled));
            if let Err(error) = &worked_in {
                self.leaders_moved(error, &names).await;
            }
            worked_in
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    async fn list_at(
        &self,
        node: NodeId,
        topics: BTreeMap<&str, Vec<ListOffsetsPartition>>,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<ListOffsetsResponse, ClientError> {
        if spec.since() > 1 {
            self.require::<ListOffsetsRequest>(node, spec.since()).await?;
        }
        let topic = |(name, partitions): (&str, _)| ListOffsetsTopic {
            name: name.into(),
            partitions,
        };
        let build = |version: i16| ListOffsetsRequest {
            replica_id: -1,
            isolation_level: if version >= 2 { isolation.code() } else { 0 },
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        };
        self.send_built(node, Lane::Short, self.attempt_timeout(), ANY_VERSION, build)
            .await
    }

    async fn epoch_end_once(
        &self,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<Option<(i32, i64)>, ClientError> {
        let (node, current) = self.leader(topic, partition).await?;
        let asked = OffsetForLeaderPartition {
            partition,
            current_leader_epoch: current,
            leader_epoch: epoch,
        };
        let build = |_| OffsetForLeaderEpochRequest {
            // As an ordinary consumer.
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![asked],
            }],
        };
        let limit = self.attempt_timeout();
        let answer = self
            .send_built(node, Lane::Short, limit, ANY_VERSION, build)
            .await?;
        let told = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let what = || format!("epochs of {topic}-{partition}");
        let told = told.ok_or_else(|| ClientError::Missing { what: what() })?;
        match ErrorCode::from_code(told.error_code) {
            ErrorCode::None => Ok((told.end_offset >= 0).then_some((told.leader_epoch, told.end_offset))),
            code => Err(ClientError::broker(what(), code, None)),
        }
    }
}

/// Keeps what an answer settles; returns the first error in it, those that cannot pass first.
fn settle(answer: &ListOffsetsResponse, settled: &Mutex<Settled>) -> Result<(), ClientError> {
    let mut settled = settled.lock();
    let mut errors = Vec::new();
    for topic in &answer.topics {
        for told in &topic.partitions {
            let listed = ListedOffset {
                offset: told.offset,
                timestamp: told.timestamp,
                leader_epoch: told.leader_epoch,
            };
            match ErrorCode::from_code(told.error_code) {
                ErrorCode::None => {
                    let key = (topic.name.to_string(), told.partition_index);
                    settled.insert(key, (told.offset >= 0).then_some(listed));
                }
                code => {
                    let what = format!("offsets of {}-{}", topic.name, told.partition_index);
                    errors.push(ClientError::broker(what, code, None));
                }
            }
        }
    }
    errors.sort_by_key(ClientError::is_retriable);
    errors.into_iter().next().map_or(Ok(()), Err)
}
