//! Where this node leads the ledger: brings the right nodes into it, one small step after another. Which step is for
//! `placement::voters` to say.

use std::{collections::BTreeMap, time::Duration};

use placement::{
    ids::NodeId,
    ledger::Ledger,
    voters::{Patience, VoterStep, next_step},
};
use tokio::time::sleep;

use super::placer::PlacerHandle;
use crate::{cell::Cell, clock, core::place::company::Company, journal::Journal};

/// Between two looks: far below the patience of the choice.
const LOOK: Duration = Duration::from_millis(200);
/// The label that says what fails together.
const RACK: &str = "rack";

/// Runs until the ledger is shut down.
pub(super) async fn run(cell: Cell, placer: PlacerHandle, journal: Journal) {
    let mut company = Company::default();
    let mut role = cell.ledger.role();
    loop {
        if role.wait_for(|role| role.is_leader()).await.is_err() {
            return;
        }
        let now = clock::now().mono_ms;
        let told = placer.racks().await;
        let (ledger, alive) = (cell.state(), cell.peers.alive());
        let _ = company.look(ledger.roster.keys().copied(), &alive, now);
        let nodes = company.candidates(|node| rack(&ledger, &told, node));
        drop(ledger);
        if let Some(seats) = cell.ledger.seats()
            && let Some(step) = next_step(&seats, &nodes, Patience::default(), now)
        {
            take(&cell, &journal, step).await;
        }
        sleep(LOOK).await;
    }
}

async fn take(cell: &Cell, journal: &Journal, step: VoterStep) {
    match cell.ledger.step(step).await {
        Ok(()) => {
            let who = |node: NodeId| cell.name(node);
            match step {
                VoterStep::Promote(node) => journal.node("voter_added", format!("{} votes now", who(node))),
                VoterStep::Demote(node) => {
                    journal.node("voter_removed", format!("{} votes no more", who(node)))
                }
                VoterStep::Finish | VoterStep::Learn(_) | VoterStep::Forget(_) => {}
            }
        }
        // Looked at anew at the next turn.
        Err(error) => tracing::debug!("a step of the voters: {error}"),
    }
}

/// What operators say outweighs what the agent was started with.
fn rack(ledger: &Ledger, told: &BTreeMap<NodeId, String>, node: NodeId) -> String {
    let set = ledger.roster.get(&node).and_then(|member| member.labels.get(RACK));
    set.or_else(|| told.get(&node)).cloned().unwrap_or_default()
}
