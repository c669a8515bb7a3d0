//! Collects records into batches, one open batch per partition, and says what to send next. No I/O and no clock.
//!
//! A batch is closed when it is full, or when it has lingered and its partition has nothing else waiting: under load,
//! while requests are on the way, batches grow by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;

use super::partitioner::Sticky;
use super::queue::{PartitionQueue, ProducerId, Sealed, Verdict};
use super::{Delivered, ProduceError, ProducerConfig, Record};
use crate::consumer::assignor::TopicPartition;

/// Who waits for a record's fate, and the buffer room that it holds until then.
#[derive(Debug)]
pub(super) struct Waiter {
    reply: oneshot::Sender<Result<Delivered, ProduceError>>,
    _room: OwnedSemaphorePermit,
}

impl Waiter {
    pub(super) fn new(
        reply: oneshot::Sender<Result<Delivered, ProduceError>>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { reply, _room: room }
    }

    fn tell(self, fate: Result<Delivered, ProduceError>) {
        // Whoever dropped the delivery does not want to know.
        let _ = self.reply.send(fate);
    }
}

/// One batch on its way to a broker.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) number: u64,
    pub(super) bytes: Bytes,
}

/// What the broker, or the network, said of one batch.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) number: u64,
    pub(super) fate: Fate,
}

/// A batch's fate.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// It is in the log; the offset is -1 if not told.
    Taken {
        base_offset: i64,
        append_time: Option<i64>,
    },
    /// The broker says no.
    Code(ErrorCode),
    /// No answer: the connection failed.
    Lost,
    /// It could not even be written.
    Unsendable(crate::error::ClientError),
}

/// What to do next.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Requests, per broker in order.
    pub(super) sends: Vec<(NodeId, Vec<Outgoing>)>,
    /// Topics whose leaders are not known.
    pub(super) leaderless: BTreeSet<String>,
    /// Whether a fresh producer id is needed.
    pub(super) wants_identity: bool,
    /// When to look again if nothing happens.
    pub(super) wake_at: Option<Duration>,
    /// Whether nothing is left to do.
    pub(super) idle: bool,
}

/// All records that have not been settled.
#[derive(Debug)]
pub(super) struct Accumulator {
    config: ProducerConfig,
    lines: BTreeMap<TopicPartition, Line>,
    identity: Option<ProducerId>,
    flushing: bool,
    /// Where keyless records go.
    pub(super) sticky: Sticky,
}

#[derive(Debug)]
struct Line {
    open: Option<Open>,
    queue: PartitionQueue<Vec<Waiter>>,
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    waiters: Vec<Waiter>,
    closes_at: Duration,
    deadline: Duration,
}

impl Accumulator {
    pub(super) fn new(config: ProducerConfig) -> Self {
        Self {
            config,
            lines: BTreeMap::new(),
            identity: None,
            flushing: false,
            sticky: Sticky::default(),
        }
    }

    /// Puts a record into its partition's open batch; says whether that gives the sender something to look at: a batch
    /// was closed, or opened.
    pub(super) fn append(
        &mut self,
        now: Duration,
        partition: i32,
        record: &Record,
        timestamp: i64,
        waiter: Waiter,
    ) -> bool {
        let key = (record.topic.clone(), partition);
        let idempotent = self.config.idempotent;
        let line = self.lines.entry(key).or_insert_with(|| Line {
            open: None,
            queue: PartitionQueue::new(idempotent),
        });
        let full = |open: &Open| open.builder.uncompressed_size() + record.size() > self.config.batch_bytes;
        if line.open.as_ref().is_some_and(full) {
            line.close();
            self.sticky.advance(&record.topic);
        }
        let opens = line.open.is_none();
        let open = line.open.get_or_insert_with(|| Open {
            builder: BatchBuilder::new(self.config.compression, TimestampType::Create),
            waiters: Vec::new(),
            closes_at: now + self.config.linger,
            deadline: now + self.config.delivery_timeout,
        });
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_deref()))
            .collect();
        open.builder.append(
            timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
        open.waiters.push(waiter);
        opens
    }

    /// A producer id to use from now on.
    pub(super) fn set_identity(&mut self, identity: ProducerId) {
        self.identity = Some(identity);
    }

    /// Closes lingering batches at once from now on, until nothing is left; says whether that is so already.
    pub(super) fn start_flush(&mut self) -> bool {
        self.flushing = !self.is_idle();
        !self.flushing
    }

    /// Decides what to send: to each broker with room (`room`, requests), one batch of each of its partitions per request.
    pub(super) fn round(
        &mut self,
        now: Duration,
        leader: impl Fn(&str, i32) -> Option<NodeId>,
        mut room: impl FnMut(NodeId) -> bool,
    ) -> Round {
        let mut round = Round::default();
        self.expire(now);
        let mut by_leader: BTreeMap<NodeId, Vec<TopicPartition>> = BTreeMap::new();
        for (key, line) in &mut self.lines {
            if let Some(identity) = self.identity {
                line.queue.set_identity(identity);
            }
            if line.close_if_due(now, self.flushing) {
                self.sticky.advance(&key.0);
            }
            if line.queue.is_drained() {
                continue;
            }
            match leader(&key.0, key.1) {
                Some(node) => by_leader.entry(node).or_default().push(key.clone()),
                None => drop(round.leaderless.insert(key.0.clone())),
            }
        }
        for (node, keys) in by_leader {
            while room(node) {
                let request = self.request(now, &keys);
                if request.is_empty() {
                    break;
                }
                round.sends.push((node, request));
            }
        }
        // After the sending, because that may have closed batches that have no identity yet.
        let lines = || self.lines.values();
        round.wants_identity = lines().any(|line| line.queue.needs_identity());
        round.wake_at = lines()
            .filter_map(|line| line.next_event(now, self.flushing))
            .min();
        round.idle = self.is_idle();
        self.flushing &= !round.idle;
        round
    }

    /// Works in what became of a batch. `retry_at` gives the time of the next try from the number of tries so far.
    pub(super) fn answer(&mut self, answer: &Answer, retry_at: impl Fn(u32) -> Duration) {
        let Some(line) = self.lines.get_mut(&(answer.topic.clone(), answer.partition)) else {
            return;
        };
        let verdict = answer.fate.verdict(self.config.idempotent);
        let at = retry_at(line.queue.attempts(answer.number));
        if let Some(settled) = line.queue.answer(answer.number, verdict, at) {
            settle(settled, answer);
        }
    }

    /// Gives everything up.
    pub(super) fn abandon(&mut self) {
        for line in self.lines.values_mut() {
            line.close();
            let waiters = line.queue.abandon().into_iter().flat_map(|batch| batch.waiters);
            waiters.for_each(|waiter| waiter.tell(Err(ProduceError::Closed)));
        }
    }

    fn is_idle(&self) -> bool {
        self.lines
            .values()
            .all(|line| line.open.is_none() && line.queue.is_empty())
    }

    fn expire(&mut self, now: Duration) {
        for ((topic, partition), line) in &mut self.lines {
            for batch in line.queue.expire(now) {
                for waiter in batch.waiters {
                    waiter.tell(Err(ProduceError::TimedOut {
                        topic: topic.clone(),
                        partition: *partition,
                        after: self.config.delivery_timeout,
                    }));
                }
            }
        }
    }

    /// One batch of each of these partitions, as far as a request may be long.
    fn request(&mut self, now: Duration, keys: &[TopicPartition]) -> Vec<Outgoing> {
        let mut request = Vec::new();
        let mut bytes_so_far = 0;
        for key in keys {
            if bytes_so_far >= self.config.max_request_bytes {
                break;
            }
            let Some(line) = self.lines.get_mut(key) else {
                continue;
            };
            if let Some((number, bytes)) = line.queue.take(now, self.config.max_in_flight) {
                bytes_so_far += bytes.len();
                request.push(Outgoing {
                    topic: key.0.clone(),
                    partition: key.1,
                    number,
                    bytes,
                });
            }
        }
        request
    }
}

impl Line {
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.queue
                .push(Sealed::new(open.builder, open.waiters, open.deadline));
        }
    }

    /// Closes the open batch if it has lingered and nothing is before it.
    fn close_if_due(&mut self, now: Duration, flushing: bool) -> bool {
        let due = self
            .open
            .as_ref()
            .is_some_and(|open| flushing || open.closes_at <= now);
        let closes = due && self.queue.is_drained();
        if closes {
            self.close();
        }
        closes
    }

    /// When something is to be done by time alone. An open batch behind others waits for them, not for the time.
    fn next_event(&self, now: Duration, flushing: bool) -> Option<Duration> {
        let open = self.open.as_ref().filter(|_| self.queue.is_drained());
        let closing = open.map(|open| if flushing { now } else { open.closes_at });
        [closing, self.queue.next_event(now)].into_iter().flatten().min()
    }
}

impl Fate {
    fn verdict(&self, idempotent: bool) -> Verdict {
        match self {
            Self::Taken { .. } | Self::Code(ErrorCode::DuplicateSequenceNumber) => Verdict::Taken,
            Self::Code(
                ErrorCode::OutOfOrderSequenceNumber
                | ErrorCode::UnknownProducerId
                | ErrorCode::InvalidProducerEpoch,
            ) if idempotent => Verdict::SequenceRefused,
            Self::Code(code) if code.is_retriable() => Verdict::Retry,
            Self::Lost => Verdict::Retry,
            Self::Code(_) | Self::Unsendable(_) => Verdict::Refused,
        }
    }
}

/// Tells everyone who waits for the batch.
fn settle(batch: Sealed<Vec<Waiter>>, answer: &Answer) {
    let (topic, partition) = (&answer.topic, answer.partition);
    for (waiter, delta) in batch.waiters.into_iter().zip(0i64..) {
        waiter.tell(match &answer.fate {
            Fate::Taken {
                base_offset,
                append_time,
            } => Ok(Delivered {
                partition,
                offset: if *base_offset < 0 { -1 } else { base_offset + delta },
                append_time: *append_time,
            }),
            Fate::Code(ErrorCode::DuplicateSequenceNumber) => Ok(Delivered {
                partition,
                offset: -1,
                append_time: None,
            }),
            Fate::Code(code) => Err(ProduceError::Refused {
                topic: topic.clone(),
                partition,
                code: *code,
            }),
            Fate::Unsendable(error) => Err(ProduceError::Client(error.clone())),
            // Never settled by this; said for completeness.
            Fate::Lost => Err(ProduceError::Closed),
        });
    }
}

#[cfg(test)]
#[path = "accumulator_tests.rs"]
mod tests;
