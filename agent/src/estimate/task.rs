//! One task as the estimator knows it: what it has used at most of late, and how long it has been watched.

use std::{fmt, sync::Arc};

use placement::job::Band;
use serde::{Deserialize, Serialize};

use super::{Amounts, CPU, MEMORY, compact::Compact, settings::Settings};

/// A task by its job and index, as `JOB/INDEX`; a name without an index is a job of one task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct TaskId {
    pub job: Arc<str>,
    pub index: Option<u32>,
}

impl From<&str> for TaskId {
    fn from(name: &str) -> Self {
        let split = name.rsplit_once('/').and_then(|(job, index)| Some((job, index.parse().ok()?)));
        let (job, index) = split.map_or((name, None), |(job, index)| (job, Some(index)));
        TaskId { job: job.into(), index }
    }
}

impl From<String> for TaskId {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}/{index}", self.job),
            None => f.write_str(&self.job),
        }
    }
}

/// A horizon is remembered in so many parts, and one more that fills.
const PARTS_A_HORIZON: u64 = 4;
const PARTS: usize = PARTS_A_HORIZON as usize + 1;
/// A leak is a line: time must explain so much of how memory varies.
const STEADY: f64 = 0.7;
/// Samples fade over half of the task's age, so that how it began counts little, and over so long at most.
const LINE_S: f64 = 21_600.0;
/// No line before it was watched for so long: what starts, grows.
const BEGUN_S: u32 = 5_400;
/// A processor's use is smoothed over so long: shorter bursts can be throttled.
const SMOOTH_MS: f64 = 30_000.0;

/// What is known of a running task, in some 120 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) task: TaskId,
    pub(super) band: Band,
    /// Whether its usage has been seen, or is known from others.
    pub(super) known: bool,
    /// Whether the last list of tasks had it.
    pub(super) listed: bool,
    /// When it was first seen here.
    pub(super) since_ms: u64,
    /// For how long its earlier runs or siblings were watched.
    pub(super) taught_s: u32,
    /// Its age at the last sample.
    sampled_s: u32,
    pub(super) limit: [f32; 2],
    /// Usage at the last sample; and of CPU, smoothed.
    pub(super) now: [f32; 2],
    smooth: f32,
    /// Its mean use within the horizon.
    pub(super) level: [f32; 2],
    /// Of CPU, how its use varies about that: the variance.
    #[serde(default)]
    pub(super) varies: f32,
    /// How far the last sample was off its mean.
    #[serde(skip)]
    pub(super) off: f32,
    /// Of memory, as it grows.
    #[serde(default)]
    line: Line,
    /// The part that is being filled.
    part: u32,
    /// Peaks of the horizon's parts, round and round.
    peaks: [[Compact; PARTS]; 2],
}

impl Known {
    pub(super) fn new(task: TaskId, band: Band, limit: Amounts, now_ms: u64) -> Self {
        Known {
            task,
            band,
            known: false,
            listed: true,
            since_ms: now_ms,
            taught_s: 0,
            sampled_s: 0,
            limit: limit.map(|limit| limit as f32),
            now: [0.0; 2],
            smooth: 0.0,
            level: [0.0; 2],
            varies: 0.0,
            off: 0.0,
            line: Line::default(),
            part: 0,
            peaks: [[Compact::ZERO; PARTS]; 2],
        }
    }

    /// The most that it has used within the horizon.
    pub(super) fn peak(&self, resource: usize) -> f64 {
        self.peaks[resource].iter().copied().max().unwrap_or_default().amount()
    }

    /// How far its peak is above its mean.
    pub(super) fn burst(&self, resource: usize) -> f64 {
        (self.peak(resource) - f64::from(self.level[resource])).max(0.0)
    }

    /// Forgets parts that are older than the horizon.
    pub(super) fn turn(&mut self, now_ms: u64, horizon_ms: u64) {
        let part = (now_ms / (horizon_ms / PARTS_A_HORIZON).max(1)) as u32;
        for gone in 0..part.saturating_sub(self.part).min(PARTS as u32) {
            for peaks in &mut self.peaks {
                peaks[(part - gone) as usize % PARTS] = Compact::ZERO;
            }
        }
        self.part = self.part.max(part);
    }

    fn raise(&mut self, resource: usize, to: f64) {
        let peak = &mut self.peaks[resource][self.part as usize % PARTS];
        *peak = (*peak).max(Compact::of(to));
    }

    /// Begins with what is known from others.
    pub(super) fn begin(&mut self, peak: Amounts, level: Amounts, seen_s: u32) {
        self.known = true;
        self.taught_s = seen_s;
        for resource in [CPU, MEMORY] {
            self.raise(resource, peak[resource]);
            self.level[resource] = level[resource] as f32;
        }
        self.smooth = self.level[CPU];
    }

    /// Takes a sample; tells what of it counts.
    pub(super) fn observe(&mut self, usage: Amounts, now_ms: u64, settings: &Settings) -> Amounts {
        self.turn(now_ms, settings.horizon_ms);
        let age_ms = now_ms.saturating_sub(self.since_ms);
        let since_ms = age_ms.saturating_sub(u64::from(self.sampled_s) * 1000) as f64;
        let (mut part, mut share) = (1.0, 1.0);
        if self.known {
            part = 1.0 - (-since_ms / SMOOTH_MS).exp();
            let watched_ms = self.evidence_ms(now_ms).clamp(1, settings.horizon_ms) as f64;
            share = (since_ms / watched_ms).min(1.0);
        }
        self.known = true;
        let age_s = (age_ms / 1000) as u32;
        self.line.observe(usage[MEMORY], age_s.saturating_sub(self.sampled_s).into(), age_s.into());
        self.sampled_s = age_s;
        self.now = usage.map(|usage| usage as f32);
        self.smooth += ((usage[CPU] - f64::from(self.smooth)) * part) as f32;
        let counts = [f64::from(self.smooth), usage[MEMORY]];
        // The first sample is off nothing.
        let off = if share < 1.0 { counts[CPU] - f64::from(self.level[CPU]) } else { 0.0 };
        self.off = off as f32;
        self.varies = ((f64::from(self.varies) + off * off * share) * (1.0 - share)) as f32;
        for (resource, counts) in counts.into_iter().enumerate() {
            self.raise(resource, counts);
            self.level[resource] += ((counts - f64::from(self.level[resource])) * share) as f32;
        }
        counts
    }

    /// How long it and its like have been watched.
    pub(super) fn evidence_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms) + u64::from(self.taught_s) * 1000
    }

    /// What it may use beyond its peak because too little of it has been seen.
    pub(super) fn doubt(&self, resource: usize, now_ms: u64, hold_ms: u64, fade_ms: Amounts) -> f64 {
        let limit = f64::from(self.limit[resource]);
        if !self.known {
            return limit;
        }
        let seen_ms = self.evidence_ms(now_ms);
        let share = match seen_ms.checked_sub(hold_ms) {
            None => 1.0,
            Some(beyond_ms) => (fade_ms[resource] / (fade_ms[resource] + beyond_ms as f64)).powi(2),
        };
        share * (limit - self.peak(resource)).max(0.0)
    }

    /// What its memory will grow by within the time if it leaks: if it has grown along a line, faster than what follows the
    /// day does. What warms up bends.
    pub(super) fn leak(&self, ahead_ms: f64, leak: f64) -> f64 {
        let limit = f64::from(self.limit[MEMORY]);
        let peak = self.peak(MEMORY);
        let Some((now, growth)) = self.line.steady().filter(|_| self.sampled_s >= BEGUN_S) else {
            return 0.0;
        };
        if growth * 3600.0 < leak * limit {
            return 0.0;
        }
        (now + growth * ahead_ms / 1000.0 - peak).clamp(0.0, (limit - peak).max(0.0))
    }
}

/// A line through what was seen, the latest the most: means, and how both vary together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    /// How long the samples are ago, in seconds.
    ago: f32,
    mean: f32,
    times: f32,
    amounts: f32,
    both: f32,
}

impl Line {
    fn observe(&mut self, amount: f64, since_s: f64, age_s: f64) {
        let share = if age_s > 0.0 { (since_s / LINE_S.min(age_s / 2.0)).min(1.0) } else { 1.0 };
        let later = f64::from(self.ago) + since_s;
        let above = amount - f64::from(self.mean);
        self.ago = (later * (1.0 - share)) as f32;
        self.mean += (above * share) as f32;
        let varies = |before: f32, by: f64| ((f64::from(before) + by * share) * (1.0 - share)) as f32;
        self.times = varies(self.times, later * later);
        self.amounts = varies(self.amounts, above * above);
        self.both = varies(self.both, later * above);
    }

    /// Where the line is now, and its growth per second, if it is one.
    fn steady(&self) -> Option<(f64, f64)> {
        let [times, amounts, both] = [self.times, self.amounts, self.both].map(f64::from);
        let steady = both > 0.0 && both * both > STEADY * times * amounts;
        let growth = both / times;
        steady.then(|| (f64::from(self.mean) + growth * f64::from(self.ago), growth))
    }
}
