//! What must hold after each event.

use std::collections::{BTreeMap, BTreeSet};

use agent::event::RunId;
use gossip::wire::Order;
use placement::{
    ids::{Generation, JobKey, NodeId, TaskKey},
    ledger::Ledger,
    resources::Resources,
    view::View,
};

use super::node::Node;

#[derive(Default)]
pub(crate) struct Checks {
    /// The newest generation offered.
    newest: Generation,
    offered: BTreeSet<Generation>,
    /// What was offered before a node was last declared gone may run beside its replacement: nobody can know.
    excused: BTreeMap<NodeId, Generation>,
}

impl Checks {
    pub(crate) fn told(&mut self, order: &Order, ledger: &Ledger) {
        if let Order::Offer(offer) = order {
            assert!(offer.generation > self.newest, "generations never go back (3)");
            assert!(self.offered.insert(offer.generation), "{} is offered twice", offer.generation);
            self.newest = offer.generation;
            let (_, record) = ledger.job_of(offer.key.uid).expect("only known jobs are offered");
            assert!(record.wanted().any(|i| i == offer.key.index), "{} is not wanted", offer.key);
        }
    }

    pub(crate) fn declared_gone(&mut self, node: NodeId) {
        self.excused.insert(node, self.newest);
    }

    /// PROTOCOL 23 to 26: no start of an index after its success is committed.
    pub(crate) fn starts(&self, node: NodeId, run: RunId, batch: bool, ledger: &Ledger) {
        let record = ledger.job_of(run.key.uid).map(|(_, record)| record);
        let done = record.is_some_and(|r| r.has_succeeded(run.key.index));
        assert!(!batch || !done, "{run} starts on {node} after its success was committed (26)");
    }

    pub(crate) fn now(&self, nodes: &BTreeMap<NodeId, Node>) {
        let mut running: BTreeMap<(JobKey, u32), Vec<(NodeId, RunId)>> = BTreeMap::new();
        for (id, node) in nodes {
            let mut used = Resources::default();
            let mut names = BTreeSet::new();
            for (run, job) in node.living() {
                used.add(&node.runs[&run].limit);
                assert!(names.insert((job, run.key.index)), "{job}/{} runs twice on {id}", run.key.index);
                running.entry((job.clone(), run.key.index)).or_default().push((*id, run));
            }
            assert_eq!(node.config.node.capacity.short_of(&used), None, "{id} is over its capacity");
        }
        for ((job, index), runs) in running {
            let excused = |(id, run): &&(NodeId, RunId)| {
                self.excused.get(id).is_some_and(|newest| run.generation <= *newest)
            };
            let counted: Vec<_> = runs.iter().filter(|r| !excused(r)).collect();
            assert!(counted.len() <= 1, "{job}/{index} runs at once: {counted:?}");
        }
    }
}

/// PROTOCOL 15.
pub(crate) fn one_offer_each(view: &View) {
    let mut open: BTreeSet<TaskKey> = BTreeSet::new();
    for key in view.nodes.values().flat_map(|n| n.offers.keys()) {
        assert!(open.insert(*key), "{key} is on offer twice");
    }
}
