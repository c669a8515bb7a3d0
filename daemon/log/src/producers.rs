//! What a log remembers of its producers: the last five batches of each (idempotence) and open transactions (LSO).
//!
//! The state is a function of the batches in the log: it is updated after a batch is written, and rebuilt by replaying
//! headers after a restart or a truncation. The rules are Kafka's (`ProducerStateManager`, `ProducerAppendInfo`).

use std::collections::{BTreeMap, HashMap};

use tradewind_wire::batch::{BatchHeader, ControlKind, NO_SEQUENCE, add_sequence};

use crate::error::SequenceError;

/// Batches remembered per producer: what a client may have in flight.
pub(crate) const WINDOW: usize = 5;
/// Above these bits of a producer id stands the number of the cluster that gave it out; 0 is none of ours.
const CLUSTER_SHIFT: u32 = 36;
/// Producers remembered per log; beyond it, those idle the longest are forgotten.
const MAX_PRODUCERS: usize = 50_000;

/// An aborted transaction, as Fetch answers name it to consumers that read committed records only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose transaction it was.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// The abort marker.
    pub last_offset: i64,
    /// The last stable offset when the marker was written.
    pub last_stable_offset: i64,
}

/// What a log remembers of one producer, for those who ask (KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence number of its last record; none if only a marker is known of it.
    pub last_sequence: Option<i32>,
    /// The timestamp of its last batch in ms.
    pub last_timestamp: Option<i64>,
    /// The first offset of its open transaction.
    pub transaction_start: Option<i64>,
}

/// A remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    /// The batch's largest timestamp, which is the append time with LogAppendTime.
    pub(crate) timestamp: i64,
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// Oldest first, at most [`WINDOW`], all of `epoch`.
    pub(crate) batches: Vec<Written>,
    pub(crate) transaction_start: Option<i64>,
    /// When it last wrote, by this daemon's clock.
    pub(crate) seen_ms: i64,
}

impl Producer {
    /// What is told of it.
    pub(crate) fn told(&self, producer_id: i64) -> ProducerState {
        let last = self.batches.last();
        ProducerState {
            producer_id,
            epoch: self.epoch,
            last_sequence: last.map(|batch| batch.last_sequence),
            last_timestamp: last.map(|batch| batch.timestamp),
            transaction_start: self.transaction_start,
        }
    }
}

/// All producers of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    entries: HashMap<i64, Producer>,
    /// First offset -> producer, of transactions without a marker.
    open: BTreeMap<i64, i64>,
    /// First offset -> marker's offset, of transactions whose marker may still be above the watermark.
    ended: BTreeMap<i64, i64>,
}

impl Producers {
    /// Whether a leader may append the batch: `Ok(Some)` if it already has, `Ok(None)` if it may.
    ///
    /// What ends at or below `inherited` was written in the region that this log mirrored until then. A producer of which
    /// nothing else is known may go on with any sequence, once, because what it wrote there last may not have come over;
    /// one of a foreign Kafka is not known at all, because its id may be another producer's here.
    pub(crate) fn check(
        &self,
        header: &BatchHeader,
        inherited: i64,
    ) -> Result<Option<Written>, SequenceError> {
        let (producer_id, epoch, found) = (header.producer_id, header.producer_epoch, header.base_sequence);
        if producer_id < 0 || header.is_control() {
            return Ok(None);
        }
        let Some(known) = self.entries.get(&producer_id) else {
            // Expired, truncated or never seen: any sequence may start.
            return Ok(None);
        };
        let newest = known.batches.last();
        let inherited = inherited > 0 && newest.is_none_or(|newest| newest.last_offset < inherited);
        if inherited && producer_id >> CLUSTER_SHIFT == 0 {
            return Ok(None);
        }
        if epoch < known.epoch {
            return Err(SequenceError::StaleEpoch {
                producer_id,
                epoch,
                current: known.epoch,
            });
        }
        let out_of_order = |expected| {
            Err(SequenceError::OutOfOrder {
                producer_id,
                epoch,
                expected,
                found,
            })
        };
        if epoch > known.epoch {
            return if found == 0 || inherited {
                Ok(None)
            } else {
                out_of_order(0)
            };
        }
        let duplicate = known
            .batches
            .iter()
            .rev()
            .find(|b| b.base_sequence == found && b.last_sequence == header.last_sequence());
        if let Some(duplicate) = duplicate {
            return Ok(Some(*duplicate));
        }
        if inherited {
            return Ok(None);
        }
        let expected = newest.map_or(0, |last| add_sequence(last.last_sequence, 1));
        if found == expected {
            return Ok(None);
        }
        if precedes(header.last_sequence(), expected) {
            return Err(SequenceError::TooOld {
                producer_id,
                epoch,
                found,
            });
        }
        out_of_order(expected)
    }

    /// Takes note of a batch that is in the log now. Returns the transaction that it aborts.
    pub(crate) fn note(
        &mut self,
        batch: &BatchHeader,
        marker: Option<ControlKind>,
        now_ms: i64,
    ) -> Option<AbortedTransaction> {
        if batch.producer_id < 0 {
            return None;
        }
        if self.entries.len() >= MAX_PRODUCERS && !self.entries.contains_key(&batch.producer_id) {
            self.forget_oldest_half();
        }
        let entry = self.entries.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            batches: Vec::new(),
            transaction_start: None,
            seen_ms: now_ms,
        });
        // A lower epoch than known comes only from a producer that took an inherited id over.
        if batch.producer_epoch != entry.epoch && (batch.producer_epoch > entry.epoch || !batch.is_control())
        {
            entry.epoch = batch.producer_epoch;
            entry.batches.clear();
        }
        entry.seen_ms = entry.seen_ms.max(now_ms);
        if let Some(kind @ (ControlKind::Abort | ControlKind::Commit)) = marker {
            let first_offset = entry.transaction_start.take()?;
            self.open.remove(&first_offset);
            self.ended.insert(first_offset, batch.base_offset);
            return (kind == ControlKind::Abort).then_some(AbortedTransaction {
                producer_id: batch.producer_id,
                first_offset,
                last_offset: batch.base_offset,
                last_stable_offset: self
                    .open
                    .keys()
                    .next()
                    .copied()
                    .unwrap_or_else(|| batch.next_offset()),
            });
        }
        if batch.is_control() {
            return None;
        }
        if batch.base_sequence != NO_SEQUENCE && batch.producer_epoch == entry.epoch {
            if entry.batches.len() == WINDOW {
                entry.batches.remove(0);
            }
            entry.batches.push(Written {
                base_offset: batch.base_offset,
                last_offset: batch.last_offset(),
                base_sequence: batch.base_sequence,
                last_sequence: batch.last_sequence(),
                timestamp: batch.max_timestamp,
            });
        }
        if batch.is_transactional() && entry.transaction_start.is_none() {
            entry.transaction_start = Some(batch.base_offset);
            self.open.insert(batch.base_offset, batch.producer_id);
        }
        None
    }

    /// The last stable offset under this high watermark: nothing below it belongs to a transaction that is open or whose
    /// marker is not yet below the watermark. Forgets ended transactions that no longer matter.
    pub(crate) fn last_stable_offset(&mut self, high_watermark: i64) -> i64 {
        while let Some(first) = self.ended.first_entry()
            && *first.get() < high_watermark
        {
            first.remove();
        }
        // Ended transactions need not end in the order in which they began.
        let ended = self
            .ended
            .iter()
            .find(|(_, marker)| **marker >= high_watermark)
            .map(|(first, _)| *first);
        let open = self.open.keys().next().copied();
        [ended, open].into_iter().flatten().fold(high_watermark, i64::min)
    }

    /// Whether there is any transaction to think of.
    pub(crate) fn has_transactions(&self) -> bool {
        !self.open.is_empty() || !self.ended.is_empty()
    }

    /// Forgets producers that have been idle since before `oldest_ms` and have no open transaction.
    pub(crate) fn expire(&mut self, oldest_ms: i64) {
        self.entries
            .retain(|_, p| p.seen_ms >= oldest_ms || p.transaction_start.is_some());
    }

    /// Forgets what was remembered of records below the log's new start.
    pub(crate) fn trim(&mut self, start: i64) {
        self.ended.retain(|_, marker| *marker >= start);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.entries.iter().map(|(id, p)| (*id, p))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a producer from a snapshot.
    pub(crate) fn restore(&mut self, producer_id: i64, producer: Producer) {
        if let Some(first) = producer.transaction_start {
            self.open.insert(first, producer_id);
        }
        self.entries.insert(producer_id, producer);
    }

    /// Enters from a snapshot a transaction that had ended, with its marker's offset.
    pub(crate) fn restore_ended(&mut self, first_offset: i64, marker: i64) {
        self.ended.insert(first_offset, marker);
    }

    /// First offset -> marker of transactions that ended, as far as they still matter.
    pub(crate) fn ended(&self) -> &BTreeMap<i64, i64> {
        &self.ended
    }

    fn forget_oldest_half(&mut self) {
        let mut seen: Vec<i64> = self.entries.values().map(|p| p.seen_ms).collect();
        let middle = seen.len() / 2;
        let (_, median, _) = seen.select_nth_unstable(middle);
        let median = *median;
        let mut surplus = middle;
        self.entries.retain(|_, p| {
            let go = surplus > 0 && p.seen_ms <= median && p.transaction_start.is_none();
            surplus -= usize::from(go);
            !go
        });
        crate::metrics::producers_forgotten(middle - surplus);
    }
}

/// Whether `a` comes before `b` in sequence numbers, which wrap: the shorter way round decides.
fn precedes(a: i32, b: i32) -> bool {
    let ahead = (i64::from(b) - i64::from(a)) & i64::from(i32::MAX);
    ahead != 0 && ahead < 1 << 30
}

#[cfg(test)]
mod tests {
    use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType, control_batch};
    use tradewind_wire::compression::Codec;

    use super::*;

    fn header(id: i64, epoch: i16, sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        for _ in 0..count {
            builder.append(0, None, None, &[]);
        }
        builder.producer(id, epoch, sequence).base_offset(base_offset);
        *Batch::parse(builder.build()).unwrap().header()
    }

    fn accept(state: &mut Producers, h: BatchHeader) {
        assert_eq!(state.check(&h, 0), Ok(None), "{h:?}");
        state.note(&h, None, 0);
    }

    #[test]
    fn any_of_the_last_five_is_a_duplicate_with_its_original_offset() {
        let mut state = Producers::default();
        for i in 0..8 {
            accept(&mut state, header(1, 0, i * 2, 2, 100 + i64::from(i) * 2));
        }
        for i in 3..8 {
            let again = state.check(&header(1, 0, i * 2, 2, 0), 0).unwrap().unwrap();
            assert_eq!(again.base_offset, 100 + i64::from(i) * 2);
        }
        assert!(matches!(
            state.check(&header(1, 0, 4, 2, 0), 0),
            Err(SequenceError::TooOld { found: 4, .. })
        ));
    }

    #[test]
    fn a_gap_is_out_of_order() {
        let mut state = Producers::default();
        accept(&mut state, header(1, 0, 0, 1, 0));
        assert!(matches!(
            state.check(&header(1, 0, 2, 1, 0), 0),
            Err(SequenceError::OutOfOrder {
                expected: 1,
                found: 2,
                ..
            })
        ));
        // Overlaps what is there without being a repeat of it.
        assert!(matches!(
            state.check(&header(1, 0, 0, 2, 0), 0),
            Err(SequenceError::OutOfOrder { .. })
        ));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_an_old_one_is_fenced() {
        let mut state = Producers::default();
        accept(&mut state, header(1, 3, 7, 1, 0));
        assert!(matches!(
            state.check(&header(1, 4, 8, 1, 0), 0),
            Err(SequenceError::OutOfOrder { expected: 0, .. })
        ));
        accept(&mut state, header(1, 4, 0, 1, 1));
        assert!(matches!(
            state.check(&header(1, 3, 8, 1, 0), 0),
            Err(SequenceError::StaleEpoch { current: 4, .. })
        ));
    }

    #[test]
    fn an_inherited_producer_may_go_on_anywhere_once() {
        let id = 5 << CLUSTER_SHIFT;
        let mut state = Producers::default();
        for i in 0..3 {
            accept(&mut state, header(id, 1, i, 1, 10 + i64::from(i)));
        }
        let gap = header(id, 1, 7, 1, 0);
        assert!(state.check(&gap, 0).is_err() && state.check(&gap, 12).is_err());
        let again = state.check(&header(id, 1, 1, 1, 0), 13).unwrap();
        assert_eq!(again.map(|b| b.base_offset), Some(11), "a repeat is known as one");
        assert!(matches!(
            state.check(&header(id, 0, 3, 1, 0), 13),
            Err(SequenceError::StaleEpoch { .. })
        ));
        assert_eq!(state.check(&header(id, 2, 4, 1, 0), 13), Ok(None));
        assert_eq!(state.check(&gap, 13), Ok(None));
        state.note(&header(id, 1, 7, 1, 13), None, 0);
        assert!(
            state.check(&header(id, 1, 9, 1, 0), 13).is_err(),
            "from then on it is strict"
        );
        assert_eq!(state.check(&header(id, 1, 8, 1, 0), 13), Ok(None));
    }

    #[test]
    fn a_producer_of_a_foreign_kafka_is_not_known_above_the_cut() {
        let mut state = Producers::default();
        accept(&mut state, header(7, 4, 0, 1, 10));
        assert_eq!(
            state.check(&header(7, 4, 0, 1, 0), 11),
            Ok(None),
            "no repeat: another producer"
        );
        assert_eq!(state.check(&header(7, 0, 0, 1, 0), 11), Ok(None));
        assert!(state.check(&header(7, 4, 0, 1, 0), 10).unwrap().is_some());
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        let mut state = Producers::default();
        accept(&mut state, header(9, 2, 1_000, 1, 0));
    }

    #[test]
    fn sequences_wrap_and_are_still_recognised() {
        let mut state = Producers::default();
        accept(&mut state, header(1, 0, i32::MAX - 1, 3, 0));
        assert!(
            state
                .check(&header(1, 0, i32::MAX - 1, 3, 0), 0)
                .unwrap()
                .is_some()
        );
        accept(&mut state, header(1, 0, 1, 1, 3));
        accept(&mut state, header(1, 0, 2, 1, 4));
    }

    #[test]
    fn the_stable_offset_waits_for_marker_and_watermark() {
        let transactional = |id, sequence, base| {
            let mut h = header(id, 0, sequence, 1, base);
            h.attributes |= 0x10;
            h
        };
        let marker = |kind, id, base| {
            let mut batch = Batch::parse(control_batch(kind, id, 0, 0, 0)).unwrap();
            batch.set_base_offset(base);
            *batch.header()
        };
        let mut state = Producers::default();
        state.note(&transactional(1, 0, 10), None, 0);
        state.note(&transactional(2, 0, 11), None, 0);
        assert_eq!(state.last_stable_offset(12), 10);
        let aborted = state.note(&marker(ControlKind::Abort, 1, 12), Some(ControlKind::Abort), 0);
        assert_eq!(aborted.map(|a| (a.first_offset, a.last_offset)), Some((10, 12)));
        assert_eq!(
            state.last_stable_offset(12),
            10,
            "the marker is not below the watermark"
        );
        assert_eq!(
            state.last_stable_offset(13),
            11,
            "the other transaction is still open"
        );
        let committed = state.note(&marker(ControlKind::Commit, 2, 13), Some(ControlKind::Commit), 0);
        assert_eq!(committed, None);
        assert_eq!(state.last_stable_offset(14), 14);
        assert!(!state.has_transactions());
    }

    #[test]
    fn idle_producers_are_forgotten_but_not_open_transactions() {
        let mut state = Producers::default();
        state.note(&header(1, 0, 0, 1, 0), None, 10);
        let mut open = header(2, 0, 0, 1, 1);
        open.attributes |= 0x10;
        state.note(&open, None, 10);
        state.note(&header(3, 0, 0, 1, 2), None, 50);
        state.expire(20);
        let mut left: Vec<_> = state.iter().map(|(id, _)| id).collect();
        left.sort_unstable();
        assert_eq!(left, [2, 3]);
    }
}
