//! Ledgers of several nodes, each with its disk, on one network; and what must hold at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::{Config, EmptyNode, Membership, Raft, ServerState, SnapshotPolicy};
use placement::{
    ids::NodeId,
    ledger::{Answer, Entry, Ledger},
};
use tokio::sync::oneshot;

use super::{
    disk::Memory,
    net::{Net, Sim},
    runtime::{Group, kill, now, spawn_in},
    seeded::Seeded,
};
use crate::ledger::{Batch, Heard, Log, Machine, View, Ways, config, noted};

struct Node {
    disk: Memory,
    view: Arc<View>,
    /// Who has answered it, since its last start.
    heard: Heard,
    live: Option<(Group, Raft<Sim>)>,
}

impl Node {
    fn new() -> Node {
        Node { disk: Memory::default(), view: Arc::default(), heard: Heard::default(), live: None }
    }
}

/// The cell, seen by somebody who sees everything.
pub(crate) struct Cell {
    pub(crate) net: Net,
    nodes: BTreeMap<NodeId, Node>,
    starts: Group,
    config: Arc<Config>,
    /// Who led in each term.
    leaders: BTreeMap<u64, NodeId>,
    /// The ledger at each index at which any node was seen.
    seen: BTreeMap<u64, Arc<Ledger>>,
    /// Who held which part from which entry of the log on.
    seated: BTreeMap<u64, Membership<NodeId, EmptyNode>>,
}

impl Cell {
    /// Of nodes 1 to `size`, which all vote.
    pub(crate) async fn new(size: u64) -> Cell {
        Cell::of(size, size).await
    }

    /// Of nodes 1 to `size`; the first `voters` of them vote.
    pub(crate) async fn of(size: u64, voters: u64) -> Cell {
        let config = Config {
            snapshot_policy: SnapshotPolicy::LogsSinceLast(10),
            max_in_snapshot_log_to_keep: 3,
            purge_batch_size: 1,
            replication_lag_threshold: 12,
            install_snapshot_timeout: 500,
            snapshot_max_chunk_size: 700,
            ..config()
        };
        let mut cell = Cell {
            net: Net::default(),
            nodes: (1..=size).map(|id| (NodeId(id), Node::new())).collect(),
            starts: 0,
            config: Arc::new(config.validate().unwrap()),
            leaders: BTreeMap::new(),
            seen: BTreeMap::new(),
            seated: BTreeMap::new(),
        };
        cell.start_all().await;
        let first: BTreeMap<_, _> = (1..=voters).map(|id| (NodeId(id), EmptyNode {})).collect();
        cell.raft(NodeId(1)).unwrap().initialize(first).await.unwrap();
        cell
    }

    /// Starts a node that has never been there; it learns nothing before somebody asks it.
    pub(crate) async fn add(&mut self, id: NodeId) {
        self.nodes.insert(id, Node::new());
        self.start(id).await;
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn raft(&self, id: NodeId) -> Option<Raft<Sim>> {
        self.nodes[&id].live.as_ref().map(|(_, raft)| raft.clone())
    }

    pub(crate) fn ledger(&self, id: NodeId) -> Arc<Ledger> {
        self.nodes[&id].view.ledger()
    }

    /// Who has answered the node's ledger, since its last start.
    pub(crate) fn heard(&self, id: NodeId) -> Heard {
        self.nodes[&id].heard.clone()
    }

    /// What the node shows of its ledger, since its last start.
    pub(crate) fn view(&self, id: NodeId) -> Arc<View> {
        self.nodes[&id].view.clone()
    }

    pub(crate) fn fill(&self, id: NodeId, full: bool) {
        self.nodes[&id].disk.fill(full);
    }

    pub(crate) async fn start_all(&mut self) {
        for id in self.ids() {
            if self.nodes[&id].live.is_none() {
                self.start(id).await;
            }
        }
    }

    pub(crate) async fn start(&mut self, id: NodeId) {
        self.starts += 1;
        let (group, config, disk) = (self.starts, self.config.clone(), self.nodes[&id].disk.clone());
        let (view, heard) = (Arc::<View>::default(), Heard::default());
        let ways = Ways(noted(self.net.ask(id), heard.clone(), || now() / 1_000_000));
        let node = self.nodes.get_mut(&id).unwrap();
        (node.view, node.heard) = (view.clone(), heard);
        let (started, start) = oneshot::channel();
        spawn_in(group, async move {
            let machine = Machine::open(disk.clone(), view).unwrap();
            let _ = started.send(Raft::new(id, config, ways, Log::new(disk), machine).await);
        });
        match start.await {
            Ok(Ok(raft)) => {
                self.net.join(id, raft.clone());
                self.nodes.get_mut(&id).unwrap().live = Some((group, raft));
            }
            // Its disk is full; later.
            _ => kill(group),
        }
    }

    pub(crate) fn crash(&mut self, id: NodeId) {
        self.net.leave(id);
        if let Some((group, _)) = self.nodes.get_mut(&id).unwrap().live.take() {
            kill(group);
        }
    }

    /// Does what the keeper does: a core that stopped is taken away, to be started again.
    pub(crate) fn reap(&mut self) {
        for id in self.stopped() {
            self.crash(id);
        }
    }

    /// Whose core has stopped.
    pub(crate) fn stopped(&self) -> Vec<NodeId> {
        let stopped =
            |id: &NodeId| self.raft(*id).is_some_and(|raft| raft.metrics().borrow().running_state.is_err());
        self.ids().into_iter().filter(stopped).collect()
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.ids().into_iter().filter_map(|id| Some((self.leads(id)?, id))).max().map(|(_, id)| id)
    }

    /// The term that it leads.
    fn leads(&self, id: NodeId) -> Option<u64> {
        let metrics = self.raft(id)?.metrics();
        let metrics = metrics.borrow();
        (metrics.state == ServerState::Leader && metrics.running_state.is_ok())
            .then_some(metrics.current_term)
    }

    /// How many terms had a leader that was seen.
    pub(crate) fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// One leader a term; one ledger an index; voters change by one; nothing on disk that cannot be read.
    pub(crate) fn check(&mut self) {
        for id in self.ids() {
            if let Some(term) = self.leads(id) {
                let leader = *self.leaders.entry(term).or_insert(id);
                assert_eq!(leader, id, "two nodes led in term {term}");
            }
            let ledger = self.ledger(id);
            let first = self.seen.entry(ledger.applied).or_insert_with(|| ledger.clone());
            assert_eq!(*first, ledger, "node {id} has another ledger at index {}", ledger.applied);
            assert_eq!(self.nodes[&id].disk.damage(), Vec::<String>::new());
            self.check_seats(id);
        }
    }

    fn check_seats(&mut self, id: NodeId) {
        let members = self.nodes[&id].view.members();
        let Some(set_at) = members.log_id() else { return };
        let first = self.seated.entry(set_at.index).or_insert_with(|| members.membership().clone());
        assert_eq!(first, members.membership(), "node {id} has other voters from {set_at} on");
        if let [older, newer] = first.get_joint_config().as_slice() {
            let changed = older.symmetric_difference(newer).count();
            assert_eq!(changed, 1, "more than one step at once: {older:?} to {newer:?}");
        }
    }

    /// Who lives.
    pub(crate) fn live(&self) -> BTreeSet<NodeId> {
        self.ids().into_iter().filter(|id| self.nodes[id].live.is_some()).collect()
    }

    /// The group of a node that lives, for what runs beside its ledger.
    pub(crate) fn group(&self, id: NodeId) -> Option<Group> {
        self.nodes[&id].live.as_ref().map(|(group, _)| *group)
    }

    /// All sets of voters of which a majority may be needed now: those of the newest seats that were in force, and newer
    /// ones that somebody who lives knows of.
    pub(crate) fn electorates(&self) -> Vec<BTreeSet<NodeId>> {
        let in_force = self.seated.last_key_value();
        let newer = self.ids().into_iter().filter_map(|id| {
            let metrics = self.raft(id)?.metrics();
            let members = metrics.borrow().membership_config.clone();
            let index = members.log_id().map(|at| at.index);
            (index > in_force.map(|(at, _)| *at)).then(|| members.membership().clone())
        });
        let all = in_force.map(|(_, members)| members.clone()).into_iter().chain(newer);
        all.flat_map(|members| members.get_joint_config().clone()).collect()
    }

    /// Changes of parts that were seen.
    pub(crate) fn changes(&self) -> usize {
        self.seated.len()
    }

    /// Cuts the cell in two, one of the ways or both.
    pub(crate) fn split(&self, one: &BTreeSet<NodeId>, both_ways: bool) {
        for from in self.ids() {
            for to in self.ids() {
                if one.contains(&from) && !one.contains(&to) {
                    self.net.cut(from, to);
                    if both_ways {
                        self.net.cut(to, from);
                    }
                }
            }
        }
    }
}

/// One try; `None` if this node did not, or may or may not have.
pub(crate) async fn propose(raft: &Raft<Sim>, entry: &Entry) -> Option<Answer> {
    let batch = Batch::one(entry).unwrap();
    let write = raft.client_write(batch);
    let written = <Seeded as openraft::AsyncRuntime>::timeout(Duration::from_secs(1), write).await;
    written.ok()?.ok()?.data.pop()
}
