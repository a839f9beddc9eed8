//! Observed and wanted → at most one step. What follows is heard of as an event, which leads here again.

use placement::{ids::TaskKey, job::Kind, task::Cause};

use super::{
    Core,
    record::Stopping,
    task::{Goal, Notice, Run, Stage, Task, Told, Writing},
};
use crate::event::{Action, Change, Signal};

const WAITS_FOR_KEEP: &str = "waits until the placer confirms that this is the only copy";

impl Core {
    pub(crate) fn drive_all(&mut self) {
        for key in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.drive(key);
        }
    }

    pub(crate) fn drive(&mut self, key: TaskKey) {
        self.give_next(key);
        self.step(key);
        self.settle(key);
    }

    fn step(&mut self, key: TaskKey) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let stage = task.run.as_ref().map(|r| r.stage);
        if matches!(stage, Some(Stage::Running { .. })) {
            // Signals wait for no disk.
            return if task.goal != Goal::Run {
                self.end_run(key)
            };
        }
        if task.writing.is_some() || task.retry_at.is_some_and(|at| now.mono_ms < at) {
            return;
        }
        task.retry_at = None;
        match (stage, task.goal) {
            (Some(Stage::Starting), goal) if goal != Goal::Run => self.abandon_start(key),
            (Some(Stage::Starting | Stage::Running { .. } | Stage::Ended { removing: true }), _) => {}
            // The ending is on disk before its proof goes (PROTOCOL 19, 24), also if both are to be forgotten: the agent may
            // die between the two. That a stopped run ended is of no interest.
            (Some(Stage::Ended { .. }), goal)
                if task.unsaved && (goal != Goal::Gone || task.record.outcome.is_some()) =>
            {
                self.write(key, Writing::Save)
            }
            (Some(Stage::Ended { .. }), _) => self.remove_run(key),
            // An earlier run of it is still being removed.
            (None, _) if self.strays.iter().any(|stray| stray.key == key) => {}
            (None, Goal::Gone) => self.write(key, Writing::Drop),
            (None, _) if task.record.outcome.is_some() => {
                if task.unsaved {
                    self.write(key, Writing::Save);
                }
            }
            (None, _) => self.start_when_due(key),
        }
    }

    /// SIGTERM, the grace, SIGKILL.
    fn end_run(&mut self, key: TaskKey) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(run) = task.run.as_mut() else { return };
        let probing = run.checks.stop();
        let number = run.number;
        // It would go on writing, or there is no time.
        let hurry = run.hurry;
        let at_once = task.goal == Goal::Again(Cause::Disk) || hurry;
        let signal = match &mut run.told {
            None if at_once => {
                run.told = Some(Told { wall_ms: now.wall_ms, kill_at: None, notice: Notice::None });
                Some(Signal::Kill)
            }
            None => {
                let kill_at = now.mono_ms.saturating_add(task.record.spec.grace_ms);
                let notice = Notice::Whole;
                run.told = Some(Told { wall_ms: now.wall_ms, kill_at: Some(kill_at), notice });
                Some(Signal::Term)
            }
            Some(Told { kill_at, notice, .. }) if kill_at.is_some_and(|at| hurry || at <= now.mono_ms) => {
                if kill_at.take().is_some_and(|at| at > now.mono_ms) {
                    *notice = Notice::Short;
                }
                Some(Signal::Kill)
            }
            Some(_) => None,
        };
        let mark = match &mut task.record.stopping {
            Some(Stopping { told_ms: told_ms @ None, .. }) => {
                *told_ms = Some(now.wall_ms);
                true
            }
            _ => false,
        };
        let grace_ms = task.record.spec.grace_ms;
        let run = task.run_id(number);
        let change = mark.then(|| Change::Put(Box::new(task.record.clone())));
        if probing {
            self.out.push(Action::Unprobe { run });
        }
        self.out.extend(signal.map(|signal| Action::Signal { run, signal }));
        if signal == Some(Signal::Kill) && !at_once {
            self.note(key, "killed", format!("did not end within its grace of {}", seconds(grace_ms)));
        }
        // Nothing waits for this mark.
        if let Some(change) = change {
            self.store(vec![change]);
        }
    }

    /// Once. A start may take long: the image is fetched first.
    fn abandon_start(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(run) = task.run.as_mut() else { return };
        if std::mem::replace(&mut run.abandoned, true) {
            return;
        }
        let number = run.number;
        let run = task.run_id(number);
        self.out.push(Action::Abandon { run });
    }

    fn remove_run(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(run) = task.run.as_mut() else { return };
        run.stage = Stage::Ended { removing: true };
        let number = run.number;
        // What was written is what it had to go for.
        let (run, own) = (task.run_id(number), task.wants_disk);
        self.out.push(Action::Remove { run, own });
    }

    /// Starts a run if nothing stands against it; first writes its number down if that is not done yet.
    fn start_when_due(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get(&key) else { return };
        if self.now.mono_ms < task.not_before || self.waits_for_room(key) {
            return;
        }
        let Some(task) = self.tasks.get(&key) else { return };
        if !self.may_start(task) {
            return self.say(key, WAITS_FOR_KEEP);
        }
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if !task.armed || task.unsaved {
            task.record.run += u32::from(!task.armed);
            return self.write(key, Writing::Save);
        }
        task.armed = false;
        task.goal = Goal::Run;
        if task.record.reason.as_deref() == Some(WAITS_FOR_KEEP) {
            task.record.reason = None;
            self.dirty.insert(key);
        }
        task.run = Some(Run::new(task.record.run, Stage::Starting));
        let start = self.start_run(key);
        self.out.extend(start);
    }

    /// A service restarts freely; a batch task (and anything whose record is only a claim) needs a word of the present
    /// session: the offer that it accepted, or a keep (PROTOCOL 22, 23).
    fn may_start(&self, task: &Task) -> bool {
        (task.record.spec.kind == Kind::Service && !self.config.claims)
            || self
                .session
                .as_ref()
                .is_some_and(|s| s.kept.get(&task.record.key) == Some(&task.record.generation))
    }

    /// When, by itself, the next step of a task is due.
    pub(crate) fn deadline(&self, task: &Task) -> Option<u64> {
        if let Some(run) = &task.run
            && let Stage::Running { .. } = run.stage
        {
            return run.told.and_then(|told| told.kill_at);
        }
        if task.writing.is_some() {
            return None;
        }
        let waits = task.run.is_none() && task.goal == Goal::Run && task.record.outcome.is_none();
        let start = (waits && self.now.mono_ms < task.not_before).then_some(task.not_before);
        task.retry_at.or(start)
    }

    /// Brings the state that users see up to date.
    fn settle(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let next = task.state_now();
        if next == task.state {
            return;
        }
        debug_assert!(task.state.may_become(next), "{key}: {:?} may not become {next:?}", task.state);
        task.state = next;
        task.record.since_ms = self.now.wall_ms;
        self.dirty.insert(key);
    }

    /// Ends a task for good: irrevocable (PROTOCOL 16).
    pub(crate) fn end_for_good(&mut self, key: TaskKey, reason: String) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.goal == Goal::Gone {
            return;
        }
        task.goal = Goal::Gone;
        let told_ms = task.run.as_ref().and_then(|r| r.told).map(|t| t.wall_ms);
        task.record.stopping = Some(Stopping { reason: reason.clone(), told_ms });
        if task.record.outcome.is_none() {
            task.record.reason = Some(format!("stopping: {reason}"));
        }
        // A run that goes on is marked, so that the stop survives the agent. `end_run` does it if it runs.
        let mark = matches!(&task.run, Some(r) if r.stage == Stage::Starting || told_ms.is_some());
        let change = mark.then(|| Change::Put(Box::new(task.record.clone())));
        if let Some(change) = change {
            self.store(vec![change]);
        }
        self.dirty.insert(key);
        self.note(key, "stopping", reason);
        self.drive(key);
    }

    /// Ends the present run and starts another.
    pub(crate) fn end_and_again(&mut self, key: TaskKey, cause: Cause, why: &str) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.goal != Goal::Run {
            return;
        }
        match task.run.as_ref().map(|r| r.stage) {
            Some(Stage::Starting | Stage::Running { .. }) => task.goal = Goal::Again(cause),
            // It starts again anyway: now.
            Some(Stage::Ended { .. }) | None => task.not_before = self.now.mono_ms,
        }
        self.say(key, why);
        self.drive(key);
    }
}

/// `10s`, `0.5s`: to show.
pub(crate) fn seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => format!("{}s", ms / 1000),
        _ => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
    }
}
