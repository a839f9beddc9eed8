//! Who answers the leader: it calls every voter and learner ten times a second, so that it knows of a silent one long before
//! membership has made up its mind. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use placement::{ids::NodeId, voters::Silence};

use super::network::Ask;

/// Whoever was not called for so long has not been silent meanwhile.
const PAUSE_MS: u64 = 2_000;
/// What was found is forgotten so long after the last call: who was silent is not tried again at once.
const REMEMBERED_MS: u64 = 5_000;
/// Calls are lost, and a disk may take its time: silence counts after so long.
const SILENT_MS: u64 = 1_500;

/// Shared by those who call and those who want to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<BTreeMap<NodeId, Calls>>>);

#[derive(Debug, Clone, Copy)]
struct Calls {
    last_ms: u64,
    /// The first one that nothing has come back since.
    vain_since_ms: Option<u64>,
}

impl Heard {
    fn called(&self, node: NodeId, now_ms: u64) {
        let mut all = self.all();
        let calls = all.entry(node).or_insert(Calls { last_ms: now_ms, vain_since_ms: None });
        if calls.vain_since_ms.is_none() || now_ms > calls.last_ms.saturating_add(PAUSE_MS) {
            calls.vain_since_ms = Some(now_ms);
        }
        calls.last_ms = now_ms;
    }

    fn answered(&self, node: NodeId) {
        if let Some(calls) = self.all().get_mut(&node) {
            calls.vain_since_ms = None;
        }
    }

    /// That a node has answered none of the calls that were made since then, if that is long enough to count.
    pub(crate) fn silence(&self, node: NodeId, now_ms: u64) -> Option<Silence> {
        let calls = self.all().get(&node).copied()?;
        let silence = Silence { since_ms: calls.vain_since_ms?, called_ms: calls.last_ms };
        let counts = now_ms >= silence.since_ms.saturating_add(SILENT_MS);
        (counts && now_ms <= calls.last_ms.saturating_add(REMEMBERED_MS)).then_some(silence)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<NodeId, Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same way to the others, whose answers are noted. `now_ms`: monotonic.
pub(crate) fn noted(ask: Ask, heard: Heard, now_ms: fn() -> u64) -> Ask {
    Arc::new(move |node, call| {
        heard.called(node, now_ms());
        let (asked, heard) = (ask(node, call), heard.clone());
        Box::pin(async move {
            let answer = asked.await;
            if answer.is_ok() {
                heard.answered(node);
            }
            answer
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    fn since(heard: &Heard, now_ms: u64) -> Option<u64> {
        heard.silence(NODE, now_ms).map(|silence| silence.since_ms)
    }

    #[test]
    fn silence_counts_from_the_first_call_without_an_answer() {
        let heard = Heard::default();
        assert_eq!(since(&heard, 99_999), None, "it was never called");
        heard.called(NODE, 1_000);
        heard.answered(NODE);
        assert_eq!(since(&heard, 2_900), None);
        for at in [9_000, 9_100, 10_000, 10_400] {
            heard.called(NODE, at);
        }
        assert_eq!((since(&heard, 10_499), since(&heard, 10_500)), (None, Some(9_000)));
        heard.answered(NODE);
        assert_eq!(since(&heard, 12_000), None, "one answer is enough");
    }

    #[test]
    fn who_is_not_called_is_neither_silent_nor_well() {
        let heard = Heard::default();
        heard.called(NODE, 1_000);
        heard.called(NODE, 2_600);
        let silence = Silence { since_ms: 1_000, called_ms: 2_600 };
        assert_eq!(heard.silence(NODE, 7_600), Some(silence), "it is not tried again at once");
        assert_eq!(since(&heard, 7_601), None);
        // Called anew, by a leader of later: the time between does not count.
        heard.called(NODE, 20_000);
        assert_eq!((since(&heard, 21_499), since(&heard, 21_500)), (None, Some(20_000)));
    }
}
