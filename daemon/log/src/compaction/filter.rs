//! What one pass keeps of each batch: Kafka's cleaner's rules, one batch at a time, in the order of the log.
//!
//! - Of each key the newest record below the pass's end, and everything above it. Records without a key go.
//! - A tombstone that is its key's newest record until its batch's delete horizon, which the first pass that keeps it sets.
//! - Nothing of an aborted transaction. A transaction's marker as long as a batch of it is there, and until its own delete
//!   horizon from then on.
//! - The header of each producer's last batch, and of the last batch of the pass: producers' state and the log's extent are
//!   read from them. A batch that cannot be unpacked is kept as it is.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tradewind_wire::batch::{Batch, BatchHeader, ControlKind, RecordView, Records, Rewrite};

use super::offset_map::OffsetMap;
use crate::producers::AbortedTransaction;

/// The most that one batch may unpack to while it is looked into.
pub(crate) const MAX_DECOMPRESSED: usize = 256 << 20;

/// Aborted transactions by producer, for asking whether a batch belongs to one.
#[derive(Debug, Default)]
pub(crate) struct Aborted(HashMap<i64, Vec<(i64, i64)>>);

impl Aborted {
    pub(crate) fn new(all: impl IntoIterator<Item = AbortedTransaction>) -> Self {
        let mut by_producer: HashMap<i64, Vec<(i64, i64)>> = HashMap::new();
        for one in all {
            let ranges = by_producer.entry(one.producer_id).or_default();
            ranges.push((one.first_offset, one.last_offset));
        }
        by_producer.values_mut().for_each(|ranges| ranges.sort_unstable());
        Self(by_producer)
    }

    /// Whether the batch's records were taken back.
    pub(crate) fn holds(&self, header: &BatchHeader) -> bool {
        if !header.is_transactional() || header.is_control() {
            return false;
        }
        let Some(ranges) = self.0.get(&header.producer_id) else {
            return false;
        };
        let after = ranges.partition_point(|(first, _)| *first <= header.base_offset);
        after
            .checked_sub(1)
            .is_some_and(|i| header.last_offset() <= ranges[i].1)
    }
}

/// Where a producer that is still remembered wrote last.
#[derive(Debug, Clone, Copy)]
enum LastOf {
    /// Its last records are of this epoch and end here.
    Data(i16, i64),
    /// Only a marker of this epoch is known.
    Marker(i16),
}

/// The last batch of each producer below the end of a pass, as far as producers are still remembered.
///
/// Below that end, not in the whole log: what lies above may yet be cut, and then these are all that tells of them.
#[derive(Debug, Default)]
pub(crate) struct LastBatches(HashMap<i64, LastOf>);

impl LastBatches {
    /// Takes note of the next batch of a walk, if its producer is among `remembered`.
    pub(crate) fn note(&mut self, header: &BatchHeader, remembered: &HashSet<i64>) {
        if !header.has_producer() || !remembered.contains(&header.producer_id) {
            return;
        }
        let entry = self.0.entry(header.producer_id);
        if !header.is_control() {
            entry.insert_entry(LastOf::Data(header.producer_epoch, header.last_offset()));
            return;
        }
        // A marker tells something new only if it begins an epoch.
        let known = entry.or_insert(LastOf::Marker(header.producer_epoch));
        let (LastOf::Data(epoch, _) | LastOf::Marker(epoch)) = *known;
        if header.producer_epoch > epoch {
            *known = LastOf::Marker(header.producer_epoch);
        }
    }

    fn is_last(&self, header: &BatchHeader) -> bool {
        match self.0.get(&header.producer_id) {
            Some(LastOf::Data(_, offset)) => header.last_offset() == *offset,
            Some(LastOf::Marker(epoch)) => header.is_control() && header.producer_epoch == *epoch,
            None => false,
        }
    }
}

/// What is to become of a batch.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes.
    Drop,
    /// It stays byte for byte.
    Keep,
    /// This takes its place.
    Replace(Bytes),
}

/// The rules of one pass, and what it has seen so far.
pub(crate) struct Filter<'a> {
    pub(crate) map: &'a OffsetMap,
    /// Records from here on are not judged.
    pub(crate) end: i64,
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) aborted: &'a Aborted,
    pub(crate) last: &'a LastBatches,
    /// Producers of which records of the transaction that is being walked were seen.
    open: HashSet<i64>,
    /// The earliest delete horizon among what was kept: when another pass would remove more.
    pub(crate) next_horizon: Option<i64>,
    /// Batches that could not be unpacked.
    pub(crate) unreadable: u64,
}

impl<'a> Filter<'a> {
    pub(crate) fn new(
        map: &'a OffsetMap,
        end: i64,
        (now_ms, delete_retention_ms): (i64, i64),
        aborted: &'a Aborted,
        last: &'a LastBatches,
    ) -> Self {
        Self {
            map,
            end,
            now_ms,
            delete_retention_ms,
            aborted,
            last,
            open: HashSet::new(),
            next_horizon: None,
            unreadable: 0,
        }
    }

    /// Judges the next batch. `closes` is whether it is the last of the pass. Nothing that was appended here with a delete
    /// horizon already in it goes before `horizon_floor`.
    pub(crate) fn judge(&mut self, batch: &Batch, closes: bool, horizon_floor: i64) -> Verdict {
        let header = batch.header();
        let horizon = header.delete_horizon().map(|h| h.max(horizon_floor));
        let expired = horizon.is_some_and(|horizon| horizon <= self.now_ms);
        let (records_go, marker_of_nothing) = if header.is_control() {
            let of_nothing = self.marks_nothing(batch);
            (of_nothing && (expired || header.records_count == 0), of_nothing)
        } else {
            if header.is_transactional() {
                self.open.insert(header.producer_id);
            }
            (self.aborted.holds(header), false)
        };
        let header_stays = closes || (header.has_producer() && self.last.is_last(header));
        if records_go {
            return without_records(batch, header_stays);
        }
        if header.is_control() {
            return self.keep_marker(batch, marker_of_nothing);
        }
        self.judge_records(batch, header_stays, horizon)
    }

    /// Keeps a marker, and says until when if nothing else is left of its transaction.
    fn keep_marker(&mut self, batch: &Batch, of_nothing: bool) -> Verdict {
        let header = batch.header();
        if !of_nothing {
            return Verdict::Keep;
        }
        if let Some(horizon) = header.delete_horizon() {
            self.note_horizon(horizon);
            return Verdict::Keep;
        }
        let horizon = self.now_ms.saturating_add(self.delete_retention_ms);
        let Ok(records) = batch.records(MAX_DECOMPRESSED) else {
            return self.unreadable();
        };
        self.note_horizon(horizon);
        Verdict::Replace(rewrite(batch, &records, Some(horizon), |_| true))
    }

    fn judge_records(&mut self, batch: &Batch, header_stays: bool, horizon: Option<i64>) -> Verdict {
        let Ok(records) = batch.records(MAX_DECOMPRESSED) else {
            return self.unreadable();
        };
        let (mut kept, mut gone, mut tombstones) = (0, 0, false);
        for record in &records {
            let Ok(record) = record else {
                return self.unreadable();
            };
            if self.stays(&record, horizon) {
                kept += 1;
                tombstones |= record.value.is_none();
            } else {
                gone += 1;
            }
        }
        if kept == 0 {
            return without_records(batch, header_stays);
        }
        let fresh =
            (tombstones && horizon.is_none()).then(|| self.now_ms.saturating_add(self.delete_retention_ms));
        if tombstones && let Some(horizon) = fresh.or(horizon) {
            self.note_horizon(horizon);
        }
        if gone == 0 && fresh.is_none() {
            return Verdict::Keep;
        }
        let kept = rewrite(batch, &records, fresh, |record| self.stays(record, horizon));
        Verdict::Replace(kept)
    }

    /// Whether a record outlives the pass.
    fn stays(&self, record: &RecordView<'_>, horizon: Option<i64>) -> bool {
        if record.offset >= self.end {
            return true;
        }
        let Some(key) = record.key else { return false };
        let newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
        newest && (record.value.is_some() || horizon.is_none_or(|horizon| self.now_ms < horizon))
    }

    /// Whether no batch of the transaction that this marker ends is left.
    fn marks_nothing(&mut self, batch: &Batch) -> bool {
        match ControlKind::of(batch) {
            Some(ControlKind::Abort | ControlKind::Commit) => !self.open.remove(&batch.header().producer_id),
            Some(_) => false,
            // Emptied by an earlier pass.
            None => batch.header().records_count == 0,
        }
    }

    fn note_horizon(&mut self, horizon: i64) {
        self.next_horizon = Some(self.next_horizon.map_or(horizon, |known| known.min(horizon)));
    }

    fn unreadable(&mut self) -> Verdict {
        self.unreadable += 1;
        Verdict::Keep
    }
}

/// What becomes of a batch of which no record stays.
fn without_records(batch: &Batch, header_stays: bool) -> Verdict {
    if !header_stays {
        Verdict::Drop
    } else if batch.header().records_count == 0 {
        Verdict::Keep
    } else {
        Verdict::Replace(batch.emptied())
    }
}

/// The batch with those of its records for which `keep` holds; they were read once already.
fn rewrite(
    batch: &Batch,
    records: &Records,
    horizon: Option<i64>,
    keep: impl Fn(&RecordView<'_>) -> bool,
) -> Bytes {
    let mut rewrite = Rewrite::new(batch.header(), horizon);
    for record in records.iter().map_while(Result::ok) {
        if keep(&record) {
            rewrite.push(&record);
        }
    }
    rewrite.finish()
}
