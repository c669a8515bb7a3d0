//! [`Writer`]: puts values into a list of chunks, so that large record bytes are sent without being copied.

use bytes::{BufMut, Bytes, BytesMut};

use super::{At, EncodeError};

/// Shared bytes of at least this length become a chunk of their own instead of being copied.
pub const SHARE_FROM: usize = 16 * 1024;

/// Collects the bytes of one frame.
#[derive(Debug, Default)]
pub struct Writer {
    done: Vec<Bytes>,
    done_length: usize,
    current: BytesMut,
}

impl Writer {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes have been put.
    pub fn len(&self) -> usize {
        self.done_length + self.current.len()
    }

    /// Whether nothing has been put.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame as chunks in order, none of them empty.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.cut();
        self.done
    }

    /// The frame in one piece; copies if there are several chunks.
    pub fn into_bytes(mut self) -> Bytes {
        if self.done.is_empty() {
            return self.current.freeze();
        }
        self.cut();
        let mut joined = BytesMut::with_capacity(self.done_length);
        self.done.iter().for_each(|chunk| joined.extend_from_slice(chunk));
        joined.freeze()
    }

    /// Bytes, copied.
    pub fn put(&mut self, bytes: &[u8]) {
        self.current.extend_from_slice(bytes);
    }

    /// Bytes; from [`SHARE_FROM`] on they are not copied.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_FROM {
            return self.put(bytes);
        }
        self.cut();
        self.done_length += bytes.len();
        self.done.push(bytes.clone());
    }

    /// One byte, 0 or 1.
    pub fn put_bool(&mut self, value: bool) {
        self.current.put_u8(value.into());
    }

    /// One byte, signed.
    pub fn put_i8(&mut self, value: i8) {
        self.current.put_i8(value);
    }

    /// Two bytes, big-endian.
    pub fn put_i16(&mut self, value: i16) {
        self.current.put_i16(value);
    }

    /// Two bytes, big-endian, never negative.
    pub fn put_u16(&mut self, value: u16) {
        self.current.put_u16(value);
    }

    /// Four bytes, big-endian.
    pub fn put_i32(&mut self, value: i32) {
        self.current.put_i32(value);
    }

    /// Eight bytes, big-endian.
    pub fn put_i64(&mut self, value: i64) {
        self.current.put_i64(value);
    }

    /// Sixteen bytes.
    pub fn put_uuid(&mut self, value: impl Into<[u8; 16]>) {
        self.put(&value.into());
    }

    /// An unsigned integer in groups of seven bits, the lowest first.
    pub fn put_uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.current.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.current.put_u8(value as u8);
    }

    /// The length of a string; null for `None`. Two bytes unless compact.
    pub(crate) fn put_string_length(&mut self, length: Option<usize>, at: At) -> Result<(), EncodeError> {
        // Compact ones are held to the same bound, as in Kafka.
        let short = length.map_or(Ok(-1), i16::try_from);
        let short = short.map_err(|_| EncodeError::too_long(length, at.version))?;
        if at.flexible {
            return self.put_length(length, at);
        }
        self.put_i16(short);
        Ok(())
    }

    /// The length of a byte string or array; null for `None`. Four bytes unless compact.
    pub(crate) fn put_length(&mut self, length: Option<usize>, at: At) -> Result<(), EncodeError> {
        let length = length.map_or(Ok(-1), |n| {
            i32::try_from(n).map_err(|_| EncodeError::too_long(length, at.version))
        })?;
        if at.flexible {
            // One more than it says: null is zero.
            self.put_uvarint(length.wrapping_add(1) as u32);
        } else {
            self.put_i32(length);
        }
        Ok(())
    }

    fn cut(&mut self) {
        if !self.current.is_empty() {
            self.done_length += self.current.len();
            self.done.push(self.current.split().freeze());
        }
    }
}

/// The tagged fields of one structure, collected because their number comes first. Costs nothing while there are none.
#[derive(Debug, Default)]
pub(crate) struct TaggedFields(Vec<(u32, Writer)>);

impl TaggedFields {
    /// Adds a field; numbers must come in rising order.
    pub(crate) fn push(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        debug_assert!(
            self.0.last().is_none_or(|(last, _)| *last < tag),
            "tags are declared in rising order"
        );
        let mut value = Writer::new();
        write(&mut value)?;
        self.0.push((tag, value));
        Ok(())
    }

    /// Writes them all.
    pub(crate) fn write(self, w: &mut Writer) {
        w.put_uvarint(self.0.len() as u32);
        for (tag, value) in self.0 {
            w.put_uvarint(tag);
            w.put_uvarint(value.len() as u32);
            value.finish().iter().for_each(|chunk| w.put_shared(chunk));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_shared_bytes_are_spliced_and_small_ones_copied() {
        let large = Bytes::from(vec![7; SHARE_FROM]);
        let mut w = Writer::new();
        w.put_i32(1);
        w.put_shared(&Bytes::from_static(b"small"));
        w.put_shared(&large);
        w.put_i8(2);
        assert_eq!(w.len(), 4 + 5 + SHARE_FROM + 1);
        let chunks = w.finish();
        assert_eq!(
            chunks.iter().map(Bytes::len).collect::<Vec<_>>(),
            [9, SHARE_FROM, 1]
        );
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn varints_are_written_as_they_are_read() {
        for value in [0, 1, 127, 128, 300, 1 << 14, (1 << 28) - 1, 1 << 28, u32::MAX] {
            let mut w = Writer::new();
            w.put_uvarint(value);
            assert_eq!(super::super::Reader::new(w.into_bytes()).uvarint(), Ok(value));
        }
    }
}
