//! Test values from a seed: the same seed, the same values.

/// A small deterministic generator (splitmix64), with a taste for the edges of what it generates.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from zero up to, not including, `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    pub fn integer(&mut self) -> i64 {
        match self.below(8) {
            0 => -1,
            1 => 0,
            2 => i64::MAX,
            3 => i64::MIN,
            _ => self.bits() as i64,
        }
    }

    pub fn text(&mut self) -> String {
        let length = if self.below(16) == 0 { 200 } else { self.below(12) };
        (0..length)
            .map(|_| ['a', 'Z', '0', '.', '_', 'ü', '\0', '语'][self.below(8) as usize])
            .collect()
    }

    pub fn bytes(&mut self) -> Vec<u8> {
        let length = if self.below(16) == 0 {
            20_000
        } else {
            self.below(20)
        };
        (0..length).map(|_| self.bits() as u8).collect()
    }
}
