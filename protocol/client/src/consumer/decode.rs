//! From fetched bytes to records: decompressing, skipping what lies before the position, what is cut off, and what
//! readers never see (control records, and aborted ones under read-committed).

use std::collections::BTreeSet;

use tradewind_wire::batch::{Batch, BatchError, split};

use super::{ConsumeError, ConsumerRecord};
use crate::fetch::FetchedPartition;

/// The most that one batch may decompress to.
const MAX_BATCH_BYTES: usize = 256 << 20;

/// What a fetch brought: the records from the position on, and the next position, which moves past what is not shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) records: Vec<ConsumerRecord>,
    pub(super) next: i64,
}

/// Decodes what was fetched at `position`. With `hide_aborted`, records of aborted transactions are left out.
pub(super) fn decode(
    fetched: &FetchedPartition,
    position: i64,
    hide_aborted: bool,
) -> Result<Decoded, ConsumeError> {
    let broken = |offset, problem: String| ConsumeError::Broken {
        topic: fetched.topic.clone(),
        partition: fetched.partition,
        offset,
        problem,
    };
    let mut aborted = Aborted::new(if hide_aborted { &fetched.aborted } else { &[] });
    let mut decoded = Decoded {
        records: Vec::new(),
        next: position,
    };
    for batch in split(fetched.records.clone()) {
        let batch = match batch {
            Ok(batch) => batch,
            // The broker cuts at the byte limit; the rest comes with the next fetch.
            Err(BatchError::Cut { .. }) => break,
            Err(error) => return Err(broken(decoded.next, error.to_string())),
        };
        let header = *batch.header();
        if header.next_offset() <= decoded.next {
            continue;
        }
        batch
            .check_crc()
            .map_err(|e| broken(header.base_offset, e.to_string()))?;
        let hidden = aborted.hides(&batch);
        if !header.is_control() && !hidden {
            append(&batch, fetched, &mut decoded).map_err(|problem| broken(header.base_offset, problem))?;
        }
        decoded.next = header.next_offset();
    }
    Ok(decoded)
}

fn append(batch: &Batch, fetched: &FetchedPartition, decoded: &mut Decoded) -> Result<(), String> {
    let records = batch.records(MAX_BATCH_BYTES).map_err(|e| e.to_string())?;
    let owned = |part: &[u8]| records.data().slice_ref(part);
    for view in &records {
        let view = view.map_err(|e| e.to_string())?;
        if view.offset < decoded.next {
            continue;
        }
        decoded.records.push(ConsumerRecord {
            topic: fetched.topic.clone(),
            partition: fetched.partition,
            offset: view.offset,
            leader_epoch: batch.header().partition_leader_epoch,
            timestamp: view.timestamp,
            key: view.key.map(owned),
            value: view.value.map(owned),
            headers: view
                .headers
                .map(|(key, value)| (owned(key), value.map(owned)))
                .collect(),
        });
    }
    Ok(())
}

/// The producers whose transaction is being skipped, batch after batch in offset order.
struct Aborted {
    /// (first offset, producer id), in order.
    coming: Vec<(i64, i64)>,
    open: BTreeSet<i64>,
}

impl Aborted {
    fn new(aborted: &[(i64, i64)]) -> Self {
        let mut coming: Vec<_> = aborted
            .iter()
            .map(|(producer, first)| (*first, *producer))
            .collect();
        coming.sort_unstable();
        coming.reverse();
        Self {
            coming,
            open: BTreeSet::new(),
        }
    }

    fn hides(&mut self, batch: &Batch) -> bool {
        let header = batch.header();
        while let Some((_, producer)) = self.coming.pop_if(|(first, _)| *first <= header.last_offset()) {
            self.open.insert(producer);
        }
        if !header.is_transactional() {
            return false;
        }
        if header.is_control() {
            // A marker ends its producer's transaction, whichever way.
            return self.open.remove(&header.producer_id);
        }
        self.open.contains(&header.producer_id)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tradewind_wire::batch::{BatchBuilder, TimestampType};
    use tradewind_wire::compression::Codec;

    use super::*;

    fn nothing(topic: &str, records: Bytes) -> FetchedPartition {
        FetchedPartition {
            topic: topic.to_owned(),
            partition: 0,
            error: None,
            high_watermark: 0,
            last_stable_offset: 0,
            log_start: 0,
            records,
            current_leader: None,
            aborted: Vec::new(),
        }
    }

    fn batch(base: i64, values: &[&str], codec: Codec) -> BatchBuilder {
        let mut builder = BatchBuilder::new(codec, TimestampType::Create);
        for value in values {
            builder.append(
                5,
                None,
                Some(value.as_bytes()),
                &[(b"h", None), (b"h", Some(b"x"))],
            );
        }
        builder.base_offset(base);
        builder
    }

    fn fetched(batches: &[BatchBuilder]) -> FetchedPartition {
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| batch.build().to_vec()).collect();
        nothing("t", bytes.into())
    }

    fn values(decoded: &Decoded) -> Vec<(i64, String)> {
        let value = |record: &ConsumerRecord| {
            (
                record.offset,
                String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap(),
            )
        };
        decoded.records.iter().map(value).collect()
    }

    #[test]
    fn records_before_the_position_and_cut_batches_are_skipped() {
        let mut both = fetched(&[
            batch(10, &["a", "b", "c"], Codec::Lz4),
            batch(20, &["d"], Codec::None),
        ]);
        let decoded = decode(&both, 11, false).unwrap();
        assert_eq!(
            values(&decoded),
            [(11, "b".into()), (12, "c".into()), (20, "d".into())]
        );
        assert_eq!(decoded.next, 21);
        assert_eq!(decoded.records[0].headers.len(), 2);
        both.records.truncate(both.records.len() - 1);
        assert_eq!(decode(&both, 11, false).unwrap().next, 13);
    }

    #[test]
    fn a_broken_batch_is_an_error_that_says_where() {
        let mut bytes = batch(10, &["aaaa"], Codec::None).build().to_vec();
        let last = bytes.len() - 6;
        bytes[last] ^= 1;
        let error = decode(&nothing("t", bytes.into()), 10, false).unwrap_err();
        assert!(
            error.to_string().contains("t-0: the batch at offset 10"),
            "{error}"
        );
    }

    #[test]
    fn aborted_records_are_hidden_on_demand() {
        let mut aborted = batch(0, &["lost"], Codec::None);
        aborted.producer(9, 0, 0).transactional();
        let mut kept = batch(1, &["kept"], Codec::None);
        kept.producer(8, 0, 0).transactional();
        let mut both = fetched(&[aborted, kept]);
        both.aborted = vec![(9, 0)];
        assert_eq!(values(&decode(&both, 0, true).unwrap()), [(1, "kept".into())]);
        assert_eq!(decode(&both, 0, false).unwrap().records.len(), 2);
    }
}
