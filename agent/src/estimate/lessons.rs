//! What jobs' runs have taught, on any node: a small summary of each job, that others may begin with.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Amounts, task::TaskId};

/// Indexes of a job that are remembered one by one; the others count as its siblings.
const MOST_INDEXES: usize = 64;
/// Runs that must have ended before their lives tell how long others will last.
const ENOUGH_LIVES: u32 = 2;
/// How much of a job's mean use the newest sample is.
const MEAN_OF: f32 = 0.01;
/// What one task shows of how far the job's move with others is believed after so long.
const TOGETHER_S: f32 = 3000.0;
/// What an index's own run says after so long is worth more than what siblings say.
const ENOUGH_S: u32 = 3600;

/// Everything that was learned, by job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lessons {
    jobs: BTreeMap<Arc<str>, JobLesson>,
}

/// What a job's tasks need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobLesson {
    /// The highest peak of any task, as a share of its limit.
    pub peak: [f32; 2],
    /// The mean of any task.
    pub level: [f32; 2],
    /// How far its tasks use CPU at the same time as the others of their nodes: correlation, 0 to 1.
    #[serde(default)]
    pub together: f32,
    /// When the above was last confirmed or lowered.
    pub heard_ms: u64,
    /// The longest that one task was watched.
    pub seen_s: u32,
    /// Runs that ended, and how long they had lasted together.
    pub ended: u32,
    pub lived_s: u64,
    pub indexes: BTreeMap<u32, IndexLesson>,
}

/// What an index's last run needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct IndexLesson {
    pub peak: [f32; 2],
    pub level: [f32; 2],
    pub seen_s: u32,
    pub heard_s: u32,
}

/// What a task begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Start {
    /// As shares of the limit.
    pub peak: Amounts,
    pub level: Amounts,
    pub seen_s: u32,
}

/// What a sample of a task shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// Use, as shares of its limit.
    pub(super) share: Amounts,
    /// How far its node's tasks use CPU at the same time.
    pub(super) together: f64,
    /// Since the sample before.
    pub(super) since_s: f32,
    /// For how long it was watched.
    pub(super) seen_s: u32,
}

impl Lessons {
    /// What a task's earlier run teaches, if it was watched for long or for as long as any, else its siblings'. The less was
    /// seen of either, the more doubt is left.
    pub fn start(&self, task: &TaskId) -> Option<Start> {
        let job = self.jobs.get(&task.job)?;
        let own = job.indexes.get(&task.index.unwrap_or(0));
        let own = own.filter(|own| own.seen_s >= job.seen_s.min(ENOUGH_S));
        let siblings = (job.peak, job.level, job.seen_s);
        let (peak, level, seen_s) = own.map_or(siblings, |own| (own.peak, own.level, own.seen_s));
        (seen_s > 0).then(|| Start { peak: peak.map(f64::from), level: level.map(f64::from), seen_s })
    }

    /// How long runs of the job last on the average; none if nobody can know.
    pub fn life_ms(&self, task: &TaskId) -> Option<f64> {
        let job = self.jobs.get(&task.job).filter(|job| job.ended >= ENOUGH_LIVES)?;
        Some(job.lived_s as f64 * 1000.0 / f64::from(job.ended))
    }

    /// A task of the job shows something. Old peaks fade over `memory_ms`.
    pub(super) fn watch(&mut self, task: &TaskId, shown: &Shown, now_ms: u64, memory_ms: f64) {
        let job = match self.jobs.get_mut(&task.job) {
            Some(job) => job,
            None => self.jobs.entry(task.job.clone()).or_default(),
        };
        let fade = (-(now_ms.saturating_sub(job.heard_ms) as f64) / memory_ms).exp() as f32;
        for (peak, share) in job.peak.iter_mut().zip(shown.share) {
            *peak = (*peak * fade).max(share as f32);
        }
        for (level, share) in job.level.iter_mut().zip(shown.share) {
            *level += (share as f32 - *level) * MEAN_OF;
        }
        job.together += (shown.together as f32 - job.together) * (shown.since_s / TOGETHER_S).min(1.0);
        job.heard_ms = job.heard_ms.max(now_ms);
        job.seen_s = job.seen_s.max(shown.seen_s);
    }

    /// A run of the task needed that much; it ended, after so long, or goes on.
    pub(super) fn learn(&mut self, task: &TaskId, lesson: IndexLesson, lived_s: Option<u64>) {
        let job = self.jobs.entry(task.job.clone()).or_default();
        if let Some(lived_s) = lived_s {
            job.ended = job.ended.saturating_add(1);
            job.lived_s = job.lived_s.saturating_add(lived_s);
        }
        let index = task.index.unwrap_or(0);
        if !job.indexes.contains_key(&index) && job.indexes.len() >= MOST_INDEXES {
            let oldest = job.indexes.iter().min_by_key(|(_, lesson)| lesson.heard_s).map(|(index, _)| *index);
            oldest.and_then(|oldest| job.indexes.remove(&oldest));
        }
        job.indexes.insert(index, lesson);
    }

    /// Takes over what another node has learned, by the same time. Told twice, it says the same. Old peaks fade over
    /// `memory_ms`.
    pub fn merge(&mut self, other: &Lessons, memory_ms: f64) {
        for (name, theirs) in &other.jobs {
            let ours = self.jobs.entry(name.clone()).or_default();
            let newer = theirs.heard_ms > ours.heard_ms || ours.seen_s == 0;
            let fade = (-(ours.heard_ms.abs_diff(theirs.heard_ms) as f64) / memory_ms).exp() as f32;
            for (our, their) in ours.peak.iter_mut().zip(theirs.peak) {
                let (old, new) = if newer { (*our, their) } else { (their, *our) };
                *our = (old * fade).max(new);
            }
            if newer {
                ours.level = theirs.level;
            }
            // Each node tells of its own tasks' company: they meet halfway.
            let part = if ours.seen_s == 0 { 1.0 } else { 0.5 };
            ours.together += (theirs.together - ours.together) * part;
            ours.heard_ms = ours.heard_ms.max(theirs.heard_ms);
            ours.seen_s = ours.seen_s.max(theirs.seen_s);
            if theirs.ended > ours.ended {
                (ours.ended, ours.lived_s) = (theirs.ended, theirs.lived_s);
            }
            for (index, their) in &theirs.indexes {
                if ours.indexes.get(index).is_none_or(|our| our.heard_s < their.heard_s) {
                    ours.indexes.insert(*index, *their);
                }
            }
            while ours.indexes.len() > MOST_INDEXES {
                let oldest = ours.indexes.iter().min_by_key(|(_, lesson)| lesson.heard_s);
                let Some(oldest) = oldest.map(|(index, _)| *index) else { break };
                ours.indexes.remove(&oldest);
            }
        }
    }

    /// Forgets jobs that nothing was heard of since.
    pub fn forget_before(&mut self, ms: u64) {
        self.jobs.retain(|_, job| job.heard_ms >= ms);
    }

    /// Forgets the jobs that are not among these.
    pub fn keep(&mut self, mut is_among: impl FnMut(&str) -> bool) {
        self.jobs.retain(|name, _| is_among(name));
    }

    pub fn job(&self, name: &str) -> Option<&JobLesson> {
        self.jobs.get(name)
    }

    /// Of one job alone.
    pub fn of(name: Arc<str>, lesson: JobLesson) -> Self {
        Lessons { jobs: BTreeMap::from([(name, lesson)]) }
    }

    pub(crate) fn entry(&self, name: &str) -> Option<(Arc<str>, &JobLesson)> {
        self.jobs.get_key_value(name).map(|(name, job)| (name.clone(), job))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &JobLesson)> {
        self.jobs.iter()
    }

    pub fn jobs(&self) -> impl Iterator<Item = (&str, &JobLesson)> {
        self.jobs.iter().map(|(name, job)| (&**name, job))
    }
}
