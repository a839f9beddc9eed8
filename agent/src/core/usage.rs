//! What tasks use now. Reported when it moved, not each time it was measured.

use std::collections::BTreeMap;

use placement::{
    ids::TaskKey,
    job::Band,
    obstacle::amount,
    resources::{DISK, Resources},
    task::{Cause, Strain},
};

use super::{Core, task::Goal};
use crate::event::RunId;

/// A change below this share of the limit is not worth a report.
const WORTH_A_REPORT: u64 = 20;
/// What has no limit is worth one at this much of a change.
const UNLIMITED: u64 = 64 << 20;
/// A share of time that a task waits, or is held back, is worth one when it changes by more than this.
const OTHERWISE_PERMILLE: u64 = 200;

impl Core {
    pub(crate) fn on_measured(&mut self, usage: BTreeMap<RunId, Resources>) {
        for (id, usage) in usage {
            let Some(task) = self.tasks.get_mut(&id.key).filter(|t| t.record.generation == id.generation)
            else {
                continue;
            };
            if task.run.as_ref().is_some_and(|r| r.number == id.run) {
                if moved(&task.reported_usage, &usage, &task.record.spec.limit) {
                    self.dirty.insert(id.key);
                }
                self.history.used(id, &task.record.spec.job, &usage, self.now.wall_ms);
                task.need.look(&usage);
                task.usage = usage;
                self.hold_to_disk(id.key);
            }
        }
        self.estimate();
    }

    /// Of no interest to placement: mostly it goes along with the next report.
    pub(crate) fn on_strained(&mut self, strains: BTreeMap<RunId, Strain>) {
        for (id, strain) in strains {
            let task = self.tasks.get_mut(&id.key).filter(|t| t.record.generation == id.generation);
            if let Some(task) = task.filter(|t| t.run.as_ref().is_some_and(|r| r.number == id.run)) {
                if task.strain.replace(strain).is_none_or(|before| fares_otherwise(&before, &strain)) {
                    self.dirty.insert(id.key);
                }
                let held_back = strain.throttled_permille.unwrap_or(0);
                self.history.throttled(id, &task.record.spec.job, held_back, self.now.wall_ms);
            }
        }
    }

    /// How the tasks of each band fare together, by the last look.
    pub(crate) fn strain(&self) -> &BTreeMap<Band, Strain> {
        &self.strain
    }

    /// Where the file system holds nobody to a limit, the task ends when it is found over it.
    fn hold_to_disk(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let (used, allowed) = (task.usage.get(DISK), task.record.spec.limit.get(DISK));
        if allowed == 0 || used <= allowed || task.goal != Goal::Run {
            return;
        }
        let Some(run) = task.run.as_mut() else { return };
        let (used, allowed) = (amount(DISK, used), amount(DISK, allowed));
        let why = format!("it used {used} of disk and may use {allowed}");
        run.over = Some(why.clone());
        self.note(key, "over_disk", why.clone());
        self.end_and_again(key, Cause::Disk, &why);
    }
}

fn fares_otherwise(from: &Strain, to: &Strain) -> bool {
    let shares = |s: &Strain| {
        let waits = [s.waits_for_cpu_permille, s.waits_for_memory_permille, s.waits_for_io_permille];
        [s.throttled_permille, waits[0], waits[1], waits[2]]
    };
    let worth = |(from, to): (Option<u64>, Option<u64>)| {
        from.unwrap_or(0).abs_diff(to.unwrap_or(0)) > OTHERWISE_PERMILLE
    };
    shares(from).into_iter().zip(shares(to)).any(worth)
}

fn moved(from: &Resources, to: &Resources, limit: &Resources) -> bool {
    to.0.iter().any(|(name, now)| {
        let worth = match limit.get(name) {
            0 => UNLIMITED,
            limit => limit / WORTH_A_REPORT,
        };
        now.abs_diff(from.get(name)) > worth
    })
}
