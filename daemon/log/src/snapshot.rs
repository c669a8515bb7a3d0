//! Producer state as a file, `<offset>.snapshot`: the state after every batch below that offset.
//!
//! Written when a segment is closed and at a clean stop, on followers too, so that a restart replays little. Ours, not
//! Kafka's, because it keeps all five batches of a producer: magic, version, entries, CRC-32C; big-endian.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use crate::files;
use crate::producers::{Producer, Producers, WINDOW, Written};

const MAGIC: &[u8; 4] = b"TWPS";
const VERSION: u16 = 1;
/// How many snapshots a log keeps.
const KEEP: usize = 3;

/// Where the snapshot at `offset` of a log in `dir` is.
pub(crate) fn path(dir: &Path, offset: i64) -> PathBuf {
    dir.join(format!("{offset:020}.snapshot"))
}

/// Writes the state at `offset` and forgets all but the newest few.
pub(crate) fn write(dir: &Path, offset: i64, producers: &Producers) -> io::Result<()> {
    files::replace(&path(dir, offset), &encode(producers))?;
    let offsets = list(dir)?;
    for old in offsets.iter().rev().skip(KEEP) {
        files::remove_if_present(&path(dir, *old))?;
    }
    Ok(())
}

/// The newest readable snapshot at or below `limit`, with its offset.
pub(crate) fn newest(dir: &Path, limit: i64) -> io::Result<Option<(i64, Producers)>> {
    for offset in list(dir)?.into_iter().rev().filter(|o| *o <= limit) {
        if let Some(producers) = decode(&std::fs::read(path(dir, offset))?) {
            return Ok(Some((offset, producers)));
        }
        tracing::warn!(path = %path(dir, offset).display(), "ignoring an unreadable producer snapshot");
    }
    Ok(None)
}

/// The files of the snapshots at or below `offset`.
pub(crate) fn paths_up_to(dir: &Path, offset: i64) -> io::Result<Vec<PathBuf>> {
    let offsets = list(dir)?.into_iter().filter(|at| *at <= offset);
    Ok(offsets.map(|at| path(dir, at)).collect())
}

/// Removes snapshots above `offset`.
pub(crate) fn remove_after(dir: &Path, offset: i64) -> io::Result<()> {
    for above in list(dir)?.into_iter().filter(|o| *o > offset) {
        files::remove_if_present(&path(dir, above))?;
    }
    Ok(())
}

/// The offsets of all snapshots, rising.
fn list(dir: &Path) -> io::Result<Vec<i64>> {
    let mut offsets = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(stem) = name.to_str().and_then(|n| n.strip_suffix(".snapshot"))
            && let Ok(offset) = stem.parse::<i64>()
        {
            offsets.push(offset);
        }
    }
    offsets.sort_unstable();
    Ok(offsets)
}

fn encode(producers: &Producers) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + producers.len() * 64);
    out.put_slice(MAGIC);
    out.put_u16(VERSION);
    // Bounded by the number of producers that a log remembers.
    out.put_u32(producers.len() as u32);
    for (id, p) in producers.iter() {
        out.put_i64(id);
        out.put_i16(p.epoch);
        out.put_i64(p.transaction_start.unwrap_or(-1));
        out.put_i64(p.seen_ms);
        out.put_u8(p.batches.len() as u8);
        for b in &p.batches {
            out.put_i64(b.base_offset);
            out.put_i64(b.last_offset);
            out.put_i32(b.base_sequence);
            out.put_i32(b.last_sequence);
            out.put_i64(b.timestamp);
        }
    }
    out.put_u32(producers.ended().len() as u32);
    for (first, marker) in producers.ended() {
        out.put_i64(*first);
        out.put_i64(*marker);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn decode(bytes: &[u8]) -> Option<Producers> {
    let (body, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc.try_get_u32().ok()? != crc32c::crc32c(body) {
        return None;
    }
    let mut body = body.strip_prefix(MAGIC)?;
    if body.try_get_u16().ok()? != VERSION {
        return None;
    }
    let count = body.try_get_u32().ok()?;
    let mut producers = Producers::default();
    for _ in 0..count {
        let id = body.try_get_i64().ok()?;
        let epoch = body.try_get_i16().ok()?;
        let transaction_start = Some(body.try_get_i64().ok()?).filter(|o| *o >= 0);
        let seen_ms = body.try_get_i64().ok()?;
        let batches = usize::from(body.try_get_u8().ok()?);
        if batches > WINDOW {
            return None;
        }
        let mut producer = Producer {
            epoch,
            batches: Vec::with_capacity(batches),
            transaction_start,
            seen_ms,
        };
        for _ in 0..batches {
            producer.batches.push(Written {
                base_offset: body.try_get_i64().ok()?,
                last_offset: body.try_get_i64().ok()?,
                base_sequence: body.try_get_i32().ok()?,
                last_sequence: body.try_get_i32().ok()?,
                timestamp: body.try_get_i64().ok()?,
            });
        }
        producers.restore(id, producer);
    }
    let ended = body.try_get_u32().ok()?;
    for _ in 0..ended {
        producers.restore_ended(body.try_get_i64().ok()?, body.try_get_i64().ok()?);
    }
    body.is_empty().then_some(producers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Producers {
        let mut producers = Producers::default();
        producers.restore_ended(3, 9);
        for id in 0..20 {
            let batches = (0..id % 6)
                .map(|i| Written {
                    base_offset: i,
                    last_offset: i + 1,
                    base_sequence: i as i32,
                    last_sequence: i as i32 + 1,
                    timestamp: -1,
                })
                .collect();
            producers.restore(
                id,
                Producer {
                    epoch: id as i16,
                    batches,
                    transaction_start: (id % 3 == 0).then_some(id),
                    seen_ms: 5,
                },
            );
        }
        producers
    }

    #[test]
    fn a_snapshot_gives_back_the_state() {
        assert_eq!(decode(&encode(&sample())), Some(sample()));
    }

    #[test]
    fn damaged_snapshots_are_refused_whatever_the_damage() {
        let good = encode(&sample());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(decode(&bad), None);
            assert_eq!(decode(&good[..at]), None);
        }
    }

    #[test]
    fn the_newest_readable_one_below_the_limit_is_taken_and_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for offset in [10, 20, 30, 40] {
            write(dir.path(), offset, &sample()).unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [20, 30, 40]);
        std::fs::write(path(dir.path(), 30), b"nonsense").unwrap();
        assert_eq!(newest(dir.path(), 35).unwrap().map(|s| s.0), Some(20));
        remove_after(dir.path(), 20).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [20]);
    }
}
