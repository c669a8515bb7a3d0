//! Record batches, magic 2: the unit that is produced, stored, replicated, mirrored and fetched, and never rebuilt.
//!
//! A [`Batch`] is a parsed 61-byte header beside the received bytes. Base offset and leader epoch lie outside the CRC and
//! are changed freely; the payload is never copied. Records are looked at only where a rule needs it ([`Batch::records`]).
//!
//! ```text
//! 0            8        12       16    17    21       23         27 ...            57      61
//! | base offset | length | epoch | magic | crc | attrs | last delta | times, producer | count | records ...
//!                                              └──────────── covered by the CRC ───────────────────────
//! ```

mod builder;
mod control;
mod record;
mod rewrite;
mod validate;

use bytes::{Buf, Bytes};

use crate::compression::{Codec, DecompressError};

pub use builder::{BatchBuilder, Header};
pub use control::{ControlKind, control_batch};
pub use record::{Headers, RecordError, RecordIter, RecordView, Records};
pub use rewrite::Rewrite;
pub use validate::{ClientRules, FAULTS_MAX, Fault, InvalidBatch, RecordFault, validate_client};

/// The size of a batch's header: everything before its records.
pub const BATCH_OVERHEAD: usize = 61;
/// Bytes before and including the length field, which it does not count.
pub const LENGTH_OVERHEAD: usize = 12;
/// No producer: the batch is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// No timestamp.
pub const NO_TIMESTAMP: i64 = -1;
/// No sequence: the batch is not idempotent.
pub const NO_SEQUENCE: i32 = -1;

const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const CODEC_MASK: i16 = 0x07;
const TIMESTAMP_TYPE: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Whose clock a batch's timestamps come from: bit 3 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer's, one per record.
    #[default]
    Create,
    /// The broker's, one for the whole batch.
    LogAppend,
}

/// What is wrong with the frame of a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The data end inside a batch. At the end of a fetched slice this is no fault.
    #[error("record batch is cut: {have} of {need} bytes")]
    Cut {
        /// Bytes that the batch (or its header) needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The length field is impossible.
    #[error("record batch claims a length of {length}")]
    Length {
        /// The length field as read.
        length: i32,
    },
    /// The format is not version 2.
    #[error("record batch has magic {magic}, only 2 is supported")]
    Magic {
        /// The magic byte as read.
        magic: i8,
    },
    /// The CRC-32C does not match.
    #[error("record batch at offset {base_offset} has CRC {found:#010x}, its header says {expected:#010x}")]
    Crc {
        /// The batch's base offset.
        base_offset: i64,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
}

/// The header of a record batch, field by field as Kafka names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record (or of the first record that there was before compaction).
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    /// The leader epoch under which the batch was appended; -1 from clients.
    pub partition_leader_epoch: i32,
    /// The format version, always 2.
    pub magic: i8,
    /// CRC-32C of everything from `attributes` on.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: i16,
    /// Last offset minus base offset; kept by compaction.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to, in ms.
    pub base_timestamp: i64,
    /// The largest timestamp of a record, or the append time, in ms.
    pub max_timestamp: i64,
    /// The producer's id, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or [`NO_SEQUENCE`].
    pub base_sequence: i32,
    /// Records in the payload.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Checks the magic and that the length field can be true, nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // Magic 0 and 1 have shorter headers but the same place for length and magic: name them rather than call them cut.
        if let Some(&magic) = bytes.get(16)
            && magic != 2
        {
            return Err(BatchError::Magic { magic: magic as i8 });
        }
        let mut at = bytes.get(..BATCH_OVERHEAD).ok_or(BatchError::Cut {
            need: BATCH_OVERHEAD,
            have: bytes.len(),
        })?;
        let header = Self {
            base_offset: at.get_i64(),
            batch_length: at.get_i32(),
            partition_leader_epoch: at.get_i32(),
            magic: at.get_i8(),
            crc: at.get_u32(),
            attributes: at.get_i16(),
            last_offset_delta: at.get_i32(),
            base_timestamp: at.get_i64(),
            max_timestamp: at.get_i64(),
            producer_id: at.get_i64(),
            producer_epoch: at.get_i16(),
            base_sequence: at.get_i32(),
            records_count: at.get_i32(),
        };
        if header.batch_length < (BATCH_OVERHEAD - LENGTH_OVERHEAD) as i32 {
            return Err(BatchError::Length {
                length: header.batch_length,
            });
        }
        Ok(header)
    }

    /// The 61 bytes of this header.
    pub fn encode(&self) -> [u8; BATCH_OVERHEAD] {
        let mut out = [0; BATCH_OVERHEAD];
        let mut at = &mut out[..];
        bytes::BufMut::put_i64(&mut at, self.base_offset);
        bytes::BufMut::put_i32(&mut at, self.batch_length);
        bytes::BufMut::put_i32(&mut at, self.partition_leader_epoch);
        bytes::BufMut::put_i8(&mut at, self.magic);
        bytes::BufMut::put_u32(&mut at, self.crc);
        bytes::BufMut::put_i16(&mut at, self.attributes);
        bytes::BufMut::put_i32(&mut at, self.last_offset_delta);
        bytes::BufMut::put_i64(&mut at, self.base_timestamp);
        bytes::BufMut::put_i64(&mut at, self.max_timestamp);
        bytes::BufMut::put_i64(&mut at, self.producer_id);
        bytes::BufMut::put_i16(&mut at, self.producer_epoch);
        bytes::BufMut::put_i32(&mut at, self.base_sequence);
        bytes::BufMut::put_i32(&mut at, self.records_count);
        out
    }

    /// The whole batch's size in bytes, header included.
    pub fn size(&self) -> usize {
        // `parse` refuses negative lengths; a header made by hand with one is a header alone.
        usize::try_from(self.batch_length).unwrap_or(0) + LENGTH_OVERHEAD
    }

    /// The offset of the last record. Saturates, so that hostile headers cannot wrap it.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The codec, or `None` for an id that Kafka does not define.
    pub fn compression(&self) -> Option<Codec> {
        Codec::from_id((self.attributes & CODEC_MASK) as u8)
    }

    /// Whose clock the timestamps come from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE == 0 {
            TimestampType::Create
        } else {
            TimestampType::LogAppend
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker for the log rather than records for consumers.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether `base_timestamp` is the time until which compaction keeps the batch's tombstones (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// Whether the batch comes from an idempotent or transactional producer.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// The sequence number of the last record: sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        add_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// `sequence + delta` in Kafka's sequence numbers, which wrap from `i32::MAX` to 0.
pub fn add_sequence(sequence: i32, delta: i32) -> i32 {
    ((i64::from(sequence) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

/// One record batch: its header, and the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    /// The whole batch as received; its first 61 bytes may be older than `header`.
    bytes: Bytes,
}

impl Batch {
    /// Takes the first batch off `bytes`; `None` when `bytes` is empty. The payload shares the buffer.
    pub fn split_off_front(bytes: &mut Bytes) -> Result<Option<Self>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader::parse(bytes)?;
        let need = header.size();
        if bytes.len() < need {
            return Err(BatchError::Cut {
                need,
                have: bytes.len(),
            });
        }
        Ok(Some(Self {
            header,
            bytes: bytes.split_to(need),
        }))
    }

    /// Parses `bytes` as exactly one batch.
    pub fn parse(mut bytes: Bytes) -> Result<Self, BatchError> {
        let have = bytes.len();
        match Self::split_off_front(&mut bytes)? {
            Some(batch) if bytes.is_empty() => Ok(batch),
            Some(batch) => Err(BatchError::Length {
                length: batch.header.batch_length,
            }),
            None => Err(BatchError::Cut {
                need: BATCH_OVERHEAD,
                have,
            }),
        }
    }

    /// The header as it is now.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch's size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Moves the batch to this offset. Outside the CRC.
    pub fn set_base_offset(&mut self, offset: i64) {
        self.header.base_offset = offset;
    }

    /// Stamps the leader epoch. Outside the CRC.
    pub fn set_leader_epoch(&mut self, epoch: i32) {
        self.header.partition_leader_epoch = epoch;
    }

    /// Sets timestamp type and largest timestamp, and the CRC with them: what a broker does for `LogAppendTime`, or to
    /// mend a client's wrong maximum. Reads the whole payload if anything changes.
    pub fn restamp(&mut self, kind: TimestampType, max_timestamp: i64) {
        let attributes = match kind {
            TimestampType::Create => self.header.attributes & !TIMESTAMP_TYPE,
            TimestampType::LogAppend => self.header.attributes | TIMESTAMP_TYPE,
        };
        if (attributes, max_timestamp) == (self.header.attributes, self.header.max_timestamp) {
            return;
        }
        self.header.attributes = attributes;
        self.header.max_timestamp = max_timestamp;
        self.header.crc = self.computed_crc();
    }

    /// Compares the CRC in the header with that of the bytes.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let found = self.computed_crc();
        if found != self.header.crc {
            return Err(BatchError::Crc {
                base_offset: self.header.base_offset,
                expected: self.header.crc,
                found,
            });
        }
        Ok(())
    }

    /// The header's 61 bytes as they are to be written.
    pub fn header_bytes(&self) -> [u8; BATCH_OVERHEAD] {
        self.header.encode()
    }

    /// The bytes after the header; shares the buffer.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(BATCH_OVERHEAD..)
    }

    /// The buffer that the batch was received in, if its header is unchanged since.
    pub fn received(&self) -> Option<Bytes> {
        (self.bytes[..BATCH_OVERHEAD] == self.header_bytes()).then(|| self.bytes.clone())
    }

    /// The whole batch in one buffer: the received one if the header is unchanged, else a copy.
    pub fn to_bytes(&self) -> Bytes {
        if let Some(received) = self.received() {
            return received;
        }
        let header = self.header_bytes();
        let mut out = Vec::with_capacity(self.bytes.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.bytes[BATCH_OVERHEAD..]);
        Bytes::from(out)
    }

    /// The records, decompressed to at most `limit` bytes. Uncompressed records share the batch's buffer.
    pub fn records(&self, limit: usize) -> Result<Records, RecordsError> {
        let codec = self.header.compression().ok_or(RecordsError::UnknownCodec {
            id: (self.header.attributes & CODEC_MASK) as u8,
        })?;
        let data = match codec {
            Codec::None => self.payload(),
            codec => crate::compression::decompress(codec, &self.bytes[BATCH_OVERHEAD..], limit)?,
        };
        Ok(Records::new(self.header, data))
    }

    fn computed_crc(&self) -> u32 {
        let header = self.header_bytes();
        crc32c::crc32c_append(crc32c::crc32c(&header[CRC_FROM..]), &self.bytes[BATCH_OVERHEAD..])
    }
}

/// Why a batch's records cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The attributes name no codec of Kafka's.
    #[error("record batch names compression {id}, which does not exist")]
    UnknownCodec {
        /// The codec's id as read.
        id: u8,
    },
    /// The payload cannot be decompressed.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

/// Iterates over batches that stand back to back. Ends after the first error; [`BatchError::Cut`] as the last item means
/// that the data end inside a batch, which a fetched slice may do.
pub fn split(bytes: Bytes) -> Split {
    Split { rest: bytes }
}

/// The iterator of [`split`].
#[derive(Debug, Clone)]
pub struct Split {
    rest: Bytes,
}

impl Iterator for Split {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = Batch::split_off_front(&mut self.rest).transpose();
        if matches!(item, Some(Err(_))) {
            self.rest.clear();
        }
        item
    }
}

/// A batch of this header and these records, packed as the header says. Builders and rewrites end with it.
fn assemble(mut header: BatchHeader, payload: &[u8]) -> Bytes {
    // Batches are bounded by `max.message.bytes` long before two gigabytes, and what is left of one is about as long as it was.
    header.batch_length = i32::try_from(BATCH_OVERHEAD - LENGTH_OVERHEAD + payload.len()).unwrap_or(i32::MAX);
    let mut out = Vec::with_capacity(BATCH_OVERHEAD + payload.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    seal(&mut out);
    Bytes::from(out)
}

/// Writes the CRC of a complete batch into it.
fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests;
