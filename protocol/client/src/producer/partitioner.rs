//! Which partition a record goes to: Java's choice, so that producers of all languages agree on where a key lives.
//!
//! A key goes to `murmur2(key) mod partitions` as Kafka's default partitioner computes it. Records without a key stick to
//! one partition until its batch is sent, then move on (KIP-480): full batches instead of many small ones.

use std::collections::HashMap;

use tradewind_wire::clock::Rng;

/// Kafka's hash of a key: MurmurHash2, 32 bits, with Kafka's seed.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // The length only mixes in; keys beyond 4 GiB do not exist.
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

/// The partition of `key` among `count`, as the Java client chooses it. `count` must be above zero.
pub fn partition_of(key: &[u8], count: i32) -> i32 {
    debug_assert!(count > 0);
    // Java clears the sign bit instead of taking the absolute value.
    (murmur2(key) & 0x7fff_ffff) as i32 % count.max(1)
}

/// Where records without a key go at present, per topic.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: HashMap<String, i32>,
}

impl Sticky {
    /// The partition to use now, of `count`: one that is `usable` (has a leader) if any is.
    pub(crate) fn pick(
        &mut self,
        topic: &str,
        count: i32,
        usable: impl Fn(i32) -> bool,
        rng: &dyn Rng,
    ) -> Option<i32> {
        if let Some(current) = self.current.get(topic).filter(|current| usable(**current)) {
            return Some(*current);
        }
        let mut candidates: Vec<i32> = (0..count).filter(|partition| usable(*partition)).collect();
        if candidates.is_empty() {
            candidates = (0..count).collect();
        }
        let choices = u64::try_from(candidates.len())
            .ok()
            .filter(|choices| *choices > 0)?;
        let chosen = candidates
            .get(usize::try_from(rng.next_u64() % choices).ok()?)
            .copied()?;
        self.current.insert(topic.to_owned(), chosen);
        Some(chosen)
    }

    /// A batch of `topic` has been closed: the next record starts one elsewhere.
    pub(crate) fn advance(&mut self, topic: &str) {
        self.current.remove(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that Kafka's own tests state for its Java implementation (`UtilsTest.testMurmur2`).
    #[test]
    fn the_hash_is_javas() {
        let golden: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_never_negative() {
        assert_eq!(partition_of(b"21", 1), 0);
        for i in 0..1_000u32 {
            assert!((0..7).contains(&partition_of(&i.to_be_bytes(), 7)));
        }
    }

    struct Counter(std::sync::atomic::AtomicU64);

    impl Rng for Counter {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        }
    }

    #[test]
    fn records_without_a_key_stick_until_the_batch_is_closed() {
        let rng = Counter(0.into());
        let mut sticky = Sticky::default();
        let all = |_| true;
        let first = sticky.pick("t", 3, all, &rng);
        assert_eq!(sticky.pick("t", 3, all, &rng), first);
        sticky.advance("t");
        assert_ne!(sticky.pick("t", 3, all, &rng), first);
        // A partition that lost its leader is left, unless none has one.
        assert_eq!(sticky.pick("t", 3, |partition| partition == 2, &rng), Some(2));
        assert!(sticky.pick("u", 3, |_| false, &rng).is_some());
        assert_eq!(sticky.pick("v", 0, all, &rng), None);
    }
}
