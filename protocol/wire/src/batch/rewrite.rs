//! Writing a stored batch again with fewer records: what compaction does (KIP-58, KIP-98, KIP-534).
//!
//! Base offset, last offset delta, producer, sequence and leader epoch stay as they are, so that offsets keep their meaning
//! and a producer's state can be read from what is left. Only records, codec framing, times and CRC change.

use bytes::{BufMut, Bytes};

use super::builder::{put_length, put_nullable, put_varlong};
use super::{
    Batch, BatchHeader, CODEC_MASK, DELETE_HORIZON, NO_TIMESTAMP, RecordView, TimestampType, assemble,
};
use crate::compression::{Codec, compress};

/// A stored batch that is being written again with some of its records.
#[derive(Debug)]
pub struct Rewrite {
    header: BatchHeader,
    records: Vec<u8>,
    count: i32,
    max_timestamp: i64,
}

impl Rewrite {
    /// Begins with the batch of this header and no records. With `delete_horizon` the result carries that time, in ms,
    /// until which its tombstones or its marker are kept; records' times are then told relative to it (KIP-534).
    pub fn new(header: &BatchHeader, delete_horizon: Option<i64>) -> Self {
        let mut header = *header;
        if let Some(horizon) = delete_horizon {
            header.attributes |= DELETE_HORIZON;
            header.base_timestamp = horizon;
        }
        Self {
            header,
            records: Vec::new(),
            count: 0,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// Adds a record of the batch, at its own offset. Records come in their order.
    pub fn push(&mut self, record: &RecordView<'_>) {
        let mut body =
            Vec::with_capacity(32 + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len));
        body.put_i8(0);
        put_varlong(
            &mut body,
            record.timestamp.wrapping_sub(self.header.base_timestamp),
        );
        put_varlong(&mut body, i64::from(record.offset_delta));
        put_nullable(&mut body, record.key);
        put_nullable(&mut body, record.value);
        put_length(&mut body, record.headers.len());
        for (key, value) in record.headers {
            put_length(&mut body, key.len());
            body.put_slice(key);
            put_nullable(&mut body, value);
        }
        put_length(&mut self.records, body.len());
        self.records.extend_from_slice(&body);
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
    }

    /// The batch with what was added, in the codec that it had. Without records only its header is left: uncompressed,
    /// without a delete horizon, with the largest time that it had, as Kafka leaves it.
    pub fn finish(self) -> Bytes {
        let Self {
            mut header,
            records,
            count,
            max_timestamp,
        } = self;
        let packed;
        let payload = if count == 0 {
            header.attributes &= !(CODEC_MASK | DELETE_HORIZON);
            header.base_timestamp = NO_TIMESTAMP;
            &[][..]
        } else {
            if header.timestamp_type() == TimestampType::Create {
                header.max_timestamp = max_timestamp;
            }
            match header.compression() {
                None | Some(Codec::None) => &records[..],
                Some(codec) => {
                    packed = compress(codec, &records);
                    &packed[..]
                }
            }
        };
        header.records_count = count;
        assemble(header, payload)
    }
}

impl Batch {
    /// The batch without its records: what is left to tell of its producer or of the log's end.
    pub fn emptied(&self) -> Bytes {
        Rewrite::new(self.header(), None).finish()
    }
}

impl BatchHeader {
    /// Until when compaction keeps the batch's tombstones and marker, in ms, if it was decided (KIP-534).
    pub fn delete_horizon(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BATCH_OVERHEAD, BatchBuilder, Header};
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn sample(codec: Codec, kind: TimestampType) -> Batch {
        let mut builder = BatchBuilder::new(codec, kind);
        let twice: [Header<'_>; 3] = [(b"h", Some(b"1")), (b"h", None), (b"", Some(b""))];
        builder.append(5_000, Some(b"a"), Some(b"first"), &[]);
        builder.append(4_000, Some(b"b"), None, &twice);
        builder.append(9_000, None, Some(b""), &[]);
        builder.append(7_000, Some(b""), Some(b"last"), &twice);
        builder.producer(7, 2, 11).base_offset(100).leader_epoch(3);
        Batch::parse(builder.build()).unwrap()
    }

    fn keep(batch: &Batch, horizon: Option<i64>, wanted: &[i64]) -> Batch {
        let mut rewrite = Rewrite::new(batch.header(), horizon);
        for record in &batch.records(LIMIT).unwrap() {
            let record = record.unwrap();
            if wanted.contains(&record.offset) {
                rewrite.push(&record);
            }
        }
        let kept = Batch::parse(rewrite.finish()).unwrap();
        kept.check_crc().unwrap();
        kept
    }

    /// Everything of a record but where in its batch it stands.
    type Seen = (
        i64,
        i64,
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Vec<(Vec<u8>, Option<Vec<u8>>)>,
    );

    fn seen(batch: &Batch) -> Vec<Seen> {
        let records = batch.records(LIMIT).unwrap();
        let all = records.iter().map(|record| {
            let r = record.unwrap();
            let headers = r.headers.map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec)));
            (
                r.offset,
                r.timestamp,
                r.key.map(<[u8]>::to_vec),
                r.value.map(<[u8]>::to_vec),
                headers.collect(),
            )
        });
        all.collect()
    }

    #[test]
    fn what_is_kept_is_kept_whole_in_every_codec() {
        for codec in Codec::ALL {
            let batch = sample(codec, TimestampType::Create);
            let kept = keep(&batch, None, &[101, 103]);
            let mut expected = seen(&batch);
            expected.remove(2);
            expected.remove(0);
            assert_eq!(seen(&kept), expected, "{}", codec.name());
            let (was, is) = (batch.header(), kept.header());
            assert_eq!(is.compression(), Some(codec));
            assert_eq!((is.base_offset, is.last_offset()), (100, 103));
            assert_eq!(is.last_sequence(), was.last_sequence());
            assert_eq!((is.producer_id, is.producer_epoch, is.base_sequence), (7, 2, 11));
            assert_eq!(is.partition_leader_epoch, 3);
            assert_eq!((is.records_count, is.max_timestamp), (2, 7_000));
        }
    }

    #[test]
    fn a_delete_horizon_changes_no_records_time() {
        for kind in [TimestampType::Create, TimestampType::LogAppend] {
            let mut batch = sample(Codec::Lz4, kind);
            if kind == TimestampType::LogAppend {
                batch.restamp(kind, 6_000);
                batch = Batch::parse(batch.to_bytes()).unwrap();
            }
            let kept = keep(&batch, Some(77_000), &[100, 101, 102, 103]);
            assert_eq!(kept.header().delete_horizon(), Some(77_000));
            assert_eq!(seen(&kept), seen(&batch));
            let fewer = keep(&kept, None, &[101]);
            assert_eq!(fewer.header().delete_horizon(), Some(77_000), "it stays");
            assert_eq!(seen(&fewer), seen(&batch)[1..2]);
        }
    }

    #[test]
    fn an_emptied_batch_still_tells_of_its_producer_and_its_offsets() {
        let batch = sample(Codec::Zstd, TimestampType::Create);
        let empty = Batch::parse(batch.emptied()).unwrap();
        empty.check_crc().unwrap();
        assert_eq!(empty.size(), BATCH_OVERHEAD);
        let h = empty.header();
        assert_eq!((h.base_offset, h.next_offset(), h.records_count), (100, 104, 0));
        assert_eq!((h.base_sequence, h.last_sequence()), (11, 14));
        assert_eq!((h.max_timestamp, h.base_timestamp), (9_000, NO_TIMESTAMP));
        assert_eq!(h.compression(), Some(Codec::None));
        assert_eq!(empty.records(0).unwrap().iter().count(), 0);
    }
}
