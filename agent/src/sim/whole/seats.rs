//! Where a node leads the ledger: brings the right nodes into it.

use placement::{
    ids::NodeId,
    voters::{Patience, next_step},
};

use super::world::{World, ms};
use crate::{
    ledger::{seats, take},
    sim::runtime::spawn_in,
};

impl World {
    /// One step towards the voters that there should be, if it leads.
    pub(super) fn seat(&mut self, id: NodeId) {
        let agent = self.agents.get_mut(&id).unwrap();
        let placer = &mut agent.placer;
        let Some(seats) = seats(&placer.raft.metrics().borrow()).filter(|_| !placer.stepping) else { return };
        let ledger = placer.view.ledger();
        let drained = |node| ledger.roster.get(&node).is_some_and(|member| member.draining);
        let silent = |node| placer.heard.silence(node, ms());
        let candidates = placer.company.candidates(|node| format!("r{}", node.0 % 3), drained, silent);
        let Some(step) = next_step(&seats, &candidates, Patience::default(), ms()) else { return };
        placer.stepping = true;
        let (raft, life, world) = (placer.raft.clone(), agent.life, self.shared());
        self.say(|_| format!("n{} {step}", id.0));
        spawn_in(self.agents[&id].group, async move {
            // A step that failed is chosen again, or another.
            let _ = take(&raft, step).await;
            let Some(world) = world.upgrade() else { return };
            let mut world = world.lock().unwrap();
            world.reached("step");
            if let Some(agent) = world.agents.get_mut(&id).filter(|agent| agent.life == life) {
                agent.placer.stepping = false;
            }
        });
    }
}
