//! Tasks counted together: the peak of their sum, which is lower than the sum of their peaks.
//!
//! The peak is kept in parts of the horizon. When a task comes or goes, all of it is scaled by what the crowd's own
//! peaks sum up to, so that the past speaks about the tasks that are there now. The margin is that of extreme values
//! (Gumbel): a maximum grows with the logarithm of the time ahead over the time seen, in units of the peaks' spread.

use serde::{Deserialize, Serialize};

use super::{MEMORY, score::Scorebook, settings::Settings};

/// A horizon's parts, and one more that fills; a crowd may be asked about less than a horizon.
const PARTS: usize = 25;
const PARTS_A_HORIZON: u64 = 24;
/// Samples closer than this tell little anew.
const FRESH_MS: f64 = 300_000.0;
/// Euler's constant: the mean of Gumbel's distribution.
const EULER: f64 = 0.5772;
/// A crowd's peak is at most what its tasks' own peaks sum up to; these grow, too, with the logarithm of time.
const OWN_GROWTH: f64 = 0.1;
/// What bursts apart from each other grow by, in the same way.
const APART_GROWTH: f64 = 0.38;
/// Of a horizon: what tasks have in common is known after about this share, which is never all of it.
const DAY_SEEN: f64 = 1.1;
/// Of a horizon's parts: a rise counts that has lasted for so many, each compared with the one half as many before.
const RISING: u64 = 8;

/// The use of one resource by tasks together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Crowd {
    peaks: [f32; PARTS],
    part: u64,
    /// Decaying mean: the sum and the weight of samples.
    sum: f64,
    weight: f64,
    last_ms: u64,
    /// From one sample to the next, on the mean.
    every_ms: f32,
    pub(super) scores: Scorebook,
}

/// The tasks that are there, as far as they are known: sums over the tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Members {
    pub(super) tasks: usize,
    pub(super) limits: f64,
    /// Their own peaks.
    pub(super) peaks: f64,
    /// The same, weighted by how long each was watched, at most a horizon.
    pub(super) peaks_seen_ms: f64,
    /// The same, weighted by how long each is likely to stay, at most a horizon.
    pub(super) peaks_stay_ms: f64,
    /// What they may use that nobody has seen yet.
    pub(super) doubts: f64,
    pub(super) leaks: f64,
    /// Squares of how far their peaks are above their means.
    pub(super) bursts: f64,
}

/// What a crowd's peak is predicted to be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Peak {
    /// The highest that was seen.
    pub(super) seen: f64,
    /// The highest that will be.
    pub(super) predicted: f64,
}

impl Crowd {
    /// Tasks come or go: their own peaks sum up to another amount.
    pub(super) fn scale(&mut self, from: f64, to: f64, now_ms: u64, horizon_ms: u64) {
        if from > 0.0 {
            let by = to.max(0.0) / from;
            for peak in &mut self.peaks {
                *peak *= by as f32;
            }
            self.sum *= by;
            self.scores.scale(by);
        } else if to > 0.0 {
            self.turn(now_ms, horizon_ms);
            self.raise(to);
        }
    }

    fn raise(&mut self, to: f64) {
        let peak = &mut self.peaks[self.part as usize % PARTS];
        *peak = peak.max(to as f32);
    }

    fn turn(&mut self, now_ms: u64, horizon_ms: u64) {
        let part = now_ms / (horizon_ms / PARTS_A_HORIZON).max(1);
        for gone in 0..part.saturating_sub(self.part).min(PARTS as u64) {
            self.peaks[(part - gone) as usize % PARTS] = 0.0;
        }
        self.part = self.part.max(part);
    }

    pub(super) fn observe(&mut self, usage: f64, now_ms: u64, settings: &Settings) {
        self.turn(now_ms, settings.horizon_ms);
        self.raise(usage);
        let since_ms = now_ms.saturating_sub(self.last_ms) as f64;
        let keep = (-since_ms / settings.horizon_ms as f64).exp();
        // A sample stands for the time since the last one, within reason.
        let weight = (since_ms / FRESH_MS).clamp(0.0, 1.0).max(1e-3);
        self.sum = self.sum * keep + usage * weight;
        if self.last_ms > 0 {
            self.every_ms += (since_ms as f32 - self.every_ms) / 8.0;
        }
        self.weight = self.weight * keep + weight;
        self.last_ms = now_ms;
        self.scores.observe(usage, now_ms, settings.horizon_ms);
    }

    /// The highest of the last `of_ms`.
    fn highest(&self, of_ms: f64, horizon_ms: u64, now_ms: u64) -> f64 {
        let part_ms = (horizon_ms / PARTS_A_HORIZON).max(1);
        let now = now_ms / part_ms;
        let parts = (of_ms / part_ms as f64).ceil() as u64 + 1;
        let range = (0..parts.min(PARTS as u64)).filter_map(|ago| now.checked_sub(ago));
        // Parts that have not begun yet hold what is older than all that is asked for.
        range
            .filter(|part| *part <= self.part)
            .map(|part| self.peaks[part as usize % PARTS])
            .fold(0.0, f32::max)
            .into()
    }

    /// What the peak rises by in so much time if it goes on as in the last parts, where each was above the one some parts
    /// before; by the least of these steps, so that a wave or a jump is no rise.
    fn drift(&self, ahead_ms: f64, horizon_ms: u64, now_ms: u64) -> f64 {
        let part_ms = (horizon_ms / PARTS_A_HORIZON).max(1);
        let now = now_ms / part_ms;
        let peak = |part: u64| if part > self.part { 0.0 } else { self.peaks[part as usize % PARTS] };
        let steps = (RISING / 2 + 1..=RISING).filter_map(|ago| {
            let (before, after) = (peak(now.checked_sub(ago)?), peak(now + RISING / 2 - ago));
            (before > 0.0 && after > before).then(|| f64::from(after - before))
        });
        let (count, least) = steps.fold((0, f64::MAX), |(count, least), step| (count + 1, least.min(step)));
        if count < RISING / 2 { 0.0 } else { least / (RISING / 2) as f64 * ahead_ms / part_ms as f64 }
    }

    /// The peak over the horizon of the members, of resource `of`.
    pub(super) fn predict(&self, of: usize, members: &Members, now_ms: u64, settings: &Settings) -> Peak {
        let horizon_ms = settings.horizon_ms as f64;
        if members.peaks <= 0.0 {
            return Peak { seen: 0.0, predicted: members.limits };
        }
        let seen_ms = (members.peaks_seen_ms / members.peaks).max(FRESH_MS);
        let ahead_ms = members.peaks_stay_ms / members.peaks;
        let peak = self.highest(ahead_ms, settings.horizon_ms, now_ms);
        let growth = (1.0 + ahead_ms / seen_ms).ln();
        let units = growth + settings.caution[of];
        // Of so many samples the maximum is that many spreads above the mean.
        let fresh_ms = FRESH_MS.max(self.every_ms.into());
        let mean = if self.weight > 0.0 { self.sum / self.weight } else { peak };
        let spread = (peak - mean) / ((seen_ms / fresh_ms).max(1.0).ln() + EULER);
        let possible = (members.peaks - peak).max(0.0) + OWN_GROWTH * members.peaks * growth;
        let spread = spread.min(possible / units).max(settings.least_spread[of] * peak);
        let seen = (seen_ms / horizon_ms).min(1.0);
        let margin = settings.margin[1] + (settings.margin[0] - settings.margin[1]) * (1.0 - seen).powi(3);
        let margin = margin * self.scores.widening() * spread * units;
        // Tasks whose peaks coincide move together, and a day's wave lifts all of them: how far is only known after a day.
        let coincidence = (peak / members.peaks).min(1.0);
        let unseen = (1.0 - (seen / DAY_SEEN).powi(2)).max(0.0);
        let wave = (unseen * settings.together[of] * coincidence.powi(3) * members.limits)
            .max(peak * (1.0 + settings.swell[of] * coincidence.powi(3) * unseen));
        let apart = mean + settings.apart[of] * (1.0 + APART_GROWTH * growth) * members.bursts.sqrt();
        let (drift, early) = match of {
            MEMORY => (settings.drift * self.drift(ahead_ms, settings.horizon_ms, now_ms), 0.0),
            _ => {
                (0.0, settings.early.0 * (members.limits - peak).max(0.0) * (-seen / settings.early.1).exp())
            }
        };
        let predicted = (peak + margin + early).max(wave).max(apart).max(peak + drift);
        let predicted = predicted + members.doubts.max(members.leaks);
        Peak { seen: peak, predicted: predicted.min(members.limits) }
    }
}
