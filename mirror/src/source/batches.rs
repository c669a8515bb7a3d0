//! What arrived from a source, cut into runs of one source epoch, ready to append.
//!
//! Batches stay as they are: the runs are slices of what was received. The one exception is a batch that begins below the
//! wanted offset (a source whose log was cut inside a batch, or that packs batches anew): its records from the wanted
//! offset on are packed again, uncompressed limits apply, and the caller counts it.

use bytes::{Bytes, BytesMut};
use tradewind_wire::batch::{
    Batch, BatchBuilder, BatchError, Header, RecordView, TimestampType, add_sequence,
};

/// The most that one batch may decompress to while it is trimmed, in bytes.
pub const TRIM_LIMIT: usize = 128 << 20;

/// The largest base offset: adding a batch to it cannot wrap.
const MAX_OFFSET: i64 = i64::MAX - (1 << 31);

/// Whole batches that were appended at the source under one leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// That epoch.
    pub epoch: i32,
    /// The first batch's base offset.
    pub first: i64,
    /// The offset after the last batch.
    pub next: i64,
    /// The batches, back to back.
    pub bytes: Bytes,
}

/// The runs in one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// In offset order.
    pub runs: Vec<Run>,
    /// The offset after everything that was looked at, records or not.
    pub next: i64,
    /// How many batches had to be packed again.
    pub trimmed: usize,
    /// The first batch that reaches above what the source says is committed: left out, with all behind it.
    pub above: Option<i64>,
    /// Where the first missing records are, if some are: from the first of these offsets on, and below the second.
    pub hole: Option<(i64, i64)>,
}

/// Why an answer cannot be used. Nothing before the fault is lost: [`split_runs`] returns it first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSource {
    /// Magic 0 or 1.
    #[error("old record format at offset {offset}")]
    OldFormat {
        /// Where it was expected.
        offset: i64,
    },
    /// A header that cannot be, offsets that go back, or records that cannot be read.
    #[error("damaged records at offset {offset}: {reason}")]
    Damaged {
        /// Where it was expected.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
}

/// Cuts `bytes` into runs from `wanted` on, up to `committed`. A cut last batch is left out; batches wholly below `wanted`
/// are dropped. On a fault, the runs before it and the fault; bytes that bring nothing are one.
pub fn split_runs(bytes: &Bytes, wanted: i64, committed: i64) -> (Runs, Option<BadSource>) {
    let (out, fault) = cut(bytes, wanted, committed);
    let brought = out.next > wanted || out.above.is_some() || bytes.is_empty();
    match fault {
        // A source sends the first batch whole, however large it is.
        Some(Fault::Cut { need, have }) if !brought => {
            let reason = format!("a batch of {need} bytes, of which {have} came");
            (out, Some(damaged(wanted, reason)))
        }
        None if !brought => (out, Some(damaged(wanted, "only records below it came"))),
        Some(Fault::Bad(bad)) => (out, Some(bad)),
        Some(Fault::Cut { .. }) | None => (out, None),
    }
}

/// Why no more batches were cut off.
enum Fault {
    Cut { need: usize, have: usize },
    Bad(BadSource),
}

fn cut(bytes: &Bytes, wanted: i64, committed: i64) -> (Runs, Option<Fault>) {
    let mut out = Runs {
        next: wanted,
        ..Runs::default()
    };
    let bad = |offset, reason: &dyn ToString| Some(Fault::Bad(damaged(offset, reason.to_string())));
    let mut rest = bytes.clone();
    loop {
        let at = bytes.len() - rest.len();
        let position = out.next;
        let batch = match Batch::split_off_front(&mut rest) {
            Ok(Some(batch)) => batch,
            Ok(None) => return (out, None),
            Err(BatchError::Cut { need, have }) => return (out, Some(Fault::Cut { need, have })),
            Err(BatchError::Magic { .. }) => {
                return (out, Some(Fault::Bad(BadSource::OldFormat { offset: position })));
            }
            Err(error) => return (out, bad(position, &error)),
        };
        let header = *batch.header();
        if header.last_offset_delta < 0 || header.base_offset < 0 || header.base_offset > MAX_OFFSET {
            return (out, bad(position, &"impossible offsets"));
        }
        if header.last_offset() < position {
            if position > wanted {
                return (out, bad(position, &"offsets go back"));
            }
            continue;
        }
        if header.base_offset < position && position > wanted {
            return (out, bad(position, &"batches overlap"));
        }
        if header.next_offset() > committed {
            out.above = Some(header.base_offset);
            return (out, None);
        }
        let count = i64::from(header.last_offset_delta) + 1;
        if header.base_offset > position {
            out.hole.get_or_insert((position, header.base_offset));
        } else if i64::from(header.records_count) < count {
            out.hole.get_or_insert_with(|| (position, header.next_offset()));
        }
        if header.base_offset < position {
            match trim(&batch, position) {
                Ok(bytes) => out.push_rebuilt(header.partition_leader_epoch, bytes),
                Err(reason) => return (out, bad(position, &reason)),
            }
        } else {
            let end = bytes.len() - rest.len();
            out.push(
                header.partition_leader_epoch,
                header.base_offset,
                header.next_offset(),
                bytes,
                at..end,
            );
        }
        out.next = header.next_offset();
    }
}

/// What of a run may be appended although its log refused it: the batches before the first whose CRC is not that of its
/// bytes, and what is wrong with that one. `None` if all are sound.
pub fn unsound(bytes: &Bytes) -> Option<(Run, BadSource)> {
    let mut rest = bytes.clone();
    let mut run: Option<Run> = None;
    loop {
        let end = bytes.len() - rest.len();
        let position = run.as_ref().map_or(0, |run| run.next);
        let batch = match Batch::split_off_front(&mut rest) {
            Ok(None) => return None,
            Ok(Some(batch)) => batch,
            Err(error) => return Some((before(run, bytes, end), damaged(position, error))),
        };
        let header = *batch.header();
        if let Err(error) = batch.check_crc() {
            return Some((before(run, bytes, end), damaged(header.base_offset, error)));
        }
        let next = header.next_offset();
        match &mut run {
            Some(run) => run.next = next,
            None => {
                run = Some(Run {
                    epoch: header.partition_leader_epoch,
                    first: header.base_offset,
                    next,
                    bytes: Bytes::new(),
                });
            }
        }
    }
}

fn before(run: Option<Run>, bytes: &Bytes, end: usize) -> Run {
    let run = run.unwrap_or(Run {
        epoch: -1,
        first: 0,
        next: 0,
        bytes: Bytes::new(),
    });
    Run {
        bytes: bytes.slice(..end),
        ..run
    }
}

impl Runs {
    fn push(&mut self, epoch: i32, first: i64, next: i64, whole: &Bytes, range: std::ops::Range<usize>) {
        let slice = whole.slice(range.clone());
        if let Some(last) = self.runs.last_mut()
            && last.epoch == epoch
            && let Some(start) = follows(whole, &last.bytes, range.start)
        {
            last.bytes = whole.slice(start..range.end);
            last.next = next;
            return;
        }
        self.runs.push(Run {
            epoch,
            first,
            next,
            bytes: slice,
        });
    }

    fn push_rebuilt(&mut self, epoch: i32, batches: Vec<Batch>) {
        self.trimmed += 1;
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return;
        };
        let (first, next) = (first.header().base_offset, last.header().next_offset());
        let mut bytes = BytesMut::new();
        for batch in &batches {
            bytes.extend_from_slice(&batch.to_bytes());
        }
        self.runs.push(Run {
            epoch,
            first,
            next,
            bytes: bytes.freeze(),
        });
    }
}

/// Where `part` begins in `whole`, if it is a slice of it that ends at `end`.
fn follows(whole: &Bytes, part: &Bytes, end: usize) -> Option<usize> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() == end).then_some(start)
}

/// The records of `batch` from `wanted` on, one batch per gapless stretch (a compacted batch has holes).
fn trim(batch: &Batch, wanted: i64) -> Result<Vec<Batch>, String> {
    let header = *batch.header();
    if header.is_control() {
        return Err("a control batch cannot be divided".into());
    }
    batch.check_crc().map_err(|error| error.to_string())?;
    let records = batch.records(TRIM_LIMIT).map_err(|error| error.to_string())?;
    let mut out: Vec<Batch> = Vec::new();
    let mut open: Option<(i64, BatchBuilder)> = None;
    for record in &records {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset < wanted {
            continue;
        }
        if let Some((_, builder)) = open.take_if(|(next, _)| *next != record.offset) {
            out.push(finish(&builder, &header)?);
        }
        let (next, builder) = open.get_or_insert_with(|| (record.offset, begin(&header, &record)));
        let headers: Vec<Header<'_>> = record.headers.collect();
        builder.append(record.timestamp, record.key, record.value, &headers);
        *next = record.offset + 1;
    }
    if let Some((_, builder)) = open {
        out.push(finish(&builder, &header)?);
    }
    Ok(out)
}

fn begin(header: &tradewind_wire::batch::BatchHeader, first: &RecordView<'_>) -> BatchBuilder {
    let codec = header.compression().unwrap_or_default();
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    builder
        .base_offset(first.offset)
        .leader_epoch(header.partition_leader_epoch);
    if header.has_producer() {
        let sequence = match header.base_sequence {
            none if none < 0 => none,
            base => add_sequence(base, first.offset_delta),
        };
        builder.producer(header.producer_id, header.producer_epoch, sequence);
    }
    if header.is_transactional() {
        builder.transactional();
    }
    builder
}

fn finish(builder: &BatchBuilder, header: &tradewind_wire::batch::BatchHeader) -> Result<Batch, String> {
    let mut batch = Batch::parse(builder.build()).map_err(|error| error.to_string())?;
    if header.timestamp_type() == TimestampType::LogAppend {
        batch.restamp(TimestampType::LogAppend, header.max_timestamp);
    }
    Ok(batch)
}

fn damaged(offset: i64, reason: impl ToString) -> BadSource {
    BadSource::Damaged {
        offset,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tradewind_wire::batch::Rewrite;
    use tradewind_wire::compression::Codec;

    use super::*;

    fn batch(base: i64, count: i32, epoch: i32) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::Gzip, TimestampType::Create);
        builder
            .base_offset(base)
            .leader_epoch(epoch)
            .producer(7, 1, base as i32);
        for i in 0..count {
            let value = format!("v{}", base + i64::from(i));
            builder.append(
                1_000 + i64::from(i),
                Some(b"k"),
                Some(value.as_bytes()),
                &[(b"h", None)],
            );
        }
        builder.build()
    }

    /// Everything is committed.
    const ALL: i64 = i64::MAX;

    fn joined(parts: &[Bytes]) -> Bytes {
        Bytes::from(parts.concat())
    }

    #[test]
    fn batches_of_one_epoch_are_one_untouched_slice() {
        let bytes = joined(&[batch(10, 3, 4), batch(13, 2, 4), batch(20, 1, 6)]);
        let (runs, fault) = split_runs(&bytes, 10, ALL);
        assert_eq!(fault, None);
        assert_eq!(runs.trimmed, 0);
        let shape: Vec<_> = runs
            .runs
            .iter()
            .map(|run| (run.epoch, run.first, run.next))
            .collect();
        assert_eq!(shape, [(4, 10, 15), (6, 20, 21)]);
        assert_eq!(
            Bytes::from([&runs.runs[0].bytes[..], &runs.runs[1].bytes[..]].concat()),
            bytes
        );
    }

    #[test]
    fn a_cut_tail_and_what_lies_below_are_left_out() {
        let whole = joined(&[batch(0, 5, 1), batch(5, 5, 1), batch(10, 5, 1)]);
        let (runs, fault) = split_runs(&whole.slice(..whole.len() - 1), 5, ALL);
        assert_eq!(fault, None);
        assert_eq!(runs.runs.len(), 1);
        assert_eq!((runs.runs[0].first, runs.runs[0].next), (5, 10));
        assert_eq!(runs.runs[0].bytes, batch(5, 5, 1));
    }

    #[test]
    fn a_batch_that_begins_below_is_packed_again_from_the_wanted_offset() {
        let bytes = joined(&[batch(0, 5, 2), batch(5, 1, 2)]);
        let (runs, fault) = split_runs(&bytes, 3, ALL);
        assert_eq!(fault, None);
        assert_eq!(runs.trimmed, 1);
        let shape: Vec<_> = runs.runs.iter().map(|run| (run.first, run.next)).collect();
        assert_eq!(shape, [(3, 5), (5, 6)]);
        let trimmed = Batch::parse(runs.runs[0].bytes.clone()).unwrap();
        assert!(trimmed.check_crc().is_ok());
        assert_eq!(trimmed.header().base_sequence, 3);
        assert_eq!(trimmed.header().producer_id, 7);
        let records = trimmed.records(1 << 20).unwrap();
        let seen: Vec<_> = records
            .iter()
            .map(|record| {
                let record = record.unwrap();
                (
                    record.offset,
                    record.timestamp,
                    record.value.unwrap().to_vec(),
                    record.headers.len(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [(3, 1_003, b"v3".to_vec(), 1), (4, 1_004, b"v4".to_vec(), 1)]
        );
    }

    #[test]
    fn what_comes_before_a_fault_is_kept() {
        let mut old = batch(5, 1, 1).to_vec();
        old[16] = 1;
        let (runs, fault) = split_runs(&joined(&[batch(0, 5, 1), old.into()]), 0, ALL);
        assert_eq!(runs.runs.len(), 1);
        assert_eq!(fault, Some(BadSource::OldFormat { offset: 5 }));

        let (runs, fault) = split_runs(&joined(&[batch(5, 5, 1), batch(0, 5, 1)]), 5, ALL);
        assert_eq!(runs.runs.len(), 1);
        assert!(matches!(fault, Some(BadSource::Damaged { offset: 10, .. })));
    }

    #[test]
    fn bytes_that_bring_nothing_are_a_fault() {
        let whole = batch(0, 5, 1);
        let (runs, fault) = split_runs(&whole.slice(..whole.len() - 1), 0, ALL);
        assert!(runs.runs.is_empty());
        let said = fault.unwrap().to_string();
        assert!(said.contains("offset 0") && said.contains("of which"), "{said}");
        let (_, fault) = split_runs(&whole, 5, ALL);
        assert!(matches!(fault, Some(BadSource::Damaged { offset: 5, .. })));
        assert_eq!(split_runs(&Bytes::new(), 5, ALL).1, None, "nothing is no fault");
        // A length that no answer could hold.
        let mut long = whole.to_vec();
        long[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(split_runs(&long.into(), 0, ALL).1.is_some());
        let mut short = whole.to_vec();
        short[8..12].copy_from_slice(&10_i32.to_be_bytes());
        assert!(split_runs(&short.into(), 0, ALL).1.is_some());
    }

    #[test]
    fn batches_that_overlap_in_one_answer_are_a_fault() {
        let (runs, fault) = split_runs(&joined(&[batch(0, 5, 1), batch(3, 4, 1)]), 0, ALL);
        assert_eq!((runs.runs.len(), runs.next, runs.trimmed), (1, 5, 0));
        assert!(matches!(fault, Some(BadSource::Damaged { offset: 5, .. })));
    }

    #[test]
    fn what_is_not_committed_at_the_source_is_left_out() {
        let bytes = joined(&[batch(0, 5, 1), batch(5, 2, 1), batch(7, 1, 1)]);
        let (runs, fault) = split_runs(&bytes, 0, 6);
        assert_eq!((fault, runs.next, runs.above), (None, 5, Some(5)));
        let far = split_runs(&batch(i64::MAX - 10, 1, 1), 0, ALL);
        assert!(matches!(far.1, Some(BadSource::Damaged { offset: 0, .. })));
    }

    #[test]
    fn of_a_refused_run_the_batches_before_the_unsound_one_are_kept() {
        let mut bad = batch(8, 1, 1).to_vec();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let bytes = joined(&[batch(0, 5, 1), batch(5, 3, 1), bad.into(), batch(9, 1, 1)]);
        let (run, fault) = unsound(&bytes).unwrap();
        assert_eq!((run.first, run.next), (0, 8));
        assert_eq!(run.bytes, joined(&[batch(0, 5, 1), batch(5, 3, 1)]));
        assert!(matches!(fault, BadSource::Damaged { offset: 8, .. }));
        assert_eq!(unsound(&run.bytes), None);
    }

    /// KIP-534: such a batch's base timestamp is not a record's time but the delete horizon.
    #[test]
    fn a_batch_with_a_delete_horizon_keeps_its_records_times_when_it_is_divided() {
        let whole = Batch::parse(batch(0, 4, 2)).unwrap();
        let mut rewrite = Rewrite::new(whole.header(), Some(99_000));
        let records = whole.records(TRIM_LIMIT).unwrap();
        for record in &records {
            rewrite.push(&record.unwrap());
        }
        let kept = rewrite.finish();
        let stamped = Batch::parse(kept.clone()).unwrap();
        assert!(stamped.header().has_delete_horizon() && stamped.header().base_timestamp == 99_000);
        let (runs, _) = split_runs(&kept, 0, ALL);
        assert_eq!(runs.runs[0].bytes, kept, "whole it stays as it is");
        let (runs, fault) = split_runs(&kept, 2, ALL);
        assert_eq!((fault, runs.trimmed), (None, 1));
        let part = Batch::parse(runs.runs[0].bytes.clone()).unwrap();
        let times: Vec<i64> = part
            .records(TRIM_LIMIT)
            .unwrap()
            .iter()
            .map(|record| record.unwrap().timestamp)
            .collect();
        assert_eq!(times, [1_002, 1_003]);
        assert!(!part.header().has_delete_horizon());
        assert_eq!(part.header().max_timestamp, 1_003);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_runs_or_a_fault(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), wanted in 0i64..50) {
            let mut framed = bytes;
            if framed.len() > 16 {
                framed[16] = 2;
            }
            let (runs, _) = split_runs(&framed.into(), wanted, ALL);
            let mut position = wanted;
            for run in runs.runs {
                proptest::prop_assert!(run.first >= position && run.next > run.first);
                position = run.next;
            }
        }
    }
}
