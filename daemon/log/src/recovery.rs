//! Opening a log: trusting what a clean stop or a flush vouches for, and checking everything else.
//!
//! After a clean stop nothing is scanned. Otherwise every batch from the recovery point on is checked (lengths, offsets,
//! epochs, CRC) and the log is cut at the first that fails: a torn tail. A failure *below* the recovery point is damage to
//! data that was flushed and perhaps acknowledged; it is set aside under `.damaged` and reported, never silently dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tradewind_wire::batch::{Batch, ControlKind};

use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::error::OpenError;
use crate::files;
use crate::index::Index;
use crate::log::{Log, LogEnv, OpenHint, State};
use crate::producers::Producers;
use crate::read::read_batch;
use crate::scan::{Scan, ScanError};
use crate::segment::{self, Segment};
use crate::suspect::{self, Suspect};
use crate::{compaction, metrics, snapshot, truncate};

/// What opening a log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes of a torn tail that were cut off. No flushed record was in them.
    pub truncated_bytes: u64,
    /// Whether records below the recovery point are missing or damaged: this replica may lack what it acknowledged.
    pub damaged: bool,
    /// Whether a flush had failed, and everything above its flushed end was cut therefore: this replica may lack what it
    /// acknowledged without a flush.
    pub unflushed_lost: bool,
    /// What was found, for the log, if anything was.
    pub detail: Option<String>,
}

impl Log {
    /// Opens the log in `dir`, creating it at `hint.log_start` if there is none. Reads and checks files: may take long
    /// after a crash.
    pub fn open(
        dir: &Path,
        config: LogConfig,
        hint: OpenHint,
        env: &LogEnv,
    ) -> Result<(Self, Recovered), OpenError> {
        let failed = |source| OpenError::Io {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut opening = Opening::new(dir, config, hint, env).map_err(failed)?;
        opening.segments().map_err(failed)?;
        opening.settle().map_err(failed)?;
        let Opening { state, recovered, .. } = opening;
        if recovered.damaged || recovered.unflushed_lost {
            // What had to be cut has been, durably: what is appended from now on must not be.
            let suspect = Suspect {
                flushed: None,
                damaged: recovered.damaged,
                unflushed_lost: recovered.unflushed_lost,
            };
            suspect::write(dir, suspect).map_err(failed)?;
        }
        if recovered != Recovered::default() {
            metrics::recovered(recovered.truncated_bytes, recovered.damaged);
            tracing::warn!(
                dir = %dir.display(),
                truncated_bytes = recovered.truncated_bytes,
                damaged = recovered.damaged,
                detail = recovered.detail.as_deref().unwrap_or(""),
                "recovered a log"
            );
        }
        let log = Self::assemble(dir.to_owned(), env.clone(), state);
        if log.flushed_end() < log.end() {
            // What was checked just now may only be in the page cache. A failure poisons the log, which then says so.
            let _ = log.flush();
        }
        Ok((log, recovered))
    }
}

/// A log on its way to being open.
struct Opening<'a> {
    dir: &'a Path,
    env: &'a LogEnv,
    hint: OpenHint,
    /// Batches that end at or below this are not checked.
    trusted: i64,
    /// What ends above this is cut.
    end_at_most: i64,
    /// Whether the epochs come from the file; otherwise every segment's headers are walked for them.
    epochs_known: bool,
    state: State,
    recovered: Recovered,
}

impl<'a> Opening<'a> {
    fn new(dir: &'a Path, config: LogConfig, mut hint: OpenHint, env: &'a LogEnv) -> io::Result<Self> {
        compaction::finish_swaps(dir)?;
        let epochs = Epochs::load(dir)?;
        let mut cut = truncate::read_override(dir)?.unwrap_or(i64::MAX);
        let suspect = suspect::read(dir)?.unwrap_or_default();
        let mut recovered = Recovered {
            damaged: suspect.damaged,
            unflushed_lost: suspect.unflushed_lost,
            ..Recovered::default()
        };
        if suspect.damaged || suspect.unflushed_lost {
            recovered.detail = Some("found damaged by an earlier start".to_owned());
        }
        if let Some(flushed) = suspect.flushed {
            hint.clean_shutdown = false;
            cut = cut.min(flushed);
            recovered.unflushed_lost = true;
            recovered.detail = Some(format!("a flush failed above {flushed}"));
        }
        let state = State {
            config: Arc::new(config),
            segments: std::collections::VecDeque::new(),
            start: 0,
            end: 0,
            flushed: 0,
            size: 0,
            unflushed: 0,
            unflushed_since: i64::MAX,
            written_back_at: Duration::ZERO,
            epochs_dirty: false,
            epochs: epochs.clone().unwrap_or_default(),
            producers: Producers::default(),
            inherited: 0,
            unsynced: Vec::new(),
            generation: 0,
            flush_cap: i64::MAX,
            closed: false,
            first_dirty: compaction::read_first_dirty(dir)?,
            next_horizon: None,
            cuts: 0,
        };
        Ok(Self {
            dir,
            env,
            hint,
            trusted: if hint.clean_shutdown {
                i64::MAX
            } else {
                hint.recovery_point.min(cut)
            },
            end_at_most: suspect.flushed.unwrap_or(i64::MAX),
            epochs_known: epochs.is_some(),
            state,
            recovered,
        })
    }

    /// Finds the segments and checks those that nothing vouches for.
    fn segments(&mut self) -> io::Result<()> {
        let (mut bases, mut orphans) = list_segments(self.dir)?;
        let first_kept = bases.first().copied();
        if let Some(missing) = self.missing_start(first_kept, &orphans) {
            self.note_missing(missing);
            // As everywhere: the log ends where the first record is missing.
            self.drop_segments(&bases)?;
            bases.clear();
        }
        for (i, &base) in bases.iter().enumerate() {
            if i > 0 && base > self.end_at_most {
                self.drop_segments(&bases[i..])?;
                break;
            }
            let following = bases.get(i + 1).copied();
            let missing = orphans
                .iter()
                .copied()
                .find(|orphan| *orphan > base && following.is_none_or(|next| *orphan < next));
            let sound = match following {
                Some(next) if next <= self.trusted && missing.is_none() => self.closed_segment(base, next)?,
                // With nothing behind it, it is the one that is written to from now on.
                next => self.last_segment(base, next.or(missing).is_some())?,
            };
            if let Some(missing) = missing {
                self.note_missing(missing);
            }
            if !sound || missing.is_some() {
                self.drop_segments(&bases[i + 1..])?;
                break;
            }
        }
        while let Some(orphan) = orphans.pop() {
            truncate::remove(&Segment::closed(self.dir, orphan, 0, orphan))?;
        }
        // All but the last are closed; one that was last before damage is open already.
        let count = self.state.segments.len();
        for segment in self.state.segments.iter_mut().take(count.saturating_sub(1)) {
            if segment.index.is_some() {
                segment.write_indexes()?;
                segment.close(&self.env.files)?;
                self.state.unsynced.push(Arc::clone(&segment.file));
            }
        }
        Ok(())
    }

    /// The base of a segment below all others of which only the index is left, if flushed records were in it.
    fn missing_start(&self, first: Option<i64>, orphans: &[i64]) -> Option<i64> {
        let missing = orphans.first().copied()?;
        let needed = first.is_none_or(|first| missing < first && first > self.hint.log_start);
        (needed && missing < self.flushed_before()).then_some(missing)
    }

    /// A segment is gone. Above the recovery point that may be a torn tail's doing.
    fn note_missing(&mut self, base: i64) {
        self.recovered.damaged |= base < self.flushed_before();
        let path = segment::log_path(self.dir, base);
        let detail = format!("{} is missing", path.display());
        self.recovered.detail.get_or_insert(detail);
    }

    /// A segment that lies wholly below the recovery point. Its indexes are believed if they can be right.
    fn closed_segment(&mut self, base: i64, next: i64) -> io::Result<bool> {
        let meta = std::fs::metadata(segment::log_path(self.dir, base))?;
        let mut closed = Segment::closed(self.dir, base, meta.len(), next);
        let paths = closed.paths();
        if let Some(max) = Index::glance(&paths[1], &paths[2], meta.len())
            && self.epochs_known
        {
            closed.max_timestamp = max.map(|(timestamp, relative)| (timestamp, base + i64::from(relative)));
            // Records without times are as old as the file.
            closed.first_append_ms = modified_ms(&meta);
            closed.last_append_ms = modified_ms(&meta);
            closed.load_aborted()?;
            self.state.segments.push_back(closed);
            return Ok(true);
        }
        self.last_segment(base, true)
    }

    /// A segment whose batches are walked: without CRC below the recovery point, with it above. Returns whether it is
    /// sound to its end.
    fn last_segment(&mut self, base: i64, has_next: bool) -> io::Result<bool> {
        let mut active = Segment::active(self.dir, base)?;
        let file = active.file.held()?;
        let size = file.metadata()?.len();
        if self.hint.clean_shutdown && self.epochs_known {
            let paths = active.paths();
            let index = Index::load(&paths[1], &paths[2], size)?.unwrap_or_default();
            if active
                .walk_in(index, size, self.state.config.index_interval_bytes)
                .is_ok()
            {
                active.load_aborted()?;
                set_first_append(&mut active, self.env);
                self.state.segments.push_back(active);
                return Ok(true);
            }
            active = Segment::active(self.dir, base)?;
        }
        let mut scan = Scan::new(&file, 0, size, base.max(self.previous_end()));
        let damage = loop {
            let next = if active.next_offset >= self.trusted {
                scan.next_checked()
            } else {
                scan.next()
            };
            match next {
                Ok(Some(found)) if !active.can_hold(&found.header) => {
                    break Some((found.position, "offset does not belong here".to_owned()));
                }
                Ok(Some(found)) if found.header.next_offset() > self.end_at_most => {
                    break Some((found.position, "not flushed".to_owned()));
                }
                Ok(Some(found)) => {
                    let header = &found.header;
                    if self
                        .state
                        .epochs
                        .assign(header.partition_leader_epoch, header.base_offset)
                    {
                        self.state.epochs_dirty = true;
                    }
                    active.note(header, self.state.config.index_interval_bytes);
                }
                Ok(None) => break None,
                Err(ScanError::Damaged { position, reason }) => break Some((position, reason)),
                Err(ScanError::Io(error)) => return Err(error),
            }
        };
        if let Some((position, reason)) = &damage {
            self.cut_tail(&active, *position, size, reason)?;
        } else if !has_next {
            tracing::debug!(dir = %self.dir.display(), base, size, "checked the last segment");
        }
        active.load_aborted()?;
        set_first_append(&mut active, self.env);
        self.state.segments.push_back(active);
        Ok(damage.is_none())
    }

    /// Cuts a segment at `position`; what was flushed is kept beside it.
    fn cut_tail(&mut self, active: &Segment, position: u64, size: u64, reason: &str) -> io::Result<()> {
        let path = active.file.path();
        let detail = format!("{}: cut at byte {position} of {size}: {reason}", path.display());
        if active.next_offset < self.flushed_before() {
            self.recovered.damaged = true;
            std::fs::copy(path, fresh_name(path))?;
            self.mark_damaged()?;
        }
        self.recovered.truncated_bytes += size - position;
        self.recovered.detail.get_or_insert(detail);
        let file = active.file.held()?;
        file.set_len(position)?;
        file.sync_all()?;
        active.paths()[1..3]
            .iter()
            .try_for_each(|path| files::remove_if_present(path))
    }

    /// Writes down that damage was found, before anything is changed: after a crash in the middle of that, what is left may
    /// look sound.
    fn mark_damaged(&self) -> io::Result<()> {
        let suspect = Suspect {
            flushed: (self.end_at_most < i64::MAX).then_some(self.end_at_most),
            damaged: true,
            unflushed_lost: self.recovered.unflushed_lost,
        };
        suspect::write(self.dir, suspect)
    }

    /// Removes the segments after one that was cut or is missing: kept aside if they hold what was flushed.
    fn drop_segments(&mut self, bases: &[i64]) -> io::Result<()> {
        if self.recovered.damaged {
            self.mark_damaged()?;
        }
        // The last first, so that a crash in between leaves no gap.
        for &base in bases.iter().rev() {
            let segment = Segment::closed(self.dir, base, 0, base);
            let path = segment.file.path();
            self.recovered.truncated_bytes += std::fs::metadata(path)?.len();
            if base < self.flushed_before() {
                self.recovered.damaged = true;
                std::fs::rename(path, fresh_name(path))?;
            }
            truncate::remove(&segment)?;
        }
        files::sync_dir(self.dir)
    }

    /// Sets the ends, and rebuilds what is remembered besides records.
    fn settle(&mut self) -> io::Result<()> {
        if self.state.segments.is_empty() {
            let fresh = Segment::active(self.dir, self.hint.log_start.max(0))?;
            fresh.file.sync()?;
            files::sync_dir(self.dir)?;
            self.state.segments.push_back(fresh);
        }
        let end = self.state.active().next_offset;
        let first = self.state.segments.front().map_or(0, |s| s.base);
        self.state.end = end;
        self.state.first_dirty = self.state.first_dirty.min(end);
        self.state.measure();
        self.state.start = self.hint.log_start.max(first).min(end);
        if end < self.flushed_before() {
            self.recovered.damaged = true;
            let detail = format!("log ends at {end}, but was flushed to {}", self.flushed_before());
            self.recovered.detail.get_or_insert(detail);
        }
        self.state.flushed = if self.hint.clean_shutdown {
            end
        } else {
            self.trusted.clamp(0, end)
        };
        if self.state.epochs.truncate(end) || self.state.epochs.trim(self.state.start) {
            self.state.epochs_dirty = true;
        }
        snapshot::remove_after(self.dir, end)?;
        replay_producers(self.dir, &mut self.state, self.env)
    }

    /// Everything below this was flushed when the checkpoint was written, and not cut since.
    fn flushed_before(&self) -> i64 {
        self.hint.recovery_point.min(self.trusted)
    }

    fn previous_end(&self) -> i64 {
        self.state.segments.back().map_or(0, |s| s.next_offset)
    }
}

/// Rebuilds producer state for a log that ends at `state.end`: the nearest snapshot, then the batches above it.
pub(crate) fn replay_producers(dir: &Path, state: &mut State, env: &LogEnv) -> io::Result<()> {
    let (from, producers) = snapshot::newest(dir, state.end)?.unwrap_or_default();
    state.producers = producers;
    if from >= state.end {
        return Ok(());
    }
    let now_ms = env.clock.now_ms();
    let mut aborted = Vec::new();
    let first = state.segment_at(from).unwrap_or(0);
    for segment in state.segments.range(first..) {
        let file = segment.file.open(&env.files)?;
        let hint = segment.position_hint(from.max(segment.base)).resolve();
        let mut scan = Scan::new(&file, hint, segment.size, segment.base);
        loop {
            let found = match scan.next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(ScanError::Io(error)) => return Err(error),
                Err(ScanError::Damaged { position, reason }) => {
                    // Below the recovery point nothing was checked: the records are served as they are.
                    let path = segment.file.path().display();
                    tracing::warn!(%path, position, reason, "producer state is incomplete");
                    break;
                }
            };
            let header = &found.header;
            if header.producer_id < 0 || header.base_offset < from {
                continue;
            }
            let marker = if header.is_control() {
                Batch::parse(read_batch(&file, &found)?)
                    .ok()
                    .and_then(|batch| ControlKind::of(&batch))
            } else {
                None
            };
            aborted.extend(state.producers.note(header, marker, now_ms));
        }
    }
    for one in aborted {
        if let Some(i) = state.segment_at(one.last_offset)
            && !state.segments[i].aborted.contains(&one)
        {
            state.segments[i].aborted.push(one);
        }
    }
    Ok(())
}

/// The age of a segment counts from its first record's time, or from now if that says nothing.
fn set_first_append(active: &mut Segment, env: &LogEnv) {
    if active.is_empty() {
        return;
    }
    let now_ms = env.clock.now_ms();
    let first = active.file.held().ok().and_then(|file| {
        let mut scan = Scan::new(&file, 0, active.size, active.base);
        scan.next().ok().flatten()
    });
    let time = first
        .map(|found| found.header.max_timestamp)
        .filter(|t| (0..=now_ms).contains(t));
    active.first_append_ms = Some(time.unwrap_or(now_ms));
    active.last_append_ms = Some(now_ms);
}

fn modified_ms(meta: &std::fs::Metadata) -> Option<i64> {
    let since = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// The base offsets of all segments, rising, and of those of which only an index is left: whoever deletes a segment deletes
/// the `.log` last. Removes what unfinished replacements have left.
fn list_segments(dir: &Path) -> io::Result<(Vec<i64>, Vec<i64>)> {
    let (mut bases, mut orphans) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".tmp") {
            files::remove_if_present(&entry.path())?;
        } else if let Some(base) = segment::parse_log_name(name) {
            bases.push(base);
        } else if let Some(base) = segment::parse_index_name(name) {
            orphans.push(base);
        }
    }
    bases.sort_unstable();
    orphans.sort_unstable();
    orphans.retain(|base| bases.binary_search(base).is_err());
    Ok((bases, orphans))
}

/// A name beside `path` under which damaged bytes are kept; earlier ones stay.
fn fresh_name(path: &Path) -> PathBuf {
    (0..u32::MAX)
        .map(|i| files::with_suffix(path, &format!(".damaged.{i}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| files::with_suffix(path, ".damaged"))
}
