//! Views of a job as the ledger keeps it.
//!
//! Count and kind are read straight from the document, without judging the rest of it: the state machine needs no more,
//! and so it computes the same on a build that finds a stored document invalid (its keys are of a later covey, say).

use alloc::collections::BTreeSet;
use serde_json::Value;

use super::{Completion, JobRecord};
use crate::{
    ids::{JobKey, TaskKey, Uid},
    job::{DocumentError, Job, document::MAX_COUNT},
    ledger::Ledger,
};

impl JobRecord {
    /// The job as this build reads it. An error concerns this job alone: show it as blocked, with the message.
    pub fn job(&self) -> Result<Job, DocumentError> {
        Job::from_document(&self.document)
    }

    pub fn count(&self) -> u32 {
        let count = self.document.get("count").map_or(Some(1), Value::as_u64);
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0).min(MAX_COUNT)
    }

    pub fn is_batch(&self) -> bool {
        self.document.get("kind").and_then(Value::as_str) == Some("batch")
    }

    /// A batch job of which every index is finished, well or badly.
    pub fn is_finished(&self) -> bool {
        let count = self.count();
        self.is_batch() && count > 0 && self.finished.range(..count).count() == count as usize
    }

    /// Stopped or finished: a new submission under its name makes another job (PROTOCOL 1).
    pub fn is_ended(&self) -> bool {
        self.stopped || self.is_finished()
    }

    /// The indexes that should run: all below the count that are neither held nor finished; none of a stopped job.
    pub fn wanted(&self) -> impl Iterator<Item = u32> + '_ {
        let count = if self.stopped { 0 } else { self.count() };
        (0..count).filter(|index| !self.held.contains(index) && !self.finished.contains_key(index))
    }

    /// The ledger index of the last restart asked for; 0: none.
    pub fn restart_at(&self, index: u32) -> u64 {
        self.restarts.get(&index).copied().unwrap_or(0)
    }

    /// Makes `index` run again: a failure and a hold are forgotten. Not for one that succeeded.
    pub(super) fn restart(&mut self, index: u32, entry: u64) {
        self.held.remove(&index);
        self.finished.remove(&index);
        self.restarts.insert(index, entry);
    }

    /// Whether an index ended with success, which is final (PROTOCOL 24).
    pub fn has_succeeded(&self, index: u32) -> bool {
        self.finished.get(&index).is_some_and(|done| done.success)
    }

    /// The first completion of a batch index counts. False if it is not news.
    pub(super) fn complete(&mut self, done: &Completion) -> bool {
        let news = self.is_batch()
            && done.index < self.count()
            && !self.finished.contains_key(&done.index)
            && (done.success || done.restart_at >= self.restart_at(done.index));
        if news {
            self.finished.insert(done.index, done.clone());
        }
        news
    }

    /// Indexes below the count that failed for good.
    pub(super) fn failed(&self) -> BTreeSet<u32> {
        let below = self.finished.range(..self.count());
        below.filter(|(_, done)| !done.success).map(|(index, _)| *index).collect()
    }
}

impl Ledger {
    /// The job that has this uid, unless a later one took its name.
    pub fn job_of(&self, uid: Uid) -> Option<(&JobKey, &JobRecord)> {
        self.jobs.iter().find(|(_, record)| record.uid == uid).map(|(key, record)| (key, &**record))
    }

    /// Every task that should run, by job and index.
    pub fn wanted(&self) -> impl Iterator<Item = (TaskKey, &JobKey, &JobRecord)> {
        self.jobs.iter().flat_map(|(key, record)| {
            record.wanted().map(move |index| (TaskKey { uid: record.uid, index }, key, &**record))
        })
    }
}
