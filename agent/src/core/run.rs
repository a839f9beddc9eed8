//! What becomes of runs.

use placement::{
    ids::TaskKey,
    task::{Cause, Exit, State},
};

use super::{
    Core,
    drive::seconds,
    task::{Goal, Stage},
};
use crate::{
    event::{Action, Ended, RunEvent, RunId},
    history::Ending,
};

impl Core {
    pub(crate) fn on_run(&mut self, id: RunId, what: RunEvent) {
        if self.strays.contains(&id) {
            if what == RunEvent::Removed {
                self.strays.remove(&id);
                self.drive(id.key);
            }
            return;
        }
        // Of a run that is over, or of nobody's.
        let Some(task) = self.tasks.get_mut(&id.key).filter(|t| t.record.generation == id.generation) else {
            return;
        };
        let Some(run) = task.run.as_mut().filter(|r| r.number == id.run) else { return };
        match (what, run.stage) {
            (RunEvent::Phase(text), Stage::Starting) if task.goal == Goal::Run => self.say(id.key, &text),
            (RunEvent::PhaseOver { kind, text, ms }, Stage::Starting) => {
                self.note_that_took(id.key, kind, text, Some(ms));
            }
            (RunEvent::Address(address), _) => {
                run.address = Some(address);
                self.dirty.insert(id.key);
            }
            (RunEvent::Started { pid }, Stage::Starting) => {
                run.stage = Stage::Running { pid, since: self.now.mono_ms, ran_ms: 0 };
                self.on_started(id.key, pid);
            }
            (RunEvent::StartFailed { why, transient }, Stage::Starting) => {
                self.on_start_failed(id.key, why, transient);
            }
            (RunEvent::PortBusy { port }, Stage::Starting) => self.on_port_busy(id.key, port),
            (RunEvent::Exited(ended), Stage::Starting | Stage::Running { .. }) => {
                self.on_exited(id.key, ended)
            }
            (RunEvent::Amended { version, result }, Stage::Running { .. }) => {
                self.on_amended(id.key, version, result);
            }
            (RunEvent::Held(text), Stage::Running { .. }) => {
                self.say(id.key, &text);
                self.note(id.key, "held", text);
            }
            (RunEvent::Removed, Stage::Ended { .. }) => {
                task.run = None;
                if task.record.outcome.is_some() {
                    // Its share is given back.
                    self.dirty.insert(id.key);
                }
            }
            (RunEvent::Health { check, ok, text }, Stage::Running { .. }) => {
                self.on_health(id.key, check, ok, &text)
            }
            _ => return,
        }
        self.drive(id.key);
    }

    fn on_started(&mut self, key: TaskKey, pid: u32) {
        if let Some(task) = self.tasks.get_mut(&key)
            && task.goal == Goal::Run
        {
            task.record.reason = task.record.remark.clone();
            self.probe(key);
        }
        self.note(key, "started", format!("started with pid {pid}"));
        self.dirty.insert(key);
    }

    fn on_start_failed(&mut self, key: TaskKey, why: String, transient: bool) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.run = None;
        let counts = task.is_batch() && !transient;
        if task.goal == Goal::Again(Cause::Reclaimed) {
            return self.after_eviction(key, "its start was called off: its room was taken back");
        }
        self.note(key, "start_failed", why.clone());
        self.after_failure(key, counts, 0, &why);
    }

    fn on_port_busy(&mut self, key: TaskKey, port: u16) {
        self.ports.mark_busy(port, self.now.mono_ms);
        self.note(key, "port_busy", format!("port {port} is in use by another process; taking another"));
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.run = None;
        let names: Vec<String> =
            task.record.ports.iter().filter(|(_, p)| **p == port).map(|(name, _)| name.clone()).collect();
        match self.ports.allot(&names, &self.ports_used(), self.now.mono_ms) {
            Ok(others) => {
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.record.ports.extend(others);
                    if let Goal::Again(_) = task.goal {
                        task.goal = Goal::Run;
                    }
                }
                self.dirty.insert(key);
            }
            Err(_) => {
                self.after_failure(key, false, 0, &format!("port {port} is in use, and no other is free"))
            }
        }
    }

    pub(crate) fn on_exited(&mut self, key: TaskKey, ended: Ended) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let cause = task.cause(&ended);
        let notified = task.notified(&ended, cause);
        let exit = Exit { code: ended.code, signal: ended.signal, cause };
        let Some(run) = task.run.as_mut() else { return };
        let ran_ms = match run.stage {
            Stage::Running { since, ran_ms, .. } => now.mono_ms.saturating_sub(since) + ran_ms,
            _ => 0,
        };
        // The kernel, or somebody on the machine. Whatever the agent ends is told first.
        let unannounced = exit.signal == Some(9) && run.told.is_none();
        let grace_ms = task.record.spec.grace_ms;
        let number = run.number;
        let probing = run.checks.stop();
        let over = run.over.take();
        let spec = &task.record.spec;
        let (band, job, limit) = (spec.band, spec.job.clone(), spec.limit.clone());
        run.stage = Stage::Ended { removing: false };
        task.usage = Default::default();
        task.need.ended();
        task.strain = None;
        task.record.exit = Some(exit.clone());
        let (batch, goal, run) = (task.is_batch(), task.goal, task.run_id(number));
        if probing {
            self.out.push(Action::Unprobe { run });
        }
        let how = match (ended.why, over) {
            (Some(why), _) if cause == Cause::Exited => why,
            (_, Some(why)) if matches!(cause, Cause::Disk | Cause::Reclaimed) => {
                format!("{}: {why}", how_it_ended(&exit))
            }
            _ => how_it_ended(&exit),
        };
        self.history.ended(run, &job, Ending { band, cause, notified }, &limit, now.wall_ms);
        self.note(key, "exited", how.clone());
        if ended.log_bytes_lost > 0 {
            let lost = ended.log_bytes_lost;
            let text = format!(
                "{lost} bytes of its log are lost: the disk of the node's data directory was full; free some space there"
            );
            self.note(key, "log_lost", text);
        }
        if unannounced {
            self.note(key, "no_notice", format!("killed without notice: its grace is {}", seconds(grace_ms)));
        }
        self.dirty.insert(key);
        match goal {
            // A success that came before the signal stays one (PROTOCOL 25).
            _ if batch && exit.success() => self.end_with(key, State::Succeeded, None),
            Goal::Gone => {}
            Goal::Again(Cause::Stopped) if cause == Cause::Stopped => {
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.record.run += 1;
                    task.record.restarts += 1;
                    task.unsaved = true;
                    task.goal = Goal::Run;
                    task.not_before = now.mono_ms;
                }
            }
            Goal::Again(Cause::Reclaimed) if cause == Cause::Reclaimed => self.after_eviction(key, &how),
            // A lost shim (a power loss, most often) is no failure of the task, nor is what others took of the memory.
            Goal::Run | Goal::Again(_) => {
                let own = !matches!(cause, Cause::ShimLost | Cause::OomHost);
                self.after_failure(key, batch && own, ran_ms, &how)
            }
        }
    }

    /// Starts again after a pause, unless that was a batch task's last failure. `counts`: against its retries.
    fn after_failure(&mut self, key: TaskKey, counts: bool, ran_ms: u64, why: &str) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.goal == Goal::Gone {
            return;
        }
        task.goal = Goal::Run;
        task.record.failures += u32::from(counts);
        if counts && task.record.failures > task.record.spec.retries {
            let times = task.record.failures;
            let reason = match times {
                1 => why.to_string(),
                _ => format!("failed {times} times: {why}"),
            };
            return self.end_with(key, State::Failed, Some(reason));
        }
        let pause = task.back_off(ran_ms);
        task.not_before = now.mono_ms + pause;
        // A bundle that must go first stands for a run that took place.
        if task.run.is_some() {
            task.record.run += 1;
            task.record.restarts += 1;
            task.unsaved = true;
        }
        let times = task.failures;
        self.remember_failure(key, why);
        let text = match times {
            0..3 => format!("{why}; starting again in {}", seconds(pause)),
            _ => format!("failed {times} times in a row: {why}; starting again in {}", seconds(pause)),
        };
        self.say(key, &text);
        self.note(key, "restarting", text);
    }

    /// The end of a batch task.
    fn end_with(&mut self, key: TaskKey, outcome: State, reason: Option<String>) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.goal = Goal::Run;
        task.record.stopping = None;
        task.record.outcome = Some(outcome);
        task.record.reason = reason.clone();
        task.unsaved = true;
        self.dirty.insert(key);
        match outcome {
            State::Succeeded => self.note(key, "succeeded", "ended with success".to_string()),
            _ => self.note(key, "failed", reason.unwrap_or_default()),
        }
    }
}

/// `exited with code 1`, `killed by signal 9 (oom.limit)`: to show.
fn how_it_ended(exit: &Exit) -> String {
    let how = match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("ended by signal {signal}"),
        (Some(code), None) => format!("exited with code {code}"),
        (None, None) => "ended, nobody knows how".to_string(),
    };
    match exit.cause {
        Cause::Exited => how,
        Cause::Stopped => format!("{how} after it was told to"),
        Cause::Unhealthy => format!("{how} after failing its health checks"),
        Cause::OomLimit => format!("{how}: it reached its memory limit"),
        Cause::OomHost => format!("{how}: the machine was out of memory"),
        Cause::ShimLost => "its shim was lost".to_string(),
        Cause::Reclaimed => format!("{how}: its room was taken back"),
        Cause::Preempted | Cause::Disk | Cause::NodeLost => how,
    }
}
