//! How many runs were ended by what, band by band, over a day.

use std::collections::BTreeMap;

use gossip::wire::usage::Ended;
use placement::{job::Band, task::Cause};

/// Endings within so long are counted together.
const SLOT_MS: u64 = 300_000;
const HOUR: u64 = 12;
const DAY: u64 = 24 * HOUR;

/// Counts by time (in slots), band and cause: of a day, so that their number is bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Endings(BTreeMap<(u64, Band, Cause), u32>);

impl Endings {
    pub(super) fn add(&mut self, band: Band, cause: Cause, now_ms: u64) {
        if matches!(cause, Cause::Exited | Cause::Stopped) {
            return;
        }
        let slot = now_ms / SLOT_MS;
        // A clock that was set back leaves some that are of a time to come: they go too.
        self.0.retain(|(at, ..), _| *at + DAY > slot && *at <= slot);
        *self.0.entry((slot, band, cause)).or_default() += 1;
    }

    pub(super) fn counts(&self, now_ms: u64) -> Vec<Ended> {
        let slot = now_ms / SLOT_MS;
        let mut sums: BTreeMap<(Band, Cause), (u32, u32)> = BTreeMap::new();
        for (&(at, band, cause), count) in self.0.iter().filter(|((at, ..), _)| *at + DAY > slot) {
            let (hour, day) = sums.entry((band, cause)).or_default();
            *day += count;
            *hour += if at + HOUR > slot { *count } else { 0 };
        }
        let count = |((band, cause), (hour, day))| Ended { band, cause, hour, day };
        sums.into_iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_and_the_last_day_are_counted() {
        const MINUTE: u64 = 60_000;
        let start = 1_000_000 * SLOT_MS;
        let mut endings = Endings::default();
        endings.add(Band::Free, Cause::Reclaimed, start);
        endings.add(Band::Free, Cause::Reclaimed, start + 30 * MINUTE);
        endings.add(Band::Batch, Cause::OomLimit, start + 30 * MINUTE);
        endings.add(Band::Batch, Cause::Exited, start);
        endings.add(Band::Batch, Cause::Stopped, start);
        let at = |minute: u64| -> Vec<(Band, Cause, u32, u32)> {
            let counts = endings.counts(start + minute * MINUTE);
            counts.iter().map(|e| (e.band, e.cause, e.hour, e.day)).collect()
        };
        let (free, batch) = ((Band::Free, Cause::Reclaimed), (Band::Batch, Cause::OomLimit));
        assert_eq!(at(31), [(free.0, free.1, 2, 2), (batch.0, batch.1, 1, 1)]);
        assert_eq!(at(65), [(free.0, free.1, 1, 2), (batch.0, batch.1, 1, 1)]);
        assert_eq!(at(24 * 60 + 10), [(free.0, free.1, 0, 1), (batch.0, batch.1, 0, 1)]);
        assert_eq!(at(25 * 60), []);
        // A day later none of it is kept.
        endings.add(Band::Free, Cause::OomHost, start + 25 * 60 * MINUTE);
        assert_eq!(endings.0.len(), 1);
    }
}
