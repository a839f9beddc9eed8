//! A placer that obeys only the rules that an agent must be able to rely on; else it orders what it likes, again and again.

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::{FromAgent, Hello, News, Offer, Order, PROTOCOL, SessionId, ToAgent};
use placement::{
    ids::{Activation, Generation, NodeId, TaskKey, Uid, Version},
    job::{Health, Kind, Probe},
    resources::CPU,
    task::{Report, State, TaskSpec},
};

use super::dice::Dice;
use crate::script::spec;

pub(crate) struct Placer {
    pub(crate) activation: u64,
    seq: u64,
    fresh: u64,
    pub(crate) session: Option<SessionId>,
    /// From the session's full report on.
    pub(crate) view: BTreeMap<TaskKey, Report>,
    pub(crate) reported: bool,
    /// Orders of this session, to repeat.
    sent: Vec<Order>,
    /// The job of each name as created last.
    uids: [u64; JOBS.len()],
    next_index: u64,
    /// Irrevocable (PROTOCOL 16).
    pub(crate) stopped: BTreeMap<TaskKey, Generation>,
    /// Forgotten, or lost with a record: never offered again.
    pub(crate) over: BTreeSet<TaskKey>,
}

const JOBS: [&str; 3] = ["web", "api", "etl"];

fn task_spec(job: usize) -> TaskSpec {
    let mut spec = spec(JOBS[job], if job == 2 { Kind::Batch } else { Kind::Service });
    spec.limit.set(CPU, 300);
    spec.grace_ms = 20;
    if job == 1 {
        spec.ports = vec!["http".into(), "admin".into()];
        spec.health = Some(Health {
            probe: Probe::Http { http: "/".into(), port: "http".into() },
            interval_ms: 1,
            timeout_ms: 1,
            failures: 2,
            start_ms: 5,
        });
    }
    spec
}

impl Placer {
    pub(crate) fn new() -> Placer {
        Placer {
            activation: 3,
            seq: 0,
            fresh: 0,
            session: None,
            view: BTreeMap::new(),
            reported: false,
            sent: Vec::new(),
            uids: [10, 11, 12],
            next_index: 20,
            stopped: BTreeMap::new(),
            over: BTreeSet::new(),
        }
    }

    pub(crate) fn hello(&mut self, activation: u64) -> Hello {
        self.fresh += 1;
        self.session = None;
        self.reported = false;
        self.view.clear();
        self.sent.clear();
        let activation = Activation { cell: 1, index: activation };
        Hello { protocol: PROTOCOL.into(), placer: NodeId(7), activation, fresh: self.fresh }
    }

    pub(crate) fn hear(&mut self, message: FromAgent) {
        if Some(message.session) != self.session {
            return;
        }
        let delta = match message.news {
            News::Full { tasks, .. } => {
                self.reported = true;
                self.view = tasks.into_iter().map(|t| (t.key, t)).collect();
                return;
            }
            News::Delta(delta)
            | News::Accepted { delta, .. }
            | News::Refused { delta, .. }
            | News::NotAmended { delta, .. } => delta,
        };
        for key in delta.gone {
            self.view.remove(&key);
        }
        self.view.extend(delta.tasks.into_iter().map(|t| (t.key, t)));
    }

    fn generation(&mut self) -> Generation {
        self.seq += 1;
        Generation { cell: 1, activation: self.activation, seq: self.seq }
    }

    pub(crate) fn order(&mut self, dice: &mut Dice) -> Option<ToAgent> {
        let session = self.session.filter(|_| self.reported)?;
        let here: Vec<(TaskKey, Generation, State)> =
            self.view.values().map(|t| (t.key, t.generation, t.state)).collect();
        let order = match dice.below(100) {
            0..45 => {
                let job = dice.below(JOBS.len());
                let uid = Uid { cell: 1, index: self.uids[job] };
                let key = TaskKey { uid, index: dice.below(2) as u32 };
                if self.over.contains(&key) || (self.view.contains_key(&key) && !dice.chance(10)) {
                    return None;
                }
                let generation = self.generation();
                let mut spec = task_spec(job);
                spec.retries = (generation.seq % 2) as u32;
                let version = Version { cell: 1, number: 1 };
                Order::Offer(Box::new(Offer { key, generation, version, spec, remark: None, lesson: None }))
            }
            45..60 => {
                let (key, mut generation, _) = dice.pick(&here)?;
                if dice.chance(20) {
                    generation.seq = generation.seq.saturating_sub(1);
                }
                let stopped = self.stopped.entry(key).or_insert(generation);
                *stopped = generation.max(*stopped);
                Order::Stop { key, generation, reason: "luck".into() }
            }
            60..72 => {
                let (key, generation, _) = dice.pick(&here)?;
                Order::Keep { key, generation }
            }
            72..80 => {
                let ended: Vec<_> = here.into_iter().filter(|(_, _, state)| state.is_final()).collect();
                let (key, ..) = dice.pick(&ended)?;
                self.over.insert(key);
                Order::Forget { key }
            }
            80..88 => {
                let (key, generation, _) = dice.pick(&here)?;
                self.next_index += 1;
                Order::Restart { key, generation, at: self.next_index }
            }
            88..91 => {
                // Now and then of a version that it has, or for something else.
                let copies: Vec<Report> = self.view.values().cloned().collect();
                let copy = dice.pick(&copies)?;
                let job = JOBS.iter().position(|name| **name == copy.job.name)?;
                let mut spec = task_spec(job);
                spec.retries = (copy.generation.seq % 2) as u32;
                spec.limit.set(CPU, [200, 300, 400, 900][dice.below(4)]);
                if dice.chance(10) {
                    spec.env.insert("A".into(), "b".into());
                }
                let version = Version { cell: 1, number: copy.version.number + dice.below(3) as u64 };
                let (key, generation) = (copy.key, copy.generation);
                Order::Amend(Box::new(Offer { key, generation, version, spec, remark: None, lesson: None }))
            }
            91..93 => {
                // Stopped and created again under the same name.
                self.next_index += 1;
                self.uids[dice.below(JOBS.len())] = self.next_index;
                return None;
            }
            _ => dice.pick(&self.sent)?,
        };
        self.sent.push(order.clone());
        Some(ToAgent::new(session, order))
    }

    /// What brings everything to rest: stops repeated, the only copies kept.
    pub(crate) fn settling(&mut self) -> Vec<ToAgent> {
        let Some(session) = self.session.filter(|_| self.reported) else { return Vec::new() };
        let orders = self.view.values().filter_map(|t| match self.stopped.get(&t.key) {
            Some(stopped) if t.generation <= *stopped => {
                let order = Order::Stop { key: t.key, generation: *stopped, reason: "settling".into() };
                (t.state != State::Succeeded && t.state != State::Stopping).then_some(order)
            }
            _ if t.kind == Kind::Batch && t.state == State::Starting => {
                Some(Order::Keep { key: t.key, generation: t.generation })
            }
            _ => None,
        });
        orders.map(|order| ToAgent::new(session, order)).collect()
    }
}
