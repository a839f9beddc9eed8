//! Checks: enough failures in a row end a run, and it starts again; or take it out of use.

use placement::{
    ids::TaskKey,
    job::Check,
    task::{Cause, State},
};

use super::{
    Core,
    record::Checked,
    task::{Goal, Stage, Task},
};
use crate::event::{Action, Change};

/// What the checks of one run have said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checks {
    /// Being made.
    on: bool,
    startup: Said,
    live: Said,
    ready: Said,
}

#[derive(Debug, Clone, Copy, Default)]
struct Said {
    /// None: nothing that counts yet.
    good: Option<bool>,
    /// Failures in a row that count.
    failed: u32,
}

impl Checks {
    /// As an earlier agent knew them. How many had failed in a row it did not write down: they are counted anew.
    fn resume(checked: Checked) -> Checks {
        let said = |good| Said { good, failed: 0 };
        let Checked { startup, health, ready, .. } = checked;
        Checks { on: false, startup: said(startup), live: said(health), ready: said(ready) }
    }

    /// To be written down.
    fn checked(&self, run: u32) -> Checked {
        Checked { run, startup: self.startup.good, health: self.live.good, ready: self.ready.good }
    }

    /// A check has failed for good: such a run is ended.
    fn gave_up(&self) -> bool {
        [self.startup.good, self.live.good].contains(&Some(false))
    }

    /// Whether they were being made.
    pub(crate) fn stop(&mut self) -> bool {
        std::mem::take(&mut self.on)
    }

    fn of(&mut self, check: Check) -> &mut Said {
        match check {
            Check::Startup => &mut self.startup,
            Check::Live => &mut self.live,
            Check::Ready => &mut self.ready,
        }
    }
}

impl Task {
    /// By all of its checks; none: it has none, or one of them is not known yet.
    pub(crate) fn healthy(&self) -> Option<bool> {
        let run = self.run.as_ref().filter(|r| matches!(r.stage, Stage::Running { .. }))?;
        let mut checks = run.checks;
        let spec = &self.record.spec;
        let said: Vec<Option<bool>> = Check::ALL
            .into_iter()
            .filter(|check| spec.check(*check).is_some())
            .map(|check| checks.of(check).good)
            .collect();
        match said.contains(&Some(false)) {
            true => Some(false),
            false => (!said.is_empty() && !said.contains(&None)).then_some(true),
        }
    }

    /// Whether it may be used: not from the moment on in which it is told to end.
    pub(crate) fn ready(&self) -> bool {
        self.state_now() == State::Running && self.healthy().unwrap_or(!self.record.spec.is_checked())
    }
}

impl Core {
    /// Has a run checked from now on, for what its job asks: whether it has come up, and then the rest.
    pub(crate) fn probe(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let record = &task.record;
        let Some(run) = task.run.as_mut() else { return };
        let up = record.spec.startup.is_none() || run.checks.startup.good == Some(true);
        let checks: &[Check] = if up { &[Check::Live, Check::Ready] } else { &[Check::Startup] };
        let id = crate::event::RunId { key, generation: record.generation, run: run.number };
        for check in checks {
            let Some(health) = record.spec.check(*check).cloned() else { continue };
            let port = health.port().map(|name| record.port_inside(name));
            // A port that it has not got: a document that says so is refused.
            if port == Some(None) {
                continue;
            }
            run.checks.on = true;
            let good = run.checks.of(*check).good == Some(true);
            self.out.push(Action::Probe { run: id, check: *check, health, port: port.flatten(), good });
        }
    }

    /// A run that was found running is as healthy as it was known to be, until its checks say otherwise. One that was about
    /// to be ended for what they had said is ended.
    pub(crate) fn resume_checks(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let remark = task.record.remark.clone();
        let Some(run) = task.run.as_mut() else { return };
        run.checks = match task.record.checked {
            Some(checked) if checked.run == run.number => Checks::resume(checked),
            _ => Checks::default(),
        };
        if run.checks.gave_up() {
            let why = task.record.reason.clone().unwrap_or_default();
            return self.end_and_again(key, Cause::Unhealthy, &why);
        }
        if run.checks.ready.good != Some(false) {
            task.record.reason = remark;
        }
        self.probe(key);
    }

    /// What the checks of the present run say now is written down as it changes. Nothing waits for that.
    fn keep_checks(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(run) = task.run.as_ref() else { return };
        task.record.checked = Some(run.checks.checked(run.number));
        let change = Change::Put(Box::new(task.record.clone()));
        self.store(vec![change]);
    }

    pub(crate) fn on_health(&mut self, key: TaskKey, check: Check, ok: bool, text: &str) {
        let now = self.now.mono_ms;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let (Some(health), Some(run), Goal::Run) =
            (task.record.spec.check(check), task.run.as_mut(), task.goal)
        else {
            return;
        };
        let Stage::Running { since, ran_ms, .. } = run.stage else { return };
        let came_up = run.checks.startup.good == Some(true);
        let said = run.checks.of(check);
        if ok {
            said.failed = 0;
            if said.good.replace(true) != Some(true) {
                self.is_good(key, check, text);
            }
            return;
        }
        // Before its first success it may still be starting up.
        let runs_for = now.saturating_sub(since).saturating_add(ran_ms);
        let starting = said.good.is_none() && !came_up && runs_for < health.start_ms;
        if starting || check == Check::Startup && said.good == Some(true) {
            return;
        }
        said.failed = said.failed.saturating_add(1);
        if said.failed < health.failures.max(1) || check == Check::Ready && said.good == Some(false) {
            return;
        }
        said.good = Some(false);
        let text = format!("{} {check} checks failed in a row: {text}", said.failed);
        self.dirty.insert(key);
        if check == Check::Ready {
            self.say(key, &format!("it is not ready: {text}"));
            self.keep_checks(key);
            return self.note(key, "not_ready", text);
        }
        self.say(key, &text);
        self.keep_checks(key);
        self.note(key, "unhealthy", text.clone());
        self.end_and_again(key, Cause::Unhealthy, &text);
    }

    /// It was not known, or it was not good.
    fn is_good(&mut self, key: TaskKey, check: Check, text: &str) {
        let kind = match check {
            Check::Startup => "started_up",
            Check::Live => "healthy",
            Check::Ready => "ready",
        };
        self.note(key, kind, text.to_string());
        if check == Check::Startup {
            self.probe(key);
        }
        if let Some(task) = self.tasks.get_mut(&key)
            && task.healthy() == Some(true)
        {
            task.record.reason = task.record.remark.clone();
        }
        self.keep_checks(key);
        self.dirty.insert(key);
    }
}
