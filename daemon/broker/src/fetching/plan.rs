//! Reading what a request asks for, now and again until there is enough of it.
//!
//! One waiter is registered with all partitions of a request; whatever moves there wakes it, and only what has moved is
//! read again. Record bytes are slices of the log all the way into the answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tradewind_cluster::Cluster;
use tradewind_cluster::image::Image;
use tradewind_cluster::replica::{Isolation, Reading, Replica, ReplicaError};
use tradewind_wire::codec::Records;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::fetch::{AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, PartitionData};

use super::nearby::Nearby;
use super::{Answer, Asked};
use crate::{errors, metrics, topics};

/// A reader this many records behind the end probably reads from the disk: it is read for on a blocking thread.
const COLD_BEHIND: i64 = 50_000;

/// How a request wants to be read for.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) isolation: Isolation,
    /// For how long to wait for `min_bytes`.
    pub(crate) wait: Duration,
    /// How many bytes over all partitions are worth an answer before the wait is over.
    pub(crate) min_bytes: usize,
    /// At most so many, except of the very first batch (KIP-74).
    pub(crate) max_bytes: usize,
    /// Whether a follower may answer (KIP-392).
    pub(crate) at_followers: bool,
}

/// The partitions of one request, as far as they have been read.
pub(crate) struct Plan {
    parts: Vec<Part>,
    terms: Terms,
    nearby: Option<Nearby>,
    waiter: Arc<Notify>,
}

struct Part {
    asked: Asked,
    source: Result<Arc<Replica>, ErrorCode>,
    /// What was read, and how often the partition had moved before that.
    found: Option<(u64, Found)>,
}

struct Found {
    data: PartitionData,
    bytes: usize,
    /// There is something to say beside records: an error, or where to read instead.
    urgent: bool,
}

impl Plan {
    /// `nearby` chooses the copy that a consumer is sent to, if that is wanted.
    pub(crate) fn new(cluster: &Cluster, asked: &[Asked], terms: Terms, nearby: Option<Nearby>) -> Self {
        let image = cluster.image();
        let parts = asked.iter().map(|asked| Part {
            source: source(cluster, &image, asked),
            asked: asked.clone(),
            found: None,
        });
        Self {
            parts: parts.collect(),
            terms,
            nearby,
            waiter: Arc::default(),
        }
    }

    /// Reads, and waits until there is enough or the time is up. Nothing if reading failed in a way that nobody foresaw.
    pub(crate) async fn run(self) -> Option<Vec<Answer>> {
        let deadline = tokio::time::Instant::now() + self.terms.wait;
        let min_bytes = self.terms.min_bytes.min(self.terms.max_bytes);
        let waiter = Arc::clone(&self.waiter);
        let mut plan = self;
        let mut waited = false;
        loop {
            plan = plan.read().await?;
            let bytes: usize = plan.found().map(|found| found.bytes).sum();
            let urgent = plan.found().any(|found| found.urgent);
            if bytes >= min_bytes || urgent || plan.parts.is_empty() {
                metrics::fetch_answered(waited, true);
                break;
            }
            waited = true;
            if tokio::time::timeout_at(deadline, waiter.notified())
                .await
                .is_err()
            {
                // Time is up: whatever there is, though it be less than was wanted.
                plan = plan.read().await?;
                metrics::fetch_answered(true, false);
                break;
            }
        }
        let answers = plan.parts.into_iter().map(|part| {
            let data = match (part.found, part.source) {
                (Some((_, found)), _) => found.data,
                (None, Err(error)) => failed(part.asked.partition, error),
                (None, Ok(_)) => failed(part.asked.partition, ErrorCode::UnknownServerError),
            };
            (part.asked, data)
        });
        Some(answers.collect())
    }

    fn found(&self) -> impl Iterator<Item = &Found> {
        self.parts.iter().filter_map(|part| Some(&part.found.as_ref()?.1))
    }

    async fn read(mut self) -> Option<Self> {
        if !self.is_cold() {
            self.read_now();
            return Some(self);
        }
        let read = move || {
            self.read_now();
            self
        };
        tokio::task::spawn_blocking(read).await.ok()
    }

    fn is_cold(&self) -> bool {
        self.parts.iter().any(|part| match (&part.source, &part.found) {
            (Ok(replica), None) => replica.high_watermark() - part.asked.offset > COLD_BEHIND,
            _ => false,
        })
    }

    /// Reads every partition that has moved since it was read last.
    fn read_now(&mut self) {
        let mut total: usize = self.found().map(|found| found.bytes).sum();
        let Self {
            parts,
            terms,
            nearby,
            waiter,
        } = self;
        for part in parts {
            let replica = match &part.source {
                Ok(replica) => replica,
                Err(error) => {
                    let found = Found {
                        data: failed(part.asked.partition, *error),
                        bytes: 0,
                        urgent: true,
                    };
                    part.found.get_or_insert((0, found));
                    continue;
                }
            };
            if part
                .found
                .as_ref()
                .is_some_and(|(moves, _)| *moves == replica.moves())
            {
                continue;
            }
            replica.on_progress(waiter);
            let moves = replica.moves();
            total -= part.found.as_ref().map_or(0, |(_, found)| found.bytes);
            let found = terms.read(&part.asked, replica, nearby.as_ref(), total);
            total += found.bytes;
            part.found = Some((moves, found));
        }
    }
}

fn source(cluster: &Cluster, image: &Image, asked: &Asked) -> Result<Arc<Replica>, ErrorCode> {
    let topic = topics::find(image, &asked.topic.name, asked.topic.id)?;
    if topic.partition(asked.partition).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let replica = cluster.replica(topic.id, asked.partition);
    replica.ok_or(ErrorCode::NotLeaderOrFollower)
}

impl Terms {
    /// Reads one partition, after others whose records come to `so_far` bytes.
    fn read(&self, asked: &Asked, replica: &Replica, nearby: Option<&Nearby>, so_far: usize) -> Found {
        let left = self.max_bytes.saturating_sub(so_far);
        let max_bytes = usize::try_from(asked.max_bytes).unwrap_or(0).min(left);
        let reading = Reading {
            from: asked.offset,
            max_bytes,
            // Behind the records of others it has to fit.
            whole_first: so_far == 0,
            isolation: self.isolation,
            leader_epoch: (asked.leader_epoch >= 0).then_some(asked.leader_epoch),
            last_epoch: (asked.last_epoch >= 0).then_some(asked.last_epoch),
            at_follower: self.at_followers,
        };
        if let Some(node) = nearby.and_then(|nearby| nearby.choose(replica, asked.offset))
            && let Ok(view) = replica.leader(reading.leader_epoch)
        {
            let data = PartitionData {
                partition_index: asked.partition,
                high_watermark: view.high_watermark,
                last_stable_offset: view.last_stable_offset,
                log_start_offset: view.log_start,
                preferred_read_replica: node,
                ..Default::default()
            };
            return Found {
                data,
                bytes: 0,
                urgent: true,
            };
        }
        let fetched = match replica.fetch(&reading) {
            Ok(fetched) => fetched,
            Err(error) => {
                return Found {
                    data: refused(asked.partition, &error),
                    bytes: 0,
                    urgent: true,
                };
            }
        };
        let diverging = fetched
            .diverging
            .map(|(epoch, end_offset)| EpochEndOffset { epoch, end_offset });
        Found {
            bytes: fetched.bytes,
            urgent: diverging.is_some(),
            data: PartitionData {
                partition_index: asked.partition,
                high_watermark: fetched.high_watermark,
                last_stable_offset: fetched.last_stable_offset,
                log_start_offset: fetched.log_start,
                diverging_epoch: diverging.unwrap_or_default(),
                aborted_transactions: self.aborted(replica, asked.offset, fetched.next_offset),
                records: Records::from(fetched.records),
                ..Default::default()
            },
        }
    }

    /// Null unless the client filters by it: some clients drop records that it names whatever they asked for.
    fn aborted(&self, replica: &Replica, from: i64, to: i64) -> Option<Vec<AbortedTransaction>> {
        if self.isolation == Isolation::ReadUncommitted {
            return None;
        }
        let of = replica.log().aborted_transactions(from, to).into_iter();
        let respond = of.map(|aborted| AbortedTransaction {
            producer_id: aborted.producer_id,
            first_offset: aborted.first_offset,
        });
        Some(respond.collect())
    }
}

pub(crate) fn failed(partition: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code: error.code(),
        high_watermark: -1,
        ..Default::default()
    }
}

fn refused(partition: i32, error: &ReplicaError) -> PartitionData {
    let code = match errors::of_replica(error) {
        // The Java consumer throws at codes that it does not expect here; these it does.
        code @ (ErrorCode::NotLeaderOrFollower
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::KafkaStorageError) => code,
        _ => ErrorCode::UnknownServerError,
    };
    let mut data = failed(partition, code);
    if let ReplicaError::NotLeader { leader, epoch } = error {
        data.current_leader = LeaderIdAndEpoch {
            leader_id: leader.unwrap_or(-1),
            leader_epoch: *epoch,
        };
    }
    data
}
