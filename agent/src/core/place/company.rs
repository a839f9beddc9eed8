//! The roster (PROTOCOL 10) beside what membership says of who is alive: verdicts for the placer's core, and candidates
//! for the ledger's voters. Pure.

use std::collections::{BTreeMap, BTreeSet};

use placement::{ids::NodeId, voters::Candidate};

use super::PlaceEvent;

/// Kept by each node from its start, whoever leads: how long a verdict has stood counts.
#[derive(Debug, Clone, Default)]
pub struct Company {
    seen: BTreeMap<NodeId, Verdict>,
}

#[derive(Debug, Clone, Copy)]
struct Verdict {
    alive: bool,
    since_ms: u64,
}

impl Company {
    /// Takes up the roster and those that are alive, this node among them. Returns what a placer's core has to hear; it
    /// may hear it while it does not act, and ignores it.
    pub fn look(
        &mut self,
        roster: impl IntoIterator<Item = NodeId>,
        alive: &BTreeSet<NodeId>,
        mono_ms: u64,
    ) -> Vec<PlaceEvent> {
        let mut before = std::mem::take(&mut self.seen);
        let mut news = Vec::new();
        for id in roster {
            let now = Verdict { alive: alive.contains(&id), since_ms: mono_ms };
            let known = before.remove(&id);
            if known.is_none_or(|known| known.alive != now.alive) {
                news.push(verdict(id, now));
            }
            let verdict = known.filter(|known| known.alive == now.alive).unwrap_or(now);
            self.seen.insert(id, verdict);
        }
        news
    }

    /// What a core that has just been activated has to hear: it takes everybody for alive.
    pub fn verdicts(&self) -> Vec<PlaceEvent> {
        self.seen.iter().map(|(id, known)| verdict(*id, *known)).collect()
    }

    /// For `placement::voters::next_step`. `rack`: a node's label, empty if it has none.
    pub fn candidates(&self, rack: impl Fn(NodeId) -> String) -> BTreeMap<NodeId, Candidate> {
        let candidate = |(id, known): (&NodeId, &Verdict)| {
            (*id, Candidate { rack: rack(*id), alive: known.alive, since_ms: known.since_ms })
        };
        self.seen.iter().map(candidate).collect()
    }
}

fn verdict(id: NodeId, known: Verdict) -> PlaceEvent {
    if known.alive { PlaceEvent::MemberAlive(id) } else { PlaceEvent::MemberGone(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);

    #[test]
    fn a_verdict_is_news_once_and_stands_since_then() {
        let mut company = Company::default();
        let (both, one) = (BTreeSet::from([ONE, TWO]), BTreeSet::from([ONE]));
        let alive = [PlaceEvent::MemberAlive(ONE), PlaceEvent::MemberAlive(TWO)];
        assert_eq!(company.look([ONE, TWO], &both, 10), alive);
        assert_eq!(company.look([ONE, TWO], &both, 20), []);
        assert_eq!(company.look([ONE, TWO], &one, 30), [PlaceEvent::MemberGone(TWO)]);
        assert_eq!(company.look([ONE, TWO], &one, 40), []);
        assert_eq!(company.verdicts(), [PlaceEvent::MemberAlive(ONE), PlaceEvent::MemberGone(TWO)]);
        let candidates = company.candidates(|id| format!("rack{}", id.0));
        let two = Candidate { rack: "rack2".into(), alive: false, since_ms: 30 };
        assert_eq!((candidates[&ONE].since_ms, &candidates[&TWO]), (10, &two));
        // Who is removed and comes again is new.
        assert_eq!(company.look([ONE], &both, 50), []);
        assert_eq!(company.look([ONE, TWO], &both, 60), [PlaceEvent::MemberAlive(TWO)]);
    }
}
