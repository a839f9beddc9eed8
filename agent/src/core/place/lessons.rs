//! What nodes have learned of jobs' needs, merged, and handed to the node that gets the next task.

use gossip::wire::lesson::JobLesson;
use placement::{ids::JobKey, intent::Intent};

use super::Active;
use crate::{
    estimate::{Lessons, told},
    event::Now,
};

/// Old peaks fade over this: eight days, as on nodes that predict a day ahead.
const MEMORY_MS: f64 = 8.0 * 86_400_000.0;
/// Lessons may be older than this machine runs.
const BEFORE_MS: u64 = 30 * 86_400_000;

fn at_ms(now: Now) -> u64 {
    now.mono_ms + BEFORE_MS
}

/// A node's lesson of a job that the ledger knows.
pub(super) fn learn(lessons: &mut Lessons, intent: &Intent, lesson: &JobLesson, now: Now) {
    if intent.jobs.contains_key(&lesson.job) {
        lessons.merge(&told::hear(lesson, at_ms(now)), MEMORY_MS);
    }
}

impl Active {
    /// What is known of an index: of its own runs, and of its siblings'.
    pub(super) fn lesson(&self, job: &JobKey, index: u32, now: Now) -> Option<JobLesson> {
        let lesson = self.lessons.job(&job.to_string())?;
        Some(told::tell(job.clone(), lesson, Some(index), at_ms(now)))
    }

    /// Of jobs that are no more.
    pub(super) fn forget_lessons(&mut self) {
        let jobs = &self.intent.jobs;
        self.lessons.keep(|name| told::job(name).is_some_and(|job| jobs.contains_key(&job)));
    }
}
