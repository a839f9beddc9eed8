//! What others may see: reports, books, notes.

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::usage::Ended;
use placement::{
    ids::{Generation, JobKey, TaskKey},
    job::{
        Band,
        container::{Io, Source},
    },
    node::{Books, NodeInfo},
    resources::{DISK, Resources},
    task::{Report, State},
};

use super::Core;
use crate::{
    event::{About, Action, Note, RunId},
    history::{History, JobHistory},
};

impl Core {
    /// Every task here, in the order of their keys.
    pub fn reports(&self) -> Vec<Report> {
        self.tasks.values().map(super::task::Task::report).collect()
    }

    pub fn report(&self, key: TaskKey) -> Option<Report> {
        self.tasks.get(&key).map(super::task::Task::report)
    }

    /// The copy of an index of the job that has this name: of the newest uid.
    pub fn find(&self, job: &JobKey, index: u32) -> Option<Report> {
        let mut here =
            self.tasks.values().filter(|t| t.record.spec.job == *job && t.record.key.index == index);
        here.next_back().map(super::task::Task::report)
    }

    /// The runs that a copy has had, newest first; of the older ones only the logs may be left, or nothing.
    pub fn runs(&self, key: TaskKey) -> Vec<RunId> {
        let Some(task) = self.tasks.get(&key) else { return Vec::new() };
        let newest = match &task.run {
            Some(run) => Some(run.number),
            // Its number is reserved, no more.
            None if task.armed => task.record.run.checked_sub(1),
            None => Some(task.record.run),
        };
        newest.into_iter().flat_map(|newest| (0..=newest).rev()).map(|run| task.run_id(run)).collect()
    }

    /// The run whose container is there now, and its init's pid.
    pub fn running(&self, key: TaskKey) -> Option<(RunId, u32)> {
        let task = self.tasks.get(&key)?;
        let run = task.run.as_ref()?;
        match run.stage {
            super::task::Stage::Running { pid, .. } => Some((task.run_id(run.number), pid)),
            _ => None,
        }
    }

    /// The state of the copy of an index that has this volume, or any: from the moment on in which it was accepted until
    /// its container is gone.
    pub fn uses_volume(&self, job: &JobKey, index: u32, name: Option<&str>) -> Option<State> {
        let copies = self.tasks.values();
        let copies = copies.filter(|t| t.record.spec.job == *job && t.record.key.index == index);
        let mut live = copies.filter(|t| t.record.outcome.is_none() || t.run.is_some());
        let uses =
            |source: &Source| matches!(source, Source::Name(have) if name.is_none_or(|name| name == have));
        live.find(|t| t.record.spec.container.volumes.iter().any(|volume| uses(&volume.source)))
            .map(|t| t.state)
    }

    /// Those that run or will run, or whose container is not gone yet.
    pub fn live_copies(&self) -> BTreeSet<(TaskKey, Generation)> {
        let live = self.tasks.values().filter(|t| t.record.outcome.is_none() || t.run.is_some());
        live.map(|task| (task.record.key, task.record.generation)).collect()
    }

    /// The numbers that a task's ports have in its own network, by their names.
    pub fn ports_inside(&self, key: TaskKey) -> BTreeMap<String, u16> {
        let Some(task) = self.tasks.get(&key) else { return BTreeMap::new() };
        let inside = &task.record.spec.container.inside;
        let own = |(name, port): (&String, &u16)| (name.clone(), *inside.get(name).unwrap_or(port));
        task.record.ports.iter().map(own).collect()
    }

    /// All runs whose containers are there now, their bands, and how much disk they may use, if that is limited.
    pub fn to_measure(&self) -> Vec<(RunId, Band, Option<u64>)> {
        let of = |task: &super::task::Task| {
            let (run, _) = self.running(task.record.key)?;
            let disk = Some(task.record.spec.limit.get(DISK)).filter(|most| *most > 0);
            Some((run, task.record.spec.band, disk))
        };
        self.tasks.values().filter_map(of).collect()
    }

    /// Containers that run, are to go on, and have a limit of block IO.
    pub fn io_limits(&self) -> Vec<(RunId, Band, Io)> {
        let limited = |task: &super::task::Task| {
            let spec = &task.record.spec;
            let (run, _) = self.running(task.record.key)?;
            let io = spec.container.io;
            (task.goal == super::task::Goal::Run && !io.is_free()).then_some((run, spec.band, io))
        };
        self.tasks.values().filter_map(limited).collect()
    }

    /// Of the newest placer that this node has answered.
    pub fn promise(&self) -> placement::ids::Activation {
        self.promise
    }

    pub fn info(&self) -> &NodeInfo {
        &self.config.node
    }

    /// All that is not yet gone (PROTOCOL 20).
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        for task in self.tasks.values().filter(|t| t.holds_resources()) {
            books.add(task.record.spec.band, &task.held(), &task.reservation());
        }
        books.predicted = self.predicted();
        books.short = self.disk_kept.iter().map(|kept| (DISK, *kept)).collect();
        books
    }

    /// What all tasks use now.
    pub fn usage(&self) -> Resources {
        let mut usage = Resources::default();
        self.tasks.values().for_each(|t| usage.add(&t.usage));
        usage
    }

    /// What its jobs used here.
    pub fn history(&self) -> &BTreeMap<JobKey, JobHistory> {
        self.history.jobs()
    }

    /// What an earlier agent has kept of it.
    pub fn resume(&mut self, history: History) {
        self.history.resume(history);
    }

    /// What ended tasks here of late.
    pub fn endings(&self) -> Vec<Ended> {
        self.history.endings(self.now.wall_ms)
    }

    /// All of it, to be kept.
    pub(crate) fn remembers(&self) -> &History {
        &self.history
    }

    pub(crate) fn ports_used(&self) -> BTreeSet<u16> {
        let holding = self.tasks.values().filter(|t| t.holds_resources());
        holding.flat_map(|t| t.record.ports.values().copied()).collect()
    }

    /// The sentence that stands beside a task's state.
    pub(crate) fn say(&mut self, key: TaskKey, reason: &str) {
        if let Some(task) = self.tasks.get_mut(&key)
            && task.record.reason.as_deref() != Some(reason)
        {
            task.record.reason = Some(reason.to_string());
            self.dirty.insert(key);
        }
    }

    pub(crate) fn note(&mut self, key: TaskKey, kind: &'static str, text: String) {
        self.note_that_took(key, kind, text, None);
    }

    pub(crate) fn note_that_took(&mut self, key: TaskKey, kind: &'static str, text: String, ms: Option<u64>) {
        let Some(task) = self.tasks.get(&key) else { return };
        let record = &task.record;
        let about = About { job: record.spec.job.clone(), index: key.index, generation: record.generation };
        self.out.push(Action::Note(Note { kind, about: Some(about), text, ms }));
    }
}
