//! The two sparse indexes of a segment, in Kafka's formats: offset -> position, and largest timestamp -> offset.
//!
//! The active segment's are in memory and written when it is closed; closed segments' are searched on disk. An index is
//! only ever a hint: what it points to is checked by walking batches from there, and a bad one is rebuilt.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An entry of the offset index: the last offset of a batch (relative to the segment) and the batch's position.
const OFFSET_ENTRY: usize = 8;
/// An entry of the time index: the largest timestamp so far and the (relative) offset that has it.
const TIME_ENTRY: usize = 12;

/// The indexes of an active segment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Index {
    offsets: Vec<(u32, u32)>,
    times: Vec<(i64, u32)>,
    bytes_since_entry: u64,
}

impl Index {
    /// Enters a batch of `size` bytes that has just been written at `position`. `max_timestamp` is the segment's largest so
    /// far, at the relative offset `max_relative`.
    pub(crate) fn note(
        &mut self,
        last_relative: u32,
        position: u64,
        size: u64,
        max: Option<(i64, u32)>,
        interval: u64,
    ) {
        if self.bytes_since_entry > interval {
            // Segments are at most i32::MAX bytes long.
            self.offsets.push((last_relative, position as u32));
            self.note_time(max);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += size;
    }

    /// Enters the segment's largest timestamp if it is new: also before the segment is closed.
    pub(crate) fn note_time(&mut self, max: Option<(i64, u32)>) {
        if let Some((timestamp, relative)) = max
            && self.times.last().is_none_or(|last| timestamp > last.0)
        {
            self.times.push((timestamp, relative));
        }
    }

    /// A position at or before the batch that holds `relative`.
    pub(crate) fn position(&self, relative: u32) -> u64 {
        let after = self.offsets.partition_point(|entry| entry.0 <= relative);
        after.checked_sub(1).map_or(0, |i| u64::from(self.offsets[i].1))
    }

    /// A relative offset at or before the first record of at least this time.
    pub(crate) fn relative_for_time(&self, timestamp: i64) -> u32 {
        let after = self.times.partition_point(|entry| entry.0 <= timestamp);
        after.checked_sub(1).map_or(0, |i| self.times[i].1)
    }

    /// Forgets everything from this relative offset and position on.
    pub(crate) fn truncate(&mut self, relative: u32, position: u64) {
        self.offsets
            .retain(|entry| entry.0 < relative && u64::from(entry.1) < position);
        // A walk from the last offset entry finds later timestamps again.
        let last = self.offsets.last().map(|entry| entry.0);
        self.times
            .retain(|entry| entry.1 < relative && last.is_some_and(|last| entry.1 <= last));
    }

    /// Whether one of the two files would be as large as this.
    pub(crate) fn is_full(&self, bytes: u64) -> bool {
        let entries = |size: usize| usize::try_from(bytes).unwrap_or(usize::MAX) / size;
        // Closing the segment may add one more time.
        self.offsets.len() >= entries(OFFSET_ENTRY).max(1)
            || self.times.len() + 1 >= entries(TIME_ENTRY).max(2)
    }

    /// Writes both files. The time index is left out when it has no entry.
    pub(crate) fn write(&self, offset_path: &Path, time_path: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.offsets.len() * OFFSET_ENTRY);
        for (relative, position) in &self.offsets {
            bytes.extend_from_slice(&relative.to_be_bytes());
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        write_synced(offset_path, &bytes)?;
        if self.times.is_empty() {
            return crate::files::remove_if_present(time_path);
        }
        let mut bytes = Vec::with_capacity(self.times.len() * TIME_ENTRY);
        for (timestamp, relative) in &self.times {
            bytes.extend_from_slice(&timestamp.to_be_bytes());
            bytes.extend_from_slice(&relative.to_be_bytes());
        }
        write_synced(time_path, &bytes)
    }

    /// Reads both files of a segment of `size` bytes. `None` if the offset index is missing or either cannot be right.
    pub(crate) fn load(offset_path: &Path, time_path: &Path, size: u64) -> io::Result<Option<Self>> {
        let Some(offsets) = read_if_present(offset_path, size)? else {
            return Ok(None);
        };
        let times = read_if_present(time_path, size)?.unwrap_or_default();
        let offsets: Option<Vec<(u32, u32)>> = entries::<OFFSET_ENTRY>(&offsets)
            .map(|all| all.map(|e| (be32(&e[..4]), be32(&e[4..]))).collect());
        let times: Option<Vec<(i64, u32)>> =
            entries::<TIME_ENTRY>(&times).map(|all| all.map(|e| (be64(&e[..8]), be32(&e[8..]))).collect());
        let (Some(offsets), Some(times)) = (offsets, times) else {
            return Ok(None);
        };
        let rising = offsets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1)
            && times.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1)
            && offsets
                .last()
                .is_none_or(|e| u64::from(e.1) < size && e.0 <= i32::MAX as u32)
            && offsets.first().is_none_or(|e| e.1 > 0);
        Ok(rising.then_some(Self {
            offsets,
            times,
            bytes_since_entry: 0,
        }))
    }

    /// Whether the files of a closed segment of `size` bytes look sound, by their lengths and last entries alone: `None` if
    /// not, else the segment's largest timestamp with its relative offset. Lookups check what they are told anyway.
    pub(crate) fn glance(offset_path: &Path, time_path: &Path, size: u64) -> Option<Option<(i64, u32)>> {
        let last = last_entry::<OFFSET_ENTRY>(offset_path)?;
        let position = last.map_or(1, |entry| u64::from(be32(&entry[4..])));
        if position == 0 || position >= size {
            return None;
        }
        if !time_path.exists() {
            return Some(None);
        }
        let (timestamp, relative) =
            last_entry::<TIME_ENTRY>(time_path)?.map(|e| (be64(&e[..8]), be32(&e[8..])))?;
        (timestamp >= 0 && relative <= i32::MAX as u32).then_some(Some((timestamp, relative)))
    }

    /// The largest timestamp that is entered, with its relative offset.
    pub(crate) fn last_time(&self) -> Option<(i64, u32)> {
        self.times.last().copied()
    }

    /// The last entered (relative offset, position).
    pub(crate) fn last_offset(&self) -> Option<(u32, u64)> {
        self.offsets.last().map(|e| (e.0, u64::from(e.1)))
    }

    /// As if the batch of the last entry were about to be walked again: what a walk from there expects.
    pub(crate) fn resumed(mut self) -> Self {
        self.bytes_since_entry = 0;
        self
    }
}

/// As [`Index::position`], on disk. A missing or odd file gives 0: the walk starts at the segment's beginning.
pub(crate) fn position_on_disk(path: &Path, relative: u32) -> u64 {
    floor::<OFFSET_ENTRY>(path, |e| be32(&e[..4]) <= relative).map_or(0, |e| u64::from(be32(&e[4..])))
}

/// As [`Index::relative_for_time`], on disk.
pub(crate) fn relative_for_time_on_disk(path: &Path, timestamp: i64) -> u32 {
    floor::<TIME_ENTRY>(path, |e| be64(&e[..8]) <= timestamp).map_or(0, |e| be32(&e[8..]))
}

/// The last entry of the file for which `holds`, which must be true for a prefix of the entries.
fn floor<const N: usize>(path: &Path, holds: impl Fn(&[u8; N]) -> bool) -> Option<[u8; N]> {
    let file = File::open(path).ok()?;
    let mut low = 0;
    let mut high = file.metadata().ok()?.len() / N as u64;
    let mut best = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut entry = [0; N];
        file.read_exact_at(&mut entry, middle * N as u64).ok()?;
        if holds(&entry) {
            best = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    best
}

/// The file's last entry, `Some(None)` if it is empty; `None` if it is absent or its length is odd.
fn last_entry<const N: usize>(path: &Path) -> Option<Option<[u8; N]>> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    if length == 0 {
        return Some(None);
    }
    let mut entry = [0; N];
    file.read_exact_at(&mut entry, length.checked_sub(N as u64)?)
        .ok()?;
    (length % N as u64 == 0).then_some(Some(entry))
}

fn entries<const N: usize>(bytes: &[u8]) -> Option<impl Iterator<Item = &[u8; N]>> {
    let (entries, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| entries.iter())
}

/// Reads a file unless it is absent or longer than any index of a segment of `size` bytes.
fn read_if_present(path: &Path, size: u64) -> io::Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > size.saturating_add(64) => Ok(None),
        Ok(_) => std::fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    // A file of its own: the old one may be a branch's too.
    crate::files::remove_if_present(path)?;
    let mut file = File::create(path)?;
    #[cfg(test)]
    crate::files::full::check(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn be64(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |value, byte| value << 8 | i64::from(*byte))
}
