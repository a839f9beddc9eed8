//! Peak predictors that others use, to compare with: those of the EuroSys'21 paper "Take it to the limit".
//! Each has seen a task's last [`WINDOW`] samples; a task with fewer counts at its limit.

use std::collections::BTreeMap;

use super::{Amounts, CPU, MEMORY};

/// Samples that are looked back upon: 2 h of five-minute samples.
pub const WINDOW: usize = 24;
/// Of a task's samples, the percentile that `rc-like` takes.
const PERCENTILE: f64 = 0.99;
/// Standard deviations above the mean that `n-sigma` takes.
const SIGMAS: f64 = 5.0;
/// What `borg-default` takes of the limits.
const BORG: f64 = 0.9;

/// The predicted peaks of one node and resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baselines {
    pub limit: f64,
    pub borg_default: f64,
    pub rc_like: f64,
    pub n_sigma: f64,
    /// The larger of the two above.
    pub max: f64,
}

/// A task's last samples, oldest first from `next` on once it is full.
#[derive(Debug, Clone)]
struct Ring {
    samples: [[f32; WINDOW]; 2],
    next: usize,
    full: bool,
}

impl Ring {
    const EMPTY: Ring = Ring { samples: [[0.0; WINDOW]; 2], next: 0, full: false };

    fn push(&mut self, usage: Amounts) {
        for resource in [CPU, MEMORY] {
            self.samples[resource][self.next] = usage[resource] as f32;
        }
        self.next = (self.next + 1) % WINDOW;
        self.full |= self.next == 0;
    }
}

/// The windows of one node's tasks.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    rings: BTreeMap<u32, Ring>,
}

impl Windows {
    /// Takes a task's usage.
    pub fn observe(&mut self, task: u32, usage: Amounts) {
        self.rings.entry(task).or_insert(Ring::EMPTY).push(usage);
    }

    /// The peaks of these tasks, each with its limit, from what was observed before.
    pub fn predict(&self, resource: usize, tasks: impl Iterator<Item = (u32, f64)>) -> Baselines {
        let (mut limit, mut cold, mut percentiles) = (0.0, 0.0, 0.0);
        let mut sums = [0.0; WINDOW];
        let mut warm = false;
        for (task, of) in tasks {
            limit += of;
            let Some(ring) = self.rings.get(&task).filter(|ring| ring.full) else {
                cold += of;
                continue;
            };
            warm = true;
            let samples = &ring.samples[resource];
            percentiles += percentile(samples);
            for (age, sum) in sums.iter_mut().enumerate() {
                *sum += f64::from(samples[(ring.next + age) % WINDOW]);
            }
        }
        let spread = if warm { mean_and_sigmas(&sums) } else { 0.0 };
        let (rc_like, n_sigma) = (limit.min(cold + percentiles), limit.min(cold + spread));
        Baselines { limit, borg_default: BORG * limit, rc_like, n_sigma, max: rc_like.max(n_sigma) }
    }
}

/// Linearly interpolated between the two samples next to it.
fn percentile(samples: &[f32; WINDOW]) -> f64 {
    let mut sorted = *samples;
    sorted.sort_unstable_by(f32::total_cmp);
    let place = PERCENTILE * (WINDOW - 1) as f64;
    let below = place.floor() as usize;
    let [low, high] = [below, (below + 1).min(WINDOW - 1)].map(|at| f64::from(sorted[at]));
    low + (high - low) * (place - below as f64)
}

fn mean_and_sigmas(sums: &[f64; WINDOW]) -> f64 {
    let mean = sums.iter().sum::<f64>() / WINDOW as f64;
    let variance = sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / WINDOW as f64;
    mean + SIGMAS * variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_counts_at_its_limit_until_its_window_is_full() {
        let mut windows = Windows::default();
        for n in 0..WINDOW as u32 {
            let cold = windows.predict(CPU, [(0, 1000.0)].into_iter());
            assert_eq!(
                (cold.limit, cold.borg_default, cold.max),
                (1000.0, 900.0, 1000.0),
                "after {n} samples"
            );
            windows.observe(0, [f64::from(n), 100.0]);
        }
        let warm = windows.predict(CPU, [(0, 1000.0)].into_iter());
        // 0 to 23: the percentile is at place 22.77; the deviation of n whole numbers is sqrt((n² - 1) / 12).
        assert!((warm.rc_like - 22.77).abs() < 1e-9, "{warm:?}");
        assert!((warm.n_sigma - (11.5 + 5.0 * (575.0_f64 / 12.0).sqrt())).abs() < 1e-9, "{warm:?}");
        assert_eq!(warm.max, warm.n_sigma);
        let beside_a_cold_one = windows.predict(MEMORY, [(0, 1000.0), (1, 50.0)].into_iter());
        assert_eq!((beside_a_cold_one.rc_like, beside_a_cold_one.n_sigma), (150.0, 150.0));
    }

    #[test]
    fn nothing_predicts_more_than_the_limits() {
        let mut windows = Windows::default();
        for n in 0..2 * WINDOW {
            windows.observe(7, [if n % 2 == 0 { 0.0 } else { 100.0 }; 2]);
        }
        assert_eq!(windows.predict(CPU, [(7, 100.0)].into_iter()).n_sigma, 100.0);
    }
}
