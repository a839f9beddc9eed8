//! How much of the memory is kept free for production, and when somebody has to give way ([`super::who`]). Readings in,
//! decisions out: no files, no clock.
//!
//! Some room (`headroom`) is always kept free, more of it while production grows. What may be interrupted has a ceiling that
//! leaves this room alone. When production takes from the room, or somebody waits at the ceiling, tasks are ended.

use oci::cgroup::Memory;
use placement::{obstacle::amount, resources::MEMORY};

use super::who::Shortage;

/// Kept free: this share of the capacity, at least so much, and never more than this share.
const SHARE: u64 = 50;
const LEAST: u64 = 64 << 20;
const MOST_SHARE: u64 = 10;
/// And what production would take in so long, at the pace at which it grows.
const AHEAD_MS: u64 = 500;
/// How long its fastest pace is remembered.
const PACE_MS: u64 = 2_000;
/// Somebody who waits at the ceiling for less may still find pages that nobody needs.
const PATIENCE_MS: u64 = 60;
/// So much of the time production may wait for memory before somebody gives way, and over how long that is judged.
const STALL_PERCENT: u64 = 20;
const STALL_MS: u64 = 500;
/// When memory is exhausted sooner than this, there is no time to ask politely.
const HURRY_MS: u64 = 2_000;
/// Cgroups that nobody is in keep a little.
const NOTHING: u64 = 1 << 20;
/// Looks: while there is plenty, while all is calm, while it is not, and while nothing runs that may be interrupted.
const PLENTY_MS: u64 = 250;
const CALM_MS: u64 = 100;
const CLOSE_MS: u64 = 25;
const IDLE_MS: u64 = 500;
/// While there is so much that nobody can take it within one, or nothing that may be interrupted, and the kernel tells at
/// once when somebody waits for memory all the same.
const ALARMED_MS: u64 = 1_000;
const AMPLE_SHARE: u64 = 3;

/// What the node is like, beside the reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Memory that it may use, in bytes.
    pub(crate) capacity: u64,
    /// Sum of production's limits.
    pub(crate) prod_limits: u64,
    /// The kernel wakes the guard when somebody waits for memory.
    pub(crate) alarmed: bool,
}

/// What follows from one look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// What batch and free may have together, and free alone.
    pub(crate) ceiling: (u64, u64),
    pub(crate) shortage: Option<Shortage>,
    /// Until the next look.
    pub(crate) pause_ms: u64,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(crate) struct Decider {
    before: Option<(u64, Memory)>,
    /// Production's fastest growth of late, in bytes a second, and when that was.
    pace: (u64, u64),
    /// When who waits at the ceiling began to.
    waiting_since: Option<u64>,
    stall: (u64, u64),
    stalls: bool,
}

/// What is kept free of so much memory while production does not grow.
pub(crate) fn kept(capacity: u64) -> u64 {
    (capacity / SHARE).max(LEAST.min(capacity / MOST_SHARE))
}

impl Decider {
    /// What is kept free.
    pub(crate) fn headroom(&self, memory: &Memory, node: &Node) -> u64 {
        let base = kept(node.capacity);
        // It can take no more than its limits allow.
        let more = node.prod_limits.saturating_sub(memory.prod);
        base + (self.pace.0.saturating_mul(AHEAD_MS) / 1000).min(more)
    }

    pub(crate) fn look(&mut self, at_ms: u64, memory: &Memory, node: &Node) -> Step {
        let (was_ms, was) = self.before.replace((at_ms, *memory)).unwrap_or((at_ms, *memory));
        let passed = at_ms.saturating_sub(was_ms).max(1);
        let per_second = |bytes: u64| bytes.saturating_mul(1000) / passed;
        let grows = per_second(memory.prod.saturating_sub(was.prod));
        if grows >= self.pace.0 || at_ms > self.pace.1 + PACE_MS {
            self.pace = (grows, at_ms);
        }
        let shrinks = per_second(was.free.saturating_sub(memory.free));
        self.feel(at_ms, memory);

        let headroom = self.headroom(memory, node);
        let room = memory.free.saturating_sub(headroom);
        let both = memory.spare.saturating_add(room);
        // Free comes to its ceiling before it is in batch's way.
        let between = (headroom / 4).min(16 << 20);
        let batch = memory.spare.saturating_sub(memory.lowest);
        let ceiling = (both, both.saturating_sub(batch + between).max(memory.lowest));

        // Production that comes to its own limit waits too, and nobody else can help it.
        let stalls = self.stalls && memory.free < 2 * headroom;
        let waits = self.waiting_since.is_some_and(|since| at_ms >= since + PATIENCE_MS);
        let low = memory.free < headroom / 4 * 3;
        let shortage = (memory.spare >= NOTHING && (low || waits || stalls)).then(|| {
            let wanted = if stalls { 2 * headroom } else { headroom / 4 * 5 };
            let exhausted_ms = memory.free.saturating_mul(1000).checked_div(shrinks).unwrap_or(u64::MAX);
            Shortage {
                what: MEMORY,
                need: wanted.saturating_sub(memory.free).max(1),
                hurry: waits || stalls || exhausted_ms < HURRY_MS || memory.free < headroom / 3,
                why: match low || stalls {
                    true => {
                        let (free, kept) = (amount(MEMORY, memory.free), amount(MEMORY, headroom));
                        format!("{free} of memory are free, of {kept} that are kept for production")
                    }
                    false => {
                        let left = amount(MEMORY, both);
                        format!("batch and free want more memory than the {left} that are left to them")
                    }
                },
            }
        });
        let close = shortage.is_some() || self.waiting_since.is_some() || memory.free < 2 * headroom;
        let ample = memory.free > node.capacity / AMPLE_SHARE;
        let pause_ms = match memory.spare {
            0..NOTHING if node.alarmed => ALARMED_MS,
            0..NOTHING => IDLE_MS,
            _ if close => CLOSE_MS,
            _ if ample && node.alarmed => ALARMED_MS,
            _ if memory.free > 4 * headroom => PLENTY_MS,
            _ => CALM_MS,
        };
        Step { ceiling, shortage, pause_ms }
    }

    /// Who waits, and for how long.
    fn feel(&mut self, at_ms: u64, memory: &Memory) {
        self.waiting_since = memory.waiting.then(|| self.waiting_since.unwrap_or(at_ms));
        let (from_ms, before) = self.stall;
        if at_ms >= from_ms + STALL_MS {
            let share = memory.stalled_us.saturating_sub(before) / 10 / (at_ms - from_ms);
            // Of the first look nothing follows.
            self.stalls = before > 0 && share >= STALL_PERCENT;
            self.stall = (at_ms, memory.stalled_us.max(1));
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
