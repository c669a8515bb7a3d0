//! Building batches: for clients, for the daemon's own topics and for tests. Nothing that was received is built again.

use bytes::{BufMut, Bytes};

use super::{
    BATCH_OVERHEAD, BatchHeader, CONTROL, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TIMESTAMP_TYPE,
    TRANSACTIONAL, TimestampType, assemble,
};
use crate::compression::{Codec, compress};

/// A record header to be written: key and nullable value.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Collects records and writes them as one batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Codec,
    records: Vec<u8>,
    header: BatchHeader,
}

impl BatchBuilder {
    /// An empty batch at offset 0, without a producer and without a leader epoch.
    pub fn new(codec: Codec, timestamp_type: TimestampType) -> Self {
        let mut attributes = i16::from(codec.id());
        if timestamp_type == TimestampType::LogAppend {
            attributes |= TIMESTAMP_TYPE;
        }
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            records_count: 0,
        };
        Self {
            codec,
            records: Vec::new(),
            header,
        }
    }

    /// Adds a record with the producer's time in ms.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> &mut Self {
        if self.header.records_count == 0 {
            self.header.base_timestamp = timestamp;
        }
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        let mut body = Vec::with_capacity(32 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
        body.put_i8(0);
        put_varlong(&mut body, timestamp.wrapping_sub(self.header.base_timestamp));
        put_length(&mut body, self.header.records_count as usize);
        put_nullable(&mut body, key);
        put_nullable(&mut body, value);
        put_length(&mut body, headers.len());
        for (key, value) in headers {
            put_length(&mut body, key.len());
            body.put_slice(key);
            put_nullable(&mut body, *value);
        }
        put_length(&mut self.records, body.len());
        self.records.extend_from_slice(&body);
        self.header.last_offset_delta = self.header.records_count;
        self.header.records_count += 1;
        self
    }

    /// Makes the batch idempotent.
    pub fn producer(&mut self, id: i64, epoch: i16, base_sequence: i32) -> &mut Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of a transaction.
    pub fn transactional(&mut self) -> &mut Self {
        self.header.attributes |= TRANSACTIONAL;
        self
    }

    /// Makes the batch a marker for the log.
    pub(super) fn control(&mut self) -> &mut Self {
        self.header.attributes |= CONTROL;
        self
    }

    /// Where the batch starts: 0 from clients.
    pub fn base_offset(&mut self, offset: i64) -> &mut Self {
        self.header.base_offset = offset;
        self
    }

    /// The leader epoch in the header: -1 from clients.
    pub fn leader_epoch(&mut self, epoch: i32) -> &mut Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.header.records_count as usize
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    /// The size in bytes that the batch would have without compression.
    pub fn uncompressed_size(&self) -> usize {
        BATCH_OVERHEAD + self.records.len()
    }

    /// Writes the batch. The builder keeps its records and could build again.
    pub fn build(&self) -> Bytes {
        let packed;
        let payload = match self.codec {
            Codec::None => &self.records[..],
            codec => {
                packed = compress(codec, &self.records);
                &packed[..]
            }
        };
        assemble(self.header, payload)
    }
}

pub(super) fn put_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => put_varlong(out, -1),
        Some(value) => {
            put_length(out, value.len());
            out.put_slice(value);
        }
    }
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varlong(out, length as i64);
}

/// Zig-zag and base 128; a value that fits 32 bits has the same bytes as varint and as varlong.
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = (value << 1 ^ value >> 63) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}
