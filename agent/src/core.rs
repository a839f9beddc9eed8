//! The node's core: Event → Core → Action. No I/O, no clock, no randomness, no logging: shells turn the world into
//! events and carry out actions in order, and the same events give the same actions anywhere.
//!
//! Every task has a record (what must survive the agent), a goal (run, run again, be gone) and at most one run (a
//! container from its start until its bundle is removed). Each event changes one of them, and then `drive` (in `drive`)
//! takes the one next step that brings the run to the goal. The state that users see follows from the three.

mod admit;
mod amend;
mod bad;
mod drive;
mod env;
mod estimate;
mod evict;
mod health;
pub mod place;
mod ports;
pub mod record;
mod report;
mod restore;
mod run;
mod session;
mod task;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use gossip::wire::Order;
use placement::{
    ids::{Activation, TaskKey},
    job::Band,
    node::NodeInfo,
    task::Strain,
};

pub use self::estimate::Estimates;
use self::{
    estimate::Estimation,
    ports::Ports,
    session::{Opening, Session},
    task::{Task, Writing},
};
use crate::{
    event::{Action, Change, Event, Now, RunId, Ticket},
    history::History,
};

/// How long a record that could not be written waits for the next try.
const WRITE_AGAIN_MS: u64 = 1_000;

/// What the core is told once, at the agent's start.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: NodeInfo,
    /// The cell's name, to show to tasks.
    pub cell: String,
    /// Counts the agent's starts (PROTOCOL 22).
    pub life: u64,
    /// The newest placer answered so far, as persisted; for a new node the activation of the entry that admitted it
    /// (PROTOCOL 7, 8).
    pub promise: Activation,
    /// Ports to allot: 20000–31999.
    pub ports: RangeInclusive<u16>,
    /// The first to be allotted. Agents that share a machine's network begin at different ones: what two of them try
    /// at the same moment looks free to both.
    pub first_port: u16,
    /// The data directory is older than the machine remembers: its records are claims, and nothing of them starts
    /// before the placer's keep, not even a service (PROTOCOL 22).
    pub claims: bool,
    /// How its tasks' needs are estimated, and what is known of them; none: a task counts with its limit.
    pub estimate: Option<Estimates>,
}

/// A node's state. `handle` is its only way to change.
#[derive(Debug)]
pub struct Core {
    config: Config,
    tasks: BTreeMap<TaskKey, Task>,
    /// Runs found at the start that no record accounts for: being removed (PROTOCOL 21).
    strays: BTreeSet<RunId>,
    ports: Ports,
    promise: Activation,
    /// A hello whose promise is being written.
    opening: Option<Opening>,
    session: Option<Session>,
    /// Reports that the session has not seen yet: changed, and gone.
    dirty: BTreeSet<TaskKey>,
    gone: BTreeSet<TaskKey>,
    node_changed: bool,
    /// Memory that could be had, as last told.
    free: Option<u64>,
    /// The disk of the data directory has less free than so much that is kept of it, as last told.
    disk_kept: Option<u64>,
    /// Monotonic: when each of the node's `bad` is forgotten.
    bad_until: BTreeMap<TaskKey, u64>,
    estimation: Estimation,
    /// How its bands fare.
    strain: BTreeMap<Band, Strain>,
    /// What the node remembers of its jobs.
    history: History,
    next_ticket: Ticket,
    wake_at: Option<u64>,
    /// Of the event being handled.
    now: Now,
    out: Vec<Action>,
}

impl Core {
    /// A node on which nothing runs and of which nothing is known.
    pub fn new(mut config: Config) -> Core {
        Core {
            tasks: BTreeMap::new(),
            strays: BTreeSet::new(),
            ports: Ports::new(config.ports.clone(), config.first_port),
            promise: config.promise,
            opening: None,
            session: None,
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
            node_changed: false,
            free: None,
            disk_kept: None,
            bad_until: BTreeMap::new(),
            estimation: Estimation::new(config.estimate.take()),
            strain: BTreeMap::new(),
            history: History::default(),
            next_ticket: 0,
            wake_at: None,
            now: Now::default(),
            out: Vec::new(),
            config,
        }
    }

    /// What follows from one event. Actions are to be carried out in their order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        self.now = now;
        self.history.look(now);
        match event {
            Event::Hello { hello, fresh } => self.on_hello(hello, fresh),
            Event::Closed(session) => self.on_closed(session),
            Event::Order(to) if self.session.as_ref().is_some_and(|s| s.id == to.session) => {
                to.lessons.iter().for_each(|lesson| self.estimation.hear(lesson));
                match to.order {
                    Order::Offer(offer) => self.on_offer(*offer),
                    Order::Stop { key, generation, reason } => self.on_stop(key, generation, reason),
                    Order::Keep { key, generation } => self.on_keep(key, generation),
                    Order::Forget { key } => self.on_forget(key),
                    Order::Beat => {}
                    Order::Restart { key, generation, at } => self.on_restart(key, generation, at),
                    Order::Amend(amend) => self.on_amend(*amend),
                }
            }
            // Of another session: ignored (PROTOCOL 14).
            Event::Order(_) => {}
            Event::Stored { ticket, result } => self.on_stored(ticket, result),
            Event::Run { run, what } => self.on_run(run, what),
            Event::Measured(usage) => self.on_measured(usage),
            Event::Strained(strain) => self.on_strained(strain),
            Event::BandsStrained(strain) => self.strain = strain,
            Event::Images(images) => {
                self.node_changed |= self.config.node.images != images;
                self.config.node.images = images;
            }
            Event::Volumes(volumes) => {
                self.node_changed |= self.config.node.volumes != volumes;
                self.config.node.volumes = volumes;
            }
            Event::Capacity(capacity) => {
                self.node_changed |= self.config.node.capacity != capacity;
                self.config.node.capacity = capacity;
            }
            Event::Evict { run, hard, what, used, why } => self.on_evict(run, hard, (what, used), why),
            Event::Free { memory } => self.on_free(memory),
            Event::DiskShort(kept) => self.on_disk_short(kept),
            Event::Woke => {
                self.wake_at = None;
                self.write_promise_again();
                self.forget_old_failures();
                self.drive_all();
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> Vec<Action> {
        self.flush();
        let opening = self.opening.as_ref().and_then(|o| o.retry_at);
        let forget = self.bad_until.values().min().copied();
        let teach = self.estimation.tells_at().filter(|_| self.session.is_some());
        let others = opening.into_iter().chain(forget).chain(teach);
        let earliest = self.tasks.values().filter_map(|t| self.deadline(t)).chain(others).min();
        // One that is due is on its way; put off, what it was for would not be done.
        let comes = self.wake_at.is_some_and(|at| at <= self.now.mono_ms);
        if earliest.is_some() && earliest != self.wake_at && !comes {
            self.out.extend(earliest.map(|mono_ms| Action::WakeAt { mono_ms }));
            self.wake_at = earliest;
        }
        std::mem::take(&mut self.out)
    }

    fn store(&mut self, changes: Vec<Change>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.out.push(Action::Store { ticket, changes });
        ticket
    }

    /// Writes a task's record; `what` then follows in `on_stored`.
    fn write(&mut self, key: TaskKey, what: Writing) {
        let Some(task) = self.tasks.get(&key) else { return };
        let change = match what {
            Writing::Drop => Change::Drop(key),
            Writing::Accept | Writing::Save => Change::Put(Box::new(task.record.clone())),
        };
        let ticket = self.store(vec![change]);
        if let Some(task) = self.tasks.get_mut(&key) {
            task.writing = Some((ticket, what));
            task.unsaved = false;
        }
    }

    fn on_stored(&mut self, ticket: Ticket, result: Result<(), String>) {
        if self.opening.as_ref().is_some_and(|o| o.ticket == ticket) {
            return self.on_promise_stored(result);
        }
        if let Some(key) = self.tasks.iter().find_map(|(key, t)| (t.amending == Some(ticket)).then_some(*key))
        {
            return self.on_next_stored(key, result);
        }
        let found = self.tasks.iter().find_map(|(key, t)| match t.writing {
            Some((mine, what)) if mine == ticket => Some((*key, what)),
            _ => None,
        });
        // Else a stop's mark, which nothing waits for: if it is lost, the placer repeats the stop.
        let Some((key, what)) = found else { return };
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.writing = None;
        let trouble = task.trouble.take();
        if trouble.is_some() {
            self.dirty.insert(key);
        }
        match (what, result) {
            (Writing::Accept, result) => return self.on_accept_stored(key, result),
            (Writing::Drop, Ok(())) => return self.drop_task(key),
            (Writing::Save, Ok(())) => {
                task.ended = task.record.outcome.is_some();
                task.armed = !task.ended;
                if task.ended && task.run.is_none() {
                    // Its share is given back.
                    self.dirty.insert(key);
                }
            }
            (Writing::Save | Writing::Drop, Err(why)) => {
                task.unsaved = true;
                task.retry_at = Some(self.now.mono_ms + WRITE_AGAIN_MS);
                let text = format!("its record cannot be written: {why}; trying again each second");
                task.trouble = Some(text.clone());
                self.dirty.insert(key);
                // Said once: a disk that stays full must not push the past out of the ring of events.
                if trouble.as_ref() != Some(&text) {
                    self.note(key, "store_failed", text);
                }
            }
        }
        self.drive(key);
    }

    fn drop_task(&mut self, key: TaskKey) {
        self.note(key, "removed", "gone from this node".to_string());
        self.dirty.remove(&key);
        self.gone.insert(key);
        let Some(task) = self.tasks.remove(&key) else { return };
        if let Some(session) = self.session.as_mut() {
            // A repeat of the offer that brought it does not bring it back (PROTOCOL 17).
            session.is_over(key, task.record.generation);
        }
    }
}
