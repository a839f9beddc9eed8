//! When the disk of the data directory is short, so that somebody has to give way: what is left is kept for production and for
//! the agent's own records. Readings in, decisions out.

use placement::{obstacle::amount, resources::DISK};

use super::who::Shortage;

/// Kept free: this share of the file system, and never more than so much.
const SHARE: u64 = 20;
const MOST: u64 = 512 << 20;
/// It counts as short until there has been more for so long: who comes where somebody has just been sent away would only be
/// the next.
const CALMS_MS: u64 = 10_000;
/// At the pace of the last look: it counts as short already when it would be full so soon, and there is no time for a
/// grace.
const AHEAD_MS: u64 = 1_000;
const HURRY_MS: u64 = 10_000;
/// Looks, while there is plenty and while there is not.
const CALM_MS: u64 = 1_000;
const CLOSE_MS: u64 = 200;

/// A file system, in bytes, as everybody but root may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) free: u64,
    pub(crate) size: u64,
}

/// What follows from one look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) shortage: Option<Shortage>,
    /// It is, or was and is not well again.
    pub(crate) short: bool,
    /// Until the next look.
    pub(crate) pause_ms: u64,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(crate) struct Room {
    before: Option<(u64, u64)>,
    short: bool,
    /// There has been enough since then: monotonic.
    enough_since: Option<u64>,
}

impl Disk {
    /// What is kept free of it.
    pub(crate) fn kept(&self) -> u64 {
        (self.size / SHARE).min(MOST)
    }

    pub(crate) fn is_short(&self) -> bool {
        self.free < self.kept()
    }
}

impl Room {
    pub(crate) fn look(&mut self, at_ms: u64, disk: Disk) -> Step {
        let (was_ms, was_free) = self.before.replace((at_ms, disk.free)).unwrap_or((at_ms, disk.free));
        let shrinks = was_free.saturating_sub(disk.free).saturating_mul(1000);
        let per_second = shrinks / at_ms.saturating_sub(was_ms).max(1);
        let full_ms = disk.free.saturating_mul(1000).checked_div(per_second).unwrap_or(u64::MAX);
        let (kept, enough) = (disk.kept(), disk.kept() / 4 * 5);
        // An end of it that is a little further away, lest it come and go.
        if disk.is_short() || disk.free < enough {
            self.enough_since = None;
        } else if self.enough_since.is_none() {
            self.enough_since = Some(at_ms);
        }
        let calm = self.enough_since.is_some_and(|since| at_ms >= since + CALMS_MS);
        self.short = disk.is_short() || self.short && !calm;
        let shortage = (disk.is_short() || full_ms < AHEAD_MS).then(|| {
            let (free, kept_text) = (amount(DISK, disk.free), amount(DISK, kept));
            Shortage {
                what: DISK,
                need: enough.saturating_sub(disk.free).max(1),
                hurry: full_ms < HURRY_MS || disk.free < kept / 3,
                why: format!("{free} of disk are free, of {kept_text} that are kept for production"),
            }
        });
        let close = self.short || disk.free < 4 * kept || full_ms < HURRY_MS;
        Step { shortage, short: self.short, pause_ms: if close { CLOSE_MS } else { CALM_MS } }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(free: u64) -> Disk {
        Disk { free: free * MIB, size: 4000 * MIB }
    }

    #[test]
    fn a_share_is_kept_and_no_more_than_is_of_use() {
        assert_eq!(disk(0).kept(), 200 * MIB);
        assert_eq!(Disk { free: 0, size: 1 << 42 }.kept(), 512 * MIB);
        assert!(disk(199).is_short() && !disk(200).is_short());
    }

    #[test]
    fn it_is_short_from_what_is_kept_until_there_is_a_little_more() {
        let mut room = Room::default();
        let mut look = |at_ms: u64, free: u64| room.look(at_ms, disk(free));
        assert_eq!(look(0, 900), Step { shortage: None, short: false, pause_ms: CALM_MS });
        assert_eq!(look(60_000, 300).pause_ms, CLOSE_MS);
        let step = look(120_000, 190);
        let shortage = step.shortage.unwrap();
        assert_eq!((step.short, shortage.need, shortage.hurry), (true, 60 * MIB, false));
        assert_eq!(shortage.why, "190MiB of disk are free, of 200MiB that are kept for production");
        let step = look(180_000, 240);
        assert_eq!((step.short, step.shortage), (true, None));
        assert!(look(190_000, 250).short && look(199_000, 250).short, "not yet");
        assert!(!look(200_000, 250).short);
        // Who comes near it again is not short, who is there again is, and the time begins anew.
        assert!(!look(300_000, 210).short && look(301_000, 199).short);
        assert!(look(302_000, 250).short && look(311_000, 249).short && look(320_000, 250).short);
        assert!(look(329_000, 250).short && !look(330_000, 250).short);
        assert!(look(900_000, 60).shortage.unwrap().hurry, "little is left");
    }

    #[test]
    fn who_fills_it_fast_is_seen_before() {
        let mut room = Room::default();
        room.look(0, disk(3000));
        // A GiB a second: 1976 MiB are two seconds.
        let step = room.look(1_000, disk(1976));
        assert_eq!((step.shortage, step.pause_ms), (None, CLOSE_MS));
        let step = room.look(2_000, disk(952));
        assert!(step.shortage.is_some_and(|shortage| shortage.hurry));
    }
}
