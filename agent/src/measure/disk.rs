//! Disk that runs take, by a walk of what they have written: seldom, and only where something can have changed.
//!
//! Who has used no CPU since has written nothing. Who has is looked at again after a pause that grows with what the look
//! costs, so that all walks together take a small share of a core; without a limit nobody waits for the figure, and the
//! pause is longer. When the file system has lost more than a run has left, it is looked at, at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Instant,
};

use oci::bundle::Bundle;

use crate::{event::RunId, volumes::anonymous::Anonymous};

/// The pause after a look, at least, with a limit and without one.
const LIMITED_MS: u64 = 1_000;
const UNLIMITED_MS: u64 = 10_000;
/// And so many times what the look took.
const SHARE: u64 = 20;
const URGENT_SHARE: u64 = 3;
const UNLIMITED_SHARE: u64 = 100;

pub(super) struct Disks {
    bundles: PathBuf,
    anonymous: Anonymous,
    runs: BTreeMap<RunId, Look>,
    /// Free on the file system now.
    free: u64,
}

/// The last look at a run.
struct Look {
    used: u64,
    /// CPU time that it had used by then, if the host tells.
    cpu_us: Option<u64>,
    /// Free on the file system then.
    free: u64,
    /// When the next one is due, and before which there is none whatever happens: monotonic.
    next_ms: u64,
    soonest_ms: u64,
}

impl Disks {
    pub(super) fn new(bundles: &Path, anonymous: Anonymous) -> Disks {
        Disks { bundles: bundles.to_path_buf(), anonymous, runs: BTreeMap::new(), free: 0 }
    }

    /// Of these alone it is asked next; the others are no more.
    pub(super) fn begin(&mut self, runs: impl Iterator<Item = RunId>) {
        let there: BTreeSet<RunId> = runs.collect();
        self.runs.retain(|run, _| there.contains(run));
        self.free = oci::disk::free(&self.bundles).unwrap_or(0);
    }

    /// Bytes that a run has written and not removed, as far as is known. `most`: its limit.
    pub(super) fn used(&mut self, run: RunId, most: Option<u64>, cpu_us: Option<u64>, now_ms: u64) -> u64 {
        if let Some(last) = self.runs.get(&run)
            && !last.is_due(most, cpu_us, now_ms, self.free)
        {
            return last.used;
        }
        let bundle = Bundle::at(self.bundles.join(run.to_string()));
        let began = Instant::now();
        let used = oci::disk::used(&[&bundle.upper(), &bundle.log(), &self.anonymous.of(run)]);
        let took = began.elapsed().as_millis() as u64;
        let pause = match most {
            Some(_) => LIMITED_MS.max(took * SHARE),
            None => UNLIMITED_MS.max(took * UNLIMITED_SHARE),
        };
        let (free, next_ms, soonest_ms) = (self.free, now_ms + pause, now_ms + took * URGENT_SHARE);
        self.runs.insert(run, Look { used, cpu_us, free, next_ms, soonest_ms });
        used
    }
}

impl Look {
    fn is_due(&self, most: Option<u64>, cpu_us: Option<u64>, now_ms: u64, free: u64) -> bool {
        if cpu_us.is_some() && cpu_us == self.cpu_us {
            return false;
        }
        let lost = self.free.saturating_sub(free);
        let urgent = most.is_some_and(|most| self.used.saturating_add(lost) > most);
        now_ms >= self.next_ms || (urgent && now_ms >= self.soonest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_due_where_something_can_have_changed() {
        let look = Look { used: 50, cpu_us: Some(7), free: 1_000, next_ms: 500, soonest_ms: 300 };
        // It has not run.
        assert!(!look.is_due(Some(60), Some(7), 9_999, 0));
        // It has, and the time has come, or its limit may have been passed.
        assert!(!look.is_due(Some(60), Some(8), 499, 990));
        assert!(look.is_due(Some(60), Some(8), 500, 990));
        assert!(look.is_due(Some(60), Some(8), 499, 989));
        assert!(!look.is_due(Some(60), Some(8), 299, 989));
        assert!(!look.is_due(None, Some(8), 499, 0));
        // Nobody knows whether it has.
        assert!(look.is_due(None, None, 500, 0));
    }
}
