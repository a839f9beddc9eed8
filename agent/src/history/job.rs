//! What one job's tasks used on a node, a task by itself.

use serde::{Deserialize, Serialize};

use super::decaying::{self, Decaying, HALF_LIFE_MS, Scale};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct JobHistory {
    /// By time: the weight of a second is 1.
    pub(super) cpu: Cpu,
    /// By windows: the weight of a window's peak is 1.
    pub(super) memory: Memory,
    /// So long at least one of its tasks was watched.
    watched_ms: u64,
    seen_ms: u64,
    /// How often a task of it was killed at its memory limit: halves each day, as of `seen_ms`.
    kills: f64,
    /// For so many seconds a task's CPU limit held it back: halves in the same way.
    held_back_s: f64,
}

impl Default for JobHistory {
    fn default() -> Self {
        JobHistory {
            cpu: Measured(Decaying::default()),
            memory: Measured(Decaying::default()),
            watched_ms: 0,
            seen_ms: 0,
            kills: 0.0,
            held_back_s: 0.0,
        }
    }
}

/// Amounts of CPU or of memory: their buckets differ.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Measured<const MEMORY: bool>(Decaying);
pub(super) type Cpu = Measured<false>;
pub(super) type Memory = Measured<true>;

impl<const MEMORY: bool> Measured<MEMORY> {
    const SCALE: Scale = if MEMORY { decaying::MEMORY } else { decaying::CPU };

    pub(super) fn add(&mut self, amount: f64, weight: f64, now_ms: u64) {
        self.0.add(Self::SCALE, amount, weight, now_ms);
    }

    pub(super) fn share_above(&self, amount: f64) -> f64 {
        self.0.share_above(Self::SCALE, amount)
    }

    pub(super) fn most(&self) -> f64 {
        self.0.most(Self::SCALE)
    }

    pub(super) fn spread(&self) -> f64 {
        self.0.spread(Self::SCALE)
    }

    pub(super) fn total(&self, now_ms: u64) -> f64 {
        self.0.total(now_ms)
    }
}

impl JobHistory {
    pub(super) fn watched(&mut self, now_ms: u64, gap_ms: u64) {
        if self.seen_ms > 0 {
            self.age(now_ms);
            self.watched_ms += now_ms.saturating_sub(self.seen_ms).min(gap_ms);
        }
        self.seen_ms = now_ms;
    }

    /// The wall clock was set.
    pub(super) fn shift(&mut self, by_ms: i64) {
        self.cpu.0.shift(by_ms);
        self.memory.0.shift(by_ms);
        // 0 is never.
        if self.seen_ms > 0 {
            self.seen_ms = self.seen_ms.saturating_add_signed(by_ms).max(1);
        }
    }

    pub(super) fn killed(&mut self, now_ms: u64) {
        self.age(now_ms);
        self.kills += 1.0;
        self.seen_ms = now_ms;
    }

    pub(super) fn held_back(&mut self, seconds: f64, now_ms: u64) {
        // Until then nobody watched it.
        let left = if self.seen_ms == 0 { 1.0 } else { self.left(now_ms) };
        // As of the last look, whose time is not over.
        self.held_back_s += seconds / left.max(1e-6);
    }

    /// The share of the time that its tasks were watched, of late.
    pub(super) fn held_back_share(&self, now_ms: u64) -> f64 {
        let watched = self.cpu.total(now_ms);
        if watched > 0.0 { (self.held_back_s * self.left(now_ms) / watched).min(1.0) } else { 0.0 }
    }

    fn age(&mut self, now_ms: u64) {
        let left = self.left(now_ms);
        self.kills *= left;
        self.held_back_s *= left;
    }

    /// What is left of what was counted.
    fn left(&self, now_ms: u64) -> f64 {
        (-(now_ms.saturating_sub(self.seen_ms) as f64) / HALF_LIFE_MS as f64).exp2()
    }

    /// Of late.
    pub(super) fn kills(&self, now_ms: u64) -> f64 {
        self.kills * self.left(now_ms)
    }

    pub fn watched_ms(&self) -> u64 {
        self.watched_ms
    }

    pub fn seen_ms(&self) -> u64 {
        self.seen_ms
    }

    /// With what another node has seen.
    pub fn merge(&mut self, other: &JobHistory) {
        let newest = self.seen_ms.max(other.seen_ms);
        self.age(newest);
        self.kills += other.kills(newest);
        self.held_back_s += other.held_back_s * other.left(newest);
        self.cpu.0.merge(&other.cpu.0);
        self.memory.0.merge(&other.memory.0);
        // Mostly at the same time.
        self.watched_ms = self.watched_ms.max(other.watched_ms);
        self.seen_ms = newest;
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() - 2 * size_of::<Decaying>() + self.cpu.0.bytes() + self.memory.0.bytes()
    }
}
