//! An agent: what of `daemon` hands events to the cores and carries out what they want.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gossip::wire::{SessionId, Welcome};
use openraft::Raft;
use placement::{
    ids::{Activation, NodeId},
    node::NodeInfo,
};

use super::{
    placer::Placer,
    stream::{Frame, StreamId, Way},
    swim::Swim,
    world::{World, ms},
};
use crate::{
    core::{Config, Core},
    event::{Action, Event, RunEvent},
    ledger::{Heard, View},
    sim::{
        net::Sim,
        runtime::{Group, draw_from, sleep, spawn_in},
    },
};

/// How often an agent looks at what it could wait for.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Agent {
    pub(super) group: Group,
    pub(super) life: u64,
    pub(super) core: Core,
    /// Of the last `WakeAt`.
    wake: u64,
    /// Where the answer to the last hello goes, and then the session's news.
    pub(super) out: Option<StreamId>,
    pub(super) session: Option<(SessionId, StreamId)>,
    /// Who opened it.
    pub(super) placer_is: Option<NodeId>,
    pub(super) swim: Swim,
    pub(super) placer: Placer,
}

impl World {
    pub(super) fn boot(&mut self, id: NodeId, group: Group, raft: Raft<Sim>, view: Arc<View>, heard: Heard) {
        let machine = self.machines.get_mut(&id).unwrap();
        machine.life += 1;
        let (life, now) = (machine.life, machine.now());
        let config = Config {
            node: NodeInfo { bad: machine.store.bad.clone(), ..machine.info.clone() },
            cell: "sim".into(),
            life,
            promise: machine.store.promise.max(Activation { cell: 1, index: machine.admitted }),
            ports: 20_000..=20_005,
            first_port: 20_000,
            claims: false,
            estimate: None,
        };
        let records = machine.store.records.values().cloned().collect();
        let (core, actions) = Core::restore(config, records, machine.found(), now);
        let agent = Agent {
            group,
            life,
            core,
            wake: 0,
            out: None,
            session: None,
            placer_is: None,
            swim: Swim::new(id, life),
            placer: Placer::new(id, raft, view, heard),
        };
        self.agents.insert(id, agent);
        self.say(|_| format!("n{} its agent starts, the {life}th time", id.0));
        self.carry_out(id, actions);
        self.greet(id);
        self.streams_end_of_earlier(id);
        let world = self.shared();
        spawn_in(group, async move {
            while let Some(world) = world.upgrade() {
                world.lock().unwrap().look(id);
                drop(world);
                sleep(LOOK).await;
            }
        });
    }

    /// Its agent is dead, with all that it meant to do.
    pub(super) fn agent_died(&mut self, id: NodeId) {
        if self.agents.remove(&id).is_some() {
            self.say(|_| format!("n{} its agent dies", id.0));
            self.machines.get_mut(&id).unwrap().agent_dies();
        }
    }

    pub(super) fn core(&mut self, id: NodeId, event: Event) {
        let now = self.machines[&id].now();
        if !self.agents.contains_key(&id) {
            return;
        }
        self.say(|_| format!("n{} {event:?}", id.0));
        let ended = match &event {
            Event::Run { run, what: RunEvent::Exited(_) } => Some(run.key),
            _ => None,
        };
        let agent = self.agents.get_mut(&id).unwrap();
        let actions = agent.core.handle(event, now);
        if let Some(report) = ended.and_then(|key| agent.core.report(key)) {
            self.checks.reclaimed.ended(id, &report, agent.life, ms());
        }
        self.carry_out(id, actions);
    }

    fn carry_out(&mut self, id: NodeId, actions: Vec<Action>) {
        for action in actions {
            self.say(|_| format!("n{}     {action:?}", id.0));
            match action {
                Action::Store { ticket, changes } => {
                    self.checks.writes(id, &changes);
                    self.store(id, ticket, changes);
                }
                Action::Welcome(welcome) => self.welcome(id, welcome),
                Action::Send(news) => {
                    let session = self.agents.get(&id).and_then(|agent| agent.session);
                    if let Some((_, stream)) = session.filter(|(open, _)| *open == news.session) {
                        self.put(stream, Way::Up, Frame::News(news));
                    }
                }
                Action::Start(start) => self.start(id, *start),
                Action::Amend(amend) => self.amend(id, *amend),
                Action::Abandon { run } => self.abandon(id, run),
                Action::Signal { run, signal } => self.signal(id, run, signal),
                Action::Remove { run, .. } => self.remove(id, run),
                Action::WakeAt { mono_ms } => self.wake_core(id, mono_ms),
                Action::Note(note) => self.reached(note.kind),
                Action::Probe { .. } | Action::Unprobe { .. } => {}
            }
        }
        self.look_at(id);
    }

    fn welcome(&mut self, id: NodeId, welcome: Welcome) {
        let agent = self.agents.get_mut(&id).unwrap();
        let Some(stream) = agent.out.take() else { return };
        let over = match welcome {
            Welcome::Open { session, .. } => {
                agent.session.replace((session, stream)).map(|(_, before)| before)
            }
            Welcome::Promised(_) => Some(stream),
        };
        self.put(stream, Way::Up, Frame::Welcome(welcome));
        if let Some(over) = over {
            self.put(over, Way::Up, Frame::End);
        }
    }

    fn wake_core(&mut self, id: NodeId, mono_ms: u64) {
        let number = self.number();
        let after = Duration::from_millis(self.machines[&id].until(mono_ms));
        let agent = self.agents.get_mut(&id).unwrap();
        agent.wake = number;
        let group = agent.group;
        self.later(group, after, move |w| {
            if w.agents.get(&id).is_some_and(|agent| agent.wake == number) {
                w.core(id, Event::Woke);
            }
        });
    }

    /// A frame for the agent's end of a stream.
    pub(super) fn agent_hears(&mut self, id: NodeId, stream: StreamId, frame: Frame) {
        match frame {
            Frame::Hello(hello) => {
                let fresh = draw_from(0..u64::MAX);
                let agent = self.agents.get_mut(&id).unwrap();
                let before = agent.out.replace(stream);
                agent.placer_is = Some(hello.placer);
                if let Some(before) = before {
                    self.put(before, Way::Up, Frame::End);
                }
                self.core(id, Event::Hello { hello, fresh });
            }
            Frame::Order(order) => self.core(id, Event::Order(*order)),
            Frame::End => {
                let agent = self.agents.get_mut(&id).unwrap();
                agent.out.take_if(|out| *out == stream);
                let session = agent.session.take_if(|(_, over)| *over == stream);
                if let Some((session, _)) = session {
                    self.core(id, Event::Closed(session));
                }
                self.put(stream, Way::Up, Frame::End);
            }
            Frame::Welcome(_) | Frame::News(_) => unreachable!("only agents say that"),
        }
    }

    /// The copies that the node's own machine bears, after each event.
    pub(super) fn look_at(&mut self, id: NodeId) {
        self.checks.machine(id, &self.machines[&id]);
    }

    pub(super) fn capacity(&mut self, id: NodeId, small: bool) {
        let capacity = self.machines[&id].capacity(small);
        self.core(id, Event::Capacity(capacity));
    }
}

/// What happened how often: runs in which nothing does show nothing.
pub(super) type Reached = BTreeMap<&'static str, u32>;

impl World {
    pub(super) fn reached(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }
}
