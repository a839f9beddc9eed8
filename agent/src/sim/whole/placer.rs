//! What of an agent acts as the placer, if it may: by `core::place::reign`, over sessions to everybody in the roster.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use openraft::{EmptyNode, Raft, RaftMetrics, ServerState};
use placement::{
    ids::{Activation, NodeId},
    ledger::{Answer, Command, Entry, Ledger},
    view::Standing,
};
use tokio::sync::watch;

use super::{
    links::Link,
    rules::Rule,
    stream::{Frame, Way},
    world::{World, ms},
};
use crate::{
    core::place::{
        PlaceAction, PlaceConfig, PlaceCore, PlaceEvent,
        company::Company,
        reign::{Reign, Sight, Step},
    },
    ledger::{Heard, View},
    sim::{cell::propose, net::Sim, runtime::spawn_in},
};

/// Between two tries to reach an agent, or to activate.
pub(super) const AGAIN_MS: u64 = 200;

pub(super) struct Placer {
    pub(super) core: PlaceCore,
    pub(super) reign: Reign,
    pub(super) company: Company,
    pub(super) raft: Raft<Sim>,
    pub(super) heard: Heard,
    pub(super) view: Arc<View>,
    metrics: watch::Receiver<RaftMetrics<NodeId, EmptyNode>>,
    /// When what a majority answered was sent, at the latest; and the last look.
    acked_ms: u64,
    looked_ms: u64,
    /// Of the newest ledger that the core is to hear of; and the newest that it has.
    applied: u64,
    known: Arc<Ledger>,
    /// Not to be activated again before.
    again_ms: u64,
    pub(super) stepping: bool,
    /// What has come while no majority answered: heard when one does again.
    held: VecDeque<PlaceEvent>,
    pub(super) links: BTreeMap<NodeId, Link>,
    /// Of the last `WakeAt`.
    wake: u64,
}

impl Placer {
    pub(super) fn new(id: NodeId, raft: Raft<Sim>, view: Arc<View>, heard: Heard) -> Placer {
        Placer {
            core: PlaceCore::new(PlaceConfig::default()),
            reign: Reign::new(id),
            company: Company::default(),
            metrics: raft.metrics(),
            raft,
            heard,
            view,
            acked_ms: 0,
            looked_ms: ms(),
            applied: 0,
            known: Arc::default(),
            again_ms: 0,
            stepping: false,
            held: VecDeque::new(),
            links: BTreeMap::new(),
            wake: 0,
        }
    }

    /// Takes up what has come since the last look; when exactly it came is not known.
    fn beat(&mut self) {
        if self.metrics.has_changed().unwrap_or(false) {
            let ago = self.metrics.borrow_and_update().millis_since_quorum_ack;
            let acked = ago.map_or(0, |ago| self.looked_ms.saturating_sub(ago));
            self.acked_ms = self.acked_ms.max(acked);
        }
        self.looked_ms = ms();
    }

    fn sight(&self, without: Option<Rule>) -> Sight {
        let metrics = self.metrics.borrow();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        let alone = metrics.membership_config.membership().voter_ids().eq([metrics.id]);
        let ledger = self.view.ledger();
        let age = if alone || without == Some(Rule::Quorum) { 0 } else { ms().saturating_sub(self.acked_ms) };
        Sight {
            leads: leads.then_some((metrics.current_term, 1)),
            quorum_age_ms: leads.then_some(age),
            activation: ledger.activation,
            placer: ledger.placer,
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        let metrics = self.metrics.borrow();
        format!("{:?}: {}", metrics.running_state, *metrics)
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        self.metrics.borrow().current_leader
    }
}

impl World {
    /// What an agent does when nothing else happens.
    pub(super) fn look(&mut self, id: NodeId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.placer.beat();
        let alive = agent.swim.alive();
        let ledger = agent.placer.view.ledger();
        let news = agent.placer.company.look(ledger.roster.keys().copied(), &alive, ms());
        if ledger.applied != agent.placer.applied {
            agent.placer.applied = ledger.applied;
            self.checks.ledger(&ledger);
            self.place(id, PlaceEvent::Ledger(ledger.clone()));
        }
        news.into_iter().for_each(|event| self.place(id, event));
        self.speak(id);
        self.reach(id);
        self.seat(id);
    }

    /// Whether it still acts, after whatever follows from a look at the ledger.
    fn reigns(&mut self, id: NodeId) -> bool {
        let without = self.without;
        let Some(placer) = self.agents.get_mut(&id).map(|agent| &mut agent.placer) else { return false };
        if placer.reign.acts().is_none() && ms() < placer.again_ms {
            return false;
        }
        let sight = placer.sight(without);
        match placer.reign.look(&sight) {
            Some(Step::Propose) => self.activate(id),
            Some(step) => self.step(id, step),
            None => {}
        }
        self.agents[&id].placer.reign.acts().is_some()
    }

    fn activate(&mut self, id: NodeId) {
        let agent = &self.agents[&id];
        let (raft, life, world) = (agent.placer.raft.clone(), agent.life, self.shared());
        let at_ms = self.machines[&id].now().wall_ms;
        let entry = Entry { request: None, at_ms, command: Command::Activate { node: id } };
        spawn_in(agent.group, async move {
            let done = matches!(propose(&raft, &entry).await, Some(Answer::Done { .. }));
            let Some(world) = world.upgrade() else { return };
            let mut world = world.lock().unwrap();
            let without = world.without;
            let Some(agent) = world.agents.get_mut(&id).filter(|agent| agent.life == life) else { return };
            agent.placer.beat();
            let sight = agent.placer.sight(without);
            agent.placer.again_ms = ms() + AGAIN_MS;
            if let Some(step) = agent.placer.reign.answered(done, &sight) {
                world.step(id, step);
            }
        });
    }

    fn step(&mut self, id: NodeId, step: Step) {
        match step {
            Step::Propose => {}
            Step::Begin(activation) => self.begin(id, activation),
            Step::End => {
                self.say(|_| format!("n{} acts no more", id.0));
                let placer = &mut self.agents.get_mut(&id).unwrap().placer;
                placer.again_ms = ms() + AGAIN_MS;
                placer.held.clear();
                let links = std::mem::take(&mut placer.links);
                links.into_values().filter_map(|link| link.stream).for_each(|stream| self.reset(stream));
                self.tell(id, PlaceEvent::Deposed);
            }
        }
    }

    fn begin(&mut self, id: NodeId, activation: Activation) {
        self.say(|_| format!("n{} acts as the placer {activation:?}", id.0));
        self.reached("activation");
        let placer = &self.agents[&id].placer;
        let (ledger, verdicts) = (placer.view.ledger(), placer.company.verdicts());
        self.checks.begins(id, activation, &ledger);
        self.tell(id, PlaceEvent::Activated { activation, ledger });
        verdicts.into_iter().for_each(|event| self.tell(id, event));
        if self.without == Some(Rule::Fence) {
            self.skip_fence(id);
        }
    }

    /// For the placer's core, if this node acts; it hears it once it may speak.
    pub(super) fn place(&mut self, id: NodeId, event: PlaceEvent) {
        if self.reigns(id) {
            self.agents.get_mut(&id).unwrap().placer.held.push_back(event);
            self.speak(id);
        }
    }

    fn speak(&mut self, id: NodeId) {
        let without = self.without;
        while self.reigns(id) {
            let placer = &mut self.agents.get_mut(&id).unwrap().placer;
            if !placer.reign.speaks(&placer.sight(without)) {
                return;
            }
            let Some(event) = placer.held.pop_front() else { return };
            self.tell(id, event);
        }
    }

    pub(super) fn tell(&mut self, id: NodeId, event: PlaceEvent) {
        let now = self.machines[&id].now();
        let placer = &mut self.agents.get_mut(&id).unwrap().placer;
        if let PlaceEvent::Activated { ledger, .. } | PlaceEvent::Ledger(ledger) = &event {
            placer.known = ledger.clone();
            self.say(|_| format!("n{} placer: the ledger at {}", id.0, ledger.applied));
        } else {
            self.say(|_| format!("n{} placer: {event:?}", id.0));
        }
        let actions = self.agents.get_mut(&id).unwrap().placer.core.handle(now, event);
        for action in actions {
            self.say(|_| format!("n{}     {action:?}", id.0));
            match action {
                PlaceAction::Send { node, order } => {
                    let placer = &self.agents[&id].placer;
                    let (acts, ledger) = (placer.reign.acts(), placer.known.clone());
                    self.checks.sends(id, acts, &order.order, &ledger);
                    let link = self.agents[&id].placer.links.get(&node);
                    if let Some(link) = link.filter(|link| link.open == Some(order.session)) {
                        self.put(link.stream.unwrap(), Way::Down, Frame::Order(Box::new(order)));
                    }
                }
                PlaceAction::CloseSession { node, session } => {
                    let links = &mut self.agents.get_mut(&id).unwrap().placer.links;
                    let link = links.get_mut(&node).filter(|link| link.open == Some(session));
                    if let Some(stream) = link.and_then(|link| link.lost()) {
                        self.reset(stream);
                    }
                }
                PlaceAction::Propose(command) => self.propose(id, command),
                PlaceAction::Changed => {}
                PlaceAction::WakeAt { mono_ms } => self.wake_placer(id, mono_ms),
            }
        }
        self.seen(id);
    }

    /// Whom this placer gives up.
    fn seen(&mut self, id: NodeId) {
        let Some((_, view)) = self.agents[&id].placer.core.view() else { return };
        self.checks.offers(view);
        let gone = view.nodes.iter().filter(|(_, node)| node.standing == Standing::Gone);
        let gone: BTreeSet<NodeId> = gone.map(|(id, _)| *id).collect();
        let activation = self.agents[&id].placer.reign.acts();
        if self.checks.gone(activation, gone) {
            self.reached("gone");
        }
    }

    fn propose(&mut self, id: NodeId, command: Command) {
        let agent = &self.agents[&id];
        let raft = agent.placer.raft.clone();
        let entry = Entry { request: None, at_ms: self.machines[&id].now().wall_ms, command };
        spawn_in(agent.group, async move {
            // What comes to nothing is proposed again.
            let _ = propose(&raft, &entry).await;
        });
    }

    fn wake_placer(&mut self, id: NodeId, mono_ms: u64) {
        let number = self.number();
        let after = Duration::from_millis(self.machines[&id].until(mono_ms));
        let agent = self.agents.get_mut(&id).unwrap();
        agent.placer.wake = number;
        self.later(self.agents[&id].group, after, move |w| {
            if w.agents.get(&id).is_some_and(|agent| agent.placer.wake == number) {
                w.place(id, PlaceEvent::Woke);
            }
        });
    }
}
