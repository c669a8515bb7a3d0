//! Reading for consumers, at the leader or at a follower (KIP-392), and waiting for there to be something to read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::Notify;
use tradewind_wire::ids::NodeId;

use super::{LeaderView, Replica, ReplicaError, Role};

/// How a consumer's reading is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark, aborted records included.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// What a consumer wants of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The first offset wanted.
    pub from: i64,
    /// At most so many bytes.
    pub max_bytes: usize,
    /// Whether the first batch is read whole however large it is: else a consumer would never get past it (KIP-74).
    pub whole_first: bool,
    /// Which records are visible.
    pub isolation: Isolation,
    /// The leader epoch as the consumer knows it; another one is refused.
    pub leader_epoch: Option<i32>,
    /// The leader epoch of the last record that the consumer has: if that is no longer part of the log, nothing is read.
    pub last_epoch: Option<i32>,
    /// Whether a follower may serve it.
    pub at_follower: bool,
}

/// What a fetch found.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// Whole batches, the first of which may begin below the wanted offset.
    pub records: Vec<Bytes>,
    /// How many bytes `records` holds.
    pub bytes: usize,
    /// The offset behind the last record.
    pub next_offset: i64,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// The log start offset.
    pub log_start: i64,
    /// The leader epoch up to which the consumer's records are those of this log, and where it ends here, if the two have
    /// parted (KIP-595's `diverging_epoch`).
    pub diverging: Option<(i32, i64)>,
}

/// A copy that consumers may read from instead of the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Where it is.
    pub node: NodeId,
    /// The end of what it has confirmed.
    pub end: i64,
    /// When it last had everything, in ms.
    pub caught_up_ms: i64,
}

impl Replica {
    /// Where the partition stands as far as this copy knows, if the caller's epoch (if any) is the current one. A follower
    /// only answers if `at_follower`.
    pub fn view(&self, expected_epoch: Option<i32>, at_follower: bool) -> Result<LeaderView, ReplicaError> {
        let state = self.state.lock();
        let follows = at_follower && matches!(state.role, Role::Follower { .. });
        let (epoch, epoch_start, high_watermark) = match self.leading(&state, expected_epoch) {
            Ok(leadership) => (
                leadership.epoch,
                leadership.epoch_start,
                leadership.high_watermark(),
            ),
            Err(ReplicaError::NotLeader { .. }) if follows => {
                if let Some(reason) = &state.failure {
                    return Err(ReplicaError::Storage {
                        reason: reason.clone(),
                    });
                }
                (state.leader_epoch, self.log.start(), self.high_watermark())
            }
            Err(error) => return Err(error),
        };
        Ok(LeaderView {
            epoch,
            epoch_start,
            high_watermark,
            last_stable_offset: self.log.last_stable_offset(high_watermark),
            log_start: self.log.start(),
            end: self.log.end(),
        })
    }

    /// Reads for a consumer: whole batches, up to what its isolation allows.
    pub fn fetch(&self, reading: &Reading) -> Result<Fetched, ReplicaError> {
        let view = self.view(reading.leader_epoch, reading.at_follower)?;
        let from = reading.from;
        if from < view.log_start || from > view.end {
            return Err(ReplicaError::OffsetOutOfRange { view });
        }
        let up_to = match reading.isolation {
            Isolation::ReadUncommitted => view.high_watermark,
            Isolation::ReadCommitted => view.last_stable_offset,
        };
        let mut fetched = Fetched {
            next_offset: from,
            high_watermark: view.high_watermark,
            last_stable_offset: view.last_stable_offset,
            log_start: view.log_start,
            ..Fetched::default()
        };
        if let Some(last) = reading.last_epoch {
            match self.epoch_end(last) {
                None => return Err(ReplicaError::OffsetOutOfRange { view }),
                Some((epoch, end)) if epoch < last || end < from => {
                    fetched.diverging = Some((epoch, end));
                    return Ok(fetched);
                }
                Some(_) => {}
            }
        }
        // Between watermark and end there is nothing to see yet; not an error.
        if from < up_to && (reading.whole_first || reading.max_bytes > 0) {
            let slice = self.log.read(from, reading.max_bytes, up_to)?;
            if !reading.whole_first && slice.bytes > reading.max_bytes {
                return Ok(fetched);
            }
            fetched.records = slice.records;
            fetched.bytes = slice.bytes;
            fetched.next_offset = slice.next_offset;
        }
        Ok(fetched)
    }

    /// The largest leader epoch here that is at most `epoch`, and the offset at which it ends; none for one that is newer
    /// than every epoch here, or negative (KIP-320).
    pub fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let known = self.log.last_epoch().is_some_and(|last| epoch <= last);
        if epoch < 0 || !known {
            return None;
        }
        self.log.end_offset_for_epoch(epoch)
    }

    /// The followers in sync whose copies hold `offset`, if this daemon leads.
    pub fn copies_with(&self, offset: i64) -> Vec<Copy> {
        let state = self.state.lock();
        let Role::Leader(leadership) = &state.role else {
            return Vec::new();
        };
        let of = |node: &NodeId| {
            let follower = leadership.follower(*node)?;
            let holds = follower.ack >= offset && (0..=offset).contains(&follower.log_start);
            holds.then_some(Copy {
                node: *node,
                end: follower.ack,
                caught_up_ms: follower.caught_up_ms,
            })
        };
        leadership.in_sync().iter().filter_map(of).collect()
    }

    /// Has `waiter` notified once, at the next move of the high watermark, of the log start, or of the leadership.
    pub fn on_progress(&self, waiter: &Arc<Notify>) {
        self.progress.register(waiter);
    }

    /// How often the partition has moved in a way that [`Self::on_progress`] tells of. A waiter that was registered before
    /// this number was asked for is notified when it changes.
    pub fn moves(&self) -> u64 {
        self.progress.moves.load(Ordering::Acquire)
    }
}
