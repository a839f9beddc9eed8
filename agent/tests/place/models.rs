//! A node as a script's author plays it: what it holds and would report.

use std::collections::BTreeMap;

use gossip::wire::{Delta, News, NotAmended, Offer, RefusedOffer};
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    node::{Bad, Books, NodeInfo},
    resources::Resources,
    task::{Cause, Exit, Report, State},
};

pub(crate) struct NodeModel {
    pub(crate) info: NodeInfo,
    pub(crate) tasks: BTreeMap<TaskKey, Report>,
    /// Received and not answered.
    pub(crate) offers: BTreeMap<TaskKey, Offer>,
    /// Changes in place, likewise.
    pub(crate) amends: BTreeMap<TaskKey, Offer>,
    /// What it keeps for prod.
    pub(crate) short: Resources,
}

impl NodeModel {
    pub(crate) fn new(id: NodeId, name: &str, cores: u64, gib: u64) -> NodeModel {
        let info = NodeInfo {
            id,
            name: name.into(),
            addr: String::new(),
            version: "0.1.0".into(),
            labels: BTreeMap::new(),
            capacity: Resources::new(cores * 1000, gib << 30),
            images: Default::default(),
            volumes: Default::default(),
            bad: Vec::new(),
        };
        NodeModel {
            info,
            tasks: BTreeMap::new(),
            offers: BTreeMap::new(),
            amends: BTreeMap::new(),
            short: Resources::default(),
        }
    }

    /// What the name and index stand for here: the copy, else the offer.
    pub(crate) fn key(&self, job: &JobKey, index: u32) -> Option<TaskKey> {
        let copy = self.tasks.values().find(|t| t.job == *job && t.key.index == index).map(|t| t.key);
        let offer = || self.offers.values().find(|o| o.spec.job == *job && o.key.index == index);
        copy.or_else(|| offer().map(|o| o.key))
    }

    pub(crate) fn books(&self) -> Books {
        let mut books = Books { short: self.short.clone(), ..Books::default() };
        for task in self.tasks.values().filter(|t| t.state.holds_resources()) {
            books.add(task.band, &task.limit, &task.limit);
        }
        books
    }

    pub(crate) fn full(&self) -> News {
        News::Full {
            node: self.info.clone(),
            books: self.books(),
            usage: Resources::default(),
            tasks: self.tasks.values().cloned().collect(),
        }
    }

    pub(crate) fn delta(&self, changed: &[TaskKey]) -> Delta {
        Delta {
            node: None,
            books: self.books(),
            usage: Resources::default(),
            tasks: changed.iter().filter_map(|k| self.tasks.get(k)).cloned().collect(),
            gone: changed.iter().filter(|k| !self.tasks.contains_key(k)).copied().collect(),
        }
    }

    /// Takes the offer; what it would answer is `accepted`'s.
    pub(crate) fn take(&mut self, key: TaskKey) -> Option<Offer> {
        let offer = self.offers.remove(&key)?;
        let spec = &offer.spec;
        let report = Report {
            key,
            job: spec.job.clone(),
            kind: spec.kind,
            band: spec.band,
            priority: spec.priority,
            generation: offer.generation,
            version: offer.version,
            state: State::Starting,
            image: spec.image.clone(),
            digest: spec.digest.clone(),
            pid: None,
            ports: BTreeMap::new(),
            address: None,
            restarts: 0,
            restart_at: spec.restart_at,
            healthy: None,
            ready: false,
            since_ms: 0,
            reason: None,
            exit: None,
            limit: spec.limit.clone(),
            reservation: spec.limit.clone(),
            usage: Resources::default(),
            strain: None,
        };
        self.tasks.insert(key, report);
        Some(offer)
    }

    pub(crate) fn accepted(&mut self, key: TaskKey) -> Option<News> {
        let offer = self.take(key)?;
        Some(News::Accepted { key, generation: offer.generation, delta: self.delta(&[key]) })
    }

    pub(crate) fn refused(&mut self, key: TaskKey, refused: RefusedOffer) -> Option<News> {
        let offer = self.offers.remove(&key)?;
        Some(News::Refused { key, generation: offer.generation, refused, delta: self.delta(&[]) })
    }

    /// It waits to start after its third failure in a row, and is remembered.
    pub(crate) fn fails(&mut self, key: TaskKey) {
        self.becomes(key, &["starting", "1", "exited_with_code_1;_starting_again_in_2s"]);
        let task = &self.tasks[&key];
        self.info.bad.push(Bad {
            key,
            generation: task.generation,
            version: task.version,
            restart_at: task.restart_at,
            times: 3,
            why: "exited with code 1".into(),
            until_ms: 45_240_000,
            reclaimed: false,
        });
    }

    /// It is done, or it cannot be while it runs, or not now.
    pub(crate) fn changed(&mut self, key: TaskKey, how: &str) -> Option<News> {
        let Offer { generation, version, spec, .. } = self.amends.remove(&key)?;
        let why = match how {
            "changed" => {
                let task = self.tasks.get_mut(&key)?;
                (task.version, task.limit, task.priority) = (version, spec.limit, spec.priority);
                return Some(News::Delta(self.delta(&[key])));
            }
            "rigid" => NotAmended::Rigid { why: "it uses more".into() },
            _ => NotAmended::Store { why: "the disk is full".into() },
        };
        Some(News::NotAmended { key, generation, version, why, delta: self.delta(&[key]) })
    }

    /// `running healthy`, `failed 3`, `succeeded`, `gone`.
    pub(crate) fn becomes(&mut self, key: TaskKey, words: &[&str]) {
        let state = match words[0] {
            "gone" => {
                self.tasks.remove(&key);
                return;
            }
            word => serde_json::from_value(word.into()).unwrap(),
        };
        let task = self.tasks.get_mut(&key).expect("there is such a copy");
        task.state = state;
        task.healthy = None;
        let exit = |code| Some(Exit { code: Some(code), signal: None, cause: Cause::Exited });
        if state == State::Succeeded {
            task.exit = exit(0);
        }
        for word in &words[1..] {
            match (*word, word.parse()) {
                ("healthy", _) => task.healthy = Some(true),
                ("unhealthy", _) => task.healthy = Some(false),
                (_, Ok(code)) => task.exit = exit(code),
                (reason, Err(_)) => task.reason = Some(reason.replace('_', " ")),
            }
        }
    }
}
