//! How many runs were ended by what, band by band, over a day; and how many of those that were told to end had time for it.

use std::collections::BTreeMap;

use gossip::wire::usage::Ended;
use placement::{job::Band, task::Cause};
use serde::{Deserialize, Serialize};

/// Endings within so long are counted together.
const SLOT_MS: u64 = 300_000;
const HOUR: u64 = 12;
const DAY: u64 = 24 * HOUR;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub band: Band,
    pub cause: Cause,
    /// It was told to end by SIGTERM: whether it ended by itself then, or had its whole grace before SIGKILL.
    pub notified: Option<bool>,
}

/// Counts by time (in slots), band and cause: of a day, so that their number is bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Kept>", into = "Vec<Kept>")]
pub(super) struct Endings(BTreeMap<(u64, Band, Cause), Count>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    all: u32,
    told: u32,
    notified: u32,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.all = self.all.saturating_add(other.all);
        self.told = self.told.saturating_add(other.told);
        self.notified = self.notified.saturating_add(other.notified);
    }
}

/// One of them on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    slot: u64,
    band: Band,
    cause: Cause,
    all: u32,
    #[serde(default)]
    told: u32,
    #[serde(default)]
    notified: u32,
}

impl From<Endings> for Vec<Kept> {
    fn from(endings: Endings) -> Vec<Kept> {
        let kept = |((slot, band, cause), Count { all, told, notified })| Kept {
            slot,
            band,
            cause,
            all,
            told,
            notified,
        };
        endings.0.into_iter().map(kept).collect()
    }
}

impl From<Vec<Kept>> for Endings {
    fn from(kept: Vec<Kept>) -> Endings {
        let count = |of: Kept| {
            let Kept { slot, band, cause, all, told, notified } = of;
            ((slot, band, cause), Count { all, told, notified })
        };
        Endings(kept.into_iter().map(count).collect())
    }
}

impl Endings {
    pub(super) fn add(&mut self, ending: Ending, now_ms: u64) {
        let Ending { band, cause, notified } = ending;
        if cause == Cause::Exited {
            return;
        }
        let slot = now_ms / SLOT_MS;
        // A clock that was set back leaves some that are of a time to come: they go too.
        self.0.retain(|(at, ..), _| *at + DAY > slot && *at <= slot);
        let told = u32::from(notified.is_some());
        let one = Count { all: 1, told, notified: u32::from(notified == Some(true)) };
        self.0.entry((slot, band, cause)).or_default().add(one);
    }

    /// The wall clock was set.
    pub(super) fn shift(&mut self, by_ms: i64) {
        let slots = by_ms / SLOT_MS.cast_signed();
        let shifted = |((slot, band, cause), count): (_, Count)| {
            let slot: u64 = slot;
            ((slot.saturating_add_signed(slots), band, cause), count)
        };
        self.0 = std::mem::take(&mut self.0).into_iter().map(shifted).collect();
    }

    pub(super) fn merge(&mut self, other: Endings) {
        for (of, count) in other.0 {
            self.0.entry(of).or_default().add(count);
        }
    }

    pub(super) fn counts(&self, now_ms: u64) -> Vec<Ended> {
        let slot = now_ms / SLOT_MS;
        let mut sums: BTreeMap<(Band, Cause), (u32, Count)> = BTreeMap::new();
        let of_a_day = |at: u64| at + DAY > slot && at <= slot;
        for (&(at, band, cause), count) in self.0.iter().filter(|((at, ..), _)| of_a_day(*at)) {
            let (hour, day) = sums.entry((band, cause)).or_default();
            day.add(*count);
            *hour += if at + HOUR > slot { count.all } else { 0 };
        }
        let ended = |((band, cause), (hour, day)): (_, (u32, Count))| Ended {
            band,
            cause,
            hour,
            day: day.all,
            told: day.told,
            notified: day.notified,
        };
        sums.into_iter().map(ended).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const START: u64 = 1_000_000 * SLOT_MS;
    const MINUTE: u64 = 60_000;

    fn ending(band: Band, cause: Cause, notified: Option<bool>) -> Ending {
        Ending { band, cause, notified }
    }

    #[test]
    fn the_last_hour_and_the_last_day_are_counted() {
        let mut endings = Endings::default();
        let reclaimed = ending(Band::Free, Cause::Reclaimed, None);
        endings.add(reclaimed, START);
        endings.add(reclaimed, START + 30 * MINUTE);
        endings.add(ending(Band::Batch, Cause::OomLimit, None), START + 30 * MINUTE);
        endings.add(ending(Band::Batch, Cause::Exited, None), START);
        let at = |minute: u64| -> Vec<(Band, Cause, u32, u32)> {
            let counts = endings.counts(START + minute * MINUTE);
            counts.iter().map(|e| (e.band, e.cause, e.hour, e.day)).collect()
        };
        let (free, batch) = ((Band::Free, Cause::Reclaimed), (Band::Batch, Cause::OomLimit));
        assert_eq!(at(31), [(free.0, free.1, 2, 2), (batch.0, batch.1, 1, 1)]);
        assert_eq!(at(65), [(free.0, free.1, 1, 2), (batch.0, batch.1, 1, 1)]);
        assert_eq!(at(24 * 60 + 10), [(free.0, free.1, 0, 1), (batch.0, batch.1, 0, 1)]);
        assert_eq!(at(25 * 60), []);
        // A day later none of it is kept.
        endings.add(ending(Band::Free, Cause::OomHost, None), START + 25 * 60 * MINUTE);
        assert_eq!(endings.0.len(), 1);
    }

    #[test]
    fn what_is_kept_is_added_to_what_was_counted_since() {
        let mut before = Endings::default();
        let stopped = |notified| ending(Band::Batch, Cause::Stopped, notified);
        before.add(stopped(Some(true)), START);
        before.add(stopped(Some(false)), START);
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(
            text,
            r#"[{"slot":1000000,"band":"batch","cause":"stopped","all":2,"told":2,"notified":1}]"#
        );
        let mut now = Endings::default();
        now.add(stopped(Some(true)), START + MINUTE);
        now.add(stopped(None), START + 10 * MINUTE);
        now.merge(serde_json::from_str(&text).unwrap());
        let sums: Vec<_> =
            now.counts(START + 10 * MINUTE).iter().map(|e| (e.day, e.told, e.notified)).collect();
        assert_eq!(sums, [(4, 3, 2)]);
    }
}
