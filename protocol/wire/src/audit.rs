//! Digests of logs: what two clusters compare instead of their records, and the frames by which one asks the other.
//!
//! A batch's digest covers all that a mirror keeps: its offsets and length, every header field but the leader epoch, and
//! the CRC of its records, computed anew. A range's digest is made of its batches' digests in order. Both are 64-bit
//! FNV-1a: they find what went wrong, they do not withstand somebody who searches for two records of one digest.
//!
//! ```text
//! asker                                            leader of the partition
//!   | -- AuditAsk(topic, partition, bounds) -------> |   one per stream
//!   | <------ AuditAnswer(a digest per range) ------ |   and batch by batch if asked for
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::batch::{Batch, BatchError, split};
use crate::ids::TopicId;

/// Ranges in one question, at most.
pub const AUDIT_RANGES_MAX: usize = 1_024;
/// Batches that one answer lists, at most.
pub const AUDIT_ITEMS_MAX: usize = 65_536;
/// Bytes that are read for one answer, at most: once so many were looked at, the answer ends.
pub const AUDIT_BYTES_MAX: u64 = 64 << 20;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
const EPOCH_AT: std::ops::Range<usize> = 12..16;

fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash
}

/// One batch as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditItem {
    /// Its base offset.
    pub base: i64,
    /// The offset after it.
    pub next: i64,
    /// Its size in bytes.
    pub bytes: u32,
    /// Its digest.
    pub digest: u64,
    /// Whether its records have another CRC than its header says.
    pub damaged: bool,
}

impl AuditItem {
    /// The digest of a batch.
    pub fn of(batch: &Batch) -> Self {
        let header = *batch.header();
        let head = header.encode();
        let crc = match batch.check_crc() {
            Err(BatchError::Crc { found, .. }) => found,
            _ => header.crc,
        };
        let mut digest = fnv(FNV_OFFSET, &head[..EPOCH_AT.start]);
        digest = fnv(digest, &head[EPOCH_AT.end..]);
        digest = fnv(digest, &crc.to_be_bytes());
        Self {
            base: header.base_offset,
            next: header.next_offset(),
            bytes: u32::try_from(header.size()).unwrap_or(u32::MAX),
            digest,
            damaged: crc != header.crc,
        }
    }
}

/// What one range of offsets holds: the batches whose base offset lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeDigest {
    /// How many batches.
    pub batches: u32,
    /// Their bytes.
    pub bytes: u64,
    /// The digest of their digests, in order.
    pub digest: u64,
    /// How many of them have another CRC than their headers say.
    pub damaged: u32,
}

impl Default for RangeDigest {
    fn default() -> Self {
        Self {
            batches: 0,
            bytes: 0,
            digest: FNV_OFFSET,
            damaged: 0,
        }
    }
}

impl RangeDigest {
    /// Takes in the next batch.
    pub fn add(&mut self, item: &AuditItem) {
        self.batches = self.batches.saturating_add(1);
        self.bytes += u64::from(item.bytes);
        self.digest = fnv(self.digest, &item.digest.to_be_bytes());
        self.damaged += u32::from(item.damaged);
    }
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditAsk {
    /// The topic's id at the one that is asked.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// Rising offsets: each two neighbours bound a range, the upper one outside it.
    pub bounds: Vec<i64>,
    /// Whether every batch is listed too.
    pub items: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// The log start offset, after the reading.
    pub log_start: i64,
    /// The high watermark, before the reading: nothing at or above it was read.
    pub high_watermark: i64,
    /// Batches below this offset may have been rewritten by compaction, or may be at any time. `None` if nobody can say.
    pub compacted_to: Option<i64>,
    /// Everything in the ranges below this offset was looked at. Below the last bound if the answer would have grown too
    /// large, or if the log ends before.
    pub complete_to: i64,
    /// Where the batch ends that begins below the first bound and reaches over it, if there is one. It is in no range.
    pub inside: Option<i64>,
    /// One per range.
    pub ranges: Vec<RangeDigest>,
    /// The batches, if they were asked for.
    pub items: Vec<AuditItem>,
}

/// The answer to an [`AuditAsk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditAnswer {
    /// It was looked at.
    Found(Audit),
    /// It was not; for a person to read.
    Refused(String),
}

/// Makes the digests of a question from the log's bytes, which are given in order.
#[derive(Debug)]
pub struct Auditor {
    bounds: Vec<i64>,
    listing: bool,
    found: Audit,
    bytes: u64,
    full: bool,
}

impl Auditor {
    /// For these bounds; with `items` every batch is listed too. `None` if the bounds are no ranges, or too many.
    pub fn new(bounds: Vec<i64>, items: bool) -> Option<Self> {
        let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let count = bounds.len().checked_sub(1).filter(|count| *count > 0)?;
        let first = *bounds.first()?;
        if !rising || count > AUDIT_RANGES_MAX || first < 0 {
            return None;
        }
        Some(Self {
            found: Audit {
                complete_to: first,
                ranges: vec![RangeDigest::default(); count],
                ..Audit::default()
            },
            bounds,
            listing: items,
            bytes: 0,
            full: false,
        })
    }

    /// The offset to read from next; nothing if all was read, or enough.
    pub fn wants(&self) -> Option<i64> {
        let at = self.found.complete_to;
        (!self.full && at < self.end()).then_some(at)
    }

    /// The last bound.
    pub fn end(&self) -> i64 {
        self.bounds.last().copied().unwrap_or(0)
    }

    /// Takes whole batches (a cut last one is left out), the first of which holds the wanted offset or is the first after it.
    /// Answers whether they brought it any further.
    pub fn add(&mut self, bytes: Bytes) -> Result<bool, BatchError> {
        let before = self.found.complete_to;
        for batch in split(bytes) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(BatchError::Cut { .. }) => break,
                Err(error) => return Err(error),
            };
            if self.wants().is_none() {
                break;
            }
            let item = AuditItem::of(&batch);
            if item.base >= self.end() {
                self.nothing_below(item.base);
                break;
            }
            // Offsets that go back would have us read for ever.
            if item.next <= self.found.complete_to {
                continue;
            }
            self.take(&item);
        }
        Ok(self.found.complete_to > before)
    }

    fn take(&mut self, item: &AuditItem) {
        self.found.complete_to = item.next;
        let first = self.bounds.first().copied().unwrap_or(0);
        if item.base < first {
            self.found.inside = Some(item.next);
            return;
        }
        let range = self
            .bounds
            .partition_point(|bound| *bound <= item.base)
            .saturating_sub(1);
        if let Some(range) = self.found.ranges.get_mut(range) {
            range.add(item);
        }
        if self.listing {
            self.found.items.push(*item);
        }
        self.bytes += u64::from(item.bytes);
        self.full = self.bytes >= AUDIT_BYTES_MAX || self.found.items.len() >= AUDIT_ITEMS_MAX;
    }

    /// There is no batch between what was read and `offset`.
    pub fn nothing_below(&mut self, offset: i64) {
        self.found.complete_to = self.found.complete_to.max(offset.min(self.end()));
    }

    /// What was found, and where the log stands.
    pub fn finish(self, log_start: i64, high_watermark: i64, compacted_to: Option<i64>) -> Audit {
        Audit {
            log_start,
            high_watermark,
            compacted_to,
            ..self.found
        }
    }
}

impl AuditAsk {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + 8 * self.bounds.len());
        out.put_slice(&self.topic.0);
        out.put_i32(self.partition);
        out.put_u8(u8::from(self.items));
        out.put_u16(u16::try_from(self.bounds.len()).unwrap_or(u16::MAX));
        self.bounds.iter().for_each(|bound| out.put_i64(*bound));
        out.freeze()
    }

    /// Reads a question; nothing if it is none.
    pub fn decode(mut frame: Bytes) -> Option<Self> {
        let mut topic = [0; 16];
        frame.try_copy_to_slice(&mut topic).ok()?;
        let partition = frame.try_get_i32().ok()?;
        let items = frame.try_get_u8().ok()? != 0;
        let count = usize::from(frame.try_get_u16().ok()?);
        if count > AUDIT_RANGES_MAX + 1 {
            return None;
        }
        let bounds = (0..count)
            .map(|_| frame.try_get_i64().ok())
            .collect::<Option<_>>()?;
        Some(Self {
            topic: TopicId(topic),
            partition,
            bounds,
            items,
        })
    }
}

impl AuditAnswer {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        match self {
            Self::Refused(reason) => {
                out.put_u8(1);
                out.put_slice(reason.as_bytes());
            }
            Self::Found(found) => {
                out.put_u8(0);
                out.put_i64(found.log_start);
                out.put_i64(found.high_watermark);
                out.put_i64(found.compacted_to.unwrap_or(-1));
                out.put_i64(found.complete_to);
                out.put_i64(found.inside.unwrap_or(-1));
                out.put_u32(found.ranges.len() as u32);
                for range in &found.ranges {
                    out.put_u32(range.batches);
                    out.put_u64(range.bytes);
                    out.put_u64(range.digest);
                    out.put_u32(range.damaged);
                }
                out.put_u32(found.items.len() as u32);
                for item in &found.items {
                    out.put_i64(item.base);
                    out.put_i64(item.next);
                    out.put_u32(item.bytes);
                    out.put_u64(item.digest);
                    out.put_u8(u8::from(item.damaged));
                }
            }
        }
        out.freeze()
    }

    /// Reads an answer; nothing if it is none.
    pub fn decode(mut frame: Bytes) -> Option<Self> {
        let frame = &mut frame;
        if frame.try_get_u8().ok()? != 0 {
            return Some(Self::Refused(String::from_utf8_lossy(frame).into_owned()));
        }
        let some = |offset: i64| (offset >= 0).then_some(offset);
        let mut found = Audit {
            log_start: frame.try_get_i64().ok()?,
            high_watermark: frame.try_get_i64().ok()?,
            compacted_to: some(frame.try_get_i64().ok()?),
            complete_to: frame.try_get_i64().ok()?,
            inside: some(frame.try_get_i64().ok()?),
            ..Audit::default()
        };
        // Nothing is reserved because a count says so.
        for _ in 0..frame.try_get_u32().ok()? {
            found.ranges.push(RangeDigest {
                batches: frame.try_get_u32().ok()?,
                bytes: frame.try_get_u64().ok()?,
                digest: frame.try_get_u64().ok()?,
                damaged: frame.try_get_u32().ok()?,
            });
        }
        for _ in 0..frame.try_get_u32().ok()? {
            found.items.push(AuditItem {
                base: frame.try_get_i64().ok()?,
                next: frame.try_get_i64().ok()?,
                bytes: frame.try_get_u32().ok()?,
                digest: frame.try_get_u64().ok()?,
                damaged: frame.try_get_u8().ok()? != 0,
            });
        }
        Some(Self::Found(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, TimestampType};
    use crate::compression::Codec;

    fn batch(base: i64, value: &str, epoch: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.base_offset(base).leader_epoch(epoch);
        for _ in 0..3 {
            builder.append(7, Some(b"key"), Some(value.as_bytes()), &[]);
        }
        builder.build().to_vec()
    }

    fn found(bounds: &[i64], log: &[Vec<u8>]) -> Audit {
        let mut auditor = Auditor::new(bounds.to_vec(), true).unwrap();
        auditor.add(log.concat().into()).unwrap();
        auditor.finish(0, 9, Some(0))
    }

    #[test]
    fn logs_that_differ_in_leader_epochs_alone_are_the_same() {
        let one = found(
            &[0, 3, 9],
            &[batch(0, "a", 1), batch(3, "b", 1), batch(6, "c", 1)],
        );
        let other = found(
            &[0, 3, 9],
            &[batch(0, "a", 8), batch(3, "b", 9), batch(6, "c", 9)],
        );
        assert_eq!(one, other);
        assert_eq!(
            one.ranges.iter().map(|range| range.batches).collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!((one.complete_to, one.inside), (9, None));
    }

    #[test]
    fn another_record_and_a_changed_byte_with_its_crc_mended_differ_in_their_range_only() {
        let log = [batch(0, "a", 1), batch(3, "b", 1), batch(6, "c", 1)];
        let good = found(&[0, 3, 6, 9], &log);
        let other = found(
            &[0, 3, 6, 9],
            &[batch(0, "a", 1), batch(3, "x", 1), batch(6, "c", 1)],
        );
        let differs = |a: &Audit, b: &Audit| -> Vec<bool> {
            a.ranges.iter().zip(&b.ranges).map(|(a, b)| a != b).collect()
        };
        assert_eq!(differs(&good, &other), [false, true, false]);
        let mut flipped = log;
        *flipped[1].last_mut().unwrap() ^= 1;
        let damaged = found(&[0, 3, 6, 9], &flipped);
        assert_eq!(damaged.ranges[1].damaged, 1);
        assert_ne!(damaged.ranges[1].digest, good.ranges[1].digest);
    }

    #[test]
    fn what_reaches_into_the_first_range_and_what_lies_behind_the_last_is_in_none() {
        let log = [batch(0, "a", 1), batch(3, "b", 1), batch(20, "c", 1)];
        let part = found(&[1, 10], &log);
        assert_eq!(
            (part.inside, part.ranges[0].batches, part.complete_to),
            (Some(3), 1, 10)
        );
        let mut auditor = Auditor::new(vec![6, 10], false).unwrap();
        assert_eq!(auditor.wants(), Some(6));
        auditor.nothing_below(50);
        assert_eq!(auditor.wants(), None);
        assert_eq!(auditor.finish(0, 9, None).complete_to, 10);
    }

    #[test]
    fn bounds_that_are_no_ranges_are_refused() {
        let many: Vec<i64> = (0..=AUDIT_RANGES_MAX as i64 + 1).collect();
        for bounds in [vec![], vec![1], vec![2, 2], vec![3, 1], vec![-1, 4], many] {
            assert!(Auditor::new(bounds.clone(), false).is_none(), "{bounds:?}");
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let ask = AuditAsk {
            topic: TopicId([3; 16]),
            partition: 5,
            bounds: vec![0, 7, 9],
            items: true,
        };
        assert_eq!(AuditAsk::decode(ask.encode()), Some(ask));
        let log = [batch(0, "a", 1), batch(3, "b", 1)];
        for answer in [
            AuditAnswer::Found(found(&[1, 6], &log)),
            AuditAnswer::Refused("no such partition".into()),
        ] {
            assert_eq!(AuditAnswer::decode(answer.encode()), Some(answer));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_frame_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            let _ = AuditAsk::decode(bytes.clone().into());
            let _ = AuditAnswer::decode(bytes.clone().into());
            let mut auditor = Auditor::new(vec![0, 10], true).unwrap();
            let _ = auditor.add(bytes.into());
        }
    }
}
