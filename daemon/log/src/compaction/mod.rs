//! Compaction: of each key the newest record, at its own offset (`cleanup.policy=compact`, KIP-58, KIP-534).
//!
//! One pass reads the dirty part of the closed segments into a map of the newest offset per key, then writes every segment
//! up to there again without what the map proves superseded, small neighbours together. When the keys do not fit the map,
//! the pass ends where it is full and another one follows. The active segment is never touched, nor anything at or above
//! the high watermark or of an open transaction. Appends and reads go on meanwhile; a cut of the log ends the work.
//!
//! ```text
//! what is due ──> build the map (dirty part) ──> per group of segments: filter.rs judges, rewrite.rs writes and swaps
//!                                                                               first-dirty moves up, durably ──┘
//! ```
//!
//! A batch that fails its CRC ends the work with an error: damage is not to be copied under a new checksum.

mod filter;
mod offset_map;
mod rewrite;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tradewind_wire::batch::Batch;

use self::filter::{Aborted, Filter, LastBatches, MAX_DECOMPRESSED};
use self::offset_map::OffsetMap;
use crate::config::{LogConfig, MAX_SEGMENT_BYTES};
use crate::files::{self, SegmentFile};
use crate::log::{Log, State};
use crate::producers::AbortedTransaction;
use crate::read::{read_batch, search};
use crate::scan::{Found, Scan, ScanError};

pub(crate) use self::rewrite::finish_swaps;

/// How a compaction is paced, watched and stopped: the daemon's side of it.
pub trait Pace: Sync {
    /// Called after so many bytes were read or written: may wait. False ends the work; nothing is lost by that.
    fn spent(&self, bytes: usize) -> bool;
    /// Called before each step that changes files, for tests that look at what a crash would leave.
    fn before(&self, _step: Step) {}
}

/// Steps by which files change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The new segment is written but not flushed.
    Written,
    /// It is flushed under its temporary name.
    Flushed,
    /// It bears the name by which recovery would finish the exchange.
    Named,
    /// The old segments' files are gone, but for the one whose name the new one takes.
    Removed,
    /// The new one bears its final name.
    Renamed,
    /// The next first dirty offset is about to be written down.
    Checkpoint,
}

/// A compaction without limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpaced;

impl Pace for Unpaced {
    fn spent(&self, _bytes: usize) -> bool {
        true
    }
}

/// How much a log needs compaction.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Dirtiness {
    /// Bytes that no pass has looked at yet, as far as one may.
    pub dirty_bytes: u64,
    /// The dirty bytes' share of all that a pass would read, 0 to 1.
    pub ratio: f64,
    /// Whether it is due: by `min.cleanable.dirty.ratio`, `max.compaction.lag.ms`, or a tombstone whose time has come.
    pub due: bool,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Passes over the log.
    pub passes: u32,
    /// Bytes of the segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of those that took their place.
    pub bytes_after: u64,
    /// Batches that could not be unpacked and were kept as they are.
    pub unreadable_batches: u64,
    /// Everything below this has been looked at.
    pub first_dirty: i64,
}

/// Why a compaction ended early. What it had exchanged by then stays; the rest of the log is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The log was cut, closed or put out of service meanwhile, or the daemon stops.
    #[error("compaction was interrupted")]
    Interrupted,
    /// Another one is at work on this log.
    #[error("the log is being compacted already")]
    Busy,
    /// The bytes on disk are no batch, or their CRC does not match.
    #[error("{path}: damaged at byte {position}: {reason}")]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// What is left of the segments does not fit one of them.
    #[error("segment {base} would grow past what its format can hold")]
    TooLarge {
        /// The segment's base offset.
        base: i64,
    },
    /// The disk failed, or is full.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A closed segment that a pass reads.
struct Input {
    base: i64,
    /// Where the next one begins.
    until: i64,
    size: u64,
    file: Arc<SegmentFile>,
    max_timestamp: Option<i64>,
    first_append_ms: Option<i64>,
    last_append_ms: Option<i64>,
}

/// What a compaction works on, taken under the log's lock.
struct Plan {
    config: Arc<LogConfig>,
    /// Every segment from the log's first one to the last that may be compacted.
    inputs: Vec<Input>,
    first_dirty: i64,
    aborted: Vec<AbortedTransaction>,
    /// The producers that the log remembers.
    producers: HashSet<i64>,
    next_horizon: Option<i64>,
    cuts: u64,
}

impl Plan {
    /// Everything below this may be compacted.
    fn end(&self) -> i64 {
        self.inputs.last().map_or(self.first_dirty, |input| input.until)
    }

    fn dirty(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter().filter(|input| input.until > self.first_dirty)
    }
}

impl Log {
    /// How much the log needs compaction; `None` if its policy says no, or it is out of service. May read a few headers.
    ///
    /// Nothing at or above `high_watermark` counts, nor what `min.compaction.lag.ms` protects.
    pub fn dirtiness(&self, now_ms: i64, high_watermark: i64) -> Option<Dirtiness> {
        let plan = self.plan(now_ms, high_watermark)?;
        let dirty_bytes: u64 = plan.dirty().map(|input| input.size).sum();
        let all: u64 = plan.inputs.iter().map(|input| input.size).sum();
        let ratio = if all == 0 {
            0.0
        } else {
            dirty_bytes as f64 / all as f64
        };
        let expired = plan.next_horizon.is_some_and(|horizon| horizon <= now_ms) && all > 0;
        let due = expired
            || (dirty_bytes > 0
                && (ratio > plan.config.min_cleanable_ratio || self.is_overdue(&plan, now_ms)));
        Some(Dirtiness {
            dirty_bytes,
            ratio,
            due,
        })
    }

    /// Compacts the log now, whether it is due or not, with at most `map_bytes` for the keys: not for a network thread.
    ///
    /// Every closed segment below `high_watermark`, the last stable offset and `min.compaction.lag.ms` is taken in as many
    /// passes as the keys need.
    pub fn compact(
        &self,
        now_ms: i64,
        high_watermark: i64,
        map_bytes: usize,
        pace: &dyn Pace,
    ) -> Result<Compacted, CompactError> {
        let Some(_one_at_a_time) = self.compacting.try_lock() else {
            return Err(CompactError::Busy);
        };
        let mut done = Compacted::default();
        loop {
            let Some(plan) = self.plan(now_ms, high_watermark) else {
                return Err(CompactError::Interrupted);
            };
            done.first_dirty = plan.first_dirty;
            let nothing_new = plan.end() <= plan.first_dirty;
            if plan.inputs.is_empty() || (nothing_new && done.passes > 0) {
                return Ok(done);
            }
            self.pass(&plan, (now_ms, map_bytes), pace, &mut done)?;
            done.passes += 1;
        }
    }

    /// The first offset that no pass has looked at.
    pub fn first_dirty(&self) -> i64 {
        let state = self.lock();
        state.first_dirty.max(state.start)
    }

    /// Batches below this offset may have been rewritten, or may be from now on: all that a pass has looked at, and while the
    /// policy is to compact, all closed segments.
    pub fn compactable_to(&self) -> i64 {
        let state = self.lock();
        let closed = match state.segments.back() {
            Some(active) if state.config.compact => active.base,
            _ => 0,
        };
        state.first_dirty.max(state.start).max(closed)
    }

    fn plan(&self, now_ms: i64, high_watermark: i64) -> Option<Plan> {
        let mut state = self.lock();
        if !state.config.compact || self.check_open(&state).is_err() {
            return None;
        }
        let high_watermark = high_watermark.min(state.end);
        let stable = state.producers.last_stable_offset(high_watermark);
        let config = Arc::clone(&state.config);
        let newest = now_ms.saturating_sub(config.min_compaction_lag_ms);
        let inputs = state
            .segments
            .iter()
            .zip(state.segments.iter().skip(1))
            .map(|(segment, next)| Input {
                base: segment.base,
                until: next.base,
                size: segment.size,
                file: Arc::clone(&segment.file),
                max_timestamp: segment.max_timestamp.map(|max| max.0),
                first_append_ms: segment.first_append_ms,
                last_append_ms: segment.last_append_ms,
            })
            .take_while(|input| {
                let time = input.max_timestamp.or(input.first_append_ms);
                let young = config.min_compaction_lag_ms > 0 && time.is_some_and(|time| time > newest);
                input.until <= stable && !young
            })
            .collect();
        Some(Plan {
            inputs,
            first_dirty: state.first_dirty.clamp(state.start, state.end),
            aborted: state.segments.iter().flat_map(|s| &s.aborted).copied().collect(),
            producers: state.producers.iter().map(|(id, _)| id).collect(),
            next_horizon: state.next_horizon,
            cuts: state.cuts,
            config,
        })
    }

    /// Whether a dirty segment's first record has waited longer than `max.compaction.lag.ms`.
    fn is_overdue(&self, plan: &Plan, now_ms: i64) -> bool {
        let before = now_ms.saturating_sub(plan.config.max_compaction_lag_ms);
        // With the default of for ever nothing is that old, and no file needs to be read.
        before > 0
            && plan.dirty().any(|input| {
                let first = input.file.open(&self.env.files).ok().and_then(|file| {
                    let mut scan = Scan::new(&file, 0, input.size, input.base);
                    scan.next().ok().flatten()
                });
                first.is_some_and(|found| (1..before).contains(&found.header.max_timestamp))
            })
    }

    /// One pass: as far as the keys fit the map.
    fn pass(
        &self,
        plan: &Plan,
        (now_ms, map_bytes): (i64, usize),
        pace: &dyn Pace,
        done: &mut Compacted,
    ) -> Result<(), CompactError> {
        let aborted = Aborted::new(plan.aborted.iter().copied());
        let (map, end) = self.build_map(plan, map_bytes, &aborted, pace)?;
        let taken = plan.inputs.partition_point(|input| input.base < end);
        let inputs = &plan.inputs[..taken];
        let last = self.last_batches(plan, inputs)?;
        let times = (now_ms, plan.config.delete_retention_ms);
        let mut filter = Filter::new(&map, end, times, &aborted, &last);
        let mut rest = inputs;
        while !rest.is_empty() {
            let (group, later) = rest.split_at(group_length(rest, &plan.config));
            self.rewrite_group(plan, group, later.is_empty(), &mut filter, pace, done)?;
            rest = later;
        }
        done.unreadable_batches += filter.unreadable;
        done.first_dirty = end;
        // Only a walk over everything knows every horizon.
        let next_horizon = filter.next_horizon;
        self.save_first_dirty(plan, end, next_horizon, pace)
    }

    /// Reads the dirty part into a map; answers the offset after the last record that was entered or passed over.
    fn build_map(
        &self,
        plan: &Plan,
        map_bytes: usize,
        aborted: &Aborted,
        pace: &dyn Pace,
    ) -> Result<(OffsetMap, i64), CompactError> {
        let end = plan.end().max(plan.first_dirty);
        let dirty = usize::try_from(end - plan.first_dirty).unwrap_or(usize::MAX);
        let mut map = OffsetMap::new(map_bytes, dirty);
        for input in plan.dirty() {
            let file = input.open(self)?;
            let from = plan.first_dirty.max(input.base);
            // Half-done segments are walked from the batch at which the pass before ended.
            let start = search(&file, input.base, input.size, (0, from), |found| {
                found.header.next_offset() > from
            });
            let Some(start) = start.map_err(|error| input.damaged(error))? else {
                continue;
            };
            let mut scan = Scan::new(&file, start.position, input.size, input.base);
            while let Some((found, batch)) = input.next(&file, &mut scan)? {
                if !pace.spent(batch.size()) {
                    return Err(CompactError::Interrupted);
                }
                let header = &found.header;
                if header.is_control() || aborted.holds(header) {
                    continue;
                }
                // What cannot be unpacked stays as it is, and supersedes nothing.
                let Ok(records) = batch.records(MAX_DECOMPRESSED) else {
                    continue;
                };
                for record in records.iter().map_while(Result::ok) {
                    if let Some(key) = record.key
                        && record.offset >= plan.first_dirty
                        && !map.put(key, record.offset)
                    {
                        return Ok((map, record.offset));
                    }
                }
            }
        }
        Ok((map, end))
    }

    /// The last batch of each remembered producer in these segments.
    fn last_batches(&self, plan: &Plan, inputs: &[Input]) -> Result<LastBatches, CompactError> {
        let mut last = LastBatches::default();
        if plan.producers.is_empty() {
            return Ok(last);
        }
        for input in inputs {
            let file = input.open(self)?;
            let mut scan = Scan::new(&file, 0, input.size, input.base);
            while let Some(found) = scan.next().map_err(|error| input.damaged(error))? {
                last.note(&found.header, &plan.producers);
            }
        }
        Ok(last)
    }

    /// Writes down that everything below `end` has been looked at, unless the log was cut meanwhile.
    fn save_first_dirty(
        &self,
        plan: &Plan,
        end: i64,
        next_horizon: Option<i64>,
        pace: &dyn Pace,
    ) -> Result<(), CompactError> {
        pace.before(Step::Checkpoint);
        let _files = self.replacing.lock();
        {
            let mut state = self.lock();
            if self.check_open(&state).is_err() || state.cuts != plan.cuts {
                return Err(CompactError::Interrupted);
            }
            state.next_horizon = next_horizon;
            if state.first_dirty == end {
                return Ok(());
            }
        }
        write_first_dirty(&self.dir, end).map_err(|source| CompactError::Io {
            path: self.dir.clone(),
            source,
        })?;
        self.lock().first_dirty = end;
        Ok(())
    }
}

impl Input {
    fn open(&self, log: &Log) -> Result<Arc<std::fs::File>, CompactError> {
        let opened = self.file.open(&log.env.files);
        opened.map_err(|source| CompactError::Io {
            path: self.file.path().to_owned(),
            source,
        })
    }

    /// The next batch of a walk, its CRC checked.
    fn next(
        &self,
        file: &std::fs::File,
        scan: &mut Scan<'_>,
    ) -> Result<Option<(Found, Batch)>, CompactError> {
        let Some(found) = scan.next().map_err(|error| self.damaged(error))? else {
            return Ok(None);
        };
        let bytes = read_batch(file, &found).map_err(|error| self.damaged(error.into()))?;
        let checked = Batch::parse(bytes).and_then(|batch| batch.check_crc().map(|()| batch));
        let batch = checked.map_err(|error| {
            self.damaged(ScanError::Damaged {
                position: found.position,
                reason: error.to_string(),
            })
        })?;
        Ok(Some((found, batch)))
    }

    fn damaged(&self, error: ScanError) -> CompactError {
        let path = self.file.path().to_owned();
        match error {
            ScanError::Io(source) => CompactError::Io { path, source },
            ScanError::Damaged { position, reason } => CompactError::Damaged {
                path,
                position,
                reason,
            },
        }
    }
}

/// How many of the first segments become one: as many as fit one segment's limits even if nothing were removed.
fn group_length(inputs: &[Input], config: &LogConfig) -> usize {
    let limit = config.segment_limit();
    let base = inputs.first().map_or(0, |input| input.base);
    let mut size = 0;
    inputs
        .iter()
        .take_while(|input| {
            size += input.size;
            size <= limit && input.until - 1 - base <= i64::from(i32::MAX)
        })
        .count()
        .max(1)
}

/// Whether what is left of a group still fits the format.
fn fits(size: u64) -> bool {
    size <= MAX_SEGMENT_BYTES
}

/// Where the file is that says so.
pub(crate) fn first_dirty_path(dir: &Path) -> PathBuf {
    dir.join("first-dirty")
}

fn write_first_dirty(dir: &Path, offset: i64) -> io::Result<()> {
    files::replace(&first_dirty_path(dir), offset.to_string().as_bytes())
}

/// The first dirty offset of the log in `dir`; without a readable file everything is dirty.
pub(crate) fn read_first_dirty(dir: &Path) -> io::Result<i64> {
    match std::fs::read(first_dirty_path(dir)) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).ok();
            let offset = text.and_then(|text| text.trim().parse().ok());
            Ok(offset.filter(|offset: &i64| *offset >= 0).unwrap_or(0))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Lowers the first dirty offset, durably, before the log is cut at `offset`: what comes there next was not looked at.
pub(crate) fn before_cut(dir: &Path, state: &mut State, offset: i64) -> io::Result<()> {
    state.cuts += 1;
    state.next_horizon = None;
    if state.first_dirty > offset {
        write_first_dirty(dir, offset)?;
        state.first_dirty = offset;
    }
    Ok(())
}
