//! Tasks counted together: the peak of their sum, which is lower than the sum of their peaks.
//!
//! The peak is kept in parts of the horizon. When a task comes or goes, all of it is scaled by what the crowd's own
//! peaks sum up to, so that the past speaks about the tasks that are there now. What is expected above it grows with the
//! logarithm of the time ahead over the time seen, as records do (Rényi 1962: of so many samples the next is the highest with
//! the chance of one in so many), in units of a spread: for CPU, of the tasks' bursts as far as they come together; for memory,
//! of the sum's own peaks (Gumbel).

use serde::{Deserialize, Serialize};

use super::{
    MEMORY,
    company::Spread,
    score::Scorebook,
    settings::{Cpu, Memory, Settings},
};

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
/// Of these, how much is expected of siblings' instead of a task's own, and by which power of their lives they grow.
const LIKE: f64 = 0.25;
const YOUNG: f64 = 0.17;
/// CPU's margin grows with this power of growth, and by the constant: what is young is believed less than the logarithm says.
const RECORDS: f64 = 1.1;
const SETTLED: f64 = 0.45;
/// And with this power of the share of a horizon for which tasks live.
const SHORT: f64 = 0.1;
/// Tasks that correlate this far have a day in common.
const IN_COMMON: f64 = 0.12;
/// Of a horizon: what tasks have in common is known after about this share, which is never all of it.
const DAY_SEEN: f64 = 1.1;
/// Of a horizon's parts: a rise counts that has lasted for so many, each compared with the one half as many before.
const RISING: u64 = 8;

/// What of older samples is kept, and what a sample weighs: it stands for the time since the last one, within reason.
pub(super) fn stands_for(since_ms: f64, horizon_ms: u64) -> (f64, f64) {
    let weight = (since_ms / FRESH_MS).clamp(0.0, 1.0).max(1e-3);
    ((-since_ms / horizon_ms as f64).exp(), weight)
}

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
    pub(super) limits: Spread,
    /// Their own peaks.
    pub(super) peaks: f64,
    /// The same, weighted by how long each was watched, at most a horizon.
    pub(super) peaks_seen_ms: f64,
    /// The same, weighted by how long each is likely to stay, at most a horizon.
    pub(super) peaks_stay_ms: f64,
    /// The same, weighted by their jobs' mean lives, at most a horizon.
    pub(super) peaks_life_ms: f64,
    /// What they may use that nobody has seen yet.
    pub(super) doubts: f64,
    pub(super) leaks: f64,
    /// How far their peaks are above their means; and what the highest peak of a sibling, on any node, would be above it.
    pub(super) bursts: Spread,
    pub(super) like: Spread,
    /// How far their jobs' tasks correlate with their neighbours.
    pub(super) together: f64,
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
        let since_ms = self.since_ms(now_ms) as f64;
        let (keep, weight) = stands_for(since_ms, settings.horizon_ms);
        self.sum = self.sum * keep + usage * weight;
        if self.last_ms > 0 {
            self.every_ms += (since_ms as f32 - self.every_ms) / 8.0;
        }
        self.weight = self.weight * keep + weight;
        self.last_ms = now_ms;
        self.scores.observe(usage, now_ms, settings.horizon_ms);
    }

    /// Since the sample before.
    pub(super) fn since_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_ms)
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
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
        if members.peaks <= 0.0 {
            return Peak { seen: 0.0, predicted: members.limits.as_one() };
        }
        let seen_ms = (members.peaks_seen_ms / members.peaks).max(FRESH_MS);
        let ahead_ms = members.peaks_stay_ms / members.peaks;
        let peak = self.highest(ahead_ms, settings.horizon_ms, now_ms);
        let seen = (seen_ms / settings.horizon_ms as f64).min(1.0);
        let look = Look {
            peak,
            mean: self.mean().unwrap_or(peak),
            seen_ms,
            growth: (1.0 + ahead_ms / seen_ms).ln(),
            seen,
            stays: members.peaks_life_ms / members.peaks / settings.horizon_ms as f64,
            unseen: (1.0 - (seen / DAY_SEEN).powi(2)).max(0.0),
        };
        let predicted = match of {
            MEMORY => {
                let drift = self.drift(ahead_ms, settings.horizon_ms, now_ms);
                self.memory(&look, members, &settings.memory).max(peak + settings.memory.drift * drift)
            }
            _ => self.cpu(&look, members, &settings.cpu),
        };
        let predicted = predicted + members.doubts.max(members.leaks);
        Peak { seen: peak, predicted: predicted.min(members.limits.as_one()) }
    }

    /// CPU comes in bursts. How far above its mean a task goes is known from itself and its siblings; how many go at once, from
    /// how far they have correlated. What was not seen yet is between what bursts were and what limits allow: their geometric
    /// mean.
    fn cpu(&self, look: &Look, members: &Members, settings: &Cpu) -> f64 {
        let together = (members.together / members.tasks as f64).min(1.0);
        let like = members.like.together(together);
        let bursts = (members.bursts.together(together) * like).sqrt();
        // Who leaves before the day is over will not see all of it.
        let margin = settings.margin * (bursts * members.limits.apart()).sqrt() * look.stays.powf(SHORT);
        let margin = margin * (look.growth.powf(RECORDS) + SETTLED) * self.scores.widening();
        // What all do at once elsewhere may be yet to come here; and who moves together may have the day's rise before them.
        let unseen = look.unseen * look.stays;
        let common = look.mean + unseen * settings.common * like;
        let day = (together / IN_COMMON).min(1.0).sqrt();
        let wave = unseen * settings.wave * day * members.limits.as_one();
        (look.peak.max(common) + margin).max(wave)
    }

    /// Memory stays where it is, or grows.
    fn memory(&self, look: &Look, members: &Members, settings: &Memory) -> f64 {
        let Look { peak, mean, seen_ms, growth, seen, stays, unseen } = *look;
        let units = growth + settings.caution;
        // Of so many samples the maximum is that many spreads above the mean.
        let fresh_ms = FRESH_MS.max(self.every_ms.into());
        let spread = (peak - mean) / ((seen_ms / fresh_ms).max(1.0).ln() + EULER);
        let possible = (members.peaks - peak).max(0.0) + OWN_GROWTH * members.peaks * growth;
        let spread = spread.min(possible / units).max(settings.least_spread * peak);
        let margin = settings.margin[1] + (settings.margin[0] - settings.margin[1]) * (1.0 - seen).powi(3);
        let margin = margin * self.scores.widening() * spread * units;
        // Tasks whose peaks coincide move together, and a day's wave lifts all of them: how far is only known after a day.
        let coincidence = (peak / members.peaks).min(1.0).powi(3);
        let wave = (unseen * settings.together * coincidence * members.limits.as_one())
            .max(peak * (1.0 + settings.swell * coincidence * unseen));
        // A task's own bursts and a little of its siblings'; of whom lives shortly, less has been seen.
        let bursts = members.bursts.apart().powf(1.0 - LIKE) * members.like.apart().powf(LIKE);
        let bursts = bursts * (1.0 + APART_GROWTH * growth) / stays.powf(YOUNG);
        let apart = mean + settings.apart * bursts;
        (peak + margin).max(wave).max(apart)
    }
}

/// What a crowd looks like now.
#[derive(Debug, Clone, Copy)]
struct Look {
    peak: f64,
    mean: f64,
    /// For how long its tasks were watched; and as a share of the horizon, at most 1.
    seen_ms: f64,
    seen: f64,
    /// The logarithm of all time over the time seen.
    growth: f64,
    /// For how long tasks live, as a share of the horizon, at most 1.
    stays: f64,
    /// How much of what tasks have in common is yet to be seen, 1 to 0.
    unseen: f64,
}
