//! [`Records`]: record batches on their way through, never looked into here.

use bytes::{Bytes, BytesMut};

/// The bytes of zero or more record batches, in pieces that follow each other.
///
/// A response is written from the pieces that the log handed out, without joining them; a request is decoded into at
/// most one piece, a slice of its frame. Null on the wire decodes to empty, and empty is never written as null, which
/// some clients fail on.
#[derive(Debug, Clone, Default)]
pub struct Records(pub Vec<Bytes>);

impl Records {
    /// How many bytes all pieces have together.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// All pieces as one; copies only if there are several.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            several => {
                let mut joined = BytesMut::with_capacity(self.len());
                several.iter().for_each(|piece| joined.extend_from_slice(piece));
                joined.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::default()
        } else {
            Self(vec![bytes])
        }
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces)
    }
}

/// Equal if the bytes are, wherever the pieces are cut.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.0.iter().flatten().eq(other.0.iter().flatten())
    }
}

impl Eq for Records {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_do_not_matter_for_equality() {
        let one = Records::from(Bytes::from_static(b"abc"));
        let two = Records(vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"c"),
        ]);
        assert_eq!(one, two);
        assert_eq!(two.to_bytes(), "abc");
        assert_ne!(one, Records::from(Bytes::from_static(b"abd")));
        assert!(Records(vec![Bytes::new()]).is_empty());
    }
}
