//! How much of their CPU limits batch and free keep while production says that it suffers: half as much each second, free
//! first; given back slowly, batch first. No clock: one step a second.

use placement::job::Band;

/// Never nothing: who gets nothing for long may as well be ended.
const LEAST: u32 = 50;
const ALL: u32 = 1000;
const BACK: u32 = 100;

/// Thousandths of their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ease {
    free: u32,
    batch: u32,
}

impl Default for Ease {
    fn default() -> Ease {
        Ease { free: ALL, batch: ALL }
    }
}

impl Ease {
    /// Whether all have all of theirs.
    pub(crate) fn is_over(&self) -> bool {
        *self == Ease::default()
    }

    pub(crate) fn step(&mut self, suffers: bool) {
        let less = |share: u32| (share / 2).max(LEAST);
        match (suffers, self.free > LEAST, self.batch < ALL) {
            (true, true, _) => self.free = less(self.free),
            (true, false, _) => self.batch = less(self.batch),
            (false, _, true) => self.batch = (self.batch + BACK).min(ALL),
            (false, _, false) => self.free = (self.free + BACK).min(ALL),
        }
    }

    /// What a task of a band keeps of its limit.
    pub(crate) fn of(&self, band: Band, cpu_milli: u64) -> u64 {
        let share = match band {
            Band::Free => self.free,
            Band::Batch => self.batch,
            Band::Production | Band::Monitoring => ALL,
        };
        cpu_milli * u64::from(share) / u64::from(ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_gives_way_first_and_is_given_back_last() {
        let mut ease = Ease::default();
        let mut seen = Vec::new();
        for suffers in [true; 7].into_iter().chain([false; 20]) {
            ease.step(suffers);
            seen.push((ease.of(Band::Free, 1000), ease.of(Band::Batch, 1000)));
        }
        assert_eq!(
            &seen[..7],
            [(500, 1000), (250, 1000), (125, 1000), (62, 1000), (50, 1000), (50, 500), (50, 250)]
        );
        assert_eq!(&seen[7..9], [(50, 350), (50, 450)]);
        assert_eq!(seen[14], (50, 1000));
        assert_eq!(seen[15], (150, 1000));
        assert!(ease.is_over());
        assert_eq!(ease.of(Band::Production, 700), 700);
    }
}
