//! The newest offset of each key, in a fixed amount of memory.
//!
//! Keys are not kept, only 128 bits of a keyed hash (SipHash under two secrets drawn per map): two keys meet with a chance
//! of one in 2^64 among billions, and nobody outside can make them meet. Linear probing over one allocation; nothing is
//! ever removed.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Bytes that one key costs, free places included.
pub(crate) const BYTES_PER_KEY: usize = size_of::<Slot>() * 4 / 3;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: (u64, u64),
    /// -1 in a free place.
    offset: i64,
}

const FREE: Slot = Slot {
    hash: (0, 0),
    offset: -1,
};

/// Hash of a key -> its newest offset.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    limit: usize,
    used: usize,
    first: RandomState,
    second: RandomState,
}

impl OffsetMap {
    /// A map that holds as many keys as fit `bytes`, at least one, and no more than `keys`.
    pub(crate) fn new(bytes: usize, keys: usize) -> Self {
        let limit = (bytes / BYTES_PER_KEY).min(keys).max(1);
        Self {
            // A quarter of the places stays free, so that a search ends.
            slots: vec![FREE; limit + limit / 3 + 1],
            limit,
            used: 0,
            first: RandomState::new(),
            second: RandomState::new(),
        }
    }

    /// How many keys it holds.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Enters a key's offset, which is larger than those before. False if the key is new and there is no room for it.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.slots[at].offset < 0 {
            if self.used == self.limit {
                return false;
            }
            self.used += 1;
        }
        self.slots[at] = Slot { hash, offset };
        true
    }

    /// The newest offset of a key, if it was entered.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = self.slots[self.find(self.hash(key))];
        (slot.offset >= 0).then_some(slot.offset)
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.first.hash_one(key), self.second.hash_one(key))
    }

    /// The place of this hash, or the free one where it would go.
    fn find(&self, hash: (u64, u64)) -> usize {
        let length = self.slots.len();
        // The high bits of the product are as even as the hash, and need no division.
        let mut at = ((u128::from(hash.0) * length as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.offset < 0 || slot.hash == hash {
                return at;
            }
            at += 1;
            if at == length {
                at = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_each_key_is_kept() {
        let mut map = OffsetMap::new(1 << 20, usize::MAX);
        for round in 0..3 {
            for i in 0..1_000i64 {
                assert!(map.put(&i.to_be_bytes(), round * 1_000 + i));
            }
        }
        assert_eq!(map.len(), 1_000);
        for i in 0..1_000i64 {
            assert_eq!(map.get(&i.to_be_bytes()), Some(2_000 + i));
        }
        assert_eq!(map.get(b"another"), None);
        assert_eq!(map.get(b""), None);
    }

    #[test]
    fn a_full_map_refuses_new_keys_only() {
        let mut map = OffsetMap::new(10 * BYTES_PER_KEY, usize::MAX);
        for i in 0..10u8 {
            assert!(map.put(&[i], i64::from(i)));
        }
        assert!(!map.put(b"one more", 10));
        assert!(map.put(&[3], 11));
        assert_eq!((map.get(&[3]), map.get(b"one more")), (Some(11), None));
    }

    #[test]
    fn memory_is_bounded_by_both_limits() {
        let map = OffsetMap::new(1 << 30, 100);
        assert!(map.slots.len() < 140);
        let map = OffsetMap::new(4_000, usize::MAX);
        assert!(map.slots.len() * size_of::<Slot>() <= 4_100);
        assert!(OffsetMap::new(0, 0).put(b"k", 0), "never without room for a key");
    }
}
