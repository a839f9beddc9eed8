//! Health checks: enough failures in a row end a run, and it starts again.

use placement::{ids::TaskKey, task::Cause};

use super::{
    Core,
    task::{Goal, Stage},
};
use crate::event::Action;

impl Core {
    /// Has a run's health checked from now on, if its job asks for it.
    pub(crate) fn probe(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(health) = task.record.spec.health.clone() else { return };
        let Some(port) = health.port().and_then(|port| task.record.ports.get(port)).copied() else { return };
        let Some(run) = task.run.as_mut() else { return };
        run.probing = true;
        let number = run.number;
        let run = task.run_id(number);
        self.out.push(Action::Probe { run, health, port });
    }

    pub(crate) fn on_health(&mut self, key: TaskKey, ok: bool, text: &str) {
        let now = self.now.mono_ms;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let (Some(health), Some(run), Goal::Run) = (&task.record.spec.health, task.run.as_mut(), task.goal)
        else {
            return;
        };
        let Stage::Running { since, .. } = run.stage else { return };
        if ok {
            run.unhealthy = 0;
            if task.healthy != Some(true) {
                task.healthy = Some(true);
                task.record.reason = None;
                self.note(key, "healthy", text.to_string());
                self.dirty.insert(key);
            }
            return;
        }
        // Before its first success it may still be starting up.
        if task.healthy.is_none() && now < since.saturating_add(health.start_ms) {
            return;
        }
        run.unhealthy += 1;
        if run.unhealthy < health.failures.max(1) {
            return;
        }
        let text = format!("{} health checks failed in a row: {text}", run.unhealthy);
        task.healthy = Some(false);
        self.dirty.insert(key);
        self.note(key, "unhealthy", text.clone());
        self.end_and_again(key, Cause::Unhealthy, &text);
    }
}
