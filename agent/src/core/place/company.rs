//! The roster (PROTOCOL 10) beside what membership says of who is alive: verdicts for the placer's core, and candidates
//! for the ledger's voters. Pure.
//!
//! Dead is who was here and is not: whom this node has not seen since its start may be on its way, and its containers may
//! run. He is gone when he has been silent for too long (PROTOCOL 12), no sooner.

use std::collections::{BTreeMap, BTreeSet};

use placement::{
    ids::NodeId,
    voters::{Candidate, Silence},
};

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
    /// Since this node started.
    was_here: bool,
}

impl Verdict {
    fn dead(self) -> bool {
        self.was_here && !self.alive
    }
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
            let alive = alive.contains(&id);
            let known = before.remove(&id);
            let same = known.filter(|known| known.alive == alive);
            let was_here = alive || known.is_some_and(|known| known.was_here);
            let now = same.unwrap_or(Verdict { alive, since_ms: mono_ms, was_here });
            if known.is_none_or(|known| known.dead() != now.dead() || known.alive != alive) {
                news.extend(verdict(id, now));
            }
            self.seen.insert(id, now);
        }
        news
    }

    /// What a core that has just been activated has to hear: it takes everybody for alive.
    pub fn verdicts(&self) -> Vec<PlaceEvent> {
        self.seen.iter().filter_map(|(id, known)| verdict(*id, *known)).collect()
    }

    /// For `placement::voters::next_step`. `rack`: a node's label, empty if it has none; `drained`: as the ledger says;
    /// `silent`: whether it answers the leader.
    pub fn candidates(
        &self,
        rack: impl Fn(NodeId) -> String,
        drained: impl Fn(NodeId) -> bool,
        silent: impl Fn(NodeId) -> Option<Silence>,
    ) -> BTreeMap<NodeId, Candidate> {
        let candidate = |(id, known): (&NodeId, &Verdict)| {
            let Verdict { alive, since_ms, .. } = *known;
            let seen = Candidate { rack: rack(*id), alive, drained: drained(*id), since_ms };
            (*id, seen.unless_silent(silent(*id)))
        };
        self.seen.iter().map(candidate).collect()
    }
}

fn verdict(id: NodeId, known: Verdict) -> Option<PlaceEvent> {
    match (known.alive, known.dead()) {
        (true, _) => Some(PlaceEvent::MemberAlive(id)),
        (_, true) => Some(PlaceEvent::MemberGone(id)),
        _ => None,
    }
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
        let racks = |id: NodeId| format!("rack{}", id.0);
        let candidates = company.candidates(racks, |_| false, |_| None);
        let two = Candidate { rack: "rack2".into(), alive: false, drained: false, since_ms: 30 };
        assert_eq!((candidates[&ONE].since_ms, &candidates[&TWO]), (10, &two));
        // Who does not answer the leader is dead since then, or since membership says so.
        let silent = |since_ms: u64, called_ms: u64| {
            let silence = Some(Silence { since_ms, called_ms });
            let all = company.candidates(racks, |_| false, |_| silence);
            [ONE, TWO].map(|id| (all[&id].alive, all[&id].since_ms))
        };
        assert_eq!(silent(25, 40), [(false, 25), (false, 25)]);
        assert_eq!(silent(35, 40), [(false, 35), (false, 30)]);
        // Who has come back since was called for the last time before.
        assert_eq!(silent(2, 9), [(true, 10), (false, 2)]);
        // Who has not been here yet is not dead.
        assert_eq!(company.look([ONE, TWO, NodeId(3)], &one, 45), []);
        assert_eq!(company.verdicts().len(), 2);
        // Who is removed and comes again is new.
        assert_eq!(company.look([ONE], &both, 50), []);
        assert_eq!(company.look([ONE, TWO], &both, 60), [PlaceEvent::MemberAlive(TWO)]);
    }
}
