//! One task as the estimator knows it: what it has used at most of late, and how long it has been watched.

use std::{convert::Infallible, fmt, str::FromStr, sync::Arc};

use placement::job::Band;
use serde::{Deserialize, Serialize};

use super::{Amounts, MEMORY, settings::Settings};

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

impl FromStr for TaskId {
    type Err = Infallible;
    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(name.into())
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

/// A day is remembered in so many parts, and one more that fills.
const PARTS: usize = 5;
const PARTS_A_HORIZON: u64 = 4;
/// Marks of memory that a leak shows in: each above the one before.
const MARKS: usize = 4;
/// Between two marks while a task is young, and later.
const YOUNG_MARK_MS: u64 = 20 * 60_000;
const OLD_MARK_MS: u64 = 60 * 60_000;
const YOUNG_MS: u64 = 4 * OLD_MARK_MS;

/// What is known of a running task, in some 120 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) band: Band,
    /// When it was first seen here.
    pub(super) since_ms: u64,
    /// For how long its earlier runs and siblings were watched.
    pub(super) taught_s: u32,
    pub(super) limit: [f32; 2],
    /// Usage at the last sample.
    pub(super) now: [f32; 2],
    /// Peaks of the horizon's parts, one after the other, round and round.
    peaks: [[f32; PARTS]; 2],
    /// The part that is being filled.
    part: u32,
    /// Memory some time ago: the oldest first; -1 before there was any.
    marks: [f32; MARKS],
    marked_s: u32,
    /// Whether its usage has been seen or is known from others.
    pub(super) known: bool,
    /// When it was last said to be here.
    pub(super) round: u64,
}

impl Known {
    pub(super) fn new(band: Band, limit: Amounts, now_ms: u64) -> Self {
        Known {
            band,
            since_ms: now_ms,
            taught_s: 0,
            limit: limit.map(|limit| limit as f32),
            now: [0.0; 2],
            peaks: [[0.0; PARTS]; 2],
            part: 0,
            marks: [-1.0; MARKS],
            marked_s: 0,
            known: false,
            round: 0,
        }
    }

    /// The most that it has used within the horizon.
    pub(super) fn peak(&self, resource: usize) -> f64 {
        f64::from(self.peaks[resource].iter().copied().fold(0.0, f32::max))
    }

    /// Takes the peak as one seen now.
    pub(super) fn raise(&mut self, resource: usize, to: f64, now_ms: u64, horizon_ms: u64) {
        self.turn(now_ms, horizon_ms);
        let peak = &mut self.peaks[resource][self.part as usize % PARTS];
        *peak = peak.max(to as f32);
    }

    /// Forgets parts that are older than the horizon.
    pub(super) fn turn(&mut self, now_ms: u64, horizon_ms: u64) {
        let part = (now_ms / (horizon_ms / PARTS_A_HORIZON).max(1)) as u32;
        for gone in 0..part.saturating_sub(self.part).min(PARTS as u32) {
            for peaks in &mut self.peaks {
                peaks[(part - gone) as usize % PARTS] = 0.0;
            }
        }
        self.part = self.part.max(part);
    }

    pub(super) fn observe(&mut self, usage: Amounts, now_ms: u64, horizon_ms: u64) {
        for (resource, usage) in usage.into_iter().enumerate() {
            self.raise(resource, usage, now_ms, horizon_ms);
            self.now[resource] = usage as f32;
        }
        self.known = true;
        let age_ms = now_ms.saturating_sub(self.since_ms);
        if age_ms >= u64::from(self.marked_s) * 1000 + mark_ms(age_ms) {
            self.marks.rotate_left(1);
            self.marks[MARKS - 1] = usage[MEMORY] as f32;
            self.marked_s = (age_ms / 1000) as u32;
        }
    }

    /// How long it and its like have been watched.
    pub(super) fn evidence_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms) + u64::from(self.taught_s) * 1000
    }

    /// What it may use beyond its peak because too little of it has been seen.
    pub(super) fn doubt(&self, resource: usize, now_ms: u64, settings: &Settings) -> f64 {
        let limit = f64::from(self.limit[resource]);
        if !self.known {
            return limit;
        }
        let seen_ms = self.evidence_ms(now_ms);
        let share = if seen_ms < settings.hold_ms {
            1.0
        } else {
            let doubt_ms = settings.doubt_ms[resource];
            (doubt_ms / (doubt_ms + (seen_ms - settings.hold_ms) as f64)).powi(2)
        };
        share * (limit - self.peak(resource)).max(0.0)
    }

    /// What its memory will grow by within the time, if it has grown from each mark to the next.
    pub(super) fn leak(&self, now_ms: u64, ahead_ms: f64, settings: &Settings) -> f64 {
        let least = settings.leak * f64::from(self.limit[MEMORY]);
        let growth = self.marks.windows(2).map(|pair| pair[1] - pair[0]).fold(f32::INFINITY, f32::min);
        if self.marks[0] < 0.0 || f64::from(growth) <= least {
            return 0.0;
        }
        let every_ms = mark_ms(now_ms.saturating_sub(self.since_ms)) as f64;
        let room = (f64::from(self.limit[MEMORY]) - self.peak(MEMORY)).max(0.0);
        (f64::from(growth) / every_ms * ahead_ms).min(room)
    }
}

fn mark_ms(age_ms: u64) -> u64 {
    if age_ms > YOUNG_MS { OLD_MARK_MS } else { YOUNG_MARK_MS }
}
