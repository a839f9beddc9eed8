//! What was answered to whom: a request that comes again does nothing more.

use super::{Answer, Ledger, Remembered, RequestStamp};

/// Requests remembered for each principal. A client repeats only its last few.
pub(super) const PER_PRINCIPAL: usize = 1024;
/// Principals whose requests are remembered; beyond it, the one that was silent for longest is dropped.
pub(super) const PRINCIPALS: usize = 256;

impl Ledger {
    /// The answer given to this request before.
    pub fn answered(&self, stamp: &RequestStamp) -> Option<&Answer> {
        let mine = self.requests.get(&stamp.principal)?;
        mine.iter().rev().find(|known| known.id == stamp.id).map(|known| &known.answer)
    }

    pub(super) fn remember(&mut self, index: u64, stamp: &RequestStamp, answer: &Answer) {
        let mine = self.requests.entry(stamp.principal.clone()).or_default();
        mine.push_back(Remembered { id: stamp.id.clone(), index, answer: answer.clone() });
        if mine.len() > PER_PRINCIPAL {
            mine.pop_front();
        }
        if self.requests.len() > PRINCIPALS {
            let last = |known: &Remembered| known.index;
            let silent = self.requests.iter().min_by_key(|(_, theirs)| theirs.back().map(last));
            if let Some(principal) = silent.map(|(principal, _)| principal.clone()) {
                self.requests.remove(&principal);
            }
        }
    }
}
