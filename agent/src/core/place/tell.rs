//! Carrying out a plan: each order is noted in the view as it is sent, so that the next plan takes it as said.

use gossip::wire::{Offer, Order, ToAgent};
use placement::{
    ids::{Generation, NodeId, TaskKey},
    ledger::Command,
    plan::{Plan, PlannedAmend, plan},
    view::{NodeView, OpenAmend, OpenOffer, Standing},
};

use super::{Active, Completing, PlaceAction, silence::PROPOSE_AGAIN_MS};
use crate::event::Now;

impl Active {
    /// Plans until there is nothing left to say: the second plan is empty unless an order made room for another.
    pub(super) fn replan(&mut self, now: Now, actions: &mut Vec<PlaceAction>) {
        self.repeat_stops(actions);
        for _ in 0..4 {
            self.plan = plan(&self.intent, &self.view);
            if self.plan.is_empty() {
                break;
            }
            let said = std::mem::take(&mut self.plan);
            self.tell(said, now, actions);
        }
    }

    fn tell(&mut self, said: Plan, now: Now, actions: &mut Vec<PlaceAction>) {
        // What ends comes first: the order in which a node hears of it all.
        for stop in said.stops {
            self.note(stop.node, |node| {
                let up_to = node.stops.entry(stop.key).or_insert(stop.generation);
                *up_to = stop.generation.max(*up_to);
            });
            self.said_stops.insert((stop.node, stop.key));
            let order = Order::Stop { key: stop.key, generation: stop.generation, reason: stop.reason };
            self.send(stop.node, order, actions);
        }
        for (id, key) in said.forgets {
            self.note(id, |node| {
                node.forgotten.insert(key);
            });
            self.send(id, Order::Forget { key }, actions);
        }
        for keep in said.keeps {
            self.note(keep.node, |node| {
                node.kept.insert(keep.key, keep.generation);
            });
            self.send(keep.node, Order::Keep { key: keep.key, generation: keep.generation }, actions);
        }
        for restart in said.restarts {
            self.note(restart.node, |node| {
                node.restarted.insert(restart.key, restart.at);
            });
            let (key, generation, at) = (restart.key, restart.generation, restart.at);
            self.send(restart.node, Order::Restart { key, generation, at }, actions);
        }
        for amend in said.amends {
            let PlannedAmend { node, key, generation, version, spec, more } = amend;
            let open = OpenAmend { generation, version, band: spec.band, more };
            self.note(node, |node| {
                node.amended.insert(key, open);
            });
            let offer = Offer { key, generation, version, spec, remark: None, lesson: None };
            self.send(node, Order::Amend(Box::new(offer)), actions);
        }
        for planned in said.offers {
            let generation = self.next_generation();
            let open = OpenOffer {
                job: planned.spec.job.clone(),
                generation,
                version: planned.version,
                band: planned.spec.band,
                restart_at: planned.spec.restart_at,
                limit: planned.spec.limit.clone(),
                ports: planned.spec.ports.len() as u32,
            };
            self.note(planned.node, |node| {
                node.offers.insert(planned.key, open);
            });
            if let Some(link) = self.links.get_mut(&planned.node) {
                link.offered_ms.get_or_insert(now.mono_ms);
            }
            let (version, remark) = (planned.version, planned.remark);
            let lesson = self.lesson(&planned.spec.job, planned.key.index, now).map(Box::new);
            let offer = Offer { key: planned.key, generation, version, spec: planned.spec, remark, lesson };
            self.send(planned.node, Order::Offer(Box::new(offer)), actions);
        }
        if !said.complete.is_empty() {
            for done in &said.complete {
                let key = TaskKey { uid: done.uid, index: done.index };
                let again_ms = now.mono_ms + PROPOSE_AGAIN_MS;
                self.completing.insert(key, Completing { done: done.clone(), again_ms });
                self.view.completing.insert(key);
            }
            actions.push(PlaceAction::Propose(Command::Complete { done: said.complete }));
        }
    }

    /// PROTOCOL 16: a stop that no report has shown done is said again in each new session.
    fn repeat_stops(&mut self, actions: &mut Vec<PlaceAction>) {
        let mut again = Vec::new();
        for (id, node) in self.view.nodes.iter().filter(|(_, n)| n.standing == Standing::Live) {
            for (key, generation) in &node.stops {
                if self.said_stops.insert((*id, *key)) {
                    again.push((*id, *key, *generation));
                }
            }
        }
        for (id, key, generation) in again {
            let reason = "it was told to stop before".to_string();
            self.send(id, Order::Stop { key, generation, reason }, actions);
        }
    }

    fn next_generation(&mut self) -> Generation {
        let generation =
            Generation { cell: self.activation.cell, activation: self.activation.index, seq: self.seq };
        self.seq += 1;
        generation
    }

    fn note(&mut self, id: NodeId, f: impl FnOnce(&mut NodeView)) {
        if let Some(node) = self.view.nodes.get_mut(&id) {
            f(node);
        }
    }

    /// Only what is live is told anything, so there is a session.
    fn send(&self, node: NodeId, order: Order, actions: &mut Vec<PlaceAction>) {
        if let Some(session) = self.links.get(&node).and_then(|l| l.session) {
            actions.push(PlaceAction::Send { node, order: ToAgent::new(session, order) });
        }
    }
}
