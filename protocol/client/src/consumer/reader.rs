//! [`PartitionReader`]: reads one partition from an offset on, wherever its leader is, outside any group.

use std::time::Duration;

use tradewind_wire::error::ErrorCode;

use super::decode::decode;
use super::{ConsumeError, ConsumerRecord, OffsetReset};
use crate::client::Client;
use crate::error::ClientError;
use crate::fetch::{FetchLimits, FetchPosition, Isolation};
use crate::net::pool::Lane;
use crate::offsets::OffsetSpec;

/// Reads one partition. Nothing happens between calls.
#[derive(Debug)]
pub struct PartitionReader {
    client: Client,
    lane: Lane,
    topic: String,
    partition: i32,
    position: i64,
    reset: OffsetReset,
    limits: FetchLimits,
    max_bytes: i32,
    high_watermark: i64,
}

impl PartitionReader {
    /// A reader from `offset` on, on a connection of its own.
    pub fn new(client: Client, topic: &str, partition: i32, offset: i64) -> Self {
        Self {
            lane: client.own_lane(),
            client,
            topic: topic.to_owned(),
            partition,
            position: offset,
            reset: OffsetReset::Fail,
            limits: FetchLimits::default(),
            max_bytes: 1 << 20,
            high_watermark: -1,
        }
    }

    /// A reader from the offset that `spec` names; behind the last record if there is none.
    pub async fn at(
        client: Client,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
    ) -> Result<Self, ClientError> {
        let isolation = Isolation::ReadUncommitted;
        let found = match client.list_offset(topic, partition, spec, isolation).await? {
            Some(found) => Some(found),
            None => {
                client
                    .list_offset(topic, partition, OffsetSpec::Latest, isolation)
                    .await?
            }
        };
        Ok(Self::new(
            client,
            topic,
            partition,
            found.map_or(0, |found| found.offset),
        ))
    }

    /// Where to go when the position is out of range. Without this it is an error.
    pub fn on_out_of_range(mut self, reset: OffsetReset) -> Self {
        self.reset = reset;
        self
    }

    /// Which records are visible.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.limits.isolation = isolation;
        self
    }

    /// How many bytes one call may bring, about.
    pub fn max_bytes(mut self, max_bytes: i32) -> Self {
        self.max_bytes = max_bytes;
        self.limits.max_bytes = max_bytes.max(self.limits.max_bytes);
        self
    }

    /// The next offset that is read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The high watermark as of the last answer; -1 before.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Goes to another offset.
    pub fn seek(&mut self, offset: i64) {
        self.position = offset;
    }

    /// The next records; none if none arrive within `max_wait`. Rides out changes of leader within the client's request
    /// timeout. Cancel-safe: the position moves only with what is returned.
    pub async fn poll(&mut self, max_wait: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let limits = FetchLimits {
            max_wait,
            ..self.limits
        };
        let this = &*self;
        let fetched = this.client.retrying(|| this.fetch_once(limits)).await;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
                self.position = self.reset_position().await?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let hide_aborted = self.limits.isolation == Isolation::ReadCommitted;
        let decoded = decode(&fetched, self.position, hide_aborted)?;
        self.high_watermark = fetched.high_watermark;
        self.position = decoded.next;
        Ok(decoded.records)
    }

    async fn fetch_once(&self, limits: FetchLimits) -> Result<crate::FetchedPartition, ClientError> {
        let topic = self.client.topic(&self.topic).await?;
        let (node, leader_epoch) = self.client.leader(&self.topic, self.partition).await?;
        let position = FetchPosition {
            topic: self.topic.clone(),
            topic_id: topic.id,
            partition: self.partition,
            offset: self.position,
            leader_epoch,
            max_bytes: self.max_bytes,
        };
        let fetched = self.client.fetch_from(node, self.lane, &[position], limits).await;
        let what = || format!("{}-{}", self.topic, self.partition);
        let error = match fetched.map(|partitions| partitions.into_iter().next()) {
            Ok(Some(fetched)) => match fetched.error {
                None => return Ok(fetched),
                Some(code) => ClientError::broker(what(), code, None),
            },
            Ok(None) => ClientError::Missing { what: what() },
            Err(error) => error,
        };
        self.client.leader_moved(&error, &self.topic).await;
        Err(error)
    }

    async fn reset_position(&self) -> Result<i64, ConsumeError> {
        let spec = match self.reset {
            OffsetReset::Earliest => OffsetSpec::Earliest,
            OffsetReset::Latest => OffsetSpec::Latest,
            OffsetReset::Fail => {
                return Err(ConsumeError::OutOfRange {
                    topic: self.topic.clone(),
                    partition: self.partition,
                    offset: self.position,
                });
            }
        };
        let isolation = self.limits.isolation;
        let found = self
            .client
            .list_offset(&self.topic, self.partition, spec, isolation)
            .await?;
        Ok(found.map_or(0, |found| found.offset))
    }
}

impl Drop for PartitionReader {
    /// The connection was this reader's alone.
    fn drop(&mut self) {
        self.client.release(self.lane);
    }
}
