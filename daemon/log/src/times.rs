//! Finding records by time: what ListOffsets asks for.
//!
//! The time index gives a place to start, batch headers say where to look closer, and the records of one batch give the
//! exact answer. A batch whose records cannot be decoded answers with its first offset: nothing may fail because a producer
//! sent bytes that do not decompress.

use bytes::Bytes;
use tradewind_wire::batch::Batch;

use crate::error::ReadError;
use crate::log::Log;
use crate::read::{ATTEMPTS, Region, find, io_error, read_batch, scan_error};
use crate::scan::{Found, Scan};
use crate::segment::PositionHint;

/// The most bytes that one batch is decompressed to for a lookup.
const MAX_DECOMPRESSED: usize = 256 << 20;

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeMatch {
    /// The record's offset.
    pub offset: i64,
    /// Its timestamp in ms.
    pub timestamp: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

impl Log {
    /// The first record at or above the log start and below `up_to` whose timestamp is at least `timestamp`. Reads files
    /// and decompresses one batch: not for a network thread.
    pub fn offset_for_timestamp(&self, timestamp: i64, up_to: i64) -> Result<Option<TimeMatch>, ReadError> {
        self.while_stable(|log| log.find_timestamp(timestamp, up_to))
    }

    /// The record with the largest timestamp below `up_to`, the first of them on ties.
    pub fn max_timestamp(&self, up_to: i64) -> Result<Option<TimeMatch>, ReadError> {
        self.while_stable(|log| log.find_max_timestamp(up_to))
    }

    /// Looks again if segments were exchanged or cut under the look.
    fn while_stable<T>(&self, look: impl Fn(&Self) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let mut attempts = ATTEMPTS;
        loop {
            let generation = self.lock().generation;
            let found = look(self);
            attempts -= 1;
            if attempts == 0 || self.lock().generation == generation {
                return found;
            }
        }
    }

    fn find_timestamp(&self, timestamp: i64, up_to: i64) -> Result<Option<TimeMatch>, ReadError> {
        let start = self.start();
        for region in self.regions_with_time(timestamp, up_to) {
            let file = self.open_region(&region)?;
            let wanted = |f: &Found| f.header.max_timestamp >= timestamp && f.header.next_offset() > start;
            let Some(found) = find(&region, &file, wanted)? else {
                continue;
            };
            let mut scan = Scan::new(&file, found.position, region.size, region.base);
            while let Some(found) = scan.next().map_err(|e| scan_error(region.file.path(), e))? {
                if found.header.base_offset >= up_to {
                    return Ok(None);
                }
                if !wanted(&found) {
                    continue;
                }
                let bytes = read_batch(&file, &found).map_err(|e| io_error(region.file.path(), e))?;
                if let Some(hit) = first_record(bytes, start, |time| time >= timestamp) {
                    return Ok(Some(hit).filter(|hit| hit.offset < up_to));
                }
            }
        }
        Ok(None)
    }

    fn find_max_timestamp(&self, up_to: i64) -> Result<Option<TimeMatch>, ReadError> {
        let start = self.start();
        let mut best: Option<(i64, Region, Found)> = None;
        // The batch that holds the log start may owe its largest timestamp to a record that was deleted.
        let mut first: Option<TimeMatch> = None;
        for region in self.regions_by_largest_time(start, up_to) {
            let (known, region) = region;
            if let (Some(known), Some((time, ..))) = (known, &best)
                && known <= *time
            {
                continue;
            }
            let file = self.open_region(&region)?;
            let mut scan = Scan::new(&file, 0, region.size, region.base);
            let mut in_region: Option<Found> = None;
            while let Some(found) = scan.next().map_err(|e| scan_error(region.file.path(), e))? {
                if found.header.next_offset() <= start {
                    continue;
                }
                if found.header.base_offset >= up_to {
                    break;
                }
                if found.header.base_offset < start {
                    let bytes = read_batch(&file, &found).map_err(|e| io_error(region.file.path(), e))?;
                    first = latest_record(bytes, start).filter(|hit| hit.offset < up_to);
                    continue;
                }
                let larger = in_region.is_none_or(|b| found.header.max_timestamp > b.header.max_timestamp);
                // A batch that compaction has emptied has a time, but no record.
                if larger && found.header.max_timestamp >= 0 && found.header.records_count > 0 {
                    in_region = Some(found);
                }
            }
            if let Some(found) = in_region
                && best
                    .as_ref()
                    .is_none_or(|(time, ..)| found.header.max_timestamp > *time)
            {
                best = Some((found.header.max_timestamp, region, found));
            }
        }
        let Some((time, region, found)) = best else {
            return Ok(first);
        };
        if first.is_some_and(|first| first.timestamp >= time) {
            return Ok(first);
        }
        let file = self.open_region(&region)?;
        let bytes = read_batch(&file, &found).map_err(|e| io_error(region.file.path(), e))?;
        Ok(first_record(bytes, start, |t| t >= time).filter(|hit| hit.offset < up_to))
    }

    /// The segments that may hold a record of at least this time, with a place to start.
    fn regions_with_time(&self, timestamp: i64, up_to: i64) -> Vec<Region> {
        let state = self.lock();
        state
            .segments
            .iter()
            .filter(|s| s.base < up_to && !s.is_empty() && s.max_timestamp.is_some_and(|m| m.0 >= timestamp))
            .map(|s| {
                let target = s.offset_hint_for_time(timestamp);
                Region {
                    file: std::sync::Arc::clone(&s.file),
                    base: s.base,
                    size: s.size,
                    until: s.next_offset,
                    target,
                    hint: s.position_hint(target),
                }
            })
            .collect()
    }

    /// The segments with records in `start..up_to`, and their largest timestamp where all of it is inside.
    fn regions_by_largest_time(&self, start: i64, up_to: i64) -> Vec<(Option<i64>, Region)> {
        let state = self.lock();
        state
            .segments
            .iter()
            .filter(|s| s.base < up_to && s.next_offset > start && !s.is_empty())
            .map(|s| {
                let region = Region {
                    file: std::sync::Arc::clone(&s.file),
                    base: s.base,
                    size: s.size,
                    until: s.next_offset,
                    target: s.base,
                    hint: PositionHint::Known(0),
                };
                (s.max_timestamp.map(|m| m.0), region)
            })
            .collect()
    }
}

/// The record of the batch at or above `start` with the largest timestamp, the first of them on ties.
fn latest_record(bytes: Bytes, start: i64) -> Option<TimeMatch> {
    let mut latest = i64::MIN;
    first_record(bytes.clone(), start, |time| {
        latest = latest.max(time);
        false
    });
    first_record(bytes, start, |time| time >= latest)
}

/// The first record of the batch at or above `start` whose timestamp is wanted.
fn first_record(bytes: Bytes, start: i64, mut wanted: impl FnMut(i64) -> bool) -> Option<TimeMatch> {
    let batch = Batch::parse(bytes).ok()?;
    let header = *batch.header();
    let leader_epoch = header.partition_leader_epoch;
    let Ok(records) = batch.records(MAX_DECOMPRESSED) else {
        return Some(TimeMatch {
            offset: header.base_offset.max(start),
            timestamp: header.max_timestamp,
            leader_epoch,
        });
    };
    records
        .iter()
        .map_while(Result::ok)
        .find(|record| record.offset >= start && wanted(record.timestamp))
        .map(|record| TimeMatch {
            offset: record.offset,
            timestamp: record.timestamp,
            leader_epoch,
        })
}
