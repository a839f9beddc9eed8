//! A seeded cell: real node cores under one placer after another, on a model of machines, disks and links. Messages are
//! lost only where a session ends; agents crash, machines lose power, members are declared gone rightly and wrongly.
//! After each event the checks below; at the end, without faults, everything is as people asked for. `SEED=n` plays and
//! prints one seed, `SEEDS=n` so many.

mod checks;
pub(crate) mod node;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use agent::{
    core::place::{PlaceAction, PlaceConfig, PlaceCore, PlaceEvent, Settled},
    event::Now,
};
use placement::{
    ids::{CellId, JobKey, NodeId},
    ledger::{Answer, Command, Entry, Expect, Ledger},
    view::Standing,
};
use serde_json::json;

use self::{checks::Checks, node::Node};
use crate::dice::Dice;

const SEEDS: u64 = 200;
const STEPS: u32 = 600;
const NODES: u64 = 3;

#[test]
fn random_cell() {
    if let Ok(seed) = env::var("SEED") {
        play(seed.parse().unwrap(), true);
        return;
    }
    let seeds = env::var("SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    let failed = (0..seeds).find(|seed| catch_unwind(AssertUnwindSafe(|| play(*seed, false))).is_err());
    assert!(failed.is_none(), "seed {failed:?} failed: SEED=n plays one");
}

/// A cell in which nothing happens would find nothing.
#[test]
fn random_cell_reaches_everything() {
    let mut reached: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..100 {
        for (what, n) in play(seed, false) {
            *reached.entry(what).or_default() += n;
        }
    }
    let wanted = [
        "offer",
        "stop",
        "keep",
        "forget",
        "restart",
        "amend",
        "changed",
        "not_changed",
        "commit",
        "gone",
        "activation",
        "accepted",
        "refused",
        "started",
        "succeeded",
        "failed",
    ];
    for what in wanted {
        assert!(reached.get(what).is_some_and(|n| *n > 5), "{what} is rare: {reached:?}");
    }
}

fn play(seed: u64, print: bool) -> BTreeMap<String, u32> {
    let mut cell = Cell::new(seed, print);
    for _ in 0..STEPS {
        cell.step();
    }
    cell.settle();
    cell.reached
}

struct Cell {
    print: bool,
    dice: Dice,
    now: u64,
    ledger: Ledger,
    place: PlaceCore,
    wake: Option<u64>,
    proposed: VecDeque<Command>,
    nodes: BTreeMap<NodeId, Node>,
    fresh: u64,
    standing: BTreeMap<NodeId, Standing>,
    checks: Checks,
    reached: BTreeMap<String, u32>,
}

impl Cell {
    fn new(seed: u64, print: bool) -> Cell {
        let mut cell = Cell {
            print,
            dice: Dice::new(seed),
            now: 1_000,
            ledger: Ledger::default(),
            place: PlaceCore::new(PlaceConfig::default()),
            wake: None,
            proposed: VecDeque::new(),
            nodes: BTreeMap::new(),
            fresh: 0,
            standing: BTreeMap::new(),
            checks: Checks::default(),
            reached: BTreeMap::new(),
        };
        cell.entry(Command::Found { cell: CellId("c".into()), name: "c".into(), generation: 1 });
        for id in 1..=NODES {
            cell.entry(Command::Admit { node: NodeId(id), name: format!("n{id}") });
            cell.nodes.insert(NodeId(id), Node::new(NodeId(id)));
        }
        cell.activate();
        cell
    }

    fn step(&mut self) {
        let id = NodeId(1 + self.dice.below(NODES as usize) as u64);
        match self.dice.below(100) {
            0..10 => self.people(),
            10..28 => self.agent_hears(id),
            28..46 => self.placer_hears(id),
            46..62 => self.on_node(id, |node, _| node.stored()),
            62..80 => self.on_node(id, |node, dice| node.moves(dice)),
            80..85 => self.pass(10),
            85..88 => self.pass(500),
            88..92 => self.commit(),
            92 => self.on_node(id, |node, dice| Some(node.resize(dice.chance(50)))),
            93 => self.pass(2_500),
            94 if self.dice.chance(20) => self.activate(),
            95 => self.hang_up(id),
            96 if self.dice.chance(50) => self.crash(id, false),
            97 if self.dice.chance(20) => self.crash(id, true),
            98 => self.membership(id),
            _ => self.connect(id),
        }
        self.check();
    }

    fn people(&mut self) {
        let kinds = ["service", "service", "batch"];
        let at = self.dice.below(kinds.len());
        let job = JobKey { owner: "me".into(), name: ["a", "b", "c"][at].into() };
        let index = self.dice.chance(60).then(|| self.dice.below(3) as u32);
        let count = self.dice.below(4) as u32;
        let command = match self.dice.below(10) {
            0..5 => {
                let cpu = [300, 400, 1500][self.dice.below(3)];
                let document = json!({
                    "name": job.name, "kind": kinds[at], "count": count,
                    "task": {"image": "hello:1", "cpu": format!("{cpu}m"), "env": {"A": if self.dice.chance(40) { "b" } else { "c" }}},
                });
                let images = BTreeMap::from([("hello:1".to_string(), "sha256:00".to_string())]);
                Command::Submit { job, document, images, expect: Expect::Any }
            }
            5..7 => Command::Scale { job, count, expect: Expect::Any },
            7 => Command::Restart { job, index },
            _ => Command::Stop { job, index },
        };
        self.entry(command);
    }

    fn entry(&mut self, command: Command) {
        self.say(|| format!("{command:?}"));
        let index = self.ledger.applied + 1;
        let answer = self.ledger.apply(index, &Entry { request: None, at_ms: self.now, command });
        if !matches!(answer, Answer::Refused(_)) {
            self.event(PlaceEvent::Ledger(Arc::new(self.ledger.clone())));
        }
    }

    fn commit(&mut self) {
        if let Some(command) = self.proposed.pop_front() {
            self.reach("commit");
            self.entry(command);
        }
    }

    /// Another placer, the one before being silent by then (PROTOCOL 6).
    fn activate(&mut self) {
        self.reach("activation");
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.hang_up(id));
        self.event(PlaceEvent::Deposed);
        self.proposed.clear();
        self.entry(Command::Activate { node: NodeId(1) });
        self.standing.clear();
        self.event(PlaceEvent::Activated {
            activation: self.ledger.activation,
            ledger: Arc::new(self.ledger.clone()),
        });
    }

    fn event(&mut self, event: PlaceEvent) {
        self.say(|| format!("placer: {event:?}"));
        let actions = self.place.handle(self.time(), event);
        for action in actions {
            self.say(|| format!("    {action:?}"));
            match action {
                PlaceAction::Send { node: id, order } => {
                    self.checks.told(&order.order, &self.ledger);
                    self.reach(node::word(&order.order));
                    let node = self.nodes.get_mut(&id).unwrap();
                    assert_eq!(node.session, Some(order.session), "an order on no session of its");
                    node.orders.push_back(order);
                }
                PlaceAction::CloseSession { node: id, session } => {
                    if self.nodes[&id].session == Some(session) {
                        self.hang_up(id);
                    }
                }
                PlaceAction::Propose(command) => self.proposed.push_back(command),
                PlaceAction::Changed => {}
                PlaceAction::WakeAt { mono_ms } => self.wake = Some(mono_ms),
            }
        }
        let rows = self.place.nodes();
        for row in rows {
            if self.standing.insert(row.id, row.standing) != Some(Standing::Gone)
                && row.standing == Standing::Gone
            {
                self.reach("gone");
                self.checks.declared_gone(row.id);
            }
        }
    }

    fn time(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: self.now }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        if self.wake.is_some_and(|at| at <= self.now) {
            self.wake = None;
            self.event(PlaceEvent::Woke);
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let now = self.time();
        ids.into_iter().for_each(|id| self.on_node(id, |node, _| node.wakes(now)));
    }

    /// Something happens on a node; what its core then wants is carried out.
    fn on_node(
        &mut self,
        id: NodeId,
        what: impl FnOnce(&mut Node, &mut Dice) -> Option<agent::event::Event>,
    ) {
        let now = self.time();
        let Some(event) = what(self.nodes.get_mut(&id).unwrap(), &mut self.dice) else { return };
        self.say(|| format!("{id}: {event:?}"));
        let node = self.nodes.get_mut(&id).unwrap();
        let told = node.handle(event, now);
        self.heed(id, told);
    }

    fn heed(&mut self, id: NodeId, told: node::Told) {
        for run in &told.started {
            self.say(|| format!("    starts {run}"));
            let node = &self.nodes[&id];
            let copy = &node.runs[run];
            self.checks.starts(id, *run, copy.batch, &self.ledger);
        }
        for kind in told.notes {
            self.reach(kind);
        }
        if let Some(session) = told.opened {
            let node = self.nodes.get_mut(&id).unwrap();
            if node.greeting.take() != Some(session.placer) {
                // The stream on which this answer comes is closed already.
                node.reports.clear();
                return self.on_node(id, |_, _| Some(agent::event::Event::Closed(session)));
            }
            node.session = Some(session);
            self.event(PlaceEvent::SessionOpened { node: id, session });
        }
    }

    fn agent_hears(&mut self, id: NodeId) {
        let order = self.nodes.get_mut(&id).unwrap().orders.pop_front();
        if let Some(order) = order {
            self.on_node(id, |_, _| Some(agent::event::Event::Order(order)));
        }
    }

    fn placer_hears(&mut self, id: NodeId) {
        let from = self.nodes.get_mut(&id).unwrap().reports.pop_front();
        if let Some(from) = from {
            self.event(PlaceEvent::News { node: id, from: Box::new(from) });
        }
    }

    fn connect(&mut self, id: NodeId) {
        if self.nodes[&id].session.is_some() || self.nodes[&id].cut {
            return;
        }
        // Repeated only if it seems lost.
        if self.nodes[&id].greeting.is_some() && !self.dice.chance(5) {
            return;
        }
        let Some(activation) = self.place.activation() else { return };
        self.fresh += 1;
        self.nodes.get_mut(&id).unwrap().greeting = Some(self.fresh);
        let fresh = self.fresh;
        self.on_node(id, |node, _| Some(node.hello(activation, fresh)));
    }

    /// The session ends; what is on its way is lost, on both.
    fn hang_up(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.orders.clear();
        node.reports.clear();
        node.greeting = None;
        let Some(session) = node.session.take() else { return };
        self.on_node(id, |_, _| Some(agent::event::Event::Closed(session)));
        self.nodes.get_mut(&id).unwrap().reports.clear();
        self.event(PlaceEvent::SessionClosed { node: id, session });
    }

    fn crash(&mut self, id: NodeId, power: bool) {
        self.say(|| format!("{id}: crashes, power: {power}"));
        let session = self.nodes[&id].session;
        let now = self.time();
        let told = self.nodes.get_mut(&id).unwrap().restart(power, &mut self.dice, now);
        if let Some(session) = session {
            self.event(PlaceEvent::SessionClosed { node: id, session });
        }
        self.heed(id, told);
    }

    /// A cut, seen or not; or its end.
    fn membership(&mut self, id: NodeId) {
        let cut = !self.nodes[&id].cut;
        self.nodes.get_mut(&id).unwrap().cut = cut;
        match cut {
            true => {
                self.hang_up(id);
                if self.dice.chance(70) {
                    self.event(PlaceEvent::MemberGone(id));
                }
            }
            false => self.event(PlaceEvent::MemberAlive(id)),
        }
    }

    fn reach(&mut self, what: &str) {
        *self.reached.entry(what.to_string()).or_default() += 1;
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.print {
            println!("{} {}", self.now, text());
        }
    }

    fn check(&self) {
        self.checks.now(&self.nodes);
        if let Some((_, view)) = self.place.view() {
            checks::one_offer_each(view);
        }
    }

    /// No more faults and no more wishes: everything comes to rest, as people asked for.
    fn settle(&mut self) {
        self.say(|| "settling".to_string());
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in &ids {
            self.nodes.get_mut(id).unwrap().benign = true;
            self.nodes.get_mut(id).unwrap().cut = false;
            self.event(PlaceEvent::MemberAlive(*id));
            self.on_node(*id, |node, _| Some(node.resize(false)));
        }
        let mut quiet = 0;
        for _ in 0..4_000 {
            let mut busy = !self.proposed.is_empty();
            self.commit();
            for id in &ids {
                self.connect(*id);
                self.agent_hears(*id);
                self.on_node(*id, |node, _| node.stored());
                self.on_node(*id, |node, dice| node.moves(dice));
                self.placer_hears(*id);
                busy |= self.nodes[id].busy();
            }
            self.check();
            quiet = if busy { 0 } else { quiet + 1 };
            // Longer than any back-off.
            if !busy {
                self.pass(20_000);
            }
            if quiet > 20 {
                return self.at_rest();
            }
        }
        panic!("it does not come to rest");
    }

    fn at_rest(&self) {
        let plan = self.place.plan().unwrap();
        assert!(plan.is_empty(), "{plan:?}");
        for (name, record) in &self.ledger.jobs {
            let runs: Vec<(NodeId, u32)> = self
                .nodes
                .iter()
                .flat_map(|(id, n)| n.living().map(|(run, job)| (*id, run, job)).collect::<Vec<_>>())
                .filter(|(_, run, job)| **job == *name && run.key.uid == record.uid)
                .map(|(id, run, _)| (id, run.key.index))
                .collect();
            let wanted: Vec<u32> = record.wanted().collect();
            for index in &wanted {
                let key = placement::ids::TaskKey { uid: record.uid, index: *index };
                let copies = runs.iter().filter(|(_, i)| i == index).count();
                let waits = plan.pending.get(&key).is_some_and(|p| !p.obstacles.is_empty());
                assert_eq!(copies, usize::from(!waits), "{name}/{index} runs {copies} times, waits: {waits}");
            }
            assert!(
                runs.iter().all(|(_, index)| wanted.contains(index)),
                "{name} runs {runs:?}, wanted {wanted:?}"
            );
            let complete = wanted.iter().all(|i| runs.iter().any(|(_, index)| index == i));
            if !record.stopped && complete && !record.is_batch() && plan.stuck.is_empty() {
                assert_eq!(self.place.settled(name), Some(Settled::Yes), "{name}");
            }
        }
        let known = |job: &JobKey| self.ledger.jobs.contains_key(job);
        assert!(self.nodes.values().flat_map(|n| n.living()).all(|(_, job)| known(job)));
    }
}
