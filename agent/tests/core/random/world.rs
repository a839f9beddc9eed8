//! Everything round the core, and what may happen.

use std::collections::{BTreeMap, VecDeque};

use agent::{
    core::{Config, Core, record::Record},
    event::{Action, AmendRun, Change, Event, Now, RunEvent, RunId, Signal},
};
use gossip::wire::{FromAgent, Order, ToAgent, Welcome};
use placement::{
    ids::{JobKey, TaskKey},
    job::Kind,
    task::State,
};

use super::{
    checks::Checks,
    dice::Dice,
    machine::{Run, Stage},
    placer::Placer,
};
use crate::{script, show};

pub(crate) struct World {
    pub(crate) print: bool,
    pub(crate) dice: Dice,
    pub(crate) now: Now,
    core: Core,
    config: Config,
    pub(crate) disk: BTreeMap<TaskKey, Record>,
    stores: VecDeque<(u64, Vec<Change>)>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) pids: u32,
    /// Events of runs on their way to the agent.
    pub(crate) news: VecDeque<Event>,
    wake: Option<u64>,
    orders: VecDeque<ToAgent>,
    /// Of sessions that are over.
    late: Vec<ToAgent>,
    reports: VecDeque<FromAgent>,
    placer: Placer,
    pub(crate) checks: Checks,
    pub(crate) notes: BTreeMap<&'static str, u32>,
    /// No more faults.
    settling: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let config = Config { ports: 20000..=20005, ..script::config() };
        World {
            print: false,
            dice: Dice::new(seed),
            now: Now { mono_ms: 0, wall_ms: 1_000_000 },
            core: Core::new(config.clone()),
            config,
            disk: BTreeMap::new(),
            stores: VecDeque::new(),
            runs: BTreeMap::new(),
            pids: 100,
            news: VecDeque::new(),
            wake: None,
            orders: VecDeque::new(),
            late: Vec::new(),
            reports: VecDeque::new(),
            placer: Placer::new(),
            checks: Checks::default(),
            notes: BTreeMap::new(),
            settling: false,
        }
    }

    pub(crate) fn step(&mut self) {
        self.pass(1);
        match self.dice.below(100) {
            0..18 => self.placer_orders(),
            18..36 => self.deliver_order(),
            36..46 => self.placer_hears(),
            46..64 => self.store_answers(5),
            64..76 => self.some_run_moves(),
            76..88 => self.deliver_news(),
            88..93 => {
                let ms = [5, 25, 400, 2_000][self.dice.below(4)];
                self.pass(ms);
            }
            93..95 => self.new_session(),
            95 => {
                if let Some(late) = self.dice.pick(&self.late) {
                    self.feed(Event::Order(late));
                }
            }
            96 => {
                if let Some(session) = self.placer.session {
                    self.feed(Event::Closed(session));
                    self.checks.session(None);
                    self.placer.session = None;
                }
            }
            97 => self.agent_restarts(),
            98 if self.dice.chance(30) => {
                self.power_fails();
                self.agent_restarts();
            }
            _ => self.feed(Event::Woke),
        }
    }

    /// Time passes; an agent that asked to be woken is.
    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        if self.wake.is_some_and(|at| at <= self.now.mono_ms) {
            self.wake = None;
            self.feed(Event::Woke);
        }
    }

    fn feed(&mut self, event: Event) {
        if self.print {
            println!("{} {event:?}", self.now.mono_ms);
        }
        match &event {
            Event::Order(to) if Some(to.session) == self.placer.session => match &to.order {
                Order::Offer(offer) => self.checks.offered(offer.key, offer.generation),
                Order::Keep { key, generation } => self.checks.kept(*key, *generation),
                _ => {}
            },
            _ => {}
        }
        let actions = self.core.handle(event, self.now);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            if !self.settling && self.dice.below(400) == 0 {
                return self.agent_restarts();
            }
            if self.print {
                println!("    {}", show::action(&action));
            }
            self.act(action);
        }
        self.checks.after_event(&self.core);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Store { ticket, changes } => self.stores.push_back((ticket, changes)),
            Action::Welcome(Welcome::Open { session, .. }) => {
                self.checks.session(Some(session));
                self.placer.session = Some(session);
                assert!(
                    self.config.promise.index >= self.placer.activation,
                    "welcome before the promise (7)"
                );
            }
            Action::Welcome(Welcome::Promised(promise)) => assert!(promise.index > 0),
            Action::Send(message) => {
                self.checks.sent(&message, |key| self.disk.get(&key).map(|r| r.generation));
                self.reports.push_back(*message);
            }
            Action::Start(start) => {
                let record = self.disk.get(&start.run.key);
                let batch = record.is_some_and(|r| r.spec.kind == Kind::Batch);
                let name = start.hostname.rsplit_once('-').unwrap().0.to_string();
                let job = JobKey { owner: start.owner.clone(), name };
                let living = self.living(&job, start.run.key);
                self.checks.starts(start.run, batch, record.map(|r| (r.generation, r.run)), &living);
                let ports = start.ports.values().copied().collect();
                let (told, killed, probed, removing) = (false, false, false, false);
                let (stage, limit) = (Stage::Starting, start.limit);
                let run = Run { job, batch, ports, limit, stage, told, killed, probed, removing };
                self.runs.insert(start.run, run);
            }
            Action::Amend(amend) => {
                let AmendRun { run: id, version, from, to } = *amend;
                let next = self.disk.get(&id.key).and_then(|record| record.next.as_ref());
                assert_eq!(
                    next.map(|next| next.version),
                    Some(version),
                    "{id} is changed before that is on disk"
                );
                let refused = !self.settling && self.dice.chance(20);
                let Some(run) = self.runs.get_mut(&id).filter(|run| run.lives()) else { return };
                if self.settling {
                    assert!(run.limit == from.limit || run.limit == to.limit, "{id} has {:?}", run.limit);
                }
                let result = if refused { Err("luck".to_string()) } else { Ok(()) };
                if !refused {
                    run.limit = to.limit;
                }
                self.news.push_back(Event::Run { run: id, what: RunEvent::Amended { version, result } });
            }
            Action::Signal { run, signal } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.told = true;
                    run.killed |= signal == Signal::Kill;
                }
            }
            Action::Abandon { run: id } => {
                // It may have got too far.
                let in_time = self.dice.below(2) == 0;
                if in_time && self.runs.get(&id).is_some_and(|run| run.stage == Stage::Starting) {
                    self.runs.remove(&id);
                    let what = RunEvent::StartFailed { why: "called off".into(), transient: true };
                    self.news.push_back(Event::Run { run: id, what });
                }
            }
            Action::Remove { run: id, .. } => match self.runs.get_mut(&id) {
                Some(run) => run.removing = true,
                None => self.news.push_back(Event::Run { run: id, what: RunEvent::Removed }),
            },
            Action::Probe { run, .. } => self.probed(run, true),
            Action::Unprobe { run } => self.probed(run, false),
            Action::WakeAt { mono_ms } => self.wake = Some(mono_ms),
            Action::Note(note) => *self.notes.entry(note.kind).or_insert(0) += 1,
        }
    }

    fn probed(&mut self, run: RunId, probed: bool) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.probed = probed;
        }
    }

    fn placer_orders(&mut self) {
        let order = self.placer.order(&mut self.dice);
        self.orders.extend(order);
    }

    fn deliver_order(&mut self) {
        if let Some(order) = self.orders.pop_front() {
            self.feed(Event::Order(order));
        }
    }

    fn placer_hears(&mut self) {
        for message in self.reports.drain(..) {
            self.placer.hear(message);
        }
    }

    /// The oldest store is carried out, or (`failing` percent) is not.
    fn store_answers(&mut self, failing: u64) {
        let Some((ticket, changes)) = self.stores.pop_front() else { return };
        let result = if self.dice.chance(failing) { Err("disk full".to_string()) } else { Ok(()) };
        if result.is_ok() {
            self.write(changes);
        }
        self.feed(Event::Stored { ticket, result });
    }

    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(record) => drop(self.disk.insert(record.key, *record)),
                Change::Drop(key) => {
                    let empty = !self.runs.iter().any(|(id, run)| id.key == key && run.lives());
                    assert!(empty, "{key} is dropped before its cgroup is empty (19)");
                    self.disk.remove(&key);
                }
                Change::Promise(promise) => self.config.promise = promise,
                Change::Bad(bad) => self.config.node.bad = bad,
            }
        }
    }

    fn some_run_moves(&mut self) {
        let ids: Vec<RunId> = self.runs.keys().copied().collect();
        if let Some(id) = self.dice.pick(&ids) {
            self.run_moves(id, false);
        }
    }

    fn deliver_news(&mut self) {
        if let Some(event) = self.news.pop_front() {
            self.feed(event);
        }
    }

    fn new_session(&mut self) {
        if self.dice.chance(50) {
            self.late.extend(self.orders.iter().cloned());
        }
        self.orders.clear();
        self.reports.clear();
        let older = self.config.promise.index - 1;
        match self.dice.below(10) {
            0 => {
                // A deposed placer. It is not the one whose orders count.
                let mut hello = Placer::new().hello(older);
                hello.fresh = 9_999;
                return self.feed(Event::Hello { hello, fresh: 1 });
            }
            1..4 => self.placer.activation += 1,
            _ => {}
        }
        self.say_hello();
    }

    fn say_hello(&mut self) {
        let hello = self.placer.hello(self.placer.activation);
        self.checks.session(None);
        let fresh = self.now.mono_ms;
        self.feed(Event::Hello { hello, fresh });
    }

    /// Killed at once and started again: what was being stored is stored up to any point.
    fn agent_restarts(&mut self) {
        let written = self.dice.below(self.stores.len() + 1);
        for (_, changes) in std::mem::take(&mut self.stores).into_iter().take(written) {
            self.write(changes);
        }
        if !self.disk.is_empty() && self.dice.chance(5) {
            // A record is lost: nobody answers for its run.
            let keys: Vec<TaskKey> = self.disk.keys().copied().collect();
            let key = keys[self.dice.below(keys.len())];
            self.disk.remove(&key);
            self.placer.over.insert(key);
        }
        self.news.clear();
        self.wake = None;
        self.orders.clear();
        self.reports.clear();
        self.placer.session = None;
        self.placer.reported = false;
        self.config.life += 1;
        self.checks.agent_restarted();
        let found = self.found();
        if self.print {
            println!("{} the agent is killed and started again; it finds {found:?}", self.now.mono_ms);
        }
        let records = self.disk.values().cloned().collect();
        let (core, actions) = Core::restore(self.config.clone(), records, found, self.now);
        self.core = core;
        self.carry_out(actions);
    }

    /// No more faults: everything comes to rest, and as it should be.
    pub(crate) fn settle(&mut self) {
        self.settling = true;
        self.orders.clear();
        self.reports.clear();
        self.say_hello();
        for _ in 0..2_000 {
            self.pass(1);
            let mut moved = !self.stores.is_empty() || !self.news.is_empty() || !self.reports.is_empty();
            self.store_answers(0);
            self.deliver_news();
            self.placer_hears();
            for order in self.placer.settling() {
                self.feed(Event::Order(order));
            }
            for id in self.runs.keys().copied().collect::<Vec<_>>() {
                moved |= self.run_moves(id, true);
            }
            match self.wake {
                _ if moved => {}
                Some(at) => self.pass(at.saturating_sub(self.now.mono_ms)),
                None => return self.at_rest(),
            }
        }
        panic!("nothing comes to rest: {:#?}", self.core.reports());
    }

    fn at_rest(&self) {
        for report in self.core.reports() {
            let stopped = self.placer.stopped.get(&report.key).is_some_and(|s| report.generation <= *s);
            let fine = match report.state {
                State::Succeeded => true,
                State::Running => !stopped && report.kind == Kind::Service,
                State::Failed => !stopped && report.kind == Kind::Batch,
                _ => false,
            };
            assert!(fine, "at rest, yet {report:?} (stopped: {stopped})");
            if report.state == State::Running {
                let (run, pid) = self.core.running(report.key).unwrap();
                assert_eq!(self.runs[&run].limit, report.limit, "{run} has other limits than it is said to");
                let there = &self.runs[&run].stage;
                assert!(matches!(there, Stage::Running { pid: p, .. } if *p == pid), "{run} is {there:?}");
            }
        }
        for id in self.runs.keys() {
            assert_eq!(self.core.running(id.key).map(|(run, _)| run), Some(*id), "{id} is nobody's");
        }
        let records: Vec<TaskKey> = self.disk.keys().copied().collect();
        let tasks: Vec<TaskKey> = self.core.reports().iter().map(|r| r.key).collect();
        assert_eq!(records, tasks, "disk and core differ");
    }
}
