//! Cutting a log: at its end (divergence), at its start (DeleteRecords), or altogether (a replica that begins anew).
//!
//! A cut below the flushed end makes the recovery point in the checkpoint file too high: what is appended afterwards would
//! not be checked after a crash. A small file beside the segments, `recovery-point`, therefore records the cut, durably and
//! before it happens; it is removed once a checkpoint below the flushed end is on disk ([`Log::checkpointed`]).

use std::io;
use std::path::{Path, PathBuf};

use crate::error::TruncateError;
use crate::index::Index;
use crate::log::{Log, State};
use crate::producers::Producers;
use crate::read::search;
use crate::scan::{Found, ScanError};
use crate::segment::Segment;
use crate::{bugs, compaction, files, metrics, recovery, snapshot};

impl Log {
    /// Removes every batch that reaches to `offset` or past it, and everything remembered of them. The log ends at or below
    /// `offset` afterwards: below it if a batch holds it or if a gap precedes it. At or past the end this changes nothing;
    /// below everything that is left of the log it is the same as [`Self::reset_at`], as in Kafka.
    pub fn truncate_to(&self, offset: i64) -> Result<(), TruncateError> {
        let _files = self.replacing.lock();
        let mut state = self.lock();
        self.check_cut(&state)?;
        if offset >= state.end {
            return Ok(());
        }
        check_range(&state, offset)?;
        if state.segment_at(offset).is_none() {
            return self.cut(&mut state, |log, state| log.start_over(state, offset));
        }
        let copied = self.copy_shared_before(&state, offset)?;
        self.cut(&mut state, |log, state| log.cut_end(state, offset, copied))
    }

    /// Makes the copy of what stays of the segment that is cut, if a branch shares it; before anything is changed. Returns
    /// whether there is one.
    fn copy_shared_before(&self, state: &State, offset: i64) -> Result<bool, TruncateError> {
        let Some(at) = state.segment_at(offset) else {
            return Ok(false);
        };
        let segment = &state.segments[at];
        let copied = cut_position(segment, offset).and_then(|keep| {
            let [path, ..] = segment.paths();
            files::copy_shared(&path, keep)
        });
        copied.map_err(|error| {
            if files::is_disk_full(&error) {
                return TruncateError::NoRoom;
            }
            self.fail("truncating", &error);
            TruncateError::Io(error)
        })
    }

    /// Removes everything; the log is empty at `offset`: a replica whose leader's log starts past its end.
    pub fn reset_at(&self, offset: i64) -> Result<(), TruncateError> {
        let _files = self.replacing.lock();
        let mut state = self.lock();
        self.check_cut(&state)?;
        check_range(&state, offset)?;
        self.cut(&mut state, |log, state| log.start_over(state, offset))
    }

    /// Moves the log start up to `offset`: what DeleteRecords and a leader's log start do. Segments that lie wholly below
    /// are deleted. The new start survives a restart once it is in the checkpoint file.
    pub fn trim_to(&self, offset: i64) -> Result<(), TruncateError> {
        if offset <= self.start() {
            return Ok(());
        }
        let _files = self.replacing.lock();
        let doomed = {
            let mut state = self.lock();
            self.check_cut(&state)?;
            if offset <= state.start {
                return Ok(());
            }
            if offset > state.end {
                return Err(TruncateError::OutOfRange {
                    offset,
                    start: state.start,
                    end: state.end,
                });
            }
            let doomed = advance_start(&mut state, offset);
            self.publish(&state);
            doomed
        };
        self.delete_files(&doomed);
        Ok(())
    }

    /// Says that a checkpoint with this recovery point is on disk.
    pub fn checkpointed(&self, recovery_point: i64) -> io::Result<()> {
        let state = self.lock();
        if recovery_point <= state.flushed {
            files::remove_if_present(&override_path(&self.dir))?;
        }
        Ok(())
    }

    /// Deletes the files of segments that the log no longer has. A file that stays is found and deleted by the next start.
    pub(crate) fn delete_files(&self, doomed: &[Segment]) {
        for segment in doomed {
            if let Err(error) = remove(segment) {
                tracing::warn!(dir = %self.dir.display(), base = segment.base, %error, "cannot delete a segment");
            }
        }
        if !doomed.is_empty() {
            metrics::deleted(doomed.len());
        }
    }

    fn check_cut(&self, state: &State) -> Result<(), TruncateError> {
        if let Some(reason) = self.poisoned() {
            return Err(TruncateError::Poisoned(reason));
        }
        if state.closed {
            return Err(TruncateError::Closed);
        }
        Ok(())
    }

    /// Runs a cut; whatever it leaves behind is consistent, or the log is poisoned.
    fn cut(
        &self,
        state: &mut State,
        act: impl FnOnce(&Self, &mut State) -> io::Result<()>,
    ) -> Result<(), TruncateError> {
        self.env.tail.release(self.tail.clear());
        state.generation += 1;
        let result = act(self, state);
        if let Err(error) = result {
            self.fail("truncating", &error);
            if state.segments.is_empty() {
                // Readers expect one; nothing will be written to it.
                state
                    .segments
                    .push_back(Segment::closed(&self.dir, state.start, 0, state.start));
                state.end = state.start;
                state.flushed = state.start;
                state.measure();
                self.publish(state);
            }
            return Err(TruncateError::Io(error));
        }
        state.measure();
        state.epochs_dirty = true;
        state.flush_cap = state.flush_cap.min(state.end);
        self.publish(state);
        Ok(())
    }

    fn start_over(&self, state: &mut State, offset: i64) -> io::Result<()> {
        write_override(&self.dir, 0)?;
        compaction::before_cut(&self.dir, state, 0)?;
        while let Some(segment) = state.segments.pop_back() {
            remove(&segment)?;
        }
        snapshot::remove_after(&self.dir, -1)?;
        files::sync_dir(&self.dir)?;
        let fresh = Segment::active(&self.dir, offset)?;
        fresh.file.sync()?;
        files::sync_dir(&self.dir)?;
        state.segments.push_back(fresh);
        state.unsynced.clear();
        state.epochs.clear();
        state.producers = Producers::default();
        (state.start, state.end, state.flushed) = (offset, offset, offset);
        Ok(())
    }

    /// `copied`: whether [`Self::copy_shared_before`] has made a copy.
    fn cut_end(&self, state: &mut State, offset: i64, copied: bool) -> io::Result<()> {
        compaction::before_cut(&self.dir, state, offset)?;
        if offset < state.flushed {
            // The new end lies in this segment, at or below the offset; where exactly is not known yet.
            let kept = state.segment_at(offset).map_or(0, |i| state.segments[i].base);
            write_override(&self.dir, kept)?;
        }
        let interval = state.config.index_interval_bytes;
        // Later segments go first and for good: left over beside a shorter one they would look like a gap.
        let mut removed = false;
        while state.segments.len() > 1 && state.segments.back().is_some_and(|s| s.base > offset) {
            if let Some(segment) = state.segments.pop_back() {
                remove(&segment)?;
                removed = true;
            }
        }
        if removed {
            files::sync_dir(&self.dir)?;
        }
        let kept = state.active();
        let base = kept.base;
        let position = cut_position(kept, offset)?;
        let paths = kept.paths();
        let mut index = match kept.index.take() {
            Some(index) => index,
            None => Index::load(&paths[1], &paths[2], kept.size)?.unwrap_or_default(),
        };
        index.truncate(kept.relative(offset), position);
        // A branch keeps what is cut here; only what stays has to be copied for it.
        if copied {
            files::adopt_copy(&paths[0])?;
        }
        let mut cut = Segment::active(&self.dir, base)?;
        cut.aborted = std::mem::take(&mut kept.aborted);
        cut.first_append_ms = kept.first_append_ms;
        cut.last_append_ms = kept.last_append_ms;
        cut.file.held()?.set_len(position)?;
        // Before anything is written there: after a power cut, pages of what was cut beside pages of what came instead could
        // make a batch whose offset and epoch, which lie outside its CRC, are another's.
        cut.file
            .sync()
            .inspect_err(|error| self.fail_flush(state.flushed.min(offset), error))?;
        // Written again when the segment is closed; until then they would point past the cut.
        paths[1..3]
            .iter()
            .try_for_each(|path| files::remove_if_present(path))?;
        if let Err(error) = cut.walk_in(index, position, interval) {
            tracing::warn!(dir = %self.dir.display(), ?error, "rebuilding the index of a truncated segment");
            cut.walk_in(Index::default(), position, interval)
                .map_err(into_io)?;
        }
        let end = cut.next_offset;
        cut.keep_aborted_below(end);
        cut.write_aborted()?;
        *state.active() = cut;
        state.unsynced.retain(|file| file.path() != paths[0]);
        state.end = end;
        state.start = state.start.min(end);
        state.flushed = state.flushed.min(end);
        state.epochs.truncate(end);
        snapshot::remove_after(&self.dir, end)?;
        if bugs::producers_survive() {
            return Ok(());
        }
        recovery::replay_producers(&self.dir, state, &self.env)
    }
}

/// Refuses offsets that no log can have.
fn check_range(state: &State, offset: i64) -> Result<(), TruncateError> {
    if (0..i64::MAX - i64::from(i32::MAX)).contains(&offset) {
        return Ok(());
    }
    Err(TruncateError::OutOfRange {
        offset,
        start: state.start,
        end: state.end,
    })
}

/// Moves the start and takes the segments below it out. The caller deletes their files without the lock.
pub(crate) fn advance_start(state: &mut State, offset: i64) -> Vec<Segment> {
    state.start = offset;
    if state.epochs.trim(offset) {
        state.epochs_dirty = true;
    }
    state.producers.trim(offset);
    let mut doomed = Vec::new();
    while state.segments.get(1).is_some_and(|next| next.base <= offset) {
        doomed.extend(state.segments.pop_front());
    }
    if !doomed.is_empty() {
        state.generation += 1;
        state.measure();
        let gone = |path: &Path| doomed.iter().any(|s: &Segment| s.file.path() == path);
        state.unsynced.retain(|file| !gone(file.path()));
    }
    doomed
}

/// Where the first batch begins that reaches to `offset` or past it.
fn cut_position(segment: &Segment, offset: i64) -> io::Result<u64> {
    let file = segment.file.held()?;
    let hint = segment.position_hint(offset).resolve();
    let reaches = |found: &Found| found.header.next_offset() > offset;
    let found = search(&file, segment.base, segment.size, (hint, offset), reaches).map_err(into_io)?;
    Ok(found.map_or(segment.size, |found| found.position))
}

fn into_io(error: ScanError) -> io::Error {
    match error {
        ScanError::Io(error) => error,
        ScanError::Damaged { position, reason } => {
            io::Error::other(format!("damaged at byte {position}: {reason}"))
        }
    }
}

/// Removes a segment's files, the `.log` last, so that a crash leaves no index without a log: that would be damage.
pub(crate) fn remove(segment: &Segment) -> io::Result<()> {
    let [log, rest @ ..] = segment.paths();
    let indexed = rest[0].exists();
    rest.iter().try_for_each(|path| files::remove_if_present(path))?;
    if indexed && log.exists() {
        files::sync_dir(log.parent().unwrap_or_else(|| Path::new(".")))?;
    }
    files::remove_if_present(&log)
}

fn override_path(dir: &Path) -> PathBuf {
    dir.join("recovery-point")
}

fn write_override(dir: &Path, offset: i64) -> io::Result<()> {
    // Never raised: an earlier cut may still be the lowest.
    let offset = read_override(dir)?.map_or(offset, |known| known.min(offset));
    files::replace(&override_path(dir), offset.to_string().as_bytes())
}

/// The recorded cut; an unreadable one asks for a scan of everything.
pub(crate) fn read_override(dir: &Path) -> io::Result<Option<i64>> {
    match std::fs::read_to_string(override_path(dir)) {
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or(0))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(0)),
        Err(error) => Err(error),
    }
}
