//! Where this node leads the ledger: brings the right nodes into it, one small step after another. Which step is for
//! `placement::voters` to say.

use std::{collections::BTreeMap, time::Duration};

use placement::{
    ids::NodeId,
    ledger::{Command, Entry, Ledger},
    voters::{Patience, VoterStep, next_step, successor},
};
use tokio::time::sleep;

use super::placer::PlacerHandle;
use crate::{
    cell::Cell,
    certificates::{CertificateError, hand_authority},
    clock,
    core::place::company::Company,
    identity::Held,
    journal::Journal,
};

/// Between two looks: far below the patience of the choice.
const LOOK: Duration = Duration::from_millis(200);
/// The same where there is nobody to choose from, unless somebody comes; and for what others bring about, which is heard of.
const SELDOM: Duration = Duration::from_secs(1);
/// The label that says what fails together.
const RACK: &str = "rack";

/// Runs until the ledger is shut down.
pub(super) async fn run(cell: Cell, placer: PlacerHandle, who: Held, journal: Journal) {
    let mut company = Company::default();
    let (mut role, mut applied) = (cell.ledger.role(), cell.ledger.applied());
    loop {
        if role.wait_for(|role| role.is_leader()).await.is_err() {
            return;
        }
        applied.mark_unchanged();
        let now = clock::now().mono_ms;
        let told = placer.racks().await;
        let (ledger, alive) = (cell.state(), cell.peers.alive());
        let _ = company.look(ledger.roster.keys().copied(), &alive, now);
        let drained = |id| ledger.roster.get(&id).is_some_and(|member| member.draining);
        let nodes =
            company.candidates(|node| rack(&ledger, &told, node), drained, |node| cell.ledger.silence(node));
        let leaves = drained(cell.me());
        let alone = ledger.roster.len() <= 1 && cell.ledger.voters().len() <= 1;
        let pause = if alone { SELDOM } else { LOOK };
        drop(ledger);
        let step = cell.ledger.seats().and_then(|seats| match leaves {
            // With two voters, the other is the successor: it is not taken back.
            true if seats.voters.len() <= 2 => successor(&seats, &nodes),
            _ => next_step(&seats, &nodes, Patience::default(), now),
        });
        if let Some(step) = step {
            match entrust(&cell, &who, step).await {
                Ok(()) => take(&cell, &journal, step).await,
                Err(error) => tracing::debug!("the authority was not handed over: {error}"),
            }
        }
        note_addresses(&cell).await;
        tokio::select! {
            () = sleep(pause) => {}
            // Somebody may have joined.
            changed = applied.changed(), if alone => if changed.is_err() { return },
        }
    }
}

/// Asks for votes only while it sees a majority of the voters. Whoever is heard and hears nobody would otherwise unseat
/// every leader; at a start nobody is seen for a moment, and nobody leads.
pub(super) async fn stand(cell: Cell) {
    let (mut members, mut applied) = (cell.peers.watch(), cell.ledger.applied());
    loop {
        members.mark_unchanged();
        applied.mark_unchanged();
        let (voters, alive) = (cell.ledger.voters(), cell.peers.alive());
        let here = voters.iter().filter(|node| alive.contains(node)).count();
        let draining = cell.state().roster.get(&cell.me()).is_some_and(|member| member.draining);
        if !draining {
            cell.ledger.stand(voters.is_empty() || here * 2 > voters.len());
        }
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return },
            changed = applied.changed() => if changed.is_err() { return },
            // The ledger's core may have been started anew, or its voters be others.
            () = sleep(SELDOM / 2) => {}
        }
    }
}

/// Between two looks whether this node votes no more.
const LET_GO: Duration = Duration::from_secs(10);

/// Removes the cell's authority from a node that votes no more.
pub(super) async fn let_go(cell: Cell, who: Held) {
    loop {
        sleep(LET_GO).await;
        let (voters, me) = (cell.ledger.voters(), cell.me());
        let another = cell.placer().is_some_and(|node| node != me);
        // Learners are about to vote, and are in the ledger's own list of members.
        let out = !voters.is_empty() && !voters.contains(&me) && !cell.ledger.learns();
        if out
            && another
            && let Err(error) = who.drop_authority()
        {
            tracing::warn!("the cell's authority stays on this node: {error}");
        }
    }
}

/// Whoever is to vote holds the cell's authority before: any voter may have to lead, and admit others.
async fn entrust(cell: &Cell, who: &Held, step: VoterStep) -> Result<(), CertificateError> {
    match step {
        VoterStep::Learn(node) => hand_authority(cell, who, node).await,
        _ => Ok(()),
    }
}

/// The ledger remembers where each node was last: for those that are off.
async fn note_addresses(cell: &Cell) {
    let state = cell.state();
    let moved = state.roster.iter().filter_map(|(node, member)| {
        let addr = cell.peers.address(*node).filter(|_| cell.peers.is_alive(*node))?.to_string();
        (member.addr.as_ref() != Some(&addr)).then_some((*node, addr))
    });
    let moved: Vec<(NodeId, String)> = moved.collect();
    drop(state);
    for (node, addr) in moved {
        let entry =
            Entry { request: None, at_ms: clock::now().wall_ms, command: Command::Address { node, addr } };
        // Tried again at the next look.
        let _ = cell.ledger.propose(&entry).await;
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
