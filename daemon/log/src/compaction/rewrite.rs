//! Writing a group of segments again as one, and the exchange of files that a crash cannot break.
//!
//! ```text
//! 1  <base>.log.cleaned               written, flushed; a crash drops it
//! 2  <base>-<last>.swap               renamed, the directory flushed; from here on a crash finishes the exchange
//! 3  readers are given the new one    under the log's lock, by its open file
//! 4  <base+1>.log ... <last>.log      removed with their indexes, the directory flushed
//! 5  <base>.log                       renamed
//! ```
//!
//! The `swap` name tells the base offsets of the first and the last segment that it replaces. Whoever cuts, closes or
//! deletes a log waits for an exchange that has begun (`Log::replacing`); appends do not.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tradewind_wire::batch::{Batch, BatchHeader};

use super::filter::{Filter, Verdict};
use super::{CompactError, Compacted, Input, Pace, Plan, Step, fits};
use crate::files::{self, SegmentFile};
use crate::index::Index;
use crate::log::{Log, State};
use crate::metrics;
use crate::scan::Scan;
use crate::segment::{self, Segment};

/// How much is gathered before a write.
const BUFFER: usize = 1 << 20;

/// A segment that is being written.
struct Cleaned {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    segment: Segment,
    interval: u64,
    changed: bool,
}

impl Cleaned {
    fn create(dir: &Path, base: i64, interval: u64) -> io::Result<Self> {
        let path = files::with_suffix(&segment::log_path(dir, base), ".cleaned");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let mut fresh = Segment::closed(dir, base, 0, base);
        fresh.index = Some(Index::default());
        Ok(Self {
            path,
            file,
            buffer: Vec::with_capacity(BUFFER),
            segment: fresh,
            interval,
            changed: false,
        })
    }

    fn push(&mut self, header: &BatchHeader, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.spill()?;
        }
        self.buffer.extend_from_slice(bytes);
        self.segment.note(header, self.interval);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
        Ok(())
    }

    /// Where a part of the segment is written before it has its name.
    fn temporary(path: &Path) -> PathBuf {
        files::with_suffix(path, ".cleaned")
    }

    /// Writes the indexes beside the log.
    fn write_indexes(&mut self) -> io::Result<()> {
        let [_, offsets, times, aborted] = self.segment.paths();
        self.segment
            .write_indexes_to(&Self::temporary(&offsets), &Self::temporary(&times))?;
        self.segment.write_aborted_to(&Self::temporary(&aborted))?;
        self.segment.index = None;
        Ok(())
    }

    /// Moves the indexes to their names. What has none loses its old one.
    fn name_indexes(&self) -> io::Result<()> {
        for path in &self.segment.paths()[1..] {
            match std::fs::rename(Self::temporary(path), path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => files::remove_if_present(path)?,
                other => other?,
            }
        }
        Ok(())
    }

    fn discard(&self) {
        let paths = self.segment.paths();
        for path in &paths {
            let _ = files::remove_if_present(&Self::temporary(path));
        }
    }
}

impl Log {
    /// Writes one group of segments again and exchanges it. `last` is whether the pass ends with it.
    pub(super) fn rewrite_group(
        &self,
        plan: &Plan,
        group: &[Input],
        last: bool,
        filter: &mut Filter<'_>,
        pace: &dyn Pace,
        done: &mut Compacted,
    ) -> Result<(), CompactError> {
        let Some(first) = group.first() else {
            return Ok(());
        };
        let path = segment::log_path(&self.dir, first.base);
        let failed = |source| CompactError::Io {
            path: path.clone(),
            source,
        };
        let mut cleaned = {
            let _files = self.replacing.lock();
            check(plan, group, &self.lock(), self)?;
            Cleaned::create(&self.dir, first.base, plan.config.index_interval_bytes).map_err(failed)?
        };
        let written = self.write_group(plan, group, last, filter, pace, &mut cleaned);
        let exchanged = written.and_then(|()| {
            if group.len() == 1 && !cleaned.changed {
                // Nothing was superseded: the old one stays.
                let _files = self.replacing.lock();
                cleaned.discard();
                return Ok(());
            }
            pace.before(Step::Written);
            cleaned.file.sync_all().map_err(failed)?;
            done.bytes_before += group.iter().map(|input| input.size).sum::<u64>();
            done.bytes_after += cleaned.segment.size;
            self.exchange(plan, group, &mut cleaned, pace)
        });
        if exchanged.is_err() {
            let _files = self.replacing.lock();
            cleaned.discard();
        }
        exchanged
    }

    /// Fills the new segment.
    fn write_group(
        &self,
        plan: &Plan,
        group: &[Input],
        last: bool,
        filter: &mut Filter<'_>,
        pace: &dyn Pace,
        cleaned: &mut Cleaned,
    ) -> Result<(), CompactError> {
        let base = cleaned.segment.base;
        for (i, input) in group.iter().enumerate() {
            let ends = last && i + 1 == group.len();
            let floor = if plan.config.mirrored {
                input
                    .last_append_ms
                    .map_or(i64::MIN, |at| at.saturating_add(plan.config.delete_retention_ms))
            } else {
                i64::MIN
            };
            let file = input.open(self)?;
            let mut scan = Scan::new(&file, 0, input.size, input.base);
            while let Some((found, batch)) = input.next(&file, &mut scan)? {
                if !pace.spent(batch.size()) {
                    return Err(CompactError::Interrupted);
                }
                let closes = ends && found.end() >= input.size;
                let write = match filter.judge(&batch, closes, floor) {
                    Verdict::Drop => {
                        cleaned.changed = true;
                        continue;
                    }
                    Verdict::Keep => cleaned.push(batch.header(), &batch.to_bytes()),
                    Verdict::Replace(bytes) => {
                        cleaned.changed = true;
                        push_rewritten(cleaned, bytes)
                    }
                };
                write.map_err(|source| CompactError::Io {
                    path: cleaned.path.clone(),
                    source,
                })?;
                if !fits(cleaned.segment.size) {
                    return Err(CompactError::TooLarge { base });
                }
            }
        }
        cleaned.spill().map_err(|source| CompactError::Io {
            path: cleaned.path.clone(),
            source,
        })?;
        if !pace.spent(usize::try_from(cleaned.segment.size).unwrap_or(usize::MAX)) {
            return Err(CompactError::Interrupted);
        }
        let Some(newest) = group.last() else { return Ok(()) };
        cleaned.segment.first_append_ms = newest.first_append_ms;
        cleaned.segment.last_append_ms = newest.last_append_ms;
        // The age of records without a time is their file's.
        if let Ok(at) = newest.open(self)?.metadata().and_then(|meta| meta.modified()) {
            let _ = cleaned.file.set_modified(at);
        }
        Ok(())
    }

    /// Puts the new segment in the place of the old ones.
    fn exchange(
        &self,
        plan: &Plan,
        group: &[Input],
        cleaned: &mut Cleaned,
        pace: &dyn Pace,
    ) -> Result<(), CompactError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(());
        };
        let path = segment::log_path(&self.dir, first.base);
        let failed = |source| CompactError::Io {
            path: path.clone(),
            source,
        };
        pace.before(Step::Flushed);
        let _files = self.replacing.lock();
        cleaned.segment.aborted = check(plan, group, &self.lock(), self)?;
        // Markers that went take their entries along.
        cleaned.segment.keep_aborted_below(i64::MAX);
        cleaned.write_indexes().map_err(failed)?;
        let swap = swap_path(&self.dir, first.base, last.base);
        std::fs::rename(&cleaned.path, &swap).map_err(failed)?;
        if let Err(error) = files::sync_dir(&self.dir) {
            let _ = files::remove_if_present(&swap);
            return Err(failed(error));
        }
        pace.before(Step::Named);
        let open = cleaned.file.try_clone().map_err(|error| {
            let _ = files::remove_if_present(&swap);
            failed(error)
        })?;
        let replaced = self.take_over(group, cleaned, SegmentFile::opened(swap.clone(), open));
        let finished = replaced.and_then(|()| {
            for input in &group[1..] {
                crate::truncate::remove(&Segment::closed(&self.dir, input.base, 0, input.base))?;
            }
            files::sync_dir(&self.dir)?;
            pace.before(Step::Removed);
            std::fs::rename(&swap, &path)?;
            pace.before(Step::Renamed);
            files::sync_dir(&self.dir)
        });
        if let Err(error) = finished {
            // What is on disk and what is in memory may differ from here on.
            self.fail("exchanging compacted segments", &error);
            return Err(failed(error));
        }
        let mut state = self.lock();
        if let Some(segment) = state.segments.iter_mut().find(|s| s.base == first.base) {
            segment.file = SegmentFile::closed(path);
        }
        metrics::compacted(group.iter().map(|input| input.size).sum(), cleaned.segment.size);
        Ok(())
    }

    /// Lets readers see the new segment instead of the old ones.
    fn take_over(&self, group: &[Input], cleaned: &Cleaned, file: Arc<SegmentFile>) -> io::Result<()> {
        let mut state = self.lock();
        let at = group.first().and_then(|first| state.segment_at(first.base));
        let Some(at) = at else {
            return Err(io::Error::other("a segment is gone"));
        };
        cleaned.name_indexes()?;
        let mut segment = Segment::closed(
            &self.dir,
            cleaned.segment.base,
            cleaned.segment.size,
            cleaned.segment.next_offset,
        );
        segment.file = file;
        segment.max_timestamp = cleaned.segment.max_timestamp;
        segment.first_append_ms = cleaned.segment.first_append_ms;
        segment.last_append_ms = cleaned.segment.last_append_ms;
        segment.aborted.clone_from(&cleaned.segment.aborted);
        let old: Vec<Segment> = state.segments.drain(at..at + group.len()).collect();
        state.segments.insert(at, segment);
        // What the old ones held is flushed with the new one.
        let gone = |file: &Arc<SegmentFile>| old.iter().any(|s| Arc::ptr_eq(&s.file, file));
        state.unsynced.retain(|file| !gone(file));
        state.generation += 1;
        // Or readers would go on seeing what was removed for as long as the memory lasts.
        if let Some(last) = group.last() {
            self.env.tail.release(self.tail.drop_below(last.until));
        }
        state.measure();
        self.publish(&state);
        Ok(())
    }
}

fn push_rewritten(cleaned: &mut Cleaned, bytes: Bytes) -> io::Result<()> {
    let batch = Batch::parse(bytes).map_err(io::Error::other)?;
    let whole = batch.to_bytes();
    cleaned.push(batch.header(), &whole)
}

/// Refuses unless the group's segments are still the log's, closed and in order; answers their aborted transactions.
fn check(
    plan: &Plan,
    group: &[Input],
    state: &State,
    log: &Log,
) -> Result<Vec<crate::AbortedTransaction>, CompactError> {
    if log.check_open(state).is_err() || state.cuts != plan.cuts {
        return Err(CompactError::Interrupted);
    }
    let at = group.first().and_then(|first| state.segment_at(first.base));
    let at = at.ok_or(CompactError::Interrupted)?;
    let mut aborted = Vec::new();
    for (i, input) in group.iter().enumerate() {
        let is_there = |segment: &&Segment| Arc::ptr_eq(&segment.file, &input.file);
        let segment = state.segments.get(at + i).filter(is_there);
        let segment = segment.ok_or(CompactError::Interrupted)?;
        aborted.extend_from_slice(&segment.aborted);
    }
    Ok(aborted)
}

fn swap_path(dir: &Path, first: i64, last: i64) -> PathBuf {
    dir.join(format!("{first:020}-{last:020}.swap"))
}

/// The base offsets of the first and last segment that a file of this name replaces.
fn parse_swap(name: &str) -> Option<(i64, i64)> {
    let (first, last) = name.strip_suffix(".swap")?.split_once('-')?;
    let offset = |text: &str| text.parse::<i64>().ok().filter(|o| *o >= 0 && text.len() == 20);
    let (first, last) = (offset(first)?, offset(last)?);
    (first <= last).then_some((first, last))
}

/// Finishes the exchanges that a crash has interrupted, and drops what had not come so far.
pub(crate) fn finish_swaps(dir: &Path) -> io::Result<()> {
    let (mut bases, mut swaps) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".cleaned") {
            files::remove_if_present(&entry.path())?;
        } else if let Some(range) = parse_swap(name) {
            swaps.push(range);
        } else if let Some(base) = segment::parse_log_name(name).or_else(|| segment::parse_index_name(name)) {
            bases.push(base);
        }
    }
    for (first, last) in swaps {
        tracing::info!(dir = %dir.display(), first, last, "finishing an exchange of compacted segments");
        for base in bases.iter().filter(|base| (first + 1..=last).contains(*base)) {
            crate::truncate::remove(&Segment::closed(dir, *base, 0, *base))?;
        }
        // Those of the old segment, or of the new one: not known which, so they are made again.
        for path in &Segment::closed(dir, first, 0, first).paths()[1..] {
            files::remove_if_present(path)?;
        }
        files::sync_dir(dir)?;
        std::fs::rename(swap_path(dir, first, last), segment::log_path(dir, first))?;
        files::sync_dir(dir)?;
    }
    Ok(())
}
