//! Appending: as a leader, which gives offsets, and as a follower or mirror, which keeps them.
//!
//! Everything that can be checked without the lock is: CRC, order within the bytes, the restamping of LogAppendTime. Under
//! the lock: sequence, offsets, one vectored write, and the bookkeeping that follows from it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tradewind_wire::batch::{Batch, BatchHeader, ControlKind, TimestampType, split};

use crate::error::AppendError;
use crate::files;
use crate::log::{Log, State};
use crate::segment::{Segment, WriteError};
use crate::{metrics, snapshot, truncate};

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first offset.
    pub base_offset: i64,
    /// The last offset: the append is committed when the high watermark is past it.
    pub last_offset: i64,
    /// The time given to the records with `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    /// Whether the log had the batch already; the offsets are then the original ones.
    pub duplicate: bool,
}

impl Log {
    /// Appends a producer's batch as leader: gives it the next offsets, the epoch, and the time if the topic says so.
    ///
    /// The caller has validated the batch ([`tradewind_wire::batch::validate_client`]). A repeat of one of its producer's
    /// last five batches is not written again. The batch is in the page cache when this returns, not flushed. The log may
    /// keep the batch's buffer in memory for a while: a batch that is a small part of it is better copied before.
    pub fn append(&self, mut batch: Batch, leader_epoch: i32) -> Result<Appended, AppendError> {
        let config = self.config();
        check_shape(batch.header())?;
        if batch.size() > config.max_message_bytes {
            return Err(AppendError::TooLarge {
                size: batch.size(),
                limit: config.max_message_bytes,
            });
        }
        if batch.size() as u64 > config.segment_limit() {
            return Err(AppendError::LargerThanSegment {
                size: batch.size(),
                limit: config.segment_limit(),
            });
        }
        let now_ms = self.env.clock.now_ms();
        let mut log_append_time_ms = -1;
        if config.timestamp_type == TimestampType::LogAppend {
            log_append_time_ms = now_ms;
            batch.restamp(TimestampType::LogAppend, now_ms);
        }
        let mut state = self.lock();
        self.check_open(&state)?;
        check_epoch(&state, leader_epoch)?;
        if let Some(written) = state.producers.check(batch.header(), state.inherited)? {
            let log_append = config.timestamp_type == TimestampType::LogAppend;
            return Ok(Appended {
                base_offset: written.base_offset,
                last_offset: written.last_offset,
                log_append_time_ms: if log_append { written.timestamp } else { -1 },
                duplicate: true,
            });
        }
        batch.set_base_offset(state.end);
        batch.set_leader_epoch(leader_epoch);
        check_room(batch.header())?;
        let appended = Appended {
            base_offset: batch.header().base_offset,
            last_offset: batch.header().last_offset(),
            log_append_time_ms,
            duplicate: false,
        };
        self.write(&mut state, &[batch], now_ms)?;
        Ok(appended)
    }

    /// Appends batches that have their offsets already, all or none: what followers and mirrors do. Gaps are allowed.
    ///
    /// `leader_epoch` re-stamps every batch (a mirror); `None` keeps the epochs (a follower). CRC and the order of offsets
    /// and epochs are checked; producer state follows the batches without judging them. The bytes must hold whole batches.
    pub fn append_at(&self, batches: Bytes, leader_epoch: Option<i32>) -> Result<Appended, AppendError> {
        let mut all = Vec::new();
        for batch in split(batches) {
            let mut batch = batch?;
            batch.check_crc()?;
            if let Some(epoch) = leader_epoch {
                batch.set_leader_epoch(epoch);
            }
            check_shape(batch.header())?;
            check_room(batch.header())?;
            all.push(batch);
        }
        let now_ms = self.env.clock.now_ms();
        let mut state = self.lock();
        self.check_open(&state)?;
        let mut end = state.end;
        let mut epoch = state.epochs.last().unwrap_or(-1);
        for batch in &all {
            let header = batch.header();
            if header.base_offset < end {
                return Err(AppendError::OffsetOrder {
                    end,
                    found: header.base_offset,
                });
            }
            if header.partition_leader_epoch < epoch {
                return Err(AppendError::StaleEpoch {
                    epoch: header.partition_leader_epoch,
                    last: epoch,
                });
            }
            end = header.next_offset();
            epoch = header.partition_leader_epoch;
        }
        let base_offset = all.first().map_or(state.end, |b| b.header().base_offset);
        self.write_in_segments(&mut state, all, now_ms)?;
        Ok(Appended {
            base_offset,
            last_offset: state.end - 1,
            log_append_time_ms: -1,
            duplicate: false,
        })
    }

    /// Writes batches whose offsets are set, closing segments where they are full.
    fn write_in_segments(
        &self,
        state: &mut State,
        batches: Vec<Batch>,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let mut rest = &batches[..];
        while let Some(first) = rest.first() {
            let mut size = state.active().size;
            if must_roll(state, first, now_ms) {
                size = 0;
            }
            let limit = state.config.segment_limit();
            let base = if size == 0 {
                first.header().base_offset
            } else {
                state.active().base
            };
            let fit = rest
                .iter()
                .take_while(|b| {
                    size += b.size() as u64;
                    size <= limit && b.header().last_offset() - base <= i64::from(i32::MAX)
                })
                .count()
                // A batch that is larger than a segment gets one of its own: it comes from a leader that took it.
                .max(1);
            let (now, later) = rest.split_at(fit);
            self.write(state, now, now_ms)?;
            rest = later;
        }
        Ok(())
    }

    /// Writes batches that belong into one segment.
    fn write(&self, state: &mut State, batches: &[Batch], now_ms: i64) -> Result<(), AppendError> {
        let Some(first) = batches.first() else {
            return Ok(());
        };
        if self.env.room.is_full() {
            metrics::disk_full();
            return Err(AppendError::DiskFull);
        }
        if must_roll(state, first, now_ms) {
            self.roll(state, first.header().base_offset)?;
        }
        let interval = state.config.index_interval_bytes;
        match state.active().append(batches, now_ms, interval) {
            Ok(()) => {}
            Err(WriteError::Full) => {
                metrics::disk_full();
                return Err(AppendError::DiskFull);
            }
            Err(WriteError::Broken(error)) => {
                self.fail("appending", &error);
                return Err(AppendError::Io(error));
            }
        }
        let bytes = batches.iter().map(Batch::size).sum();
        for batch in batches {
            let header = batch.header();
            self.env.tail.push(&self.tail, batch, state.end, bytes);
            remember(state, batch, now_ms);
            state.end = header.next_offset();
        }
        state.size += bytes as u64;
        state.unflushed += bytes as u64;
        state.unflushed_since = state.unflushed_since.min(now_ms);
        metrics::appended(batches.len(), bytes);
        self.publish(state);
        Ok(())
    }

    /// Closes the active segment and starts one at `base`. All of the old file, the new one and its name are durable when
    /// this returns: after a power cut a log may end early, but nothing is missing before its end.
    ///
    /// What needs space comes first; when there is none, the segment stays active and the log in service.
    pub(crate) fn roll(&self, state: &mut State, base: i64) -> Result<(), AppendError> {
        let fresh = match self.prepare_roll(state, base) {
            Err(error) if files::is_disk_full(&error) && self.poisoned().is_none() => {
                metrics::disk_full();
                return Err(AppendError::DiskFull);
            }
            prepared => prepared,
        };
        let rolled = fresh.and_then(|fresh| {
            if state.active().is_empty() {
                if let Some(empty) = state.segments.pop_back() {
                    truncate::remove(&empty)?;
                }
            } else {
                state.active().close(&self.env.files)?;
            }
            state.segments.push_back(fresh);
            files::sync_dir(&self.dir)
        });
        rolled.map_err(|error| {
            self.fail("starting a segment", &error);
            AppendError::Io(error)
        })
    }

    /// Makes durable what the active segment holds and what will be needed of it once it is closed; returns its successor.
    /// After an error the active segment is what it was, and has no successor.
    fn prepare_roll(&self, state: &mut State, base: i64) -> io::Result<Segment> {
        if !state.active().is_empty() {
            state.active().write_indexes()?;
            let file = Arc::clone(&state.active().file);
            if let Err(error) = file.sync() {
                self.fail_flush(state.flushed, &error);
                return Err(error);
            }
        }
        snapshot::write(&self.dir, state.end, &state.producers)?;
        let fresh = Segment::active(&self.dir, base)?;
        if let Err(error) = fresh.file.sync_made() {
            // The active segment may grow past this base before the next attempt.
            if let Err(error) = truncate::remove(&fresh) {
                self.fail("removing a segment that was not begun", &error);
            }
            return Err(error);
        }
        Ok(fresh)
    }
}

/// Updates what the log remembers of epochs, producers and transactions by a batch that has been written.
pub(crate) fn remember(state: &mut State, batch: &Batch, now_ms: i64) {
    let header = batch.header();
    if state
        .epochs
        .assign(header.partition_leader_epoch, header.base_offset)
    {
        state.epochs_dirty = true;
    }
    if header.producer_id < 0 {
        return;
    }
    if let Some(aborted) = state.producers.note(header, ControlKind::of(batch), now_ms) {
        state.active().aborted.push(aborted);
    }
}

/// Whether the batch needs a new segment.
fn must_roll(state: &mut State, batch: &Batch, now_ms: i64) -> bool {
    let config = Arc::clone(&state.config);
    let active = state.active();
    if active.is_empty() {
        // An empty segment may still begin too far below the batch; its successor replaces nothing.
        return !active.can_hold(batch.header());
    }
    active.is_aged(&config, now_ms)
        || active.size + batch.size() as u64 > config.segment_limit()
        || !active.can_hold(batch.header())
        || active.indexes_are_full(config.segment_index_bytes)
}

fn check_epoch(state: &State, epoch: i32) -> Result<(), AppendError> {
    match state.epochs.last() {
        Some(last) if epoch < last => Err(AppendError::StaleEpoch { epoch, last }),
        _ => Ok(()),
    }
}

fn check_shape(header: &BatchHeader) -> Result<(), AppendError> {
    let reason = if header.last_offset_delta < 0 {
        "last offset delta is negative"
    } else if header.base_offset < 0 {
        "base offset is negative"
    } else if header.producer_id >= 0 && header.producer_epoch < 0 {
        "producer id without an epoch"
    } else {
        return Ok(());
    };
    Err(AppendError::Malformed {
        base_offset: header.base_offset,
        reason,
    })
}

/// Offsets stay far enough from the end of their range that adding to one cannot wrap.
fn check_room(header: &BatchHeader) -> Result<(), AppendError> {
    if header.base_offset > i64::MAX - i64::from(i32::MAX) - 1 {
        return Err(AppendError::OffsetsExhausted {
            base_offset: header.base_offset,
        });
    }
    Ok(())
}
