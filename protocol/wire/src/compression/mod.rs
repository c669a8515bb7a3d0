//! The four compressions of Kafka record batches behind one decoder that cannot be made to overrun its limit.
//!
//! The decoder's limit is on *output* bytes and is checked while decoding, so a small frame that claims or produces a
//! huge payload costs at most the limit. Nothing here knows about records; see [`crate::batch`].
//!
//! | codec | frame |
//! |---|---|
//! | gzip | RFC 1952, concatenated members accepted |
//! | snappy | xerial blocks (what Java writes); raw snappy accepted (what others write) |
//! | lz4 | LZ4 frame, independent 64 KiB blocks |
//! | zstd | plain zstd frames |

mod snappy;

use std::io::{self, Read, Write};

use bytes::Bytes;

/// How a batch's records are compressed: bits 0-2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy in xerial framing.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this id, if Kafka defines one.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The id in a batch's attributes.
    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name for it, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Why compressed bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// The output would be longer than the caller's limit.
    #[error("{codec} data decompresses to more than {limit} bytes", codec = .codec.name())]
    TooLarge {
        /// What it was compressed with.
        codec: Codec,
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The bytes are not a valid frame of this codec.
    #[error("invalid {codec} data: {reason}", codec = .codec.name())]
    Invalid {
        /// What it claims to be compressed with.
        codec: Codec,
        /// What the decoder found.
        reason: String,
    },
}

/// Compresses `input` in the framing that Kafka's clients expect.
pub fn compress(codec: Codec, input: &[u8]) -> Bytes {
    let out = match codec {
        Codec::None => return Bytes::copy_from_slice(input),
        Codec::Gzip => gzip(input),
        Codec::Snappy => snappy::compress(input),
        Codec::Lz4 => lz4(input),
        Codec::Zstd => zstd::bulk::compress(input, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    // None of these encoders reads or writes anything but memory, and none refuses an input of this size.
    Bytes::from(out.expect("compressing in memory cannot fail"))
}

/// Decompresses `input` to at most `limit` bytes.
pub fn decompress(codec: Codec, input: &[u8], limit: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    decompress_into(codec, input, limit, &mut out)?;
    Ok(Bytes::from(out))
}

/// As [`decompress`], into a buffer that the caller reuses. Its old contents are dropped; after an error it holds
/// some prefix.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the decoder with a limit that the others are banned for"
)]
pub fn decompress_into(
    codec: Codec,
    input: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    out.clear();
    match codec {
        Codec::None => {
            if input.len() > limit {
                return Err(DecompressError::TooLarge { codec, limit });
            }
            out.extend_from_slice(input);
            Ok(())
        }
        Codec::Snappy => snappy::decompress(input, limit, out),
        Codec::Gzip => drain(codec, flate2::read::MultiGzDecoder::new(input), limit, out),
        Codec::Lz4 => drain(codec, lz4_flex::frame::FrameDecoder::new(input), limit, out),
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(|e| invalid(codec, e))?;
            drain(codec, decoder, limit, out)
        }
    }
}

/// Reads `source` to its end in steps, so that the buffer grows with what was really decoded.
fn drain(codec: Codec, source: impl Read, limit: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = source
        .take(bound)
        .read_to_end(out)
        .map_err(|e| invalid(codec, e))?;
    if read > limit {
        out.truncate(limit);
        return Err(DecompressError::TooLarge { codec, limit });
    }
    Ok(())
}

fn invalid(codec: Codec, error: impl std::fmt::Display) -> DecompressError {
    DecompressError::Invalid {
        codec,
        reason: error.to_string(),
    }
}

fn gzip(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(input)?;
    encoder.finish()
}

fn lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // Java's decoder refuses blocks that depend on each other.
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input)?;
    encoder.finish().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> Vec<u8> {
        b"the trade winds blow from the east, "
            .iter()
            .copied()
            .cycle()
            .take(200_000)
            .collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        for codec in Codec::ALL {
            for input in [&b""[..], b"a", &text()] {
                let packed = compress(codec, input);
                assert_eq!(
                    decompress(codec, &packed, input.len()).unwrap(),
                    input,
                    "{}",
                    codec.name()
                );
            }
        }
    }

    #[test]
    fn ids_are_kafkas() {
        for (id, codec) in Codec::ALL.iter().enumerate() {
            assert_eq!(codec.id(), id as u8);
            assert_eq!(Codec::from_id(codec.id()), Some(*codec));
        }
        assert_eq!(Codec::from_id(5), None);
    }

    #[test]
    fn output_past_the_limit_is_an_error_for_every_codec() {
        let input = vec![0; 1_000_000];
        for codec in Codec::ALL {
            let packed = compress(codec, &input);
            for limit in [0, 1, 999_999] {
                assert_eq!(
                    decompress(codec, &packed, limit),
                    Err(DecompressError::TooLarge { codec, limit })
                );
            }
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let input = vec![0; 64 << 20];
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
            let packed = compress(codec, &input);
            let mut out = Vec::new();
            assert!(decompress_into(codec, &packed, 4096, &mut out).is_err());
            assert!(
                out.capacity() < 64 << 10,
                "{} reserved {}",
                codec.name(),
                out.capacity()
            );
        }
    }

    #[test]
    fn lz4_frames_start_as_javas_decoder_wants_them() {
        let packed = compress(Codec::Lz4, b"abc");
        assert_eq!(packed[..4], 0x184D_2204u32.to_le_bytes());
        assert_eq!(packed[4] >> 6, 1, "frame version");
        assert_eq!(packed[4] & 0x20, 0x20, "independent blocks");
        assert_eq!(packed[5] >> 4 & 7, 4, "64 KiB blocks");
    }

    #[test]
    fn concatenated_gzip_members_are_one_stream() {
        let mut packed = compress(Codec::Gzip, b"east ").to_vec();
        packed.extend_from_slice(&compress(Codec::Gzip, b"west"));
        assert_eq!(decompress(Codec::Gzip, &packed, 100).unwrap(), &b"east west"[..]);
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd, Codec::Lz4] {
            let packed = compress(codec, &text());
            let cut = &packed[..packed.len() / 2];
            assert!(decompress(codec, cut, 1 << 20).is_err(), "{}", codec.name());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_neither_panic_nor_overrun(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            id in 0u8..5,
            limit in 0usize..5000,
        ) {
            let codec = Codec::from_id(id).unwrap();
            let mut out = Vec::new();
            let result = decompress_into(codec, &bytes, limit, &mut out);
            prop_assert!(out.len() <= limit);
            prop_assert!(out.capacity() <= 128 << 10);
            if result.is_ok() { prop_assert!(out.len() <= limit); }
        }

        #[test]
        fn damaged_frames_neither_panic_nor_overrun(
            at in 0usize..10_000,
            flip in 1u8..,
            id in 1u8..5,
        ) {
            let codec = Codec::from_id(id).unwrap();
            let input: Vec<u8> = (0..9_000u32).map(|i| ((i * i) >> 7) as u8).collect();
            let mut packed = compress(codec, &input).to_vec();
            let at = at % packed.len();
            packed[at] ^= flip;
            let mut out = Vec::new();
            let _ = decompress_into(codec, &packed, 20_000, &mut out);
            prop_assert!(out.len() <= 20_000);
        }
    }
}
