//! Branches: what a log holds below an offset, as a log of its own in another directory, while the first one goes on.
//!
//! ```text
//! log     |  closed  |  closed  |  closed   |  active . . . . . .
//! branch  |  link    |  link    |  link     |  copy  |
//!                                                  up_to
//! ```
//!
//! Closed segments and their indexes are hard links: they cost nothing, and retention, compaction and cuts of one side take
//! nothing from the other. The segment that holds the offset is copied up to it. So that a link is as good as a copy, no
//! file with more than one link is ever written or shortened in place: whoever is about to write to a segment gives it a
//! file of its own first (`files::unshare`), indexes are written as new files.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::epochs::{self, Epochs};
use crate::log::{Log, OpenHint, State};
use crate::read::search;
use crate::scan::{Found, ScanError};
use crate::segment::{self, Segment};
use crate::{compaction, snapshot};

/// Bytes that are copied between two looks at the clock.
const PIECE: u64 = 1 << 20;

/// What making a branch may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchLimits {
    /// Bytes that may be copied. What is linked does not count.
    pub copy_bytes: u64,
    /// When it must be done, by the log's monotonic clock.
    pub until: Duration,
}

/// A branch that has been made. [`Log::open`] opens it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branched {
    /// Segments that both logs share.
    pub linked_segments: usize,
    /// Their bytes.
    pub linked_bytes: u64,
    /// Bytes of the segment that was copied.
    pub copied_bytes: u64,
    /// What the branch is to be opened with: what was copied is checked as after a crash.
    pub hint: OpenHint,
}

/// Why there is no branch. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BranchError {
    /// More would have to be copied than is allowed.
    #[error("{needed} bytes would have to be copied, {limit} are allowed")]
    TooLarge {
        /// What would be copied.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The time was up.
    #[error("not done in the time that it had")]
    OutOfTime,
    /// The disk is full up to its reserve: records come first.
    #[error("the disk is full up to its reserve")]
    DiskFull,
    /// The log does not reach to the offset.
    #[error("offset {offset} is not between {start} and {end}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// The log start.
        start: i64,
        /// The log end.
        end: i64,
    },
    /// The log's end was cut while it was copied.
    #[error("the log was cut meanwhile")]
    Cut,
    /// The log is closed or poisoned.
    #[error("the log is out of service: {0}")]
    Unusable(String),
    /// The disk failed, or is full.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// What of a log goes into a branch, taken under its locks.
struct Shares {
    /// Segments that lie wholly below the end: every file of each, the `.log` first, and its size.
    closed: Vec<([PathBuf; 4], u64)>,
    /// The segment that is copied, its base, and how much of it.
    tail: Arc<File>,
    tail_base: i64,
    tail_bytes: u64,
    epochs: Epochs,
    first_dirty: i64,
    start: i64,
    cuts: u64,
}

impl Log {
    /// Makes a branch in `dir`, which is not there yet and lies on the same volume: everything that ends at or below
    /// `up_to`, which is no higher than the log's end. Appends go on meanwhile; retention, compaction and cuts wait for the
    /// links, not for the copy. After an error nothing is left of it. Reads and writes files: not for a network thread.
    pub fn branch(&self, dir: &Path, up_to: i64, limits: BranchLimits) -> Result<Branched, BranchError> {
        let made = self.make_branch(dir, up_to, limits);
        if made.is_err() {
            let _ = std::fs::remove_dir_all(dir);
        }
        made
    }

    fn make_branch(&self, dir: &Path, up_to: i64, limits: BranchLimits) -> Result<Branched, BranchError> {
        let failed = |source| BranchError::Io {
            path: dir.to_owned(),
            source,
        };
        let shares = {
            // Until the links are made no closed segment is exchanged, cut or removed.
            let _files = self.replacing.lock();
            let shares = self.shares(up_to)?;
            if shares.tail_bytes > limits.copy_bytes {
                return Err(BranchError::TooLarge {
                    needed: shares.tail_bytes,
                    limit: limits.copy_bytes,
                });
            }
            std::fs::create_dir_all(dir).map_err(failed)?;
            for (paths, _) in &shares.closed {
                link_all(dir, paths).map_err(failed)?;
            }
            let snapshots = snapshot::paths_up_to(&self.dir, up_to).map_err(failed)?;
            snapshots
                .iter()
                .try_for_each(|path| link(dir, path))
                .map_err(failed)?;
            shares
        };
        let small = [
            (epochs::path(dir), shares.epochs.to_text()),
            (compaction::first_dirty_path(dir), shares.first_dirty.to_string()),
        ];
        for (path, text) in small {
            std::fs::write(path, text).map_err(failed)?;
        }
        // A log's last segment is written to, so it is never a link.
        let base = if shares.tail_bytes > 0 {
            shares.tail_base
        } else {
            up_to
        };
        self.copy(&shares, &segment::log_path(dir, base), limits.until)?;
        if self.lock().cuts != shares.cuts {
            return Err(BranchError::Cut);
        }
        Ok(Branched {
            linked_segments: shares.closed.len(),
            linked_bytes: shares.closed.iter().map(|(_, size)| size).sum(),
            copied_bytes: shares.tail_bytes,
            hint: OpenHint {
                log_start: shares.start,
                recovery_point: base,
                clean_shutdown: false,
            },
        })
    }

    fn shares(&self, up_to: i64) -> Result<Shares, BranchError> {
        let state = self.lock();
        self.check_open(&state)
            .map_err(|error| BranchError::Unusable(error.to_string()))?;
        let out_of_range = || BranchError::OutOfRange {
            offset: up_to,
            start: state.start,
            end: state.end,
        };
        if !(state.start..=state.end).contains(&up_to) {
            return Err(out_of_range());
        }
        let at = state.segment_at(up_to).ok_or_else(out_of_range)?;
        let closed = state.segments.range(..at);
        let (tail, tail_bytes) = tail(self, &state, at, up_to)?;
        let mut epochs = state.epochs.clone();
        epochs.truncate(up_to);
        Ok(Shares {
            closed: closed.map(|segment| (segment.paths(), segment.size)).collect(),
            tail,
            tail_base: state.segments[at].base,
            tail_bytes,
            epochs,
            first_dirty: state.first_dirty.min(up_to),
            start: state.start,
            cuts: state.cuts,
        })
    }

    /// Copies the segment that is not shared. What is below its size there is never changed but by a cut, which is noticed.
    fn copy(&self, shares: &Shares, to: &Path, until: Duration) -> Result<(), BranchError> {
        let failed = |source| BranchError::Io {
            path: to.to_owned(),
            source,
        };
        let mut copy = File::create_new(to).map_err(failed)?;
        let mut at = 0;
        let mut buffer = vec![0; usize::try_from(PIECE.min(shares.tail_bytes)).unwrap_or(0)];
        while at < shares.tail_bytes {
            if self.env.clock.monotonic() >= until {
                return Err(BranchError::OutOfTime);
            }
            if self.env.room.is_full() {
                return Err(BranchError::DiskFull);
            }
            let piece = usize::try_from(PIECE.min(shares.tail_bytes - at)).unwrap_or(0);
            let buffer = &mut buffer[..piece];
            match shares.tail.read_exact_at(buffer, at) {
                // It was cut under us.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(BranchError::Cut),
                other => other.map_err(failed)?,
            }
            copy.write_all(buffer).map_err(failed)?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Where the newest whole batches begin that hold at most so many bytes together and end at or below `up_to`: at least one
    /// batch, if there is any and bytes are asked for. Reads files: not for a network thread.
    pub fn recent_from(&self, up_to: i64, bytes: u64) -> io::Result<i64> {
        let state = self.lock();
        let up_to = up_to.clamp(state.start, state.end);
        let (mut left, mut from) = (bytes, up_to);
        let last = state.segment_at(up_to).unwrap_or(0);
        for segment in state.segments.range(..=last).rev() {
            if left == 0 || from <= state.start {
                break;
            }
            let end = match segment.next_offset <= up_to {
                true => segment.size,
                false => position_of(self, segment, 0, |found| found.header.next_offset() > up_to)?
                    .map_or(segment.size, |(position, _)| position),
            };
            if end <= left {
                left -= end;
                from = segment.base;
                continue;
            }
            // The first batch of those that fit; or the last of all, which is larger.
            let at = end - left;
            let first = position_of(self, segment, at, |found| {
                found.position >= at && found.position < end
            })?;
            let first = match first {
                None if from == up_to => {
                    let last = |found: &Found| found.position + found.header.size() as u64 >= end;
                    position_of(self, segment, at, last)?
                }
                first => first,
            };
            from = first.map_or(from, |(_, base)| base);
            break;
        }
        Ok(from.clamp(state.start, up_to))
    }
}

/// Position and base offset of the first batch of a segment for which `wanted` holds; none begins before the one that holds
/// `near`, as far as the index knows.
fn position_of(
    log: &Log,
    segment: &Segment,
    near: u64,
    wanted: impl Fn(&Found) -> bool,
) -> io::Result<Option<(u64, i64)>> {
    // The index goes from offsets to positions; both rise.
    let (mut low, mut high) = (segment.base, segment.next_offset);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match segment.position_hint(middle).resolve() <= near {
            true => low = middle,
            false => high = middle,
        }
    }
    let file = segment.file.open(&log.env.files)?;
    let hint = segment.position_hint(low).resolve();
    let hint = if hint <= near { hint } else { 0 };
    let found = search(&file, segment.base, segment.size, (hint, low), wanted);
    match found {
        Ok(found) => Ok(found.map(|found| (found.position, found.header.base_offset))),
        Err(ScanError::Io(error)) => Err(error),
        Err(ScanError::Damaged { position, reason }) => {
            Err(io::Error::other(format!("damaged at byte {position}: {reason}")))
        }
    }
}

/// The file of the segment that holds `up_to`, and the position there at which the branch ends.
fn tail(log: &Log, state: &State, at: usize, up_to: i64) -> Result<(Arc<File>, u64), BranchError> {
    let segment = &state.segments[at];
    let failed = |source| BranchError::Io {
        path: segment.file.path().to_owned(),
        source,
    };
    let file = segment.file.open(&log.env.files).map_err(failed)?;
    if up_to >= segment.next_offset {
        return Ok((file, segment.size));
    }
    let reaches = |found: &Found| found.header.next_offset() > up_to;
    let hint = segment.position_hint(up_to).resolve();
    let found = search(&file, segment.base, segment.size, (hint, up_to), reaches);
    let found = found.map_err(|error| match error {
        ScanError::Io(source) => failed(source),
        ScanError::Damaged { position, reason } => {
            failed(io::Error::other(format!("damaged at byte {position}: {reason}")))
        }
    })?;
    Ok((file, found.map_or(segment.size, |found| found.position)))
}

/// Links a segment's files into `dir`; those that a segment need not have may be absent.
fn link_all(dir: &Path, paths: &[PathBuf; 4]) -> io::Result<()> {
    let [log, rest @ ..] = paths;
    std::fs::hard_link(log, named(dir, log)?)?;
    rest.iter().try_for_each(|path| link(dir, path))
}

/// Links a file that may be absent, or go at any time.
fn link(dir: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(path, named(dir, path)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn named(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name();
    Ok(dir.join(name.ok_or_else(|| io::Error::other("a file without a name"))?))
}
