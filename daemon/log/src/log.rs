//! A log: what is known about it, who may touch it when, and the questions that need no disk.
//!
//! One mutex guards [`State`]; it is held for one vectored write at the longest, never for a flush and never while reading
//! a file. Start, end, flushed end, epoch and size are also atomics, so that asking for them costs nothing.
//!
//! Always: start <= end, flushed end <= end. After a failed write or flush the log is *poisoned*: reads go on, everything
//! else is refused until the replica is rebuilt, because the page cache can no longer be believed.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tradewind_wire::clock::Clock;

use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::files::{FileCache, SegmentFile};
use crate::producers::{AbortedTransaction, ProducerState, Producers};
use crate::room::Room;
use crate::segment::Segment;
use crate::tail::{Tail, TailCache};
use crate::{error, metrics, snapshot};

/// What all logs of a daemon share.
#[derive(Clone)]
pub struct LogEnv {
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The newest batches of all logs.
    pub tail: Arc<TailCache>,
    /// The descriptors of closed segments.
    pub files: Arc<FileCache>,
    /// Whether there is space for records.
    pub room: Arc<Room>,
}

impl LogEnv {
    /// Caches of default size, and a disk that has room.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            tail: Arc::default(),
            files: Arc::default(),
            room: Arc::default(),
        }
    }
}

impl std::fmt::Debug for LogEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogEnv").finish_non_exhaustive()
    }
}

/// What the checkpoint file says about a log that is about to be opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenHint {
    /// The log start; records below it are not served.
    pub log_start: i64,
    /// Everything below this was flushed; recovery checks from here on.
    pub recovery_point: i64,
    /// Whether the daemon stopped in order, so that there is nothing to recover.
    pub clean_shutdown: bool,
}

/// One partition's log. All methods take `&self`; those that touch the disk block.
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) env: LogEnv,
    pub(crate) tail: Arc<Tail>,
    state: Mutex<State>,
    /// Held while files of closed segments are created, exchanged or removed: by compaction for one exchange, and by
    /// whoever cuts, closes or deletes the log. Taken before `state`; appends do not take it.
    pub(crate) replacing: Mutex<()>,
    /// Held by the one compaction that may run.
    pub(crate) compacting: Mutex<()>,
    /// Held for the length of a flush: one at a time per log. Taken before `state`.
    pub(crate) flushing: Mutex<()>,
    marks: Marks,
    poison: OnceLock<String>,
}

/// Copies of what is in [`State`], for those who only ask.
#[derive(Debug)]
struct Marks {
    start: AtomicI64,
    end: AtomicI64,
    flushed: AtomicI64,
    /// -1 for none.
    epoch: AtomicI32,
    size: AtomicU64,
    unflushed: AtomicU64,
    /// `i64::MAX` for none.
    unflushed_since: AtomicI64,
    unwritten: AtomicU64,
}

/// What the mutex guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Arc<LogConfig>,
    /// Oldest first, never empty; the last one is written to.
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Bytes of all segments.
    pub(crate) size: u64,
    pub(crate) flushed: i64,
    /// Bytes appended since the last flush began.
    pub(crate) unflushed: u64,
    /// When the first of them were; `i64::MAX` for none.
    pub(crate) unflushed_since: i64,
    /// When the kernel was last asked to begin writing ([`Log::write_back`]).
    pub(crate) written_back_at: Duration,
    pub(crate) epochs: Epochs,
    /// Whether the epochs differ from their file.
    pub(crate) epochs_dirty: bool,
    pub(crate) producers: Producers,
    /// Where mirrored records end and clients' begin.
    pub(crate) inherited: i64,
    /// Segments that were closed by recovery and not flushed since; they are flushed with the active one.
    pub(crate) unsynced: Vec<Arc<SegmentFile>>,
    /// Counts truncations and deletions, so that a reader without the lock notices one.
    pub(crate) generation: u64,
    /// The lowest end since the running flush began: what was cut meanwhile is not flushed by it.
    pub(crate) flush_cap: i64,
    pub(crate) closed: bool,
    /// Compaction has looked at everything below this.
    pub(crate) first_dirty: i64,
    /// When the first tombstone that compaction kept may go, as far as is known.
    pub(crate) next_horizon: Option<i64>,
    /// Counts cuts at the log's end: what compaction has read may not hold after one.
    pub(crate) cuts: u64,
}

impl State {
    pub(crate) fn active(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// Adds up the segments' sizes again: after one came or went.
    pub(crate) fn measure(&mut self) {
        self.size = self.segments.iter().map(|s| s.size).sum();
    }

    /// The index of the segment that holds `offset`, or would: the last one whose base is at most `offset`.
    pub(crate) fn segment_at(&self, offset: i64) -> Option<usize> {
        self.segments.partition_point(|s| s.base <= offset).checked_sub(1)
    }
}

impl Log {
    pub(crate) fn assemble(dir: PathBuf, env: LogEnv, state: State) -> Self {
        let log = Self {
            dir,
            env,
            tail: Arc::default(),
            marks: Marks {
                start: AtomicI64::new(0),
                end: AtomicI64::new(0),
                flushed: AtomicI64::new(0),
                epoch: AtomicI32::new(-1),
                size: AtomicU64::new(0),
                unflushed: AtomicU64::new(0),
                unflushed_since: AtomicI64::new(i64::MAX),
                unwritten: AtomicU64::new(0),
            },
            state: Mutex::new(state),
            replacing: Mutex::new(()),
            compacting: Mutex::new(()),
            flushing: Mutex::new(()),
            poison: OnceLock::new(),
        };
        log.publish(&log.state.lock());
        log
    }

    /// The directory that holds the log's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first offset that is served.
    pub fn start(&self) -> i64 {
        self.marks.start.load(Ordering::Acquire)
    }

    /// The offset after the last record.
    pub fn end(&self) -> i64 {
        self.marks.end.load(Ordering::Acquire)
    }

    /// Everything below this is on stable storage.
    pub fn flushed_end(&self) -> i64 {
        self.marks.flushed.load(Ordering::Acquire)
    }

    /// The newest leader epoch that the log has seen.
    pub fn last_epoch(&self) -> Option<i32> {
        Some(self.marks.epoch.load(Ordering::Acquire)).filter(|e| *e >= 0)
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.marks.size.load(Ordering::Acquire)
    }

    /// Bytes appended since the last flush began: when these grow large, a flush in the background keeps recovery short.
    pub fn unflushed_bytes(&self) -> u64 {
        self.marks.unflushed.load(Ordering::Acquire)
    }

    /// Bytes that the kernel was not asked to write yet ([`Self::write_back`]).
    pub fn unwritten_bytes(&self) -> u64 {
        self.marks.unwritten.load(Ordering::Acquire)
    }

    /// When the oldest unflushed byte was appended, by this daemon's clock.
    pub fn unflushed_since(&self) -> Option<i64> {
        Some(self.marks.unflushed_since.load(Ordering::Acquire)).filter(|since| *since != i64::MAX)
    }

    /// Why the log takes no more writes, if it does not.
    pub fn poisoned(&self) -> Option<String> {
        self.poison.get().cloned()
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.state.lock().config)
    }

    /// Changes the settings. They hold from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        self.state.lock().config = Arc::new(config);
    }

    /// Says that what ends at or below `end` was mirrored from another region, before clients wrote here: its producers may
    /// each go on with any sequence once. 0 for a log that no mirror wrote.
    pub fn set_inherited(&self, end: i64) {
        self.state.lock().inherited = end;
    }

    /// Lets a leader epoch begin at the log's end: what a new leader does before its first append. Changes nothing if the
    /// log has seen this epoch or a newer one. Durable with the next flush.
    pub fn assign_epoch(&self, epoch: i32) {
        let mut state = self.state.lock();
        let end = state.end;
        if state.epochs.assign(epoch, end) {
            state.epochs_dirty = true;
            self.publish(&state);
        }
    }

    /// Forgets the epochs that begin at the log's end, in which nothing was written: for a follower whose leader does not
    /// know them. It would be told to cut again and again where there is nothing left to cut.
    pub fn forget_empty_epochs(&self) {
        let mut state = self.state.lock();
        let end = state.end;
        if state.epochs.truncate(end) {
            state.epochs_dirty = true;
            self.publish(&state);
        }
    }

    /// The first offset of a leader epoch, if the log knows it.
    pub fn epoch_start(&self, epoch: i32) -> Option<i64> {
        self.state.lock().epochs.start_of(epoch)
    }

    /// The leader epoch that `offset` belongs to, or would if it were there; `None` below the first known epoch.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.state.lock().epochs.of(offset)
    }

    /// The largest known leader epoch that is at most `epoch`, and the offset at which it ends: where a replica whose last
    /// epoch is `epoch` diverges at the latest. `None` if the log knows no epoch. An `epoch` below all known ones is
    /// answered with itself and the first known offset (Kafka's rule).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.state.lock();
        state.epochs.end_offset(epoch, state.end)
    }

    /// The last stable offset under this high watermark: what consumers of committed records may read up to.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let mut state = self.state.lock();
        if !state.producers.has_transactions() {
            return high_watermark;
        }
        state.producers.last_stable_offset(high_watermark)
    }

    /// The aborted transactions that overlap `from..to`, by first offset.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let state = self.state.lock();
        let mut found: Vec<_> = state
            .segments
            .iter()
            .flat_map(|s| &s.aborted)
            .filter(|a| a.first_offset < to && a.last_offset >= from)
            .copied()
            .collect();
        found.sort_unstable_by_key(|a| a.first_offset);
        found
    }

    /// What is remembered of each producer.
    pub fn producer_states(&self) -> Vec<ProducerState> {
        let state = self.state.lock();
        let told = state.producers.iter().map(|(id, producer)| producer.told(id));
        told.collect()
    }

    /// When the file that is written to was last written to, in ms since the epoch by the machine's clock, as its file system
    /// tells; `None` if it does not.
    pub fn written_ms(&self) -> Option<i64> {
        let file = Arc::clone(&self.lock().active().file);
        file.modified_ms()
    }

    /// Whether a producer's state is remembered: for tests and diagnostics.
    pub fn producers(&self) -> usize {
        self.state.lock().producers.len()
    }

    /// Ends the log in order: flushes it and writes what lets it open again without a scan. Later writes are refused.
    pub fn close(&self) -> io::Result<()> {
        if self.poison.get().is_some() {
            self.discard();
            return Ok(());
        }
        let _files = self.replacing.lock();
        self.flush()?;
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        state.closed = true;
        state.active().write_indexes()?;
        snapshot::write(&self.dir, state.end, &state.producers)?;
        self.env.tail.release(self.tail.clear());
        Ok(())
    }

    /// Ends the log without saving anything: its files are about to be removed.
    pub fn discard(&self) {
        // Nobody creates files in a directory that is about to go, nor does a flush that is under way.
        let _files = self.replacing.lock();
        let _flush = self.flushing.lock();
        self.state.lock().closed = true;
        self.env.tail.release(self.tail.clear());
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Copies what changed in `state` to where it can be read without the lock.
    pub(crate) fn publish(&self, state: &State) {
        debug_assert!(state.start <= state.end && state.flushed <= state.end);
        self.marks.start.store(state.start, Ordering::Release);
        self.marks.end.store(state.end, Ordering::Release);
        self.marks.flushed.store(state.flushed, Ordering::Release);
        self.marks
            .epoch
            .store(state.epochs.last().unwrap_or(-1), Ordering::Release);
        self.marks.size.store(state.size, Ordering::Release);
        self.marks.unflushed.store(state.unflushed, Ordering::Release);
        self.marks
            .unflushed_since
            .store(state.unflushed_since, Ordering::Release);
        let unwritten = state.segments.back().map_or(0, Segment::unwritten);
        self.marks.unwritten.store(unwritten, Ordering::Release);
    }

    /// Puts the log out of service.
    pub(crate) fn fail(&self, doing: &str, error: &io::Error) {
        if self.poison.set(format!("{doing}: {error}")).is_ok() {
            metrics::failed();
            tracing::error!(dir = %self.dir.display(), doing, %error, "log is out of service");
        }
    }

    /// Refuses when the log takes no more changes.
    pub(crate) fn check_open(&self, state: &State) -> Result<(), error::AppendError> {
        if let Some(reason) = self.poison.get() {
            return Err(error::AppendError::Poisoned(reason.clone()));
        }
        if state.closed {
            return Err(error::AppendError::Closed);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("start", &self.start())
            .field("end", &self.end())
            .field("flushed", &self.flushed_end())
            .finish_non_exhaustive()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.env.tail.release(self.tail.clear());
    }
}
