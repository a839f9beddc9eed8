//! What a node remembers of the jobs whose tasks it ran, in little and fixed memory.

mod endings;

use gossip::wire::usage::Ended;
use placement::{job::Band, task::Cause};

use self::endings::Endings;

/// Pure: time is an argument (wall clock, milliseconds since 1970: it outlives the agent).
#[derive(Debug, Clone, Default)]
pub struct History {
    endings: Endings,
}

impl History {
    /// A run ended.
    pub fn ended(&mut self, band: Band, cause: Cause, now_ms: u64) {
        self.endings.add(band, cause, now_ms);
    }

    /// How many runs ended of late, and why; those that ended by themselves or as somebody asked do not count.
    pub fn endings(&self, now_ms: u64) -> Vec<Ended> {
        self.endings.counts(now_ms)
    }
}
