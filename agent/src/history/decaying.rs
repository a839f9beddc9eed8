//! Weights in exponential buckets, which halve each day: how often an amount was how large, of late. (The form of Google's VPA
//! recommender: <https://github.com/kubernetes/autoscaler>, `vertical-pod-autoscaler`.)

use serde::{Deserialize, Serialize};

pub(super) const HALF_LIFE_MS: u64 = 86_400_000;
/// In a row. What is below the lowest of them counts as that: what matters are the large amounts.
const BUCKETS: usize = 58;
/// Weights are counted as of a time; so many half-lives later it is a newer one, before they grow beyond any bound.
const REBASE: f64 = 20.0;

/// Where buckets end: each so much above the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The end of the first.
    first: f64,
    ratio: f64,
}

/// Thousandths of a core: within a tenth, over a range of 250.
pub(super) const CPU: Scale = Scale { first: 1.0, ratio: 1.1 };
/// Bytes: within a twentieth, over a range of 17.
pub(super) const MEMORY: Scale = Scale { first: 1048576.0, ratio: 1.05 };

impl Scale {
    fn bucket(self, amount: f64) -> u16 {
        if amount <= self.first {
            return 0;
        }
        ((amount / self.first).ln() / self.ratio.ln() - 1e-9).ceil() as u16
    }

    /// The largest amount in a bucket.
    fn end(self, bucket: u16) -> f64 {
        self.first * self.ratio.powi(i32::from(bucket))
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(super) struct Decaying {
    /// Weights are as of then.
    at_ms: u64,
    /// The first bucket that is held.
    lowest: u16,
    weights: Vec<f32>,
}

impl Decaying {
    pub(super) fn add(&mut self, scale: Scale, amount: f64, weight: f64, now_ms: u64) {
        if self.weights.is_empty() || now_ms + HALF_LIFE_MS < self.at_ms {
            // A clock that was set back: what is there counts as of now.
            self.at_ms = now_ms;
        }
        let age = (now_ms as f64 - self.at_ms as f64) / HALF_LIFE_MS as f64;
        if age > REBASE {
            self.rebase(now_ms);
            return self.add(scale, amount, weight, now_ms);
        }
        self.put(scale.bucket(amount), (weight * age.exp2()) as f32);
    }

    fn put(&mut self, bucket: u16, weight: f32) {
        if self.weights.is_empty() {
            self.lowest = bucket;
        }
        if bucket < self.lowest {
            let more = usize::from(self.lowest - bucket).min(BUCKETS - self.weights.len());
            self.lowest -= more as u16;
            self.weights.splice(0..0, vec![0.0; more]);
        }
        let mut at = usize::from(bucket.saturating_sub(self.lowest));
        if at >= BUCKETS {
            // The lowest make room, and become one.
            let over = (at + 1 - BUCKETS).min(self.weights.len());
            let merged: f32 = self.weights.drain(..over).sum();
            self.lowest = bucket + 1 - BUCKETS as u16;
            at = BUCKETS - 1;
            match self.weights.first_mut() {
                Some(first) => *first += merged,
                None => self.weights.push(merged),
            }
        }
        if at >= self.weights.len() {
            self.weights.reserve_exact(at + 1 - self.weights.len());
            self.weights.resize(at + 1, 0.0);
        }
        self.weights[at] += weight;
    }

    /// The wall clock was set.
    pub(super) fn shift(&mut self, by_ms: i64) {
        self.at_ms = self.at_ms.saturating_add_signed(by_ms);
    }

    /// Counts from now on as of another time.
    fn rebase(&mut self, at_ms: u64) {
        let age = (at_ms as f64 - self.at_ms as f64) / HALF_LIFE_MS as f64;
        let factor = (-age).exp2() as f32;
        self.weights.iter_mut().for_each(|weight| *weight *= factor);
        self.at_ms = at_ms;
    }

    /// As if one had seen both.
    pub(super) fn merge(&mut self, other: &Decaying) {
        let mut other = other.clone();
        if other.weights.is_empty() {
            return;
        }
        if self.weights.is_empty() {
            *self = other;
            return;
        }
        let newest = self.at_ms.max(other.at_ms);
        self.rebase(newest);
        other.rebase(newest);
        for (n, weight) in other.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            self.put(other.lowest + n as u16, *weight);
        }
    }

    /// Sum of the weights, as of now.
    pub(super) fn total(&self, now_ms: u64) -> f64 {
        let age = (now_ms as f64 - self.at_ms as f64) / HALF_LIFE_MS as f64;
        self.sum() * (-age).exp2()
    }

    fn sum(&self) -> f64 {
        self.weights.iter().map(|weight| f64::from(*weight)).sum()
    }

    /// The share of what was larger; within a bucket amounts are taken to be spread evenly.
    pub(super) fn share_above(&self, scale: Scale, amount: f64) -> f64 {
        let sum = self.sum();
        if sum <= 0.0 {
            return 0.0;
        }
        let above = self.buckets(scale).map(|(from, to, weight)| {
            if amount <= from {
                weight
            } else if amount < to {
                weight * (to - amount) / (to - from)
            } else {
                0.0
            }
        });
        (above.sum::<f64>() / sum).clamp(0.0, 1.0)
    }

    /// The largest amount that was seen, rounded up to the end of its bucket; 0 if there was none.
    pub(super) fn most(&self, scale: Scale) -> f64 {
        self.buckets(scale).filter(|(.., weight)| *weight > 0.0).map(|(_, to, _)| to).last().unwrap_or(0.0)
    }

    /// How far the logarithms of the amounts are from each other: their standard deviation.
    pub(super) fn spread(&self, scale: Scale) -> f64 {
        let sum = self.sum().max(f64::MIN_POSITIVE);
        let logs = || self.buckets(scale).map(|(_, to, weight)| (to.max(1.0).ln(), weight / sum));
        let mean: f64 = logs().map(|(log, weight)| log * weight).sum();
        logs().map(|(log, weight)| (log - mean).powi(2) * weight).sum::<f64>().sqrt()
    }

    /// From, to, weight.
    fn buckets(&self, scale: Scale) -> impl Iterator<Item = (f64, f64, f64)> {
        self.weights.iter().enumerate().map(move |(n, weight)| {
            let bucket = self.lowest + n as u16;
            let from = if bucket == 0 { 0.0 } else { scale.end(bucket - 1) };
            (from, scale.end(bucket), f64::from(*weight))
        })
    }

    /// In memory, this value and what it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.weights.capacity() * size_of::<f32>()
    }
}

/// On disk and on the wire: weights as parts of the largest, which is `most`.
#[derive(Serialize, Deserialize)]
struct Kept {
    at_ms: u64,
    lowest: u16,
    most: f32,
    weights: Vec<u16>,
}

/// What the largest weight is written as.
const FULL: f32 = 50_000.0;

impl From<Decaying> for Kept {
    fn from(held: Decaying) -> Kept {
        let most = held.weights.iter().copied().fold(0.0, f32::max);
        let part = |weight: &f32| if most > 0.0 { (weight / most * FULL).round() as u16 } else { 0 };
        Kept {
            at_ms: held.at_ms,
            lowest: held.lowest,
            most,
            weights: held.weights.iter().map(part).collect(),
        }
    }
}

impl From<Kept> for Decaying {
    fn from(kept: Kept) -> Decaying {
        let most = if kept.most.is_finite() { kept.most.max(0.0) } else { 0.0 };
        let weights = kept.weights.iter().take(BUCKETS).map(|part| f32::from(*part) / FULL * most).collect();
        Decaying { at_ms: kept.at_ms, lowest: kept.lowest.min(2_000), weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn of(amounts: &[(f64, f64)]) -> Decaying {
        let mut held = Decaying::default();
        amounts.iter().for_each(|(amount, weight)| held.add(CPU, *amount, *weight, NOW));
        held
    }

    #[test]
    fn shares_are_exact_within_a_bucket() {
        let held = of(&[(10.0, 90.0), (1000.0, 10.0)]);
        assert!((held.share_above(CPU, 500.0) - 0.1).abs() < 1e-6);
        assert_eq!((held.share_above(CPU, 5.0), held.share_above(CPU, 1200.0)), (1.0, 0.0));
        assert!(held.most(CPU) >= 1000.0 && held.most(CPU) < 1100.0);
        assert!(of(&[(0.0, 1.0)]).most(CPU) == 1.0 && of(&[]).most(CPU) == 0.0);
    }

    #[test]
    fn what_is_a_day_old_counts_half() {
        let mut held = of(&[(10.0, 100.0)]);
        held.add(CPU, 1000.0, 100.0, NOW + HALF_LIFE_MS);
        assert!((held.share_above(CPU, 500.0) - 2.0 / 3.0).abs() < 1e-6);
        assert!((held.total(NOW + HALF_LIFE_MS) - 150.0).abs() < 1e-3);
        // However long it goes on, nothing overflows.
        for day in 2..100 {
            held.add(CPU, 10.0, 100.0, NOW + day * HALF_LIFE_MS);
        }
        assert!((held.total(NOW + 99 * HALF_LIFE_MS) - 200.0).abs() < 0.1);
    }

    #[test]
    fn the_large_amounts_are_kept_apart_and_the_small_ones_become_one() {
        let up = of(&[(1.0, 5.0), (20.0, 3.0), (1e6, 1.0), (1e5, 1.0)]);
        let down = of(&[(1e6, 1.0), (1e5, 1.0), (20.0, 3.0), (1.0, 5.0)]);
        for held in [up, down] {
            assert_eq!(held.weights.len(), BUCKETS);
            assert!((held.share_above(CPU, 5e5) - 0.1).abs() < 1e-6, "{held:?}");
            assert!((held.share_above(CPU, 5e4) - 0.2).abs() < 1e-6, "{held:?}");
            assert!((held.total(NOW) - 10.0).abs() < 1e-4);
        }
    }

    #[test]
    fn two_together_are_as_one_that_saw_both() {
        let mut one = of(&[(10.0, 1.0), (700.0, 2.0)]);
        let mut other = Decaying::default();
        other.add(CPU, 300.0, 6.0, NOW + HALF_LIFE_MS);
        one.merge(&other);
        let mut both = of(&[(10.0, 1.0), (700.0, 2.0)]);
        both.add(CPU, 300.0, 6.0, NOW + HALF_LIFE_MS);
        for amount in [5.0, 200.0, 500.0] {
            assert!((one.share_above(CPU, amount) - both.share_above(CPU, amount)).abs() < 1e-5);
        }
        one.merge(&Decaying::default());
        let mut none = Decaying::default();
        none.merge(&one);
        assert_eq!(none.weights, one.weights);
    }
}
