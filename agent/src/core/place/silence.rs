//! What time alone changes: members that stay silent, refusals that end, proposals that are repeated.

use placement::{
    ids::{NodeId, TaskKey},
    intent::Verdict,
    ledger::Command,
    obstacle::No,
    view::{NodeView, Standing},
};

use super::{Active, Link, PlaceAction, PlaceConfig};
use crate::event::Now;

/// A proposed completion that is not applied by then is proposed again.
pub(super) const PROPOSE_AGAIN_MS: u64 = 5_000;

impl Active {
    /// What time alone changes. Returns whether anything did.
    pub(super) fn expire(&mut self, now: Now, actions: &mut Vec<PlaceAction>) -> bool {
        let mut changed = false;
        for (id, node) in &mut self.view.nodes {
            let Some(link) = self.links.get_mut(id) else { continue };
            let Some(at) = link.deadline(node, &self.config) else { continue };
            if at > now.mono_ms {
                continue;
            }
            changed = true;
            if let Some(session) = link.session.take() {
                // Wedged: it does not report, or does not answer. Only a fresh session can tell more.
                actions.push(PlaceAction::CloseSession { node: *id, session });
                if node.standing == Standing::Live {
                    node.standing = Standing::Away;
                    (link.heard_ms, link.offered_ms) = (now.mono_ms, None);
                    continue;
                }
            }
            node.standing = Standing::Gone;
            // It may still hold what it accepted: should it come back, its full report tells (PROTOCOL 15).
            node.offers.clear();
            link.offered_ms = None;
        }
        let gathering = self.gathers_until().is_some_and(|until| until > now.mono_ms);
        changed |= std::mem::replace(&mut self.view.gathering, gathering) && !gathering;
        self.propose_again(now, actions);
        let due = |until: &u64| *until <= now.mono_ms;
        changed || self.refusals().any(|until| self.wake.is_none() && due(&until))
    }

    /// Until when it waits for first reports, if any is missing of a member that is not dead.
    fn gathers_until(&self) -> Option<u64> {
        let missing = |(id, node): (&NodeId, &NodeView)| {
            node.standing == Standing::Unheard
                && self.links.get(id).is_some_and(|link| link.dead_ms.is_none())
        };
        let missing = self.view.nodes.iter().any(missing);
        missing.then(|| self.since_ms.saturating_add(self.config.patience_ms))
    }

    fn propose_again(&mut self, now: Now, actions: &mut Vec<PlaceAction>) {
        let mut done = Vec::new();
        for (key, completing) in &mut self.completing {
            if completing.again_ms <= now.mono_ms {
                completing.again_ms = now.mono_ms + PROPOSE_AGAIN_MS;
                // The ledger ignores it while the index is not wanted.
                if self.intent.verdict(*key) == Verdict::Wanted {
                    done.push(completing.done.clone());
                }
            }
        }
        if !done.is_empty() {
            actions.push(PlaceAction::Propose(Command::Complete { done }));
        }
    }

    /// When refusals end, those of tasks that wait because of one.
    fn refusals(&self) -> impl Iterator<Item = u64> {
        let waits = |key: &TaskKey| {
            let refused = |no: &No| matches!(no, No::Refused(_));
            let pending = self.plan.pending.get(key).map(|p| &p.obstacles);
            let all = pending.into_iter().chain(self.plan.stuck.get(key));
            all.flat_map(|o| o.iter()).any(|o| refused(&o.no))
        };
        let refusals = self.view.nodes.values().flat_map(|n| &n.refusals);
        refusals.filter(move |(key, _)| waits(key)).map(|(_, r)| r.until_ms)
    }

    pub(super) fn ask_to_wake(&mut self, now: Now, actions: &mut Vec<PlaceAction>) {
        let nodes =
            self.view.nodes.iter().filter_map(|(id, node)| {
                self.links.get(id).and_then(|link| link.deadline(node, &self.config))
            });
        let gathered = self.gathers_until().filter(|_| self.view.gathering);
        let nodes = nodes.chain(gathered);
        let next = nodes.chain(self.completing.values().map(|c| c.again_ms)).chain(self.refusals()).min();
        let next = next.map(|at| at.max(now.mono_ms + 1));
        if let Some(mono_ms) = next
            && self.wake != next
        {
            actions.push(PlaceAction::WakeAt { mono_ms });
        }
        self.wake = next;
    }
}

impl Link {
    /// When silence has a consequence.
    fn deadline(&self, node: &NodeView, config: &PlaceConfig) -> Option<u64> {
        let silent = |since: u64| since.saturating_add(config.silent_after_ms);
        match (self.session, node.standing) {
            (None, Standing::Gone) => None,
            // PROTOCOL 13: a live session outvotes membership.
            (None, _) => {
                let verdict =
                    self.dead_ms.map(|at| at.max(self.heard_ms).saturating_add(config.lost_after_ms));
                Some(silent(self.heard_ms).min(verdict.unwrap_or(u64::MAX)))
            }
            (Some(_), Standing::Live) => {
                // One that was opened to the dead, who came back and died again, may never end by itself.
                let quiet = self.dead_ms.map(|at| silent(at.max(self.heard_ms)));
                self.offered_ms.map(silent).into_iter().chain(quiet).min()
            }
            (Some(_), _) => Some(silent(self.heard_ms)),
        }
    }
}
