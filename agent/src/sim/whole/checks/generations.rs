//! Generations never go back: not as offered by one placer after another, nor as any node accepts them.

use std::collections::BTreeMap;

use gossip::wire::Offer;
use placement::{
    ids::{Generation, NodeId, TaskKey},
    ledger::Ledger,
};

use super::Verdict;
use crate::event::Change;

#[derive(Default)]
pub(in super::super) struct Generations {
    newest: Option<Generation>,
    accepted: BTreeMap<(NodeId, TaskKey), Generation>,
}

impl Generations {
    pub(super) fn newest(&self) -> Generation {
        self.newest.unwrap_or_default()
    }

    pub(super) fn offered(&mut self, offer: &Offer, ledger: &Ledger) -> Verdict {
        let (key, generation) = (offer.key, offer.generation);
        if self.newest.is_some_and(|newest| generation <= newest) {
            return Err(format!("{key} is offered as {generation} after {}", self.newest()));
        }
        self.newest = Some(generation);
        match ledger.job_of(key.uid) {
            Some((_, record)) if record.wanted().any(|index| index == key.index) => Ok(()),
            _ => Err(format!("{key} is offered, and nobody wants it")),
        }
    }

    pub(super) fn written(&mut self, id: NodeId, changes: &[Change]) -> Verdict {
        for change in changes {
            let Change::Put(record) = change else { continue };
            let (key, generation) = (record.key, record.generation);
            if let Some(before) = self.accepted.insert((id, key), generation)
                && before > generation
            {
                return Err(format!("n{} writes {key} as {generation} after {before}", id.0));
            }
        }
        Ok(())
    }
}
