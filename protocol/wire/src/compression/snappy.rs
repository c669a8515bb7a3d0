//! Snappy as Kafka's clients write it: xerial blocks from Java, librdkafka and others, a single raw block from a few.
//!
//! A xerial stream is a 16-byte header, then blocks of (big-endian length, raw snappy).

use std::io;

use super::{Codec, DecompressError, invalid};

/// `0x82 "SNAPPY" 0`.
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER: usize = 16;
/// Uncompressed bytes per block: the default of the Java library.
const BLOCK: usize = 32 << 10;
/// A raw block's longest element copies 64 bytes and takes 3, so a claim beyond this is a lie.
const MAX_RATIO: usize = 22;

pub(super) fn compress(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + input.len() / 2);
    out.extend_from_slice(&MAGIC);
    // Version of the format, then the oldest version that can read it.
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK) {
        let packed = encoder.compress_vec(block)?;
        // A 32 KiB block cannot grow past four gigabytes.
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

pub(super) fn decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let mut decoder = snap::raw::Decoder::new();
    if !input.starts_with(&MAGIC) {
        return block(&mut decoder, input, limit, out);
    }
    let mut rest = input
        .get(HEADER..)
        .ok_or_else(|| invalid(Codec::Snappy, "cut header"))?;
    while !rest.is_empty() {
        // Streams that were concatenated repeat the header.
        if rest.starts_with(&MAGIC) {
            rest = rest
                .get(HEADER..)
                .ok_or_else(|| invalid(Codec::Snappy, "cut header"))?;
            continue;
        }
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| invalid(Codec::Snappy, "cut block length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > after.len() {
            return Err(invalid(Codec::Snappy, "block is longer than the data"));
        }
        let (packed, after) = after.split_at(length);
        block(&mut decoder, packed, limit, out)?;
        rest = after;
    }
    Ok(())
}

fn block(
    decoder: &mut snap::raw::Decoder,
    packed: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let length = snap::raw::decompress_len(packed).map_err(|e| invalid(Codec::Snappy, e))?;
    if length > limit.saturating_sub(out.len()) {
        return Err(DecompressError::TooLarge {
            codec: Codec::Snappy,
            limit,
        });
    }
    if length > packed.len().saturating_mul(MAX_RATIO) {
        return Err(invalid(
            Codec::Snappy,
            "claims more output than its input can hold",
        ));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = decoder
        .decompress(packed, &mut out[start..])
        .map_err(|e| invalid(Codec::Snappy, e))?;
    out.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::decompress;
    use super::*;

    #[test]
    fn raw_snappy_is_accepted() {
        let raw = snap::raw::Encoder::new()
            .compress_vec(b"raw raw raw raw raw")
            .unwrap();
        assert_eq!(
            decompress(Codec::Snappy, &raw, 100).unwrap(),
            &b"raw raw raw raw raw"[..]
        );
    }

    #[test]
    fn the_header_is_xerials() {
        let packed = compress(b"x").unwrap();
        assert_eq!(
            packed[..HEADER],
            [
                0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1
            ]
        );
        assert_eq!(packed[HEADER..HEADER + 4], 3u32.to_be_bytes());
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        // A varint that claims four gigabytes, and nothing behind it.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        let mut out = Vec::new();
        assert!(super::decompress(&lie, usize::MAX, &mut out).is_err());
        assert_eq!(out.capacity(), 0);
    }
}
