//! A cell by hand: a ledger, nodes that do at once what a plan says, and what the plan is then.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use placement::{
    ids::{Activation, CellId, Generation, JobKey, NodeId, TaskKey, Version},
    intent::Intent,
    ledger::{Command, Entry, Expect, Ledger},
    node::{Bad, Books, NodeInfo},
    plan::{Plan, plan},
    resources::Resources,
    task::{Cause, Exit, Report, State},
    view::{NodeView, OpenOffer, Standing, View},
    why::{Why, why},
};
use serde_json::{Value, json};

pub(crate) const G: u64 = 1 << 30;
pub(crate) const DIGEST: &str = "sha256:00";

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) view: View,
    pub(crate) seq: u64,
}

pub(crate) fn three() -> World {
    World::new(&[("n1", 4, 4), ("n2", 4, 4), ("n3", 4, 4)])
}

pub(crate) fn indexes(keys: impl IntoIterator<Item = TaskKey>) -> Vec<u32> {
    keys.into_iter().map(|key| key.index).collect()
}

pub(crate) fn job(owner: &str, name: &str) -> JobKey {
    JobKey { owner: owner.into(), name: name.into() }
}

pub(crate) fn document(name: &str, keys: Value) -> Value {
    let mut document = json!({"name": name, "task": {"image": "hello:1"}});
    for (key, value) in keys.as_object().unwrap() {
        match key.strip_prefix("task.") {
            Some(key) => document["task"][key] = value.clone(),
            None => document[key] = value.clone(),
        }
    }
    document
}

pub(crate) fn report(world: &World, key: TaskKey, job: &JobKey, generation: u64, state: State) -> Report {
    let wanted = world.intent();
    let spec = wanted.by_uid(key.uid).and_then(|w| w.spec(key.index).ok());
    Report {
        key,
        job: job.clone(),
        kind: spec.as_ref().map_or(placement::job::Kind::Service, |s| s.kind),
        band: spec.as_ref().map_or(placement::job::Band::Batch, |s| s.band),
        priority: 150,
        generation: world.generation(generation),
        version: wanted.by_uid(key.uid).map_or(Version::default(), |w| w.record.version),
        state,
        image: "hello:1".into(),
        digest: DIGEST.into(),
        pid: None,
        ports: BTreeMap::new(),
        address: None,
        restarts: 0,
        restart_at: spec.as_ref().map_or(0, |s| s.restart_at),
        healthy: None,
        ready: false,
        since_ms: 0,
        reason: None,
        exit: None,
        limit: spec.map_or(Resources::new(100, G / 8), |s| s.limit),
        reservation: Resources::default(),
        usage: Resources::default(),
        strain: None,
    }
}

impl World {
    /// A cell whose placer is activated; of nodes with these names, cores and GiB, all live.
    pub(crate) fn new(nodes: &[(&str, u64, u64)]) -> World {
        let mut world = World { ledger: Ledger::default(), view: View::default(), seq: 0 };
        world.view.now_ms = 1_000;
        world.entry(Command::Found { cell: CellId("c".into()), name: "c".into(), generation: 1 });
        for (at, (name, cores, gib)) in nodes.iter().enumerate() {
            let id = NodeId(at as u64 + 1);
            world.entry(Command::Admit { node: id, name: name.to_string() });
            let info = NodeInfo {
                id,
                name: name.to_string(),
                addr: String::new(),
                version: String::new(),
                labels: BTreeMap::new(),
                capacity: Resources::new(cores * 1000, gib * G),
                images: Default::default(),
                volumes: Default::default(),
                bad: Vec::new(),
            };
            let node = NodeView {
                name: name.to_string(),
                standing: Standing::Live,
                info: Some(info),
                ..NodeView::default()
            };
            world.view.nodes.insert(id, node);
        }
        if !nodes.is_empty() {
            world.entry(Command::Activate { node: NodeId(1) });
        }
        world
    }

    pub(crate) fn entry(&mut self, command: Command) {
        let index = self.ledger.applied + 1;
        let answer = self.ledger.apply(index, &Entry { request: None, at_ms: 0, command });
        assert!(!matches!(answer, placement::ledger::Answer::Refused(_)), "{answer:?}");
    }

    pub(crate) fn submit(&mut self, owner: &str, name: &str, keys: Value) -> &mut Self {
        let images = BTreeMap::from([("hello:1".to_string(), DIGEST.to_string())]);
        let document = document(name, keys);
        self.entry(Command::Submit { job: job(owner, name), document, images, expect: Expect::Any });
        self
    }

    pub(crate) fn key(&self, owner: &str, name: &str, index: u32) -> TaskKey {
        TaskKey { uid: self.ledger.jobs[&job(owner, name)].uid, index }
    }

    pub(crate) fn generation(&self, seq: u64) -> Generation {
        let Activation { cell, index } = self.ledger.activation;
        Generation { cell, activation: index, seq }
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut NodeView {
        self.view.nodes.get_mut(&NodeId(id)).unwrap()
    }

    pub(crate) fn label(&mut self, id: u64, label: &str, value: &str) {
        let info = self.node(id).info.as_mut().unwrap();
        info.labels.insert(label.into(), value.into());
    }

    /// What an operator says of a node; no value takes the label away.
    pub(crate) fn operator_label(&mut self, id: u64, label: &str, value: Option<&str>) {
        let labels = [(label.to_string(), value.map(String::from))].into();
        self.entry(Command::Label { node: NodeId(id), labels });
        let labels = self.ledger.roster[&NodeId(id)].labels.clone();
        self.node(id).labels = labels;
    }

    /// How many tasks of a job each value of a label has.
    pub(crate) fn spread(&self, owner: &str, name: &str, label: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, id) in self.at(owner, name) {
            let value = self.view.nodes[&NodeId(id)].label(label).unwrap_or("none").to_string();
            *counts.entry(value).or_default() += 1;
        }
        counts
    }

    pub(crate) fn intent(&self) -> Intent {
        Intent::read(&self.ledger, &Intent::default())
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.intent(), &self.view)
    }

    pub(crate) fn why(&self, owner: &str, name: &str, index: Option<u32>) -> Why {
        why(&self.intent(), &self.view, &job(owner, name), index, "me")
    }

    /// Puts a copy there, in the books too.
    pub(crate) fn put(&mut self, node: u64, report: Report) {
        if report.state.holds_resources() {
            self.node(node).books.add(report.band, &report.limit, &report.limit);
        }
        self.node(node).tasks.insert(report.key, report);
    }

    pub(crate) fn run(&mut self, node: u64, owner: &str, name: &str, index: u32) {
        self.seq += 1;
        let report = report(self, self.key(owner, name, index), &job(owner, name), self.seq, State::Running);
        self.put(node, report);
    }

    pub(crate) fn offer(&mut self, node: u64, owner: &str, name: &str, index: u32) {
        let key = self.key(owner, name, index);
        let limit = self.intent().by_uid(key.uid).unwrap().template(index).unwrap().limit.clone();
        self.seq += 1;
        let offer = OpenOffer {
            job: job(owner, name),
            generation: self.generation(self.seq),
            version: Version::default(),
            band: placement::job::Band::Batch,
            restart_at: 0,
            limit,
            ports: 0,
        };
        self.node(node).offers.insert(key, offer);
    }

    /// The world obeys: offers run, stops and forgets are done, completions are recorded.
    pub(crate) fn obey(&mut self, plan: &Plan) {
        for stop in &plan.stops {
            self.end(stop.node, stop.key);
            self.node(stop.node.0).offers.remove(&stop.key);
        }
        for (node, key) in &plan.forgets {
            self.end(*node, *key);
        }
        for keep in &plan.keeps {
            self.node(keep.node.0).kept.insert(keep.key, keep.generation);
        }
        for restart in &plan.restarts {
            let copy = self.node(restart.node.0).tasks.get_mut(&restart.key).unwrap();
            copy.restart_at = restart.at;
        }
        for amend in &plan.amends {
            let node = self.node(amend.node.0);
            let copy = node.tasks.get_mut(&amend.key).unwrap();
            (copy.version, copy.limit) = (amend.version, amend.spec.limit.clone());
            count(node);
        }
        for offer in &plan.offers {
            self.seq += 1;
            let mut new = report(self, offer.key, &offer.spec.job, self.seq, State::Running);
            new.healthy = offer.spec.is_checked().then_some(true);
            self.put(offer.node.0, new);
            let generation = self.generation(self.seq);
            self.node(offer.node.0).kept.insert(offer.key, generation);
        }
        if !plan.complete.is_empty() {
            self.entry(Command::Complete { done: plan.complete.clone() });
        }
    }

    /// The copy there has failed again and again and waits to start, and the node remembers it.
    pub(crate) fn fail(&mut self, node: u64, owner: &str, name: &str, index: u32) {
        let key = self.key(owner, name, index);
        let copy = self.node(node).tasks.get_mut(&key).unwrap();
        copy.state = State::Starting;
        copy.reason = Some("exited with code 1; starting again in 2s".into());
        let (generation, version, restart_at) = (copy.generation, copy.version, copy.restart_at);
        let why = "exited with code 1".to_string();
        let bad = Bad {
            key,
            generation,
            version,
            restart_at,
            times: 3,
            why,
            until_ms: 45_240_000,
            reclaimed: false,
        };
        self.node(node).info.as_mut().unwrap().bad.push(bad);
    }

    pub(crate) fn end(&mut self, node: NodeId, key: TaskKey) {
        let node = self.node(node.0);
        node.tasks.remove(&key);
        node.kept.remove(&key);
        node.stops.remove(&key);
        count(node);
    }

    /// Plans and obeys until there is nothing to do. Returns how often it planned.
    pub(crate) fn settle(&mut self) -> usize {
        for round in 0..200 {
            let plan = self.plan();
            if plan.is_empty() {
                return round;
            }
            self.obey(&plan);
        }
        panic!("it does not settle: {:#?}", self.plan());
    }

    /// Where a job's indexes are: node ids by index.
    pub(crate) fn at(&self, owner: &str, name: &str) -> Vec<(u32, u64)> {
        let mut at: Vec<(u32, u64)> = self
            .view
            .nodes
            .iter()
            .flat_map(|(id, n)| n.tasks.values().map(move |t| (t, id.0)))
            .filter(|(t, _)| t.job == job(owner, name))
            .map(|(t, id)| (t.key.index, id))
            .collect();
        at.sort_unstable();
        at
    }
}

/// Its books, from its copies.
fn count(node: &mut NodeView) {
    node.books = Books::default();
    for copy in node.tasks.values().filter(|t| t.state.holds_resources()) {
        node.books.add(copy.band, &copy.limit, &copy.limit);
    }
}

pub(crate) fn ended(code: i32) -> Option<Exit> {
    Some(Exit { code: Some(code), signal: None, cause: Cause::Exited })
}

/// The plan's pending, as text.
pub(crate) fn pending(plan: &Plan, key: TaskKey) -> Vec<String> {
    plan.pending.get(&key).map(|p| p.obstacles.iter().map(|o| o.text()).collect()).unwrap_or_default()
}
