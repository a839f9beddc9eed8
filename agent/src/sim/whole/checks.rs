//! What must hold after each event; one check a file. The first failure of a run is kept, with the check's name.

pub(super) mod acked;
mod copies;
mod finished;
mod generations;
mod home;
mod offers;
mod placers;
mod reclaimed;
mod room;

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::Order;
use placement::{
    ids::{Activation, JobKey, NodeId},
    ledger::Ledger,
    view::View,
};

use super::machine::Machine;
use crate::event::{Change, RunId};

#[derive(Default)]
pub(super) struct Checks {
    failed: Option<String>,
    pub(super) acked: acked::Acked,
    pub(super) copies: copies::Copies,
    pub(super) finished: finished::Finished,
    pub(super) generations: generations::Generations,
    pub(super) reclaimed: reclaimed::Reclaimed,
    placers: placers::Placers,
    /// Up to which index ledgers were looked at: all have the same at the same.
    applied: u64,
}

/// What was wrong, if anything.
type Verdict = Result<(), String>;

impl Checks {
    pub(super) fn failed(&self) -> Option<&String> {
        self.failed.as_ref()
    }

    pub(super) fn fail(&mut self, check: &'static str, text: String) {
        self.failed.get_or_insert_with(|| format!("{check}: {text}"));
    }

    fn hold(&mut self, check: &'static str, verdict: Verdict) {
        if let Err(text) = verdict {
            self.fail(check, text);
        }
    }

    /// A node has applied entries.
    pub(super) fn ledger(&mut self, ledger: &Ledger) {
        if ledger.applied > self.applied {
            self.applied = ledger.applied;
            self.finished.ledger(ledger);
            let verdict = self.acked.ledger(ledger);
            self.hold("acked", verdict);
        }
    }

    /// Something changed on a machine.
    pub(super) fn machine(&mut self, id: NodeId, machine: &Machine) {
        let verdict = room::enough(id, machine);
        self.hold("room", verdict);
        let verdict = self.copies.on(id, machine);
        self.hold("copies", verdict);
    }

    /// Of a task that was restarted last at `restart_at`, on the `life`th agent of its node.
    pub(super) fn starts(&mut self, id: NodeId, run: RunId, restart_at: u64, life: u64, now_ms: u64) {
        let verdict = self.finished.starts(id, run);
        self.hold("finished", verdict);
        let verdict = self.reclaimed.starts(id, run, restart_at, life, now_ms);
        self.hold("reclaimed", verdict);
    }

    /// The container of an index with a volume runs. Whether its data was here before.
    pub(super) fn mounts(
        &mut self,
        id: NodeId,
        job: &JobKey,
        run: RunId,
        machines: &BTreeMap<NodeId, Machine>,
    ) -> bool {
        let given_up = |other, generation| self.copies.given_up(other, generation);
        let found = home::starts(id, job, run, machines, given_up);
        let returns = found == Ok(true);
        self.hold("home", found.map(drop));
        returns
    }

    pub(super) fn writes(&mut self, id: NodeId, changes: &[Change]) {
        let verdict = self.generations.written(id, changes);
        self.hold("generations", verdict);
    }

    pub(super) fn begins(&mut self, id: NodeId, activation: Activation, ledger: &Ledger) {
        let verdict = self.placers.begins(id, activation);
        self.hold("placers", verdict);
        let verdict = self.acked.all_in(ledger);
        self.hold("acked", verdict);
    }

    pub(super) fn sends(&mut self, id: NodeId, acts: Option<Activation>, order: &Order, ledger: &Ledger) {
        let verdict = self.placers.sends(id, acts);
        self.hold("placers", verdict);
        if let Order::Offer(offer) = order {
            let verdict = self.generations.offered(offer, ledger);
            self.hold("generations", verdict);
        }
    }

    pub(super) fn offers(&mut self, view: &View) {
        let verdict = offers::one_each(view);
        self.hold("offers", verdict);
    }

    /// Whom the placer of this activation has given up by now. Whether that is news.
    pub(super) fn gone(&mut self, activation: Option<Activation>, gone: BTreeSet<NodeId>) -> bool {
        self.copies.gone(activation, gone, self.generations.newest())
    }

    /// Where each index runs.
    pub(super) fn running(&self) -> BTreeMap<copies::Name, Vec<(NodeId, RunId)>> {
        self.copies.running()
    }
}
