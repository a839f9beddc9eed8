//! The numbers of covey's own policy: one set for all work, and what the presets change of it.

use super::{Amounts, policy::Preset};

/// The parameters of the estimator. Times are in milliseconds, pairs are of CPU and memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How far ahead peaks are predicted; a day has all that people's days do to work.
    pub horizon_ms: u64,
    /// A task of which nothing is known counts at its limit for so long.
    pub hold_ms: u64,
    /// After that, what it has not used of its limit counts less and less: half of the doubt is gone after some 0.4 of this.
    pub doubt_ms: Amounts,
    /// The same of a task's own reservation, which falls more slowly: what one task has not used yet says less than what many
    /// have not.
    pub fall_ms: Amounts,
    /// Growth of memory in an hour that makes a leak; as a share of the limit.
    pub leak: f64,
    /// A job's tasks are expected to stay for that many of its mean lives.
    pub lives: f64,
    pub cpu: Cpu,
    pub memory: Memory,
}

/// What is expected above the peak of CPU that was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// The margin: so much of the geometric mean of bursts and limits, for each e-folding of the time ahead.
    pub margin: f64,
    /// Until a horizon has been seen: so much of what tasks would use above their means if they went as high as their siblings
    /// have, as far as they go at once.
    pub common: f64,
    /// Until then also: the share of the limits that tasks may reach that have a day in common.
    pub wave: f64,
}

/// What is expected above the peak of memory that was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// The margin in units of the peaks' own spread: so many more than the logarithm of time asks for.
    pub caution: f64,
    /// The margin's factors while next to nothing of a horizon has been seen, and once all of it has.
    pub margin: [f64; 2],
    /// The least spread that is believed, as a share of the peak.
    pub least_spread: f64,
    /// Until a horizon has been seen: the share of the limits that tasks may reach together, if they move together.
    pub together: f64,
    /// Until then also: what the peak may grow by if they move together, as a share of it.
    pub swell: f64,
    /// Bursts that have nothing to do with each other add in quadrature; so much of that is expected above the mean.
    pub apart: f64,
    /// How much of a rise that all tasks together show for hours is expected to go on.
    pub drift: f64,
}

/// A job's old peaks fade over so many horizons.
const MEMORY_HORIZONS: f64 = 8.0;

impl Settings {
    /// Over which a job's old peaks fade.
    pub fn memory_ms(&self) -> f64 {
        MEMORY_HORIZONS * self.horizon_ms as f64
    }

    /// A preset's numbers, for a horizon.
    pub fn of(preset: Preset, horizon_ms: u64) -> Self {
        let normal = Settings {
            horizon_ms: horizon_ms.max(60_000),
            hold_ms: 300_000,
            doubt_ms: [250_000.0, 2_700_000.0],
            fall_ms: [800_000.0, 3_600_000.0],
            leak: 0.003,
            lives: 8.4,
            cpu: Cpu { margin: 0.24, common: 0.85, wave: 0.5 },
            memory: Memory {
                caution: 6.0,
                margin: [1.8, 0.7],
                least_spread: 0.0004,
                together: 0.41,
                swell: 0.003,
                apart: 1.05,
                drift: 0.4,
            },
        };
        let riskier = |by: f64| Settings {
            doubt_ms: normal.doubt_ms.map(|ms| ms / by),
            fall_ms: normal.fall_ms.map(|ms| ms / by),
            cpu: Cpu {
                margin: normal.cpu.margin / by,
                common: normal.cpu.common / by,
                wave: normal.cpu.wave / by,
            },
            memory: Memory {
                caution: normal.memory.caution / by,
                least_spread: normal.memory.least_spread / by,
                together: normal.memory.together / by,
                swell: normal.memory.swell / by,
                drift: normal.memory.drift / by,
                ..normal.memory
            },
            ..normal
        };
        match preset {
            Preset::Conservative => riskier(0.6),
            Preset::Normal => normal,
            Preset::Aggressive => riskier(1.8),
        }
    }

    /// The same where a task counts at its limit for so long. What is doubted after that is given up as much sooner or later:
    /// whoever knows what runs, or only looks on, need not wait.
    pub fn holding(self, hold_ms: u64) -> Self {
        let by = hold_ms as f64 / self.hold_ms as f64;
        Settings { hold_ms, doubt_ms: self.doubt_ms.map(|ms| ms * by), ..self }
    }
}
