//! Chance that is the same in every run.

/// The same in every run (splitmix64, Steele et al. 2014).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// A number above 0 and at most 1.
    pub(crate) fn share(&mut self) -> f64 {
        const STEPS: u64 = 1 << 53;
        (self.below(STEPS) + 1) as f64 / STEPS as f64
    }
}
