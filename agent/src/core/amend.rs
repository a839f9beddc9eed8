//! Changes in place: what runs keeps its process and its generation, and gets the values of a newer version.
//!
//! The order is admitted like an offer, by this node's books, and written down (`record.next`) before anything is done.
//! A container that is being started gets it once it runs; without a container nothing needs to be done. Only then is the
//! record what the new version says, and the report. While both are on their way the books count the more of each.

use gossip::wire::{News, NotAmended, Offer};
use placement::{
    change::{Change as Asked, between, growth, in_words},
    ids::{Generation, TaskKey, Version},
    task::TaskSpec,
};

use super::{
    Core,
    record::Next,
    task::{Goal, Stage, Writing},
};
use crate::event::{Action, AmendRun, Change};

impl Core {
    pub(crate) fn on_amend(&mut self, amend: Offer) {
        let Offer { key, generation, version, spec, .. } = amend;
        let Some(task) = self.tasks.get(&key) else {
            self.gone.insert(key);
            return;
        };
        let record = &task.record;
        let over = task.goal == Goal::Gone || record.outcome.is_some();
        if over || record.generation != generation || record.version >= version {
            // What is reported is the answer.
            self.dirty.insert(key);
            return;
        }
        if record.next.as_ref().is_some_and(|next| next.version >= version) {
            // Its answer comes.
            return;
        }
        self.count();
        if let Err(why) = self.may_amend(key, &spec) {
            return self.not_amended(key, generation, version, why);
        }
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.record.next = Some(Box::new(Next { version, spec }));
        let change = Change::Put(Box::new(task.record.clone()));
        let ticket = self.store(vec![change]);
        if let Some(task) = self.tasks.get_mut(&key) {
            task.amending = Some(ticket);
        }
    }

    fn may_amend(&self, key: TaskKey, spec: &TaskSpec) -> Result<(), NotAmended> {
        let Some(task) = self.tasks.get(&key) else { return Ok(()) };
        if matches!(task.writing, Some((_, Writing::Accept))) {
            return Err(NotAmended::Store { why: "the task is not written down yet".into() });
        }
        if task.amending.is_some() || task.run.as_ref().is_some_and(|run| run.given.is_some()) {
            return Err(NotAmended::Store { why: "an earlier change is not done yet".into() });
        }
        if between(&task.record.spec, spec) == Asked::Restart {
            return Err(NotAmended::Rigid { why: "it would run something else".into() });
        }
        let more = growth(&task.held(), &spec.limit);
        let room = self.books().room(&self.config.node.capacity);
        match room.short_of(spec.band, &more) {
            Some((resource, wanted, free)) => {
                Err(NotAmended::Short { resource: resource.to_string(), wanted, free })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn on_next_stored(&mut self, key: TaskKey, result: Result<(), String>) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.amending = None;
        if let Err(why) = result
            && let Some(next) = task.record.next.take()
        {
            let generation = task.record.generation;
            self.not_amended(key, generation, next.version, NotAmended::Store { why });
        }
        self.drive(key);
    }

    /// What is written down of a change is carried out, once there is somebody to give it to, or nobody.
    pub(crate) fn give_next(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key).filter(|t| t.amending.is_none()) else { return };
        let Some(next) = &task.record.next else { return };
        if task.record.outcome.is_some() {
            // What ended, ended with what it had.
            task.record.next = None;
            return;
        }
        if task.goal == Goal::Gone {
            // Its record goes next; nothing may be written after that.
            return;
        }
        let run = task.run.as_mut().filter(|run| !matches!(run.stage, Stage::Ended { .. }));
        let Some(run) = run else { return self.take_next(key) };
        if task.goal != Goal::Run || run.stage == Stage::Starting || run.given.is_some() {
            return;
        }
        run.given = Some(next.version);
        let (version, from, to) = (next.version, task.record.spec.clone(), next.spec.clone());
        let number = run.number;
        let run = task.run_id(number);
        self.out.push(Action::Amend(Box::new(AmendRun { run, version, from, to })));
    }

    pub(crate) fn on_amended(&mut self, key: TaskKey, version: Version, result: Result<(), String>) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if let Some(run) = task.run.as_mut() {
            run.given = None;
        }
        if task.record.next.as_ref().is_none_or(|next| next.version != version) {
            return;
        }
        let Err(why) = result else { return self.take_next(key) };
        task.record.next = None;
        let generation = task.record.generation;
        let change = Change::Put(Box::new(task.record.clone()));
        self.store(vec![change]);
        self.not_amended(key, generation, version, NotAmended::Rigid { why });
    }

    /// The new version is what the task is now. If this write is lost, the next agent gives it once more.
    fn take_next(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(next) = task.record.next.take() else { return };
        let Next { version, mut spec } = *next;
        // When it was restarted last is no part of a change.
        spec.restart_at = task.record.spec.restart_at;
        let words = in_words(&task.record.spec, &spec);
        (task.record.version, task.record.spec) = (version, spec);
        let change = Change::Put(Box::new(task.record.clone()));
        self.store(vec![change]);
        self.dirty.insert(key);
        self.note(key, "changed", format!("changed in place to version {}: {words}", version.number));
    }

    fn not_amended(&mut self, key: TaskKey, generation: Generation, version: Version, why: NotAmended) {
        let text = match &why {
            NotAmended::Short { resource, wanted, free } => {
                format!("it asks for {wanted} more of {resource}, and {free} are free")
            }
            NotAmended::Store { why } => format!("the change cannot be written: {why}"),
            NotAmended::Rigid { why } => why.clone(),
        };
        self.note(key, "not_changed", format!("not changed in place to version {}: {text}", version.number));
        self.dirty.insert(key);
        let delta = self.delta();
        self.send(News::NotAmended { key, generation, version, why, delta });
    }
}
