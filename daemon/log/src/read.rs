//! Reading: whole batches, as slices of memory or of a file, never decoded.
//!
//! What comes from a file is checked before it is served: a batch that the disk has changed is an error, not an answer.
//!
//! The file is read without the log's lock. A truncation or deletion meanwhile is noticed by the generation, and the read
//! is done again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tradewind_wire::batch::{BATCH_OVERHEAD, BatchHeader};

use crate::error::ReadError;
use crate::files::SegmentFile;
use crate::log::Log;
use crate::metrics;
use crate::scan::{Found, Scan, ScanError};
use crate::segment::PositionHint;
use crate::tail::Tail;

/// Where in a batch begins what its CRC covers.
pub(crate) const CRC_FROM: usize = 21;

/// How often a read is done again because the log was cut under it.
pub(crate) const ATTEMPTS: usize = 8;

/// Whole batches, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSlice {
    /// The bytes, in pieces that need not begin or end at a batch's border.
    pub records: Vec<Bytes>,
    /// The length of all pieces together.
    pub bytes: usize,
    /// The offset after the last batch; where the read began if there is none.
    pub next_offset: i64,
}

impl ReadSlice {
    pub(crate) fn empty(next_offset: i64) -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
            next_offset,
        }
    }
}

/// A part of one segment's file to look into.
pub(crate) struct Region {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) base: i64,
    pub(crate) size: u64,
    /// No batch of it reaches past this.
    pub(crate) until: i64,
    /// Where to begin looking for this offset.
    pub(crate) target: i64,
    pub(crate) hint: PositionHint,
}

impl Log {
    /// Reads whole batches from the one that holds `from` (or the first after it) on, none of which reaches past `up_to`.
    ///
    /// The first batch comes whole even if it is larger than `max_bytes`; the others only as far as they fit. It may begin
    /// below `from`. At the end of the log, or at `up_to`, the answer is empty.
    pub fn read(&self, from: i64, max_bytes: usize, up_to: i64) -> Result<ReadSlice, ReadError> {
        self.read_past(Some(&self.tail), from, max_bytes, up_to)
    }

    /// As [`Self::read`], but always from the files, whatever is in memory too.
    pub fn read_stored(&self, from: i64, max_bytes: usize, up_to: i64) -> Result<ReadSlice, ReadError> {
        self.read_past(None, from, max_bytes, up_to)
    }

    fn read_past(
        &self,
        tail: Option<&Tail>,
        from: i64,
        max_bytes: usize,
        up_to: i64,
    ) -> Result<ReadSlice, ReadError> {
        for attempt in 1..=ATTEMPTS {
            // Whoever reads slowly beside cuts and exchanges that follow each other closely has them wait once.
            let _unchanged = (attempt == ATTEMPTS).then(|| self.replacing.lock());
            let (start, end) = (self.start(), self.end());
            if from < start || from > end {
                return Err(ReadError::OutOfRange {
                    offset: from,
                    start,
                    end,
                });
            }
            let up_to = up_to.min(end);
            if from >= up_to {
                return Ok(ReadSlice::empty(from));
            }
            if let Some(slice) = tail.and_then(|tail| tail.read(from, max_bytes, up_to)) {
                metrics::read_from_tail(slice.bytes);
                return Ok(slice);
            }
            let (generation, regions) = self.regions(from, up_to);
            let result = self.read_regions(&regions, from, max_bytes, up_to);
            if self.lock().generation == generation {
                return result;
            }
        }
        // Cut again and again while reading: nothing stable is there to be read now.
        Ok(ReadSlice::empty(from))
    }

    /// The segments that may hold offsets of `from..up_to`, and the generation that they belong to.
    pub(crate) fn regions(&self, from: i64, up_to: i64) -> (u64, Vec<Region>) {
        let state = self.lock();
        let first = state.segment_at(from).unwrap_or(0);
        let regions = state
            .segments
            .range(first..)
            .take_while(|s| s.base < up_to)
            .filter(|s| !s.is_empty())
            .map(|s| Region {
                file: Arc::clone(&s.file),
                base: s.base,
                size: s.size,
                until: s.next_offset,
                target: from,
                hint: s.position_hint(from),
            })
            .collect();
        (state.generation, regions)
    }

    fn read_regions(
        &self,
        regions: &[Region],
        from: i64,
        max_bytes: usize,
        up_to: i64,
    ) -> Result<ReadSlice, ReadError> {
        for region in regions {
            let file = self.open_region(region)?;
            // A gap may reach over the segment's end: then the next one has the first batch after it.
            if let Some(first) = find(region, &file, |found| found.header.next_offset() > from)? {
                return read_batches(region, &file, &first, from, max_bytes, up_to);
            }
        }
        Ok(ReadSlice::empty(from))
    }

    pub(crate) fn open_region(&self, region: &Region) -> Result<Arc<File>, ReadError> {
        region
            .file
            .open(&self.env.files)
            .map_err(|source| io_error(region.file.path(), source))
    }
}

/// The first batch of the region, from its hint on, for which `wanted` holds.
pub(crate) fn find(
    region: &Region,
    file: &File,
    wanted: impl Fn(&Found) -> bool,
) -> Result<Option<Found>, ReadError> {
    let hint = region.hint.resolve();
    let found = search(file, region.base, region.size, (hint, region.target), wanted)
        .map_err(|error| scan_error(region.file.path(), error))?;
    match found {
        Some(found) if found.header.next_offset() > region.until => {
            let reason = format!(
                "offset {} where everything ends at {}",
                found.header.last_offset(),
                region.until
            );
            Err(damaged(region, found.position, reason))
        }
        found => Ok(found),
    }
}

/// The first batch for which `wanted` holds, in a segment of `size` bytes. `hint` is a position from the index and the
/// offset that it was asked for; where it proves wrong, the whole segment is walked.
pub(crate) fn search(
    file: &File,
    base: i64,
    size: u64,
    (hint, target): (u64, i64),
    wanted: impl Fn(&Found) -> bool,
) -> Result<Option<Found>, ScanError> {
    let mut scan = Scan::new(file, hint, size, base);
    let mut first = hint > 0;
    loop {
        match scan.next() {
            // An entry points to a batch that ends at or below the offset asked for.
            Ok(Some(found)) if first && found.header.last_offset() > target => {}
            Ok(Some(found)) if wanted(&found) => return Ok(Some(found)),
            Ok(Some(_)) => {
                first = false;
                continue;
            }
            Ok(None) if hint < size => return Ok(None),
            Ok(None) | Err(ScanError::Damaged { .. }) if hint > 0 => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        }
        return search(file, base, size, (0, target), wanted);
    }
}

fn read_batches(
    region: &Region,
    file: &File,
    first: &Found,
    from: i64,
    max_bytes: usize,
    up_to: i64,
) -> Result<ReadSlice, ReadError> {
    if first.header.next_offset() > up_to {
        return Ok(ReadSlice::empty(from));
    }
    let left = usize::try_from(region.size - first.position).unwrap_or(usize::MAX);
    let mut buffer = vec![0; first.header.size().max(max_bytes.min(left))];
    file.read_exact_at(&mut buffer, first.position)
        .map_err(|source| io_error(region.file.path(), source))?;
    let mut length = first.header.size();
    let mut next_offset = first.header.next_offset();
    if !crc_holds(&first.header, &buffer[..length]) {
        let reason = format!(
            "CRC of the batch at offset {} does not match",
            first.header.base_offset
        );
        return Err(damaged(region, first.position, reason));
    }
    // Where the last batch taken begins, and the offset behind the one before it.
    let mut before = (0, from);
    let follower = loop {
        let rest = &buffer[length..];
        let header = if rest.len() >= BATCH_OVERHEAD {
            BatchHeader::parse(rest).ok()
        } else {
            header_at(region, file, first.position + length as u64)
                .map_err(|source| io_error(region.file.path(), source))?
        };
        // A damaged batch ends the answer; the read that begins with it says so.
        match header {
            Some(header)
                if header.size() <= rest.len()
                    && header.next_offset() <= up_to.min(region.until)
                    && header.base_offset >= next_offset
                    && crc_holds(&header, &rest[..header.size()]) =>
            {
                before = (length, next_offset);
                length += header.size();
                next_offset = header.next_offset();
            }
            header => break header,
        }
    };
    // Offsets are not in the CRC: where two batches overlap, one of them has been changed.
    if follower.is_some_and(|header| header.base_offset < next_offset) {
        if before.0 == 0 {
            let reason = format!("offset {} reaches over the next batch", next_offset - 1);
            return Err(damaged(region, first.position, reason));
        }
        (length, next_offset) = before;
    }
    buffer.truncate(length);
    metrics::read_from_file(length);
    Ok(ReadSlice {
        records: vec![Bytes::from(buffer)],
        bytes: length,
        next_offset,
    })
}

/// The header at a position of a segment, if there is one.
fn header_at(region: &Region, file: &File, position: u64) -> io::Result<Option<BatchHeader>> {
    let mut bytes = [0; BATCH_OVERHEAD];
    if position + BATCH_OVERHEAD as u64 > region.size {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, position)?;
    Ok(BatchHeader::parse(&bytes).ok())
}

/// Whether a whole batch is as it was written. What lies outside its CRC, offset and epoch, must be in order besides.
fn crc_holds(header: &BatchHeader, batch: &[u8]) -> bool {
    batch.get(CRC_FROM..).map(crc32c::crc32c) == Some(header.crc)
}

fn damaged(region: &Region, position: u64, reason: String) -> ReadError {
    ReadError::Damaged {
        path: region.file.path().to_owned(),
        position,
        reason,
    }
}

/// One whole batch from a file.
pub(crate) fn read_batch(file: &File, found: &Found) -> io::Result<Bytes> {
    let mut buffer = vec![0; found.header.size()];
    file.read_exact_at(&mut buffer, found.position)?;
    Ok(Bytes::from(buffer))
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> ReadError {
    ReadError::Io {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn scan_error(path: &Path, error: ScanError) -> ReadError {
    match error {
        ScanError::Io(source) => io_error(path, source),
        ScanError::Damaged { position, reason } => ReadError::Damaged {
            path: path.to_owned(),
            position,
            reason,
        },
    }
}
