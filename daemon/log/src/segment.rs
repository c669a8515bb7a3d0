//! One segment: a `.log` file of batches, its indexes, and what is known of both.
//!
//! A segment never holds half a batch: a failed write is cut back. Only the last segment of a log is written to.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use tradewind_wire::batch::{BATCH_OVERHEAD, Batch, BatchHeader, NO_TIMESTAMP};

use crate::config::LogConfig;
use crate::files::{self, FileCache, SegmentFile};
use crate::index::{self, Index};
use crate::producers::AbortedTransaction;
use crate::scan::{Scan, ScanError};

/// Space is reserved in steps of this size, once a segment is larger than one.
const RESERVE_STEP: u64 = 4 << 20;
/// What the kernel writes at once, at the least.
const PAGE_BYTES: u64 = 4096;
/// An entry of Kafka's `.txnindex`: version, producer id, first, last and last stable offset.
const ABORTED_ENTRY: usize = 34;

/// One segment of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    dir: PathBuf,
    pub(crate) base: i64,
    /// Bytes of whole batches.
    pub(crate) size: u64,
    /// The offset after the last batch; the base when empty.
    pub(crate) next_offset: i64,
    /// The largest timestamp and the last offset of the first batch that has it.
    pub(crate) max_timestamp: Option<(i64, i64)>,
    /// When the first batch was written, by this daemon's clock.
    pub(crate) first_append_ms: Option<i64>,
    /// When the last one was.
    pub(crate) last_append_ms: Option<i64>,
    pub(crate) file: Arc<SegmentFile>,
    /// In memory while the segment is active; on disk afterwards.
    pub(crate) index: Option<Index>,
    pub(crate) aborted: Vec<AbortedTransaction>,
    reserved: u64,
    /// What lies below this the kernel was asked to write.
    written_back: u64,
}

impl Segment {
    /// Creates the segment's file, or opens it, to be appended to. The caller sets what recovery finds.
    pub(crate) fn active(dir: &Path, base: i64) -> io::Result<Self> {
        let file = SegmentFile::active(log_path(dir, base))?;
        Ok(Self {
            dir: dir.to_owned(),
            base,
            size: 0,
            next_offset: base,
            max_timestamp: None,
            first_append_ms: None,
            last_append_ms: None,
            file,
            index: Some(Index::default()),
            aborted: Vec::new(),
            reserved: 0,
            written_back: 0,
        })
    }

    /// A closed segment whose extent is known.
    pub(crate) fn closed(dir: &Path, base: i64, size: u64, next_offset: i64) -> Self {
        Self {
            dir: dir.to_owned(),
            base,
            size,
            next_offset,
            max_timestamp: None,
            first_append_ms: None,
            last_append_ms: None,
            file: SegmentFile::closed(log_path(dir, base)),
            index: None,
            aborted: Vec::new(),
            reserved: 0,
            written_back: 0,
        }
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The offset relative to this segment, as index files hold it.
    pub(crate) fn relative(&self, offset: i64) -> u32 {
        u32::try_from(offset.saturating_sub(self.base).max(0)).unwrap_or(u32::MAX)
    }

    /// Whether its first record has waited long enough for the segment to be closed.
    pub(crate) fn is_aged(&self, config: &LogConfig, now_ms: i64) -> bool {
        let limit = config.segment_age_limit(self.jitter_seed());
        self.first_append_ms
            .is_some_and(|first| now_ms.saturating_sub(first) > limit)
    }

    /// Whether an index of the active segment has as many entries as `segment.index.bytes` allows.
    pub(crate) fn indexes_are_full(&self, bytes: u64) -> bool {
        self.index.as_ref().is_some_and(|index| index.is_full(bytes))
    }

    /// A number that differs from segment to segment and stays the same for each.
    fn jitter_seed(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.dir, self.base).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the batch's offsets can be told relative to this segment.
    pub(crate) fn can_hold(&self, header: &BatchHeader) -> bool {
        header.last_offset().saturating_sub(self.base) <= i64::from(i32::MAX)
    }

    /// Writes batches at the end. After an error the file is as it was before, or the error says that it is not.
    pub(crate) fn append(&mut self, batches: &[Batch], now_ms: i64, interval: u64) -> Result<(), WriteError> {
        let file = self.file.held().map_err(WriteError::Broken)?;
        let total: u64 = batches.iter().map(|b| b.size() as u64).sum();
        self.reserve(&file, total);
        // What was cut off and is written anew is new.
        self.written_back = self.written_back.min(self.size);
        let headers: Vec<[u8; BATCH_OVERHEAD]> = batches.iter().map(Batch::header_bytes).collect();
        let payloads: Vec<_> = batches.iter().map(Batch::payload).collect();
        let mut slices: Vec<_> = headers
            .iter()
            .zip(&payloads)
            .flat_map(|(header, payload)| [IoSlice::new(header), IoSlice::new(payload)])
            .collect();
        if let Err(error) = files::write_all_at(&file, &mut slices, self.size) {
            // Whatever came after the last whole batch must go, or a later recovery would take it for a torn tail.
            if let Err(second) = file.set_len(self.size) {
                tracing::error!(path = %self.file.path().display(), error = %second, "cannot cut back a failed write");
                return Err(WriteError::Broken(error));
            }
            self.reserved = 0;
            return Err(if files::is_disk_full(&error) {
                WriteError::Full
            } else {
                WriteError::Broken(error)
            });
        }
        self.first_append_ms.get_or_insert(now_ms);
        self.last_append_ms = Some(now_ms);
        for batch in batches {
            self.note(batch.header(), interval);
        }
        Ok(())
    }

    /// Enters a batch that stands at the segment's end in the file.
    pub(crate) fn note(&mut self, header: &BatchHeader, interval: u64) {
        let (position, size) = (self.size, header.size() as u64);
        if header.max_timestamp > self.max_timestamp.map_or(NO_TIMESTAMP, |max| max.0) {
            self.max_timestamp = Some((header.max_timestamp, header.last_offset()));
        }
        let last = self.relative(header.last_offset());
        let max = self.relative_max();
        if let Some(index) = &mut self.index {
            index.note(last, position, size, max, interval);
        }
        self.size += size;
        self.next_offset = header.next_offset();
    }

    /// Closes the segment, whose indexes are written, to appends: gives back reserved space. Its file stays open until the
    /// cache shuts it.
    pub(crate) fn close(&mut self, cache: &FileCache) -> io::Result<()> {
        self.index = None;
        let file = self.file.held()?;
        if self.reserved > self.size {
            file.set_len(self.size)?;
            self.reserved = 0;
        }
        cache.enter(&self.file);
        Ok(())
    }

    /// Writes the indexes of an active segment, which stays active.
    pub(crate) fn write_indexes(&mut self) -> io::Result<()> {
        self.write_indexes_to(
            &offset_index_path(&self.dir, self.base),
            &time_index_path(&self.dir, self.base),
        )?;
        self.write_aborted()
    }

    /// Writes offset and time index to these files, durably.
    pub(crate) fn write_indexes_to(&mut self, offsets: &Path, times: &Path) -> io::Result<()> {
        let max = self.relative_max();
        if let Some(index) = &mut self.index {
            index.note_time(max);
            index.write(offsets, times)?;
        }
        Ok(())
    }

    /// Writes the aborted transactions, or removes their file when there are none.
    pub(crate) fn write_aborted(&self) -> io::Result<()> {
        self.write_aborted_to(&aborted_path(&self.dir, self.base))
    }

    /// As [`Self::write_aborted`], to this file.
    pub(crate) fn write_aborted_to(&self, path: &Path) -> io::Result<()> {
        if self.aborted.is_empty() {
            return files::remove_if_present(path);
        }
        let mut out = Vec::with_capacity(self.aborted.len() * ABORTED_ENTRY);
        for aborted in &self.aborted {
            out.put_i16(0);
            out.put_i64(aborted.producer_id);
            out.put_i64(aborted.first_offset);
            out.put_i64(aborted.last_offset);
            out.put_i64(aborted.last_stable_offset);
        }
        files::replace(path, &out)
    }

    /// Reads the aborted transactions. Entries that cannot be right are left out.
    pub(crate) fn load_aborted(&mut self) -> io::Result<()> {
        let bytes = match std::fs::read(aborted_path(&self.dir, self.base)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (entries, _) = bytes.as_chunks::<ABORTED_ENTRY>();
        self.aborted = entries
            .iter()
            .map(|entry| {
                let mut at = &entry[2..];
                AbortedTransaction {
                    producer_id: at.get_i64(),
                    first_offset: at.get_i64(),
                    last_offset: at.get_i64(),
                    last_stable_offset: at.get_i64(),
                }
            })
            .collect();
        self.keep_aborted_below(i64::MAX);
        Ok(())
    }

    /// Forgets aborted transactions whose marker is not in this segment below `end`.
    pub(crate) fn keep_aborted_below(&mut self, end: i64) {
        let range = self.base..self.next_offset.min(end);
        self.aborted
            .retain(|a| a.first_offset <= a.last_offset && range.contains(&a.last_offset));
    }

    /// A position at or before the batch that holds `offset`.
    pub(crate) fn position_hint(&self, offset: i64) -> PositionHint {
        let relative = self.relative(offset);
        match &self.index {
            Some(index) => PositionHint::Known(index.position(relative)),
            None => PositionHint::OnDisk {
                path: offset_index_path(&self.dir, self.base),
                relative,
            },
        }
    }

    /// An offset at or before the first record of at least this time.
    pub(crate) fn offset_hint_for_time(&self, timestamp: i64) -> i64 {
        let relative = match &self.index {
            Some(index) => index.relative_for_time(timestamp),
            None => index::relative_for_time_on_disk(&time_index_path(&self.dir, self.base), timestamp),
        };
        self.base + i64::from(relative)
    }

    /// Every file that belongs to the segment, the `.log` first.
    pub(crate) fn paths(&self) -> [PathBuf; 4] {
        [
            log_path(&self.dir, self.base),
            offset_index_path(&self.dir, self.base),
            time_index_path(&self.dir, self.base),
            aborted_path(&self.dir, self.base),
        ]
    }

    /// Sets size, end, largest timestamp and the rest of `index` by walking the headers from the index's last entry to
    /// `size`. The segment is active afterwards. On damage it ends before it, and the error says where that is.
    pub(crate) fn walk_in(&mut self, index: Index, size: u64, interval: u64) -> Result<(), ScanError> {
        let file = self.file.held()?;
        let from = index.last_offset().map_or(0, |entry| entry.1);
        self.max_timestamp = index
            .last_time()
            .map(|(timestamp, relative)| (timestamp, self.base + i64::from(relative)));
        self.size = from;
        self.next_offset = self.base;
        self.index = Some(index.resumed());
        let mut scan = Scan::new(&file, from, size, self.base);
        while let Some(found) = scan.next()? {
            self.note(&found.header, interval);
        }
        Ok(())
    }

    fn relative_max(&self) -> Option<(i64, u32)> {
        self.max_timestamp
            .map(|(timestamp, offset)| (timestamp, self.relative(offset)))
    }

    /// Bytes that the kernel was not asked to write yet.
    pub(crate) fn unwritten(&self) -> u64 {
        self.size.saturating_sub(self.written_back)
    }

    /// The whole pages among them, which count as asked for from now on. A page that is not full yet will change again.
    pub(crate) fn take_unwritten(&mut self) -> Range<u64> {
        let end = self.size - self.size % PAGE_BYTES;
        let start = self.written_back.min(end);
        self.written_back = end;
        start..end
    }

    /// Reserves space ahead on segments that grow. A device that cannot is no error; a full one shows at the write.
    fn reserve(&mut self, file: &File, more: u64) {
        let need = self.size + more;
        if self.size < RESERVE_STEP || need <= self.reserved {
            return;
        }
        let step = RESERVE_STEP.max(more);
        let start = self.size.max(self.reserved);
        if rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, start, step).is_ok() {
            self.reserved = start + step;
        }
    }
}

/// Where to begin looking for an offset.
#[derive(Debug, Clone)]
pub(crate) enum PositionHint {
    Known(u64),
    /// In this index file, which is read without the log's lock.
    OnDisk {
        path: PathBuf,
        relative: u32,
    },
}

impl PositionHint {
    pub(crate) fn resolve(&self) -> u64 {
        match self {
            Self::Known(position) => *position,
            Self::OnDisk { path, relative } => index::position_on_disk(path, *relative),
        }
    }
}

/// Why batches were not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// No space; the file is as it was.
    Full,
    /// The file cannot be trusted any more.
    Broken(io::Error),
}

/// `<base>.log`
pub(crate) fn log_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// The base offset in the name of a `.log` file.
pub(crate) fn parse_log_name(name: &str) -> Option<i64> {
    let stem = name.strip_suffix(".log").filter(|stem| stem.len() == 20)?;
    stem.parse().ok().filter(|base| *base >= 0)
}

/// The base offset in the name of an `.index` file.
pub(crate) fn parse_index_name(name: &str) -> Option<i64> {
    let stem = name.strip_suffix(".index").filter(|stem| stem.len() == 20)?;
    stem.parse().ok().filter(|base| *base >= 0)
}

/// `<base>.index`
pub(crate) fn offset_index_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}

/// `<base>.timeindex`
pub(crate) fn time_index_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.timeindex"))
}

fn aborted_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.txnindex"))
}
