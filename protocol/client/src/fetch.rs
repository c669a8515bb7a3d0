//! Raw fetches: whole batches as the leader holds them, for mirrors, readers and consumers. Nothing is decompressed here.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use tradewind_wire::messages::{FetchRequest, FetchResponse};

use crate::client::{ANY_VERSION, Client};
use crate::error::ClientError;
use crate::net::pool::Lane;

/// The first version of Fetch that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;

/// How long beyond the longest wait an answer may take to arrive.
const GRACE: Duration = Duration::from_secs(10);

/// Which records are visible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All below the high watermark.
    #[default]
    ReadUncommitted,
    /// Those below the last stable offset.
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// From where to fetch in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPosition {
    /// The topic's name.
    pub topic: String,
    /// Its id; zero if it is not known.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// The first offset wanted.
    pub offset: i64,
    /// The leader epoch that the leader must have; -1 for any.
    pub leader_epoch: i32,
    /// Bytes wanted at most; the first batch comes whole even if it is longer.
    pub max_bytes: i32,
}

/// How much a fetch may bring and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// How long the broker may wait for records.
    pub max_wait: Duration,
    /// Bytes that end the waiting.
    pub min_bytes: i32,
    /// Bytes wanted at most over all partitions.
    pub max_bytes: i32,
    /// Which records are visible.
    pub isolation: Isolation,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            isolation: Isolation::ReadUncommitted,
        }
    }
}

/// What came of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Why there is nothing, if the leader refused.
    pub error: Option<ErrorCode>,
    /// The high watermark; -1 if not told.
    pub high_watermark: i64,
    /// The last stable offset; -1 if not told.
    pub last_stable_offset: i64,
    /// The log start offset; -1 if not told.
    pub log_start: i64,
    /// Batches back to back. The first may begin below the offset asked for; the last may be cut.
    pub records: Bytes,
    /// The leader (if any) and epoch that the broker points to instead of itself.
    pub current_leader: Option<(NodeId, i32)>,
    /// Aborted transactions in the range: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
}

impl Client {
    /// Fetches from one partition at its leader. Tries again, elsewhere if need be, while the error may pass; an offset
    /// out of range is an error with that code.
    pub async fn fetch(
        &self,
        position: &FetchPosition,
        limits: FetchLimits,
    ) -> Result<FetchedPartition, ClientError> {
        self.retrying(|| async move {
            let (node, _) = self.leader(&position.topic, position.partition).await?;
            let fetched = self
                .fetch_from(node, Lane::Fetch, std::slice::from_ref(position), limits)
                .await;
            let error = match fetched.map(|partitions| partitions.into_iter().next()) {
                Ok(Some(FetchedPartition {
                    error: Some(code), ..
                })) => ClientError::broker(format!("{}-{}", position.topic, position.partition), code, None),
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => ClientError::Missing {
                    what: format!("{}-{}", position.topic, position.partition),
                },
                Err(error) => error,
            };
            self.leader_moved(&error, &position.topic).await;
            Err(error)
        })
        .await
    }

    /// Fetches from several partitions that broker `node` leads, in one request. No retries; errors are per partition.
    /// Fetches on one `lane` answer one after the other.
    pub async fn fetch_from(
        &self,
        node: NodeId,
        lane: Lane,
        positions: &[FetchPosition],
        limits: FetchLimits,
    ) -> Result<Vec<FetchedPartition>, ClientError> {
        let ids_known = positions.iter().all(|position| !position.topic_id.is_zero());
        let cap = if ids_known {
            ANY_VERSION
        } else {
            TOPIC_IDS_FROM - 1
        };
        let limit = limits.max_wait + GRACE;
        let answer: FetchResponse = self
            .send_built(node, lane, limit, cap, |_| request(positions, limits))
            .await?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => Ok(partitions(answer, positions)),
            code => Err(ClientError::broker(format!("fetch at broker {node}"), code, None)),
        }
    }

    /// Asks for fresh metadata if `error` says that a leader is not where it was.
    pub(crate) async fn leader_moved(&self, error: &ClientError, topic: &str) {
        self.leaders_moved(error, &[topic]).await;
    }

    /// The same for several topics.
    pub(crate) async fn leaders_moved(&self, error: &ClientError, topics: &[&str]) {
        if error.is_retriable()
            && let Err(error) = self.metadata(topics).await
        {
            tracing::debug!(%error, ?topics, "cannot refresh metadata");
        }
    }
}

fn request(positions: &[FetchPosition], limits: FetchLimits) -> FetchRequest {
    let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
    for position in positions {
        let topic = topics.entry(&position.topic).or_insert_with(|| FetchTopic {
            topic: (&position.topic).into(),
            topic_id: position.topic_id,
            ..Default::default()
        });
        topic.partitions.push(FetchPartition {
            partition: position.partition,
            current_leader_epoch: position.leader_epoch,
            fetch_offset: position.offset,
            partition_max_bytes: position.max_bytes,
            ..Default::default()
        });
    }
    FetchRequest {
        max_wait_ms: i32::try_from(limits.max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: limits.min_bytes,
        max_bytes: limits.max_bytes,
        isolation_level: limits.isolation.code(),
        topics: topics.into_values().collect(),
        ..Default::default()
    }
}

/// The answer by partition; topics that were not asked for are dropped.
fn partitions(answer: FetchResponse, positions: &[FetchPosition]) -> Vec<FetchedPartition> {
    let mut fetched = Vec::with_capacity(positions.len());
    for topic in answer.responses {
        let named = |position: &&FetchPosition| {
            if topic.topic_id.is_zero() {
                *position.topic == *topic.topic
            } else {
                position.topic_id == topic.topic_id
            }
        };
        let Some(asked) = positions.iter().find(named) else {
            continue;
        };
        fetched.extend(
            topic
                .partitions
                .into_iter()
                .map(|data| partition(&asked.topic, data)),
        );
    }
    fetched
}

fn partition(topic: &str, data: PartitionData) -> FetchedPartition {
    let pointed = data.current_leader;
    FetchedPartition {
        topic: topic.to_owned(),
        partition: data.partition_index,
        error: (data.error_code != 0).then(|| ErrorCode::from_code(data.error_code)),
        high_watermark: data.high_watermark,
        last_stable_offset: data.last_stable_offset,
        log_start: data.log_start_offset,
        records: data.records.to_bytes(),
        current_leader: (pointed.leader_id >= 0).then_some((pointed.leader_id, pointed.leader_epoch)),
        aborted: data
            .aborted_transactions
            .into_iter()
            .flatten()
            .map(|aborted| (aborted.producer_id, aborted.first_offset))
            .collect(),
    }
}
