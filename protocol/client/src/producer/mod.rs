//! [`Producer`]: records in, acknowledged batches out.
//!
//! Records are collected into one batch per partition, compressed, and sent to the partition's leader; with idempotence
//! (the default) a record that is acknowledged is in the log once and in the order of sending, whatever was retried.
//! Memory is bounded: [`Producer::send`] waits while the buffer is full.
//!
//! ```text
//! send -> accumulator (open batch per partition) -> queue (sequences, retries) -> sender task -> worker per broker
//! ```

mod accumulator;
pub mod partitioner;
mod queue;
mod sender;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

use self::accumulator::{Accumulator, Waiter};
use crate::client::Client;
use crate::error::ClientError;

/// What a producer waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acks {
    /// Nothing: offsets are not known, and losses are not seen.
    None,
    /// The leader has it.
    Leader,
    /// Every in-sync replica has it.
    #[default]
    All,
}

impl Acks {
    fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// The settings of a [`Producer`].
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// What to wait for.
    pub acks: Acks,
    /// Whether retries may never duplicate or reorder. Needs [`Acks::All`].
    pub idempotent: bool,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// When a batch is full, in uncompressed bytes.
    pub batch_bytes: usize,
    /// Bytes of records that may be on the way, in all.
    pub buffer_bytes: usize,
    /// The longest single record, and about the longest request.
    pub max_request_bytes: usize,
    /// How batches are compressed.
    pub compression: Codec,
    /// Requests on the way per broker, at most 5 with idempotence.
    pub max_in_flight: usize,
    /// How long a record may take, retries included.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            linger: Duration::from_millis(5),
            batch_bytes: 64 << 10,
            buffer_bytes: 32 << 20,
            max_request_bytes: 1 << 20,
            compression: Codec::None,
            max_in_flight: 5,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A record to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition; chosen by the key, or freely, if there is none.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers in order; keys may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since the epoch; the time of sending if there is none.
    pub timestamp: Option<i64>,
}

impl Record {
    /// A record for `topic` with this value and nothing else.
    pub fn new(topic: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The same with a key.
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// An upper bound of the bytes it takes in a batch.
    fn size(&self) -> usize {
        const OVERHEAD: usize = 32;
        let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(key, value)| key.len() + bytes(value) + 10)
            .sum();
        bytes(&self.key) + bytes(&self.value) + headers + OVERHEAD
    }
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// The offset; -1 if the broker did not tell (acks=0, or a retry that found the record there already).
    pub offset: i64,
    /// The broker's append time, if the topic is stamped by it.
    pub append_time: Option<i64>,
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProduceError {
    /// The record is longer than the limit; it was not sent.
    #[error("a record of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// `max_request_bytes`.
        limit: usize,
    },
    /// There is no such partition.
    #[error("{topic} has no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
    },
    /// The broker refused the record's batch; it is not in the log.
    #[error("{topic}-{partition}: {}", code.name())]
    Refused {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why.
        code: ErrorCode,
    },
    /// No acknowledgement came in time; the record may or may not be in the log.
    #[error("{topic}-{partition}: no acknowledgement within {after:?}")]
    TimedOut {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// `delivery_timeout`.
        after: Duration,
    },
    /// The topic cannot be found, or requests cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

/// A record on its way: resolves when it is acknowledged, or given up. May be dropped; the record is sent all the same.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Delivered, ProduceError>>);

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|told| told.unwrap_or(Err(ProduceError::Closed)))
    }
}

/// Sends records. Shared by reference; dropping it gives up what has not been sent.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    shared: Arc<Shared>,
    _ends_with_me: DropGuard,
}

/// What callers and the sender task share.
#[derive(Debug)]
struct Shared {
    config: ProducerConfig,
    accumulator: Mutex<Accumulator>,
    /// Bytes of buffer that are free.
    room: Arc<Semaphore>,
    /// There may be something to do for the sender.
    work: Notify,
    /// Everything sent so far has been settled.
    idle: Notify,
    closed: CancellationToken,
}

impl Producer {
    /// Starts a producer; must be called within a Tokio runtime. Settings that contradict idempotence are corrected: it
    /// implies acks of all replicas and at most 5 requests on the way.
    pub fn start(client: Client, mut config: ProducerConfig) -> Self {
        if config.idempotent {
            config.acks = Acks::All;
            config.max_in_flight = config.max_in_flight.min(5);
        }
        config.max_in_flight = config.max_in_flight.max(1);
        config.buffer_bytes = config
            .buffer_bytes
            .clamp(config.max_request_bytes, Semaphore::MAX_PERMITS.min(1 << 31));
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(Accumulator::new(config.clone())),
            room: Arc::new(Semaphore::new(config.buffer_bytes)),
            config,
            work: Notify::new(),
            idle: Notify::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(sender::run(client.clone(), shared.clone()));
        Self {
            client,
            _ends_with_me: shared.closed.clone().drop_guard(),
            shared,
        }
    }

    /// Takes a record. Waits for the topic's metadata and for room in the buffer, not for the acknowledgement: that is
    /// what the returned [`Delivery`] is for.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let size = record.size();
        let limit = self.shared.config.max_request_bytes;
        if size > limit {
            return Err(ProduceError::TooLarge { size, limit });
        }
        let partition_count = self.partition_count(&record.topic).await?;
        // Bounded by `max_request_bytes`, which `buffer_bytes` covers.
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let room = tokio::select! {
            room = self.shared.room.clone().acquire_many_owned(permits) => room,
            () = self.shared.closed.cancelled() => return Err(ProduceError::Closed),
        };
        let room = room.map_err(|_| ProduceError::Closed)?;
        let (reply, delivery) = oneshot::channel();
        let now = self.client.clock().monotonic();
        let timestamp = record.timestamp.unwrap_or_else(|| self.client.clock().now_ms());
        let wakes = {
            let mut accumulator = self.shared.accumulator.lock();
            // Looked at under the lock: the sender gives everything up under it, after closing.
            if self.shared.closed.is_cancelled() {
                return Err(ProduceError::Closed);
            }
            let partition = self.choose(&mut accumulator, &record, partition_count)?;
            accumulator.append(now, partition, &record, timestamp, Waiter::new(reply, room))
        };
        if wakes {
            self.shared.work.notify_one();
        }
        Ok(Delivery(delivery))
    }

    /// Sends everything at once and waits until it is acknowledged or given up.
    pub async fn flush(&self) {
        loop {
            let idle = self.shared.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that no wake is lost.
            idle.as_mut().enable();
            if self.shared.accumulator.lock().start_flush() {
                return;
            }
            self.shared.work.notify_one();
            tokio::select! {
                () = idle => {}
                () = self.shared.closed.cancelled() => return,
            }
        }
    }

    /// Flushes for at most `limit` and ends. What is not acknowledged by then fails with [`ProduceError::Closed`].
    pub async fn close(self, limit: Duration) {
        let _ = timeout(limit, self.flush()).await;
        self.shared.closed.cancel();
    }

    /// How many partitions the topic has, asked for if that is not known.
    async fn partition_count(&self, topic: &str) -> Result<i32, ProduceError> {
        let count = || {
            let cached = self.client.cached();
            let known = cached.topics.get(topic).filter(|known| known.error.is_none())?;
            let age = self.client.clock().monotonic().saturating_sub(known.learnt_at);
            let fresh = age <= self.client.config().metadata_max_age;
            i32::try_from(known.partitions.len())
                .ok()
                .filter(|count| fresh && *count > 0)
        };
        if let Some(count) = count() {
            return Ok(count);
        }
        let known = self.client.retrying(|| self.client.topic(topic)).await?;
        let count = i32::try_from(known.partitions.len()).unwrap_or(i32::MAX);
        if count > 0 {
            Ok(count)
        } else {
            Err(ProduceError::NoPartition {
                topic: topic.to_owned(),
                partition: 0,
            })
        }
    }

    fn choose(
        &self,
        accumulator: &mut Accumulator,
        record: &Record,
        count: i32,
    ) -> Result<i32, ProduceError> {
        let none = |partition| ProduceError::NoPartition {
            topic: record.topic.clone(),
            partition,
        };
        match (record.partition, &record.key) {
            (Some(partition), _) if (0..count).contains(&partition) => Ok(partition),
            (Some(partition), _) => Err(none(partition)),
            (None, Some(key)) => Ok(partitioner::partition_of(key, count)),
            (None, None) => {
                let cached = self.client.cached();
                let topic = cached.topics.get(&record.topic);
                let has_leader = |partition| {
                    topic
                        .and_then(|topic| topic.partitions.get(&partition))
                        .is_some_and(|p| p.leader.is_some())
                };
                accumulator
                    .sticky
                    .pick(&record.topic, count, has_leader, self.client.rng())
                    .ok_or_else(|| none(0))
            }
        }
    }
}
