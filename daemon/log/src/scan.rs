//! Walking a segment's file batch by batch, header by header, without believing anything it says.
//!
//! Used where there is no index to trust: recovery, rebuilding, and the last steps from an index entry to the batch itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tradewind_wire::batch::{BATCH_OVERHEAD, BatchHeader};

use crate::read::CRC_FROM;

/// How much is read at once when walking headers.
const WINDOW: usize = 16 << 10;
/// How much is read at once when checking a payload.
const CRC_WINDOW: usize = 256 << 10;

/// A batch's place in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Found {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.size() as u64
    }
}

/// Why a walk ended before the end of the file.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// From here on the bytes are not what a log holds.
    Damaged { position: u64, reason: String },
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Walks the batches of `file` from a batch boundary up to `end`.
pub(crate) struct Scan<'a> {
    file: &'a File,
    position: u64,
    end: u64,
    /// Offsets and epochs may not go back below these.
    next_offset: i64,
    epoch: i32,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scan<'a> {
    /// Starts at `position`, where a batch with a base offset of at least `from_offset` must start.
    pub(crate) fn new(file: &'a File, position: u64, end: u64, from_offset: i64) -> Self {
        Self {
            file,
            position,
            end,
            next_offset: from_offset,
            epoch: -1,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// The next batch, or `None` at the end. The header's fields are consistent; the payload is not looked at.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let damaged = |reason: String| ScanError::Damaged { position, reason };
        let bytes = self.header_bytes()?;
        let header = BatchHeader::parse(bytes).map_err(|e| damaged(e.to_string()))?;
        let found = Found { position, header };
        if found.end() > self.end {
            return Err(damaged(format!(
                "batch of {} bytes is cut at {}",
                header.size(),
                self.end - position
            )));
        }
        if header.base_offset < self.next_offset {
            return Err(damaged(format!(
                "offset {} where at least {} was due",
                header.base_offset, self.next_offset
            )));
        }
        if header.last_offset_delta < 0 || header.base_offset > i64::MAX - i64::from(i32::MAX) - 1 {
            return Err(damaged("impossible offsets".to_owned()));
        }
        if header.partition_leader_epoch < self.epoch {
            return Err(damaged(format!(
                "leader epoch {} after {}",
                header.partition_leader_epoch, self.epoch
            )));
        }
        self.epoch = header.partition_leader_epoch;
        self.next_offset = header.next_offset();
        self.position = found.end();
        Ok(Some(found))
    }

    /// As [`Self::next`], and the payload's CRC holds.
    pub(crate) fn next_checked(&mut self) -> Result<Option<Found>, ScanError> {
        let Some(found) = self.next()? else {
            return Ok(None);
        };
        let mut crc = crc_of_header(&found.header);
        let mut at = found.position + BATCH_OVERHEAD as u64;
        let mut buffer = vec![0; CRC_WINDOW.min(found.header.size())];
        while at < found.end() {
            let length = buffer
                .len()
                .min(usize::try_from(found.end() - at).unwrap_or(usize::MAX));
            self.file.read_exact_at(&mut buffer[..length], at)?;
            crc = crc32c::crc32c_append(crc, &buffer[..length]);
            at += length as u64;
        }
        if crc != found.header.crc {
            return Err(ScanError::Damaged {
                position: found.position,
                reason: format!(
                    "CRC of the batch at offset {} does not match",
                    found.header.base_offset
                ),
            });
        }
        Ok(Some(found))
    }

    /// The header at the current position: at most 61 bytes, fewer at the end of the file.
    fn header_bytes(&mut self) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let need = BATCH_OVERHEAD.min(left);
        let start = self.position.checked_sub(self.window_at);
        let inside = start.is_some_and(|start| start + need as u64 <= self.window.len() as u64);
        if !inside {
            // Batches that are larger than the window make reading ahead pointless.
            let ahead = if start.is_some_and(|s| s > 2 * WINDOW as u64) {
                BATCH_OVERHEAD
            } else {
                WINDOW
            };
            self.window.resize(ahead.min(left), 0);
            self.file.read_exact_at(&mut self.window, self.position)?;
            self.window_at = self.position;
        }
        // Inside the window by now, so the difference is small.
        let start = (self.position - self.window_at) as usize;
        Ok(&self.window[start..start + need])
    }
}

fn crc_of_header(header: &BatchHeader) -> u32 {
    crc32c::crc32c(&header.encode()[CRC_FROM..])
}
