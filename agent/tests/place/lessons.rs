//! What one node learns of a job's needs is known on the node that gets its next task: two real node cores under the real
//! placer, with nothing lost between them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use agent::{
    core::{
        Config, Core, Estimates,
        place::{PlaceAction, PlaceConfig, PlaceCore, PlaceEvent},
    },
    estimate::{Preset, Settings},
    event::{Action, Event, Now, RunEvent, RunId},
};
use gossip::wire::{Hello, PROTOCOL, Welcome};
use placement::{
    ids::{CellId, JobKey, NodeId},
    ledger::{Command, Entry, Expect, Ledger},
    resources::{CPU, MEMORY, Resources},
};
use serde_json::json;

use crate::cell::node::config;

const MIB: u64 = 1 << 20;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

struct Node {
    core: Core,
    runs: Vec<RunId>,
    alive: bool,
}

struct Cell {
    now: u64,
    ledger: Ledger,
    place: PlaceCore,
    nodes: BTreeMap<NodeId, Node>,
    fresh: u64,
    to_placer: VecDeque<PlaceEvent>,
    usage: fn(u32, u64) -> Resources,
    /// Orders that told a node something of others.
    taught: Vec<NodeId>,
}

impl Cell {
    fn new() -> Cell {
        let mut cell = Cell {
            now: 1_000,
            ledger: Ledger::default(),
            place: PlaceCore::new(PlaceConfig::default()),
            nodes: BTreeMap::new(),
            fresh: 0,
            to_placer: VecDeque::new(),
            usage,
            taught: Vec::new(),
        };
        cell.entry(Command::Found { cell: CellId("c".into()), name: "c".into(), generation: 1 });
        for id in 1..=2 {
            cell.entry(Command::Admit { node: NodeId(id), name: format!("n{id}") });
            cell.nodes.insert(NodeId(id), node(NodeId(id)));
        }
        cell.activate();
        cell
    }

    fn time(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: self.now }
    }

    fn entry(&mut self, command: Command) {
        let index = self.ledger.applied + 1;
        self.ledger.apply(index, &Entry { request: None, at_ms: self.now, command });
        self.placer(PlaceEvent::Ledger(Arc::new(self.ledger.clone())));
    }

    /// Another placer, which knows nothing; every node opens a session with it.
    fn activate(&mut self) {
        self.placer(PlaceEvent::Deposed);
        self.entry(Command::Activate { node: NodeId(1) });
        let activation = self.ledger.activation;
        self.placer(PlaceEvent::Activated { activation, ledger: Arc::new(self.ledger.clone()) });
        for id in self.alive() {
            self.fresh += 1;
            let hello = Hello { protocol: PROTOCOL.into(), placer: NodeId(1), activation, fresh: self.fresh };
            self.node(id, Event::Hello { hello, fresh: self.fresh });
        }
        self.placer_hears();
    }

    fn alive(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| *id).collect()
    }

    fn placer(&mut self, event: PlaceEvent) {
        self.to_placer.push_back(event);
        self.placer_hears();
    }

    fn placer_hears(&mut self) {
        while let Some(event) = self.to_placer.pop_front() {
            for action in self.place.handle(self.time(), event) {
                if let PlaceAction::Send { node, order } = action {
                    self.taught.extend((!order.lessons.is_empty()).then_some(node));
                    self.node(node, Event::Order(order));
                }
            }
        }
    }

    fn node(&mut self, id: NodeId, event: Event) {
        let (mut events, mut news) = (VecDeque::from([event]), Vec::new());
        let now = self.time();
        let node = self.nodes.get_mut(&id).unwrap();
        while let Some(event) = events.pop_front() {
            for action in node.core.handle(event, now) {
                match action {
                    Action::Store { ticket, .. } => {
                        events.push_back(Event::Stored { ticket, result: Ok(()) })
                    }
                    Action::Start(start) => {
                        node.runs.push(start.run);
                        events.push_back(Event::Run { run: start.run, what: RunEvent::Started { pid: 7 } });
                    }
                    Action::Welcome(Welcome::Open { session, .. }) => {
                        news.push(PlaceEvent::SessionOpened { node: id, session });
                    }
                    Action::Send(from) => news.push(PlaceEvent::News { node: id, from }),
                    _ => {}
                }
            }
        }
        self.to_placer.extend(news);
    }

    /// Everything is measured each ten seconds, for so long.
    fn run(&mut self, for_ms: u64) {
        let end = self.now + for_ms;
        while self.now < end {
            self.now += 10_000;
            for id in self.alive() {
                let used = |run: &RunId| (*run, (self.usage)(run.key.index, self.now));
                let usage = self.nodes[&id].runs.iter().map(used).collect();
                self.node(id, Event::Measured(usage));
            }
            self.placer(PlaceEvent::Woke);
        }
    }

    fn lose(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().alive = false;
        self.placer(PlaceEvent::MemberGone(id));
    }

    /// Where an index runs, and what is reserved for it there.
    fn reserved(&self, index: u32) -> (NodeId, [u64; 2]) {
        let here = |(id, node): (&NodeId, &Node)| Some((*id, node.core.find(&job(), index)?));
        let (id, report) = self.nodes.iter().filter(|(_, n)| n.alive).find_map(here).expect("it runs");
        (id, [report.reservation.get(CPU), report.reservation.get(MEMORY)])
    }
}

fn job() -> JobKey {
    JobKey { owner: "ann".into(), name: "web".into() }
}

/// A wave that is never the same twice.
fn usage(index: u32, now: u64) -> Resources {
    let wave = 0.5 + 0.5 * ((now / MINUTE) as f64 * (0.7 + 0.13 * f64::from(index))).sin();
    Resources::new((50.0 + 50.0 * wave) as u64, ((300.0 + 40.0 * wave) * MIB as f64) as u64)
}

fn node(id: NodeId) -> Node {
    let estimate = Estimates { settings: Settings::of(Preset::Normal, 24 * HOUR), learned: None };
    let config = Config { estimate: Some(estimate), ..config(id, Resources::new(2_000, 8 << 30)) };
    Node { core: Core::new(config), runs: Vec::new(), alive: true }
}

fn near(now: [u64; 2], settled: [u64; 2]) -> bool {
    (0..2).all(|at| now[at].abs_diff(settled[at]) * 10 <= settled[at])
}

#[test]
fn an_index_that_moves_and_a_new_sibling_begin_where_the_job_had_settled() {
    let mut cell = Cell::new();
    let document =
        json!({"name": "web", "count": 1, "task": {"image": "hello:1", "cpu": "500m", "memory": "1GiB"}});
    let images = BTreeMap::from([("hello:1".to_string(), "sha256:00".to_string())]);
    cell.entry(Command::Submit { job: job(), document, images, expect: Expect::Any });
    cell.run(MINUTE);
    let (first, limit) = cell.reserved(0);
    assert_eq!(limit, [500, 1 << 30]);
    cell.run(24 * HOUR);
    let (_, settled) = cell.reserved(0);
    assert!(settled[0] < 200 && settled[1] < 500 * MIB, "{settled:?}");
    // The placer that had heard it is gone; the next hears it from the node.
    cell.activate();
    cell.run(MINUTE);

    cell.entry(Command::Scale { job: job(), count: 2, expect: Expect::Any });
    let (other, sibling) = cell.reserved(1);
    assert_ne!(first, other, "spread over the nodes");
    assert!(near(sibling, settled), "at once: {sibling:?}, settled {settled:?}");

    cell.lose(first);
    cell.run(MINUTE);
    let (now, moved) = cell.reserved(0);
    assert!(now == other && near(moved, settled), "{moved:?}, settled {settled:?}");

    // Nobody has taught anything of another job.
    let stranger = JobKey { owner: "bob".into(), name: "web".into() };
    let document =
        json!({"name": "web", "count": 1, "task": {"image": "hello:1", "cpu": "500m", "memory": "1GiB"}});
    let images = BTreeMap::from([("hello:1".to_string(), "sha256:00".to_string())]);
    cell.entry(Command::Submit { job: stranger.clone(), document, images, expect: Expect::Any });
    cell.run(MINUTE);
    let report = cell.nodes[&other].core.find(&stranger, 0).unwrap();
    assert_eq!(report.reservation, report.limit, "other people's job of the same name");
}

#[test]
fn how_high_a_sibling_goes_is_heard_where_others_run_and_not_said_twice() {
    let mut cell = Cell::new();
    let document =
        json!({"name": "web", "count": 2, "task": {"image": "hello:1", "cpu": "500m", "memory": "1GiB"}});
    let images = BTreeMap::from([("hello:1".to_string(), "sha256:00".to_string())]);
    cell.entry(Command::Submit { job: job(), document, images, expect: Expect::Any });
    cell.run(2 * HOUR);
    let peak = |cell: &Cell, index| {
        let (id, _) = cell.reserved(index);
        let (.., lessons) = cell.nodes[&id].core.learned().unwrap().resume(24 * HOUR);
        lessons.job(&job().to_string()).unwrap().peak[0]
    };
    assert!(peak(&cell, 0) < 0.25 && peak(&cell, 1) < 0.25);
    let before = cell.taught.len();
    cell.usage = |index, now| if index == 0 { Resources::new(400, 320 * MIB) } else { usage(index, now) };
    cell.run(10 * MINUTE);
    assert!(peak(&cell, 0) > 0.7, "it has seen it");
    assert!(peak(&cell, 1) > 0.7, "and its sibling's node has heard of it");
    cell.usage = usage;
    cell.run(10 * MINUTE);
    assert!(cell.taught.len() <= before + 6, "{:?}", cell.taught);
    let (quiet, talk) = (cell.taught.len(), 24);
    cell.run(4 * HOUR);
    assert!(cell.taught.len() <= quiet + talk, "only news is told: {:?}", cell.taught);
}
