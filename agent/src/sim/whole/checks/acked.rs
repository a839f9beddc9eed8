//! No acknowledged request is lost, and each was done once: its answer stays the one that was given.

use std::collections::BTreeMap;

use placement::ledger::{Answer, Ledger, RequestStamp};

use super::Verdict;

#[derive(Default)]
pub(in super::super) struct Acked {
    answers: BTreeMap<RequestStamp, Answer>,
    /// Those that a ledger was seen to have: every newer one has them.
    seen: BTreeMap<RequestStamp, ()>,
}

impl Acked {
    pub(in super::super) fn acknowledged(&mut self, stamp: RequestStamp, answer: Answer) {
        self.answers.insert(stamp, answer);
    }

    pub(in super::super) fn count(&self) -> usize {
        self.answers.len()
    }

    /// A newer ledger than any before it.
    pub(super) fn ledger(&mut self, ledger: &Ledger) -> Verdict {
        for (stamp, answer) in &self.answers {
            match ledger.answered(stamp) {
                Some(kept) if kept == answer => drop(self.seen.insert(stamp.clone(), ())),
                None if !self.seen.contains_key(stamp) => {}
                kept => return Err(lost(stamp, answer, kept, ledger)),
            }
        }
        Ok(())
    }

    /// The ledger of a placer that begins, or that of everybody in the end (PROTOCOL 5).
    pub(in super::super) fn all_in(&self, ledger: &Ledger) -> Verdict {
        let mut kept = self.answers.iter().map(|(stamp, answer)| (stamp, answer, ledger.answered(stamp)));
        match kept.find(|(_, answer, kept)| *kept != Some(answer)) {
            Some((stamp, answer, kept)) => Err(lost(stamp, answer, kept, ledger)),
            None => Ok(()),
        }
    }
}

fn lost(stamp: &RequestStamp, answer: &Answer, kept: Option<&Answer>, ledger: &Ledger) -> String {
    let (by, id) = (&stamp.principal.0, &stamp.id.0);
    format!("{by}'s request {id} was answered {answer:?}; the ledger at {} has {kept:?}", ledger.applied)
}
