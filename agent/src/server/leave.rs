//! `covey leave`: this node's tasks move away, it gives its vote back, the others forget it, and its agent ends.

use std::time::Duration;

use gossip::wire::{
    Call, Reply, Request,
    ask::{Passed, To},
};
use placement::{
    ids::RequestId,
    ledger::{Refusal, Role as Rights},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Out, Services, Stopped, change, pass};
use crate::ledger::Role;

/// Between two looks at what is left here.
const LOOK: Duration = Duration::from_millis(100);
/// Tasks that have not moved for so long have nowhere to go.
const STUCK: Duration = Duration::from_secs(30);
/// For another node to take over what this one does for the ledger.
const HAND_OVER: Duration = Duration::from_secs(20);

pub(super) async fn leave(
    services: &Services,
    request: &Request,
    deadline_ms: Option<u64>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let me = services.cell.me();
    let name = services.cell.name(me);
    alone(services, &name)?;
    // Before anything is begun, and not only at its end.
    let rights = request.principal.as_ref().and_then(|who| services.cell.state().role(who));
    if rights != Some(Rights::Admin) {
        let message = "only admins take a node out of the cell";
        return Err(Refusal::new("denied", message, Some("ask an admin, or root on the node")).into());
    }
    insist(services, request, "drain", Call::Drain { node: me.to_string(), on: true }).await?;
    let left = emptied(services, deadline_ms.map(Duration::from_millis), out).await?;
    hand_over(services, out).await?;
    insist(services, request, "remove", Call::NodeRemove { node: me.to_string(), leaves: true }).await?;
    out.item(json!({"id": me, "name": name, "ended": left})).await?;
    services.left.notify_one();
    Ok(())
}

/// Somebody has to be left.
fn alone(services: &Services, name: &str) -> Result<(), Refusal> {
    let cell = &services.cell;
    let others = cell.state().roster.len().saturating_sub(1);
    if others == 0 {
        let message = format_args!("{name} is the only node of its cell");
        return Err(Refusal::new(
            "conflict",
            message,
            Some("to end the cell, end its agent and delete its data"),
        ));
    }
    if !cell.state().roster.keys().any(|id| *id != cell.me() && cell.peers.is_alive(*id)) {
        let message = format_args!("no other node of its cell is here");
        return Err(Refusal::new(
            "no_quorum",
            message,
            Some("try again when one is: it takes over what this one does"),
        ));
    }
    Ok(())
}

/// Has a part of it done by the placer. Each part has an id that follows from the request's.
async fn insist(services: &Services, request: &Request, part: &str, call: Call) -> Result<(), Refusal> {
    let id = RequestId(format!("{}-{part}", request.id.0));
    let request = Request { id, call, ..request.clone() };
    let stamp = super::admit(&request)?;
    let passed = Passed { request, to: To::Placer, images: None, task: None, run: None };
    let here = || change::decide(services, &stamp, &passed.request.call, None);
    pass::insist(&services.cell, &passed, here).await.map(drop)
}

/// Waits until nothing runs here any more, or the time is over; gives how many are left.
async fn emptied(services: &Services, patience: Option<Duration>, out: &mut Out) -> Result<usize, Stopped> {
    let begun = Instant::now();
    let mut most = 0;
    let mut said = None;
    let mut moved = begun;
    loop {
        let held = |report: &placement::task::Report| report.state.holds_resources();
        let count = services.node.read(move |core| core.reports().into_iter().filter(held).count());
        let left = count.await.unwrap_or(0);
        most = most.max(left);
        let stuck = moved.elapsed() >= STUCK;
        if said.replace(left) != Some(left) || stuck {
            moved = Instant::now();
            let (done, total) = (most.saturating_sub(left) as u64, most as u64);
            let what = match stuck {
                false => "tasks have moved to other nodes",
                true => "tasks have moved; is there room elsewhere? covey why JOB says",
            };
            out.send(&Reply::Progress { what: what.into(), done, total }).await?;
        }
        if left == 0 || patience.is_some_and(|patience| begun.elapsed() >= patience) {
            return Ok(left);
        }
        sleep(LOOK).await;
    }
}

/// Waits until others vote and lead. Which of them, is for whoever leads to say: a node that is being drained is not
/// wanted as a voter.
async fn hand_over(services: &Services, out: &mut Out) -> Result<(), Stopped> {
    let ledger = &services.cell.ledger;
    let me = services.cell.me();
    let begun = Instant::now();
    let mut silent = Silent { services, on: false };
    let mut said = false;
    loop {
        let voters = ledger.voters();
        if !voters.contains(&me) {
            return Ok(());
        }
        if !std::mem::replace(&mut said, true) {
            let what = "its vote goes to another node".into();
            out.send(&Reply::Progress { what, done: 0, total: 1 }).await?;
        }
        let others = voters.iter().any(|voter| *voter != me && services.cell.peers.is_alive(*voter));
        if matches!(*ledger.role().borrow(), Role::Leader { .. }) && others {
            silent.keep();
        }
        if begun.elapsed() >= HAND_OVER {
            let message = "no other node has taken over this one's part in the ledger";
            let hint =
                "`covey doctor` says what is in the way; the node is drained, and `covey undrain` ends that";
            return Err(Refusal::new("no_quorum", message, Some(hint)).into());
        }
        sleep(LOOK).await;
    }
}

/// While it is there, this node does not lead: it sends no heartbeats, and another one is elected.
struct Silent<'a> {
    services: &'a Services,
    on: bool,
}

impl Silent<'_> {
    fn keep(&mut self) {
        if !std::mem::replace(&mut self.on, true) {
            self.services.cell.ledger.stand_down(true);
        }
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        if self.on {
            self.services.cell.ledger.stand_down(false);
        }
    }
}
