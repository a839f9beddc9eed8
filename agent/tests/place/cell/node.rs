//! A node of the cell: the real core on a model of its machine and disk.

use std::collections::{BTreeMap, VecDeque};

use agent::{
    core::{Config, Core, record::Record},
    event::{Action, AmendRun, Change, Ended, Event, Found, Now, RunEvent, RunId, Signal, Ticket},
};
use gossip::wire::{FromAgent, Hello, Order, PROTOCOL, SessionId, ToAgent, Welcome};
use placement::{
    ids::{Activation, JobKey, NodeId, TaskKey},
    job::Kind,
    node::NodeInfo,
    resources::Resources,
};

use crate::dice::Dice;

pub(crate) struct Node {
    core: Core,
    pub(crate) config: Config,
    disk: BTreeMap<TaskKey, Record>,
    stores: VecDeque<(Ticket, Vec<Change>)>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    /// Of runs, on its way to the agent.
    news: VecDeque<Event>,
    wake: Option<u64>,
    pub(crate) orders: VecDeque<ToAgent>,
    pub(crate) reports: VecDeque<FromAgent>,
    pub(crate) session: Option<SessionId>,
    /// Said hello, and not answered.
    pub(crate) greeting: Option<u64>,
    /// No connection can be made.
    pub(crate) cut: bool,
    /// No service fails by itself any more.
    pub(crate) benign: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) job: JobKey,
    pub(crate) batch: bool,
    pub(crate) limit: Resources,
    stage: Stage,
    told: bool,
    removing: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Starting,
    Running { since_ms: u64 },
    Ended(Ended),
}

/// What came of an event beside messages.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) started: Vec<RunId>,
    pub(crate) opened: Option<SessionId>,
    pub(crate) notes: Vec<&'static str>,
}

/// A node that is new in its cell, and estimates nothing.
pub(crate) fn config(id: NodeId, capacity: Resources) -> Config {
    let node = NodeInfo {
        id,
        name: format!("n{}", id.0),
        addr: String::new(),
        version: "0".into(),
        labels: BTreeMap::new(),
        capacity,
        images: Default::default(),
        volumes: Default::default(),
        bad: Vec::new(),
    };
    Config {
        node,
        cell: "c".into(),
        life: 1,
        promise: Activation { cell: 1, index: 1 + id.0 },
        ports: 20000..=20005,
        first_port: 20000,
        claims: false,
        estimate: None,
    }
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Node {
        let config = config(id, Resources::new(1_600, 4 << 30));
        Node {
            core: Core::new(config.clone()),
            config,
            disk: BTreeMap::new(),
            stores: VecDeque::new(),
            runs: BTreeMap::new(),
            news: VecDeque::new(),
            wake: None,
            orders: VecDeque::new(),
            reports: VecDeque::new(),
            session: None,
            greeting: None,
            cut: false,
            benign: false,
        }
    }

    pub(crate) fn hello(&self, activation: Activation, fresh: u64) -> Event {
        let hello = Hello { protocol: PROTOCOL.into(), placer: NodeId(1), activation, fresh };
        Event::Hello { hello, fresh }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Now) -> Told {
        let actions = self.core.handle(event, now);
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Told {
        let mut told = Told::default();
        for action in actions {
            match action {
                Action::Store { ticket, changes } => self.stores.push_back((ticket, changes)),
                Action::Welcome(Welcome::Open { session, .. }) => {
                    self.reports.clear();
                    told.opened = Some(session);
                }
                Action::Welcome(Welcome::Promised(_)) => {}
                Action::Send(from) => self.reports.push_back(*from),
                Action::Start(start) => {
                    let record = &self.disk[&start.run.key];
                    let run = Run {
                        job: record.spec.job.clone(),
                        batch: record.spec.kind == Kind::Batch,
                        limit: start.limit.clone(),
                        stage: Stage::Starting,
                        told: false,
                        removing: false,
                    };
                    self.runs.insert(start.run, run);
                    told.started.push(start.run);
                }
                Action::Amend(amend) => {
                    let AmendRun { run: id, version, to, .. } = *amend;
                    // By chance of its name: some containers cannot be changed.
                    let result = if id.key.index == 2 { Err("luck".to_string()) } else { Ok(()) };
                    if let Some(run) = self.runs.get_mut(&id).filter(|_| result.is_ok()) {
                        run.limit = to.limit;
                    }
                    self.news.push_back(Event::Run { run: id, what: RunEvent::Amended { version, result } });
                }
                Action::Signal { run, signal } => {
                    if let Some(run) = self.runs.get_mut(&run) {
                        run.told |= matches!(signal, Signal::Term | Signal::Kill);
                    }
                }
                Action::Remove { run: id, .. } => match self.runs.get_mut(&id) {
                    Some(run) => run.removing = true,
                    None => self.news.push_back(Event::Run { run: id, what: RunEvent::Removed }),
                },
                Action::Probe { .. } | Action::Unprobe { .. } | Action::Abandon { .. } => {}
                Action::WakeAt { mono_ms } => self.wake = Some(mono_ms),
                Action::Note(note) => told.notes.push(note.kind),
            }
        }
        told
    }

    /// The machine gets smaller, or has its size again.
    pub(crate) fn resize(&self, small: bool) -> Event {
        let mut capacity = self.config.node.capacity.clone();
        if small {
            capacity.set(placement::resources::CPU, 800);
        }
        Event::Capacity(capacity)
    }

    pub(crate) fn wakes(&mut self, now: Now) -> Option<Event> {
        self.wake.take_if(|at| *at <= now.mono_ms).map(|_| Event::Woke)
    }

    pub(crate) fn stored(&mut self) -> Option<Event> {
        let (ticket, changes) = self.stores.pop_front()?;
        self.write(changes);
        Some(Event::Stored { ticket, result: Ok(()) })
    }

    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(record) => drop(self.disk.insert(record.key, *record)),
                Change::Drop(key) => drop(self.disk.remove(&key)),
                Change::Promise(promise) => self.config.promise = promise,
                Change::Bad(bad) => self.config.node.bad = bad,
            }
        }
    }

    /// News of a run arrives, or something happens to one.
    pub(crate) fn moves(&mut self, dice: &mut Dice) -> Option<Event> {
        if self.news.is_empty() || dice.chance(30) {
            let ids: Vec<RunId> = self.runs.keys().copied().collect();
            if let Some(id) = dice.pick(&ids) {
                self.run_moves(id, dice);
            }
        }
        self.news.pop_front()
    }

    fn run_moves(&mut self, id: RunId, dice: &mut Dice) {
        let benign = self.benign;
        let Some(run) = self.runs.get_mut(&id) else { return };
        let end = |code| Ended {
            code: Some(code),
            signal: None,
            log_bytes_lost: 0,
            oom: None,
            shim_lost: false,
            why: None,
            at_ms: 0,
        };
        if run.removing {
            self.runs.remove(&id);
            return self.news.push_back(Event::Run { run: id, what: RunEvent::Removed });
        }
        let what = match run.stage {
            Stage::Starting if !benign && dice.chance(10) => {
                RunEvent::StartFailed { why: "luck".into(), transient: true }
            }
            Stage::Starting => {
                run.stage = Stage::Running { since_ms: 0 };
                RunEvent::Started { pid: 100 }
            }
            Stage::Running { .. } => {
                let by_itself = if run.batch { dice.chance(40) } else { !benign && dice.chance(10) };
                if !run.told && !by_itself {
                    return;
                }
                let failing = if run.batch { 70 } else { 40 };
                let ended = end(i32::from((run.batch || !benign) && dice.chance(failing)));
                run.stage = Stage::Ended(ended.clone());
                RunEvent::Exited(ended)
            }
            Stage::Ended(_) => return,
        };
        if matches!(what, RunEvent::StartFailed { .. }) {
            self.runs.remove(&id);
        }
        self.news.push_back(Event::Run { run: id, what });
    }

    /// The agent is killed and started again; without power its containers end too.
    pub(crate) fn restart(&mut self, power: bool, dice: &mut Dice, now: Now) -> Told {
        let written = dice.below(self.stores.len() + 1);
        for (_, changes) in std::mem::take(&mut self.stores).into_iter().take(written) {
            self.write(changes);
        }
        self.news.clear();
        self.orders.clear();
        self.reports.clear();
        (self.wake, self.session, self.greeting) = (None, None, None);
        self.config.life += 1;
        if power {
            for run in self.runs.values_mut().filter(|r| !matches!(r.stage, Stage::Ended(_))) {
                run.stage = Stage::Ended(Ended::lost(0));
            }
        }
        let found = self.runs.iter_mut().map(|(id, run)| {
            run.removing = false;
            let found = match &run.stage {
                Stage::Starting => Found::Starting,
                Stage::Running { since_ms } => {
                    let ran_ms = now.wall_ms.saturating_sub(*since_ms);
                    Found::Running { pid: 100, started_at_ms: *since_ms, ran_ms }
                }
                Stage::Ended(ended) => Found::Ended(ended.clone()),
            };
            (*id, found)
        });
        let found = found.collect();
        let records = self.disk.values().cloned().collect();
        let (core, actions) = Core::restore(self.config.clone(), records, found, now);
        self.core = core;
        self.carry_out(actions)
    }

    /// Runs of which processes are there, and whose.
    pub(crate) fn living(&self) -> impl Iterator<Item = (RunId, &JobKey)> {
        let living =
            self.runs.iter().filter(|(_, run)| !matches!(run.stage, Stage::Ended(_)) && !run.removing);
        living.map(|(id, run)| (*id, &run.job))
    }

    /// Whether anything is still to happen by itself.
    pub(crate) fn busy(&self) -> bool {
        let moving = |run: &Run| {
            run.removing
                || match run.stage {
                    Stage::Starting => true,
                    Stage::Running { .. } => run.told || run.batch,
                    Stage::Ended(_) => false,
                }
        };
        let queues = self.orders.is_empty() && self.reports.is_empty() && self.news.is_empty();
        !queues || !self.stores.is_empty() || self.session.is_none() || self.runs.values().any(moving)
    }
}

pub(crate) fn word(order: &Order) -> &'static str {
    match order {
        Order::Offer(_) => "offer",
        Order::Stop { .. } => "stop",
        Order::Keep { .. } => "keep",
        Order::Forget { .. } => "forget",
        Order::Restart { .. } => "restart",
        Order::Amend(_) => "amend",
        Order::Beat => "beat",
    }
}
