//! The agent's start: what its records say beside what is found running (PROTOCOL 19, 21, 23). Containers go on
//! untouched.

use std::collections::{BTreeMap, BTreeSet};

use placement::ids::TaskKey;

use super::{
    Config, Core,
    record::Record,
    task::{Goal, Run, Stage, Task},
};
use crate::event::{Action, Found, Note, Now, RunId};

impl Core {
    /// Takes up what an earlier agent left. `found`: every run that has a bundle or a cgroup. A record that cannot be
    /// read is not among `records`; its run is then nobody's and is removed.
    pub fn restore(
        config: Config,
        records: Vec<Record>,
        found: BTreeMap<RunId, Found>,
        now: Now,
    ) -> (Core, Vec<Action>) {
        let mut core = Core::new(config);
        core.now = now;
        core.recall_failures();
        core.tasks = records.into_iter().map(|record| (record.key, Task::new(record))).collect();
        let used: BTreeSet<u16> =
            core.tasks.values().flat_map(|t| t.record.ports.values().copied()).collect();
        core.ports.resume(&used);
        let (ours, strays): (BTreeMap<_, _>, BTreeMap<_, _>) = found.into_iter().partition(|(id, found)| {
            let task = core.tasks.get(&id.key);
            *found != Found::Unstarted && task.is_some_and(|t| t.run_id(t.record.run) == *id)
        });
        for id in strays.into_keys() {
            core.remove_stray(id);
        }
        for (id, found) in ours {
            core.take_up(id.key, found);
        }
        for key in core.tasks.keys().copied().collect::<Vec<_>>() {
            if let Some(task) = core.tasks.get_mut(&key)
                && task.record.outcome.is_none()
                && task.record.stopping.is_some()
            {
                task.goal = Goal::Gone;
            }
            core.drive(key);
        }
        let actions = core.finish();
        (core, actions)
    }

    /// Nobody answers for it: killed and removed (PROTOCOL 21). Also what is left of a run whose ending is written already,
    /// or that never began.
    fn remove_stray(&mut self, id: RunId) {
        self.strays.insert(id);
        self.out.push(Action::Remove { run: id, own: false });
        if !self.tasks.contains_key(&id.key) {
            let text = format!("found the container {id}, which no record accounts for: removing it");
            self.out.push(Action::Note(Note { kind: "stray", about: None, text, ms: None }));
        }
    }

    fn take_up(&mut self, key: TaskKey, found: Found) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.record.stopping.is_some() && task.record.outcome.is_none() {
            task.goal = Goal::Gone;
        }
        let ended = Stage::Ended { removing: false };
        let over = task.record.outcome.is_some();
        let stage = match found {
            _ if over => ended,
            Found::Running { pid, ran_ms, .. } => Stage::Running { pid, since: now.mono_ms, ran_ms },
            Found::Starting | Found::Unstarted | Found::Ended(_) => Stage::Starting,
        };
        task.run = Some(Run::new(task.record.run, stage));
        task.state = task.state_now();
        match found {
            _ if over => {}
            Found::Running { pid, started_at_ms, .. } => {
                task.record.since_ms = started_at_ms;
                let goes_on = task.goal == Goal::Run;
                self.note(key, "readopted", format!("still running with pid {pid}"));
                if goes_on {
                    self.resume_checks(key);
                }
            }
            Found::Starting | Found::Unstarted => {
                self.note(key, "readopted", "still being started".to_string())
            }
            Found::Ended(ended) => self.on_exited(key, ended),
        }
    }
}
