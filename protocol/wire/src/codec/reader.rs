//! [`Reader`]: takes values off a frame, zero-copy, and never more than the frame holds.

use bytes::Bytes;

use super::{DecodeError, DecodeErrorKind, Str};

/// How many bytes a string may have, as in Kafka: what a two-byte length can say, also where the length is compact.
pub const MAX_STRING: usize = i16::MAX as usize;
/// How many elements one array may have, as in Kafka 4.4.
pub const MAX_ELEMENTS: usize = 1_000_000;
/// How many elements all arrays of one frame may have together: a small element takes some ten times its bytes in memory.
pub const MAX_ELEMENTS_PER_FRAME: usize = 4_000_000;
/// How many tagged fields one structure may have, as in Kafka 4.4.
pub const MAX_TAGGED_FIELDS: usize = 10_000;
/// How many elements are reserved for before the first one has been seen.
pub const MAX_INITIAL_CAPACITY: usize = 1_000;

/// A position in a frame. Strings, bytes and records that are read share the frame's memory.
#[derive(Debug, Clone)]
pub struct Reader {
    frame: Bytes,
    position: usize,
    /// Where reading has to stop: the frame's end, or the end of the tagged field being read.
    end: usize,
    elements_left: usize,
}

impl Reader {
    /// Begins at the first byte of `frame`.
    pub fn new(frame: Bytes) -> Self {
        let end = frame.len();
        Self {
            frame,
            position: 0,
            end,
            elements_left: MAX_ELEMENTS_PER_FRAME,
        }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.frame.slice(self.position..self.end);
        self.position = self.end;
        rest
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let from = self.advance(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.frame[from..from + N]);
        Ok(bytes)
    }

    /// One byte; whatever is not zero is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.array::<1>()? != [0])
    }

    /// One byte, signed.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.array().map(i8::from_be_bytes)
    }

    /// Two bytes, big-endian.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    /// Two bytes, big-endian, never negative.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// Sixteen bytes.
    pub fn uuid<T: From<[u8; 16]>>(&mut self) -> Result<T, DecodeError> {
        self.array().map(T::from)
    }

    /// An unsigned integer in groups of seven bits, the lowest first.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeErrorKind::InvalidVarint.into())
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let from = self.advance(length)?;
        Ok(self.frame.slice(from..from + length))
    }

    /// A string; `None` for null. Its length is compact, or two bytes.
    pub fn string(&mut self, compact: bool) -> Result<Option<Str>, DecodeError> {
        let length = if compact {
            self.compact_length()?
        } else {
            nullable(self.i16()?.into())?
        };
        let Some(length) = length else { return Ok(None) };
        if length > MAX_STRING {
            let limit = MAX_STRING;
            return Err(DecodeErrorKind::StringTooLong { length, limit }.into());
        }
        let bytes = self.take(length)?;
        Str::from_utf8(bytes)
            .map(Some)
            .ok_or_else(|| DecodeErrorKind::InvalidUtf8.into())
    }

    /// A byte string; `None` for null. Its length is compact, or four bytes.
    pub fn bytes(&mut self, compact: bool) -> Result<Option<Bytes>, DecodeError> {
        self.length(compact)?.map(|length| self.take(length)).transpose()
    }

    /// How many elements an array has, checked against every limit; `None` for null.
    pub fn count(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.length(compact)? else {
            return Ok(None);
        };
        // An element takes one byte at the least.
        if count > self.remaining() {
            return Err(DecodeErrorKind::Truncated {
                needed: count,
                left: self.remaining(),
            }
            .into());
        }
        let limit = MAX_ELEMENTS.min(self.elements_left);
        if count > limit {
            return Err(DecodeErrorKind::TooManyElements { count, limit }.into());
        }
        self.elements_left -= count;
        Ok(Some(count))
    }

    /// Calls `field` with each tagged field's number and the reader confined to its value; what `field` leaves is skipped.
    pub fn tagged_fields(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.uvarint()? as usize;
        if count > MAX_TAGGED_FIELDS {
            return Err(DecodeErrorKind::TooManyTaggedFields {
                count,
                limit: MAX_TAGGED_FIELDS,
            }
            .into());
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            let from = self.advance(size)?;
            let outer = std::mem::replace(&mut self.end, from + size);
            self.position = from;
            field(self, tag)?;
            self.position = self.end;
            self.end = outer;
        }
        Ok(())
    }

    /// Skips every tagged field.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(()))
    }

    fn length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        if compact {
            self.compact_length()
        } else {
            nullable(self.i32()?.into())
        }
    }

    /// Compact lengths are one more than they say, so that zero can be null.
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    fn advance(&mut self, by: usize) -> Result<usize, DecodeError> {
        if by > self.remaining() {
            return Err(DecodeErrorKind::Truncated {
                needed: by,
                left: self.remaining(),
            }
            .into());
        }
        let from = self.position;
        self.position += by;
        Ok(from)
    }
}

/// A length that says null with -1.
fn nullable(length: i64) -> Result<Option<usize>, DecodeError> {
    match length {
        -1 => Ok(None),
        _ => usize::try_from(length)
            .map(Some)
            .map_err(|_| DecodeErrorKind::NegativeLength { length }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes))
    }

    #[test]
    fn a_varint_of_five_bytes_is_read_and_of_more_bits_or_bytes_refused() {
        assert_eq!(reader(b"\x96\x01").uvarint(), Ok(150));
        assert_eq!(reader(b"\xff\xff\xff\xff\x0f").uvarint(), Ok(u32::MAX));
        for bad in [b"\xff\xff\xff\xff\x1f".as_slice(), b"\x80\x80\x80\x80\x80\x00"] {
            assert_eq!(reader(bad).uvarint(), Err(DecodeErrorKind::InvalidVarint.into()));
        }
    }

    #[test]
    fn an_array_longer_than_the_frame_is_refused_before_anything_is_reserved() {
        let refused = reader(b"\x7f\xff\xff\xff").count(false).unwrap_err();
        assert_eq!(
            refused.kind,
            DecodeErrorKind::Truncated {
                needed: 0x7fff_ffff,
                left: 0
            }
        );
    }

    #[test]
    fn an_array_over_the_limit_is_refused_though_the_frame_is_long_enough() {
        let mut frame = vec![0; MAX_ELEMENTS + 5];
        frame[..4].copy_from_slice(&(MAX_ELEMENTS as i32 + 1).to_be_bytes());
        let refused = Reader::new(frame.into()).count(false).unwrap_err();
        assert_eq!(
            refused.kind,
            DecodeErrorKind::TooManyElements {
                count: MAX_ELEMENTS + 1,
                limit: MAX_ELEMENTS
            }
        );
    }

    #[test]
    fn all_arrays_of_a_frame_share_one_limit() {
        let mut array = vec![0; MAX_ELEMENTS + 4];
        array[..4].copy_from_slice(&(MAX_ELEMENTS as i32).to_be_bytes());
        let mut reader = Reader::new(array.repeat(5).into());
        for _ in 0..4 {
            assert_eq!(reader.count(false), Ok(Some(MAX_ELEMENTS)));
            reader.take(MAX_ELEMENTS).unwrap();
        }
        let refused = reader.count(false).unwrap_err();
        assert_eq!(
            refused.kind,
            DecodeErrorKind::TooManyElements {
                count: MAX_ELEMENTS,
                limit: 0
            }
        );
    }

    #[test]
    fn a_tagged_field_cannot_be_read_beyond_its_size_and_its_rest_is_skipped() {
        // Two fields: number 7 of two bytes, number 8 of one; then a byte that belongs to no field.
        let frame = b"\x02\x07\x02\x00\x01\x08\x01\x05\x2a";
        let mut seen = Vec::new();
        let mut reader = reader(frame);
        reader
            .tagged_fields(|r, tag| {
                assert!(r.clone().i32().is_err());
                seen.push((tag, r.i8()?));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(7, 0), (8, 5)]);
        assert_eq!(reader.i8(), Ok(42));
    }

    #[test]
    fn too_many_tagged_fields_are_refused() {
        let refused = reader(b"\x91\x4e").skip_tagged_fields().unwrap_err();
        assert_eq!(
            refused.kind,
            DecodeErrorKind::TooManyTaggedFields {
                count: 10_001,
                limit: MAX_TAGGED_FIELDS
            }
        );
    }

    #[test]
    fn lengths_below_null_are_refused() {
        let refused = reader(b"\xff\xfe").string(false).unwrap_err();
        assert_eq!(refused.kind, DecodeErrorKind::NegativeLength { length: -2 });
        assert_eq!(reader(b"\xff\xff").string(false), Ok(None));
        assert_eq!(reader(b"\x00").string(true), Ok(None));
    }

    #[test]
    fn a_string_that_no_version_could_write_is_refused() {
        let mut frame = vec![b'a'; MAX_STRING + 4];
        frame[..3].copy_from_slice(b"\x81\x80\x02");
        let refused = Reader::new(frame.into()).string(true).unwrap_err();
        let limit = MAX_STRING;
        assert_eq!(
            refused.kind,
            DecodeErrorKind::StringTooLong {
                length: limit + 1,
                limit
            }
        );
    }

    #[test]
    fn a_string_shares_the_frame() {
        let frame = Bytes::from_static(b"\x00\x03abc");
        let text = Reader::new(frame.clone()).string(false).unwrap().unwrap();
        assert_eq!(text.into_bytes().as_ptr(), frame[2..].as_ptr());
    }
}
