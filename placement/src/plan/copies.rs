//! What is where: copies and unanswered offers, by name and index (PROTOCOL 2) and then by key.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    ids::{JobKey, NodeId, TaskKey},
    task::{Report, State},
    view::{NodeView, OpenOffer, Standing, View},
};

/// Everything of a name, the indexes of older jobs of that name included.
pub(super) type Copies<'a> = BTreeMap<(&'a JobKey, u32), BTreeMap<TaskKey, Here<'a>>>;

/// Everything of a key.
#[derive(Debug, Default)]
pub(super) struct Here<'a> {
    pub(super) copies: Vec<Copy<'a>>,
    pub(super) offers: Vec<Offered<'a>>,
}

/// A copy as its node last reported it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy<'a> {
    pub(super) id: NodeId,
    /// Position of the node among all.
    pub(super) at: usize,
    pub(super) node: &'a NodeView,
    pub(super) report: &'a Report,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Offered<'a> {
    pub(super) id: NodeId,
    pub(super) at: usize,
    pub(super) node: &'a NodeView,
    pub(super) offer: &'a OpenOffer,
}

impl Copy<'_> {
    pub(super) fn live(&self) -> bool {
        self.node.standing == Standing::Live
    }

    /// A stop that takes it is under way and is never taken back (PROTOCOL 16).
    pub(super) fn ending(&self) -> bool {
        self.node.stopping(self.report.key, self.report.generation)
    }

    pub(super) fn ended(&self) -> bool {
        self.report.state.is_final()
    }

    /// Running, and healthy as far as anybody knows.
    pub(super) fn well(&self, checked: bool) -> bool {
        self.report.state == State::Running
            && !self.ending()
            && match self.report.healthy {
                Some(healthy) => healthy,
                None => !checked,
            }
    }
}

/// Nodes that are gone have no say; what nobody heard of is not there (PROTOCOL 11 keeps the placer from using that).
pub(super) fn survey(view: &View) -> Copies<'_> {
    let mut all: Copies<'_> = BTreeMap::new();
    for (at, (id, node)) in view.nodes.iter().enumerate() {
        if node.standing == Standing::Gone {
            continue;
        }
        for (key, report) in &node.tasks {
            let here = all.entry((&report.job, key.index)).or_default().entry(*key).or_default();
            here.copies.push(Copy { id: *id, at, node, report });
        }
        for (key, offer) in &node.offers {
            let here = all.entry((&offer.job, key.index)).or_default().entry(*key).or_default();
            here.offers.push(Offered { id: *id, at, node, offer });
        }
    }
    all
}
