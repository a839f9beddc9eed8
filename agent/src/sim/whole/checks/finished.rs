//! A batch index whose success is committed never starts again (PROTOCOL 23 to 26).

use std::collections::BTreeSet;

use placement::{
    ids::{NodeId, TaskKey},
    ledger::Ledger,
};

use super::Verdict;
use crate::event::RunId;

#[derive(Default)]
pub(in super::super) struct Finished(BTreeSet<TaskKey>);

impl Finished {
    pub(super) fn ledger(&mut self, ledger: &Ledger) {
        for record in ledger.jobs.values() {
            let successes = record.finished.iter().filter(|(_, done)| done.success);
            self.0.extend(successes.map(|(index, _)| TaskKey { uid: record.uid, index: *index }));
        }
    }

    pub(super) fn starts(&self, id: NodeId, run: RunId) -> Verdict {
        if self.0.contains(&run.key) {
            return Err(format!("{run} starts on n{} after its success was committed", id.0));
        }
        Ok(())
    }
}
