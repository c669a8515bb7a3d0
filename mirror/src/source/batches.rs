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

/// Cuts `bytes` into runs from `wanted` on. A cut last batch is left out; batches wholly below `wanted` are dropped. On a
/// fault, the runs before it and the fault.
pub fn split_runs(bytes: &Bytes, wanted: i64) -> (Runs, Option<BadSource>) {
    let mut out = Runs {
        next: wanted,
        ..Runs::default()
    };
    let mut rest = bytes.clone();
    loop {
        let at = bytes.len() - rest.len();
        let position = out.next;
        let batch = match Batch::split_off_front(&mut rest) {
            Ok(Some(batch)) => batch,
            Ok(None) | Err(BatchError::Cut { .. }) => return (out, None),
            Err(BatchError::Magic { .. }) => return (out, Some(BadSource::OldFormat { offset: position })),
            Err(error) => return (out, Some(damaged(position, error))),
        };
        let header = *batch.header();
        if header.last_offset_delta < 0 || header.base_offset < 0 {
            return (out, Some(damaged(position, "impossible offsets")));
        }
        if header.last_offset() < position {
            if position > wanted {
                return (out, Some(damaged(position, "offsets go back")));
            }
            continue;
        }
        if header.base_offset < position {
            match trim(&batch, position) {
                Ok(bytes) => out.push_rebuilt(header.partition_leader_epoch, bytes),
                Err(reason) => return (out, Some(damaged(position, reason))),
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

    fn joined(parts: &[Bytes]) -> Bytes {
        Bytes::from(parts.concat())
    }

    #[test]
    fn batches_of_one_epoch_are_one_untouched_slice() {
        let bytes = joined(&[batch(10, 3, 4), batch(13, 2, 4), batch(20, 1, 6)]);
        let (runs, fault) = split_runs(&bytes, 10);
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
        let (runs, fault) = split_runs(&whole.slice(..whole.len() - 1), 5);
        assert_eq!(fault, None);
        assert_eq!(runs.runs.len(), 1);
        assert_eq!((runs.runs[0].first, runs.runs[0].next), (5, 10));
        assert_eq!(runs.runs[0].bytes, batch(5, 5, 1));
    }

    #[test]
    fn a_batch_that_begins_below_is_packed_again_from_the_wanted_offset() {
        let bytes = joined(&[batch(0, 5, 2), batch(5, 1, 2)]);
        let (runs, fault) = split_runs(&bytes, 3);
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
        let (runs, fault) = split_runs(&joined(&[batch(0, 5, 1), old.into()]), 0);
        assert_eq!(runs.runs.len(), 1);
        assert_eq!(fault, Some(BadSource::OldFormat { offset: 5 }));

        let (runs, fault) = split_runs(&joined(&[batch(5, 5, 1), batch(0, 5, 1)]), 5);
        assert_eq!(runs.runs.len(), 1);
        assert!(matches!(fault, Some(BadSource::Damaged { offset: 10, .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_runs_or_a_fault(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), wanted in 0i64..50) {
            let mut framed = bytes;
            if framed.len() > 16 {
                framed[16] = 2;
            }
            let (runs, _) = split_runs(&framed.into(), wanted);
            let mut position = wanted;
            for run in runs.runs {
                proptest::prop_assert!(run.first >= position && run.next > run.first);
                position = run.next;
            }
        }
    }
}
