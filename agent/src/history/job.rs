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
}

impl Default for JobHistory {
    fn default() -> Self {
        JobHistory {
            cpu: Measured(Decaying::default()),
            memory: Measured(Decaying::default()),
            watched_ms: 0,
            seen_ms: 0,
            kills: 0.0,
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
            self.kills = self.kills(now_ms);
            self.watched_ms += now_ms.saturating_sub(self.seen_ms).min(gap_ms);
        }
        self.seen_ms = now_ms;
    }

    pub(super) fn killed(&mut self, now_ms: u64) {
        self.kills = self.kills(now_ms) + 1.0;
        self.seen_ms = now_ms;
    }

    /// Of late.
    pub(super) fn kills(&self, now_ms: u64) -> f64 {
        let age = now_ms.saturating_sub(self.seen_ms) as f64 / HALF_LIFE_MS as f64;
        self.kills * (-age).exp2()
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
        self.kills = self.kills(newest) + other.kills(newest);
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
