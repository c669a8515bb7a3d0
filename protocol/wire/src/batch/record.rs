//! Records inside a decompressed batch, as views: nothing is copied and nothing is reserved by a count that was read.
//!
//! Every length is checked against what is left before it is used. Header keys need not be UTF-8 and may repeat.

use bytes::Bytes;

use super::{BatchHeader, TimestampType};

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The data end inside the record, or a length points past its end.
    #[error("record {index} is cut")]
    Cut {
        /// The record's position in the batch.
        index: i32,
    },
    /// A varint is longer than its type allows.
    #[error("record {index} holds an over-long varint")]
    Varint {
        /// The record's position in the batch.
        index: i32,
    },
    /// A length or count is negative where it may not be, or does not fill the record.
    #[error("record {index} holds an impossible length")]
    Length {
        /// The record's position in the batch.
        index: i32,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes follow the last record")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// A batch's records in uncompressed form.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    data: Bytes,
}

impl Records {
    pub(super) fn new(header: BatchHeader, data: Bytes) -> Self {
        Self { header, data }
    }

    /// The uncompressed bytes. `data().slice_ref(view.value)` turns a view into an owned slice without copying.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Iterates over the records; ends after the first error.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(&self.header, &self.data)
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, RecordError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The record's offset.
    pub offset: i64,
    /// Its offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// The record's time in ms: the producer's, or the append time of the batch.
    pub timestamp: i64,
    /// Its timestamp relative to the batch's base timestamp, as written.
    pub timestamp_delta: i64,
    /// The key; null and empty are different.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone on compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers in order, repeated keys included.
    pub headers: Headers<'a>,
}

/// Iterates over a record's headers as (key, value).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Already checked to hold exactly `left` well-formed headers.
    rest: Cursor<'a>,
    left: i32,
}

impl Headers<'_> {
    /// How many headers are left.
    pub fn len(&self) -> usize {
        usize::try_from(self.left).unwrap_or(0)
    }

    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.left <= 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        self.rest.header().ok()
    }
}

/// Iterates over the records of one batch. Yields at most the header's count, then [`RecordError::Trailing`] if bytes
/// are left over, or [`RecordError::Cut`] if records are missing.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: BatchHeader,
    rest: Cursor<'a>,
    index: i32,
    done: bool,
}

impl<'a> RecordIter<'a> {
    /// Over `data`, the uncompressed payload of the batch with this header.
    pub fn new(header: &BatchHeader, data: &'a [u8]) -> Self {
        Self {
            header: *header,
            rest: Cursor(data),
            index: 0,
            done: false,
        }
    }

    fn record(&mut self) -> Result<RecordView<'a>, Fault> {
        let length = self.rest.varint()?;
        let mut body = Cursor(self.rest.take(length)?);
        let _attributes = body.take(1)?;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.nullable()?;
        let value = body.nullable()?;
        let count = body.varint()?;
        if count < 0 {
            return Err(Fault::Length);
        }
        let headers = Headers {
            rest: body,
            left: count,
        };
        for _ in 0..count {
            body.header()?;
        }
        if !body.0.is_empty() {
            return Err(Fault::Length);
        }
        let timestamp = match self.header.timestamp_type() {
            TimestampType::LogAppend => self.header.max_timestamp,
            TimestampType::Create => self.header.base_timestamp.saturating_add(timestamp_delta),
        };
        Ok(RecordView {
            offset: self.header.base_offset.saturating_add(i64::from(offset_delta)),
            offset_delta,
            timestamp,
            timestamp_delta,
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let index = self.index;
        if index >= self.header.records_count {
            self.done = true;
            let bytes = self.rest.0.len();
            return (bytes > 0).then_some(Err(RecordError::Trailing { bytes }));
        }
        self.index += 1;
        let item = self.record().map_err(|fault| match fault {
            Fault::Cut => RecordError::Cut { index },
            Fault::Varint => RecordError::Varint { index },
            Fault::Length => RecordError::Length { index },
        });
        self.done = item.is_err();
        Some(item)
    }
}

/// What went wrong, before it is known in which record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Varint,
    Length,
}

/// What is left of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: i32) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::Length)?;
        let (head, tail) = self.0.split_at_checked(length).ok_or(Fault::Cut)?;
        self.0 = tail;
        Ok(head)
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(length).map(Some),
        }
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), Fault> {
        let length = self.varint()?;
        let key = self.take(length)?;
        Ok((key, self.nullable()?))
    }

    fn varint(&mut self) -> Result<i32, Fault> {
        let raw = u32::try_from(self.unsigned(5)?).map_err(|_| Fault::Varint)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    fn varlong(&mut self) -> Result<i64, Fault> {
        let raw = self.unsigned(10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn unsigned(&mut self, longest: usize) -> Result<u64, Fault> {
        let mut value = 0u64;
        for i in 0..longest {
            let (&byte, tail) = self.0.split_first().ok_or(Fault::Cut)?;
            self.0 = tail;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if i == 9 && bits > 1 {
                return Err(Fault::Varint);
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Varint)
    }
}
