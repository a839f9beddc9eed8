//! The session with the placer (PROTOCOL 7, 14, 16, 17, 23): one ordered stream, a full report, then deltas.

use std::{cmp::Reverse, collections::BTreeMap};

use gossip::wire::{Delta, FromAgent, Hello, News, RefusedOffer, SessionId, Welcome};
use placement::{
    ids::{Activation, Generation, TaskKey},
    task::{Cause, State},
};

use super::{Core, WRITE_AGAIN_MS, task::Goal};
use crate::event::{Action, Change, Note, Ticket};

/// Tombstones beside those of the tasks that are here.
const MOST_SEEN: usize = 1_024;

/// The present session, and what is remembered exactly as long as it lives.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Of the next message; 0 was the full report.
    number: u64,
    /// The highest generation seen per key, and what was answered: refusals and stops too (PROTOCOL 17).
    pub(crate) seen: BTreeMap<TaskKey, (Generation, Answer)>,
    /// The highest generation of the tombstones that there was no room for: of a key that is not among `seen`, nothing up to
    /// it may begin. Orders come in the order of their generations, so that is nothing; and were it otherwise, the placer
    /// takes a newer one (PROTOCOL 3).
    pub(crate) floor: Generation,
    /// What may (re)start: accepted or kept in this session (PROTOCOL 23).
    pub(crate) kept: BTreeMap<TaskKey, Generation>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The record is being written, or was.
    None,
    Refused(RefusedOffer),
    /// Stopped, or it was here and is gone.
    Over,
}

impl Session {
    /// Forgets the oldest tombstones when there are many: of keys that are not `here`.
    pub(crate) fn bound(&mut self, here: impl Fn(&TaskKey) -> bool) {
        let mut gone: Vec<_> = self.seen.iter().filter(|(key, _)| !here(key)).collect();
        if gone.len() <= MOST_SEEN {
            return;
        }
        gone.sort_unstable_by_key(|(_, (generation, _))| Reverse(*generation));
        let floor = gone[MOST_SEEN / 2].1.0;
        self.floor = self.floor.max(floor);
        self.seen.retain(|key, (generation, _)| *generation > floor || here(key));
    }

    /// Remembers that nothing up to this generation may begin any more.
    pub(crate) fn is_over(&mut self, key: TaskKey, generation: Generation) {
        let seen = self.seen.entry(key).or_insert((generation, Answer::Over));
        if seen.0 <= generation {
            *seen = (generation, Answer::Over);
        }
        if self.kept.get(&key).is_some_and(|kept| *kept <= generation) {
            self.kept.remove(&key);
        }
    }
}

/// A hello that waits for its promise to be on disk.
#[derive(Debug)]
pub(crate) struct Opening {
    hello: Hello,
    fresh: u64,
    pub(crate) ticket: Ticket,
    /// Monotonic: when to write again after a failure.
    pub(crate) retry_at: Option<u64>,
}

impl Core {
    pub(crate) fn on_hello(&mut self, hello: Hello, fresh: u64) {
        if hello.activation < self.promise {
            return self.out.push(Action::Welcome(Welcome::Promised(self.promise)));
        }
        // A newer hello replaces the session, and a hello still waiting.
        self.session = None;
        let newer = hello.activation > self.promise || self.opening.is_some();
        self.promise = hello.activation;
        let ticket = if newer { self.store(vec![Change::Promise(self.promise)]) } else { Ticket::MAX };
        self.opening = Some(Opening { hello, fresh, ticket, retry_at: None });
        if !newer {
            self.open();
        }
    }

    pub(crate) fn on_promise_stored(&mut self, result: Result<(), String>) {
        let Err(why) = result else { return self.open() };
        let retry_at = self.now.mono_ms + WRITE_AGAIN_MS;
        if let Some(opening) = self.opening.as_mut() {
            opening.retry_at = Some(retry_at);
        }
        let text = format!(
            "cannot answer the placer: its promise cannot be written: {why}; trying again each second"
        );
        self.out.push(Action::Note(Note { kind: "store_failed", about: None, text, ms: None }));
    }

    pub(crate) fn write_promise_again(&mut self) {
        let now = self.now.mono_ms;
        if self.opening.as_ref().is_none_or(|o| o.retry_at.is_none_or(|at| now < at)) {
            return;
        }
        let ticket = self.store(vec![Change::Promise(self.promise)]);
        if let Some(opening) = self.opening.as_mut() {
            opening.ticket = ticket;
            opening.retry_at = None;
        }
    }

    /// The promise is on disk: welcome, then all there is.
    fn open(&mut self) {
        self.count();
        self.estimation.tell_all(self.now.mono_ms);
        let Some(Opening { hello, fresh, .. }) = self.opening.take() else { return };
        let id = SessionId { placer: hello.fresh, agent: fresh };
        self.out.push(Action::Welcome(Welcome::Open { session: id, life: self.config.life }));
        self.session = Some(Session {
            id,
            number: 0,
            seen: BTreeMap::new(),
            kept: BTreeMap::new(),
            floor: Generation::default(),
        });
        // An offer of the last session that is not answered yet is answered by this report.
        self.tasks.values_mut().for_each(|t| t.accepting = None);
        let tasks = self.reports();
        self.dirty.clear();
        self.gone.clear();
        self.node_changed = false;
        let news =
            News::Full { node: self.config.node.clone(), books: self.books(), usage: self.usage(), tasks };
        self.send(news);
        let text = format!("the placer {} opened a session", hello.placer);
        self.out.push(Action::Note(Note { kind: "session", about: None, text, ms: None }));
    }

    pub(crate) fn on_closed(&mut self, id: SessionId) {
        if self.session.as_ref().is_some_and(|s| s.id == id) {
            self.session = None;
        }
    }

    pub(crate) fn send(&mut self, news: News) {
        let Some(session) = self.session.as_mut() else { return };
        let lessons = std::mem::take(&mut self.estimation.lessons);
        let message = FromAgent { session: session.id, number: session.number, news, lessons };
        session.number += 1;
        self.out.push(Action::Send(Box::new(message)));
    }

    /// What the session has not seen yet.
    pub(crate) fn delta(&mut self) -> Delta {
        self.count();
        self.estimation.moved = false;
        let mut tasks = Vec::with_capacity(self.dirty.len());
        // A task whose offer is not answered yet is not shown, unless a newer session's full report showed it.
        for key in std::mem::take(&mut self.dirty) {
            if let Some(task) = self.tasks.get_mut(&key).filter(|t| t.accepting.is_none()) {
                task.reported_usage = task.usage.clone();
                tasks.push(task.report());
            }
        }
        let node = std::mem::take(&mut self.node_changed).then(|| self.config.node.clone());
        let gone = std::mem::take(&mut self.gone).into_iter().collect();
        Delta { node, books: self.books(), usage: self.usage(), tasks, gone }
    }

    /// One delta for all that an event changed.
    pub(crate) fn flush(&mut self) {
        self.count();
        if let Some(session) = self.session.as_mut().filter(|s| s.seen.len() > self.tasks.len() + MOST_SEEN) {
            session.bound(|key| self.tasks.contains_key(key));
        }
        if self.session.is_none() {
            // The next one begins with all there is.
            self.dirty.clear();
            self.gone.clear();
            return;
        }
        let tasks = &self.tasks;
        self.dirty.retain(|key| tasks.get(key).is_some_and(|task| task.accepting.is_none()));
        self.estimation.gather(self.now.mono_ms);
        let news = self.node_changed || self.estimation.is_news();
        if news || !self.gone.is_empty() || !self.dirty.is_empty() {
            let delta = self.delta();
            self.send(News::Delta(delta));
        }
    }

    pub(crate) fn on_stop(&mut self, key: TaskKey, generation: Generation, reason: String) {
        if let Some(session) = self.session.as_mut() {
            session.is_over(key, generation);
        }
        match self.tasks.get(&key) {
            // A success is never erased by a stop (PROTOCOL 25): shown once more.
            Some(task) if task.record.outcome == Some(State::Succeeded) => {
                self.dirty.insert(key);
            }
            Some(task) if task.record.generation <= generation => self.end_for_good(key, reason),
            Some(_) => {}
            None => {
                self.gone.insert(key);
            }
        }
    }

    pub(crate) fn on_keep(&mut self, key: TaskKey, generation: Generation) {
        let Some(session) = self.session.as_mut() else { return };
        if session.seen.get(&key).is_some_and(|(seen, answer)| *seen >= generation && *answer == Answer::Over)
        {
            return;
        }
        if self.tasks.get(&key).is_some_and(|t| t.record.generation == generation) {
            session.kept.insert(key, generation);
            self.drive(key);
        }
    }

    pub(crate) fn on_forget(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else {
            self.gone.insert(key);
            return;
        };
        if task.record.outcome.is_some() {
            task.goal = Goal::Gone;
            self.drive(key);
        }
    }

    pub(crate) fn on_restart(&mut self, key: TaskKey, generation: Generation, at: u64) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let record = &mut task.record;
        if record.generation != generation || record.restart_at >= at || record.outcome.is_some() {
            return;
        }
        record.restart_at = at;
        task.failures = 0;
        task.unsaved = true;
        self.dirty.insert(key);
        self.forgive(key);
        self.note(key, "restarting", "asked to start again".to_string());
        self.end_and_again(key, Cause::Stopped, "asked to start again");
    }

    pub(crate) fn on_accept_stored(&mut self, key: TaskKey, result: Result<(), String>) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let generation = task.record.generation;
        let asked = task.accepting.take();
        let answers = self.session.as_ref().is_some_and(|s| Some(s.id) == asked);
        if let Err(why) = result {
            self.note(key, "refused", format!("its record cannot be written: {why}"));
            self.tasks.remove(&key);
            self.dirty.remove(&key);
            // A full report may have shown it.
            self.gone.insert(key);
            if answers {
                self.refuse(key, generation, RefusedOffer::Store { why });
            }
            return;
        }
        task.armed = true;
        self.dirty.insert(key);
        // If it was stopped meanwhile, it is accepted all the same: it is on disk, and would be here after a crash. The
        // report that it is gone follows when its record is.
        self.note(key, "accepted", "accepted by this node".to_string());
        self.drive(key);
        if answers {
            self.accept(key, generation);
        }
    }

    /// The highest generation of this placer or older that it can have made: what a stale offer is told.
    pub(crate) fn promised(&self) -> Generation {
        let Activation { cell, index } = self.promise;
        Generation { cell, activation: index, seq: 0 }
    }
}
