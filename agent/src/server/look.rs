//! Where a reader's answer comes from: this node if it places; else the placer, if it answers soon; else all nodes, each
//! for its own part.

use std::{pin::pin, sync::Arc, time::Duration};

use gossip::wire::{
    Reply,
    ask::{OwnPart, Passed, Question, Told},
};
use placement::{
    ids::NodeId,
    ledger::{Entry, Ledger, Refusal},
    view::Standing,
};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Services, invalid,
    pass::{AGAIN, Unpassed, another, pass},
    read::{Read, Seen},
};
use crate::{
    clock,
    core::place::{self, PlaceCore},
};

/// A placer that has not begun to answer by then is not waited for alone.
const BEGIN: Duration = Duration::from_millis(200);
/// The placer's own waiting: to have seen what its ledger has applied, and the nodes that are alive.
const CATCH_UP: Duration = Duration::from_millis(100);
/// For the nodes' own parts.
pub(super) const PARTS: Duration = Duration::from_millis(400);

/// The answer to a client of this node. Who changed something and then looks sees the change.
pub(super) async fn look(services: &Services, passed: &Passed, read: &Read) -> Result<Value, Refusal> {
    let mut fresh = pin!(of_placer(services, passed, read));
    tokio::select! {
        answer = &mut fresh => return answer,
        () = sleep(BEGIN) => {}
    }
    // A placer that is only slow may still be faster than all others together.
    tokio::select! {
        biased;
        answer = &mut fresh => answer,
        answer = of_all(services, read) => answer,
    }
}

/// The answer of whoever places, when somebody does.
async fn of_placer(services: &Services, passed: &Passed, read: &Read) -> Result<Value, Refusal> {
    let cell = &services.cell;
    let mut named = None;
    loop {
        let known = cell.placer();
        let node = named.take().or(known);
        let attempt = async {
            match node {
                Some(node) if node == cell.me() => as_placer(services, read).await,
                Some(node) => match pass(cell, node, passed).await?.next().await? {
                    Some(Reply::Item(document)) => Ok(document),
                    _ => Err(Unpassed::Broken("it ended its answer before it was whole".into())),
                },
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            answer = attempt => match answer {
                Ok(document) => return Ok(document),
                Err(Unpassed::Refused(refusal)) => return Err(refusal),
                Err(failed) => failed,
            },
            () = another(cell, known, node) => continue,
        };
        match failed {
            Unpassed::NotPlacer(Some(other)) if Some(other) != node => named = Some(other),
            // It is away, or has not begun to act. Perhaps another one comes.
            _ => tokio::select! {
                () = another(cell, known, node) => {}
                () = sleep(AGAIN) => {}
            },
        }
    }
}

/// This node's answer, if it places.
pub(super) async fn as_placer(services: &Services, read: &Read) -> Result<Value, Unpassed> {
    let applied = services.ledger.state().applied;
    let caught_up = async {
        let mut changed = services.placer.changed();
        loop {
            let alive = services.cell.peers.alive();
            // Right after a start nobody acts yet, and then the nodes have not reported yet: that is a moment. One that
            // is dead will not report, and is not waited for.
            let behind = move |core: &PlaceCore| {
                let silent = |(id, node): (&NodeId, &placement::view::NodeView)| {
                    node.standing == Standing::Unheard && alive.contains(id)
                };
                core.view()
                    .is_none_or(|(intent, view)| intent.applied < applied || view.nodes.iter().any(silent))
            };
            if services.placer.read(behind).await != Some(true) || changed.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(CATCH_UP, caught_up).await;
    let question = read.clone();
    let seen = services.placer.read(move |core| core.activation().map(|_| question.look(core)));
    let seen = seen.await.ok_or_else(|| invalid("the agent is ending".to_string()))?;
    let Some(rows) = seen else { return Err(Unpassed::NotPlacer(elsewhere(services))) };
    Ok(read.show(rows, &view_of(services, services.ledger.state(), false))?)
}

/// Who places, if this node does not.
pub(super) fn elsewhere(services: &Services) -> Option<NodeId> {
    services.cell.placer().filter(|node| *node != services.cell.me())
}

fn view_of(services: &Services, ledger: Arc<Ledger>, stale: bool) -> Seen {
    let cell = &services.cell;
    let address = |id: &NodeId| cell.peers.address(*id).map(|addr| (*id, addr.to_string()));
    Seen {
        addresses: ledger.roster.keys().filter_map(address).collect(),
        ledger,
        stale,
        placer: if stale { None } else { Some(cell.me()) },
        voters: cell.ledger.voters(),
        alive: services.cell.peers.alive(),
        now: clock::now(),
    }
}

/// What this node knows of itself.
pub(super) async fn own(services: &Services) -> Result<OwnPart, Refusal> {
    let applied = services.ledger.state().applied;
    let voter = services.ledger.voters().contains(&services.cell.me());
    let part = services.node.read(move |core| place::own(core, applied, voter)).await;
    part.ok_or_else(|| invalid("the agent is ending".to_string()))
}

/// All parts that can be had in time; this node's own is the first.
pub(super) async fn parts(services: &Services) -> Result<Vec<OwnPart>, Refusal> {
    let cell = &services.cell;
    let ledger = services.ledger.state();
    let mut asked = JoinSet::new();
    for node in ledger.roster.keys().copied().filter(|node| *node != cell.me() && cell.peers.is_alive(*node))
    {
        let peers = cell.peers.clone();
        asked.spawn(async move { peers.ask_within(node, &Question::Own, PARTS).await });
    }
    let mut parts = vec![own(services).await?];
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(Told::Own(part))) => parts.push(*part),
            // Who cannot answer is named as missing.
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::debug!("a part of an answer: {error}"),
        }
    }
    Ok(parts)
}

/// What they say all together.
async fn of_all(services: &Services, read: &Read) -> Result<Value, Refusal> {
    let ledger = services.ledger.state();
    let parts = parts(services).await?;
    let ledger = newest(services, ledger, &parts).await;
    let mut seen = view_of(services, ledger.clone(), true);
    seen.voters.extend(parts.iter().filter(|part| part.voter).map(|part| part.node.id));
    let core = PlaceCore::gathered(ledger, parts, seen.now);
    let rows = read.look(&core);
    read.show(rows, &seen)
}

/// The newest ledger that one of them has: what was acknowledged through a placer that is dead now is read too.
async fn newest(services: &Services, ledger: Arc<Ledger>, parts: &[OwnPart]) -> Arc<Ledger> {
    let Some(newest) = parts.iter().max_by_key(|part| part.applied) else { return ledger };
    if newest.applied <= ledger.applied {
        return ledger;
    }
    let question = Question::Pull { after: ledger.applied, wait_ms: 0 };
    let pulled = async {
        let mut answers = services.cell.peers.begin(newest.node.id, &question).await.ok()?;
        let mut whole = String::new();
        loop {
            match answers.next().await.ok()? {
                Told::Entries { first, entries } => return grown(&ledger, first, &entries),
                Told::Part { text, last } => {
                    whole.push_str(&text);
                    if last {
                        return serde_json::from_str(&whole).ok().map(Arc::new);
                    }
                }
                _ => return None,
            }
        }
    };
    // Else this node's own does.
    timeout(PARTS, pulled).await.ok().flatten().unwrap_or(ledger)
}

/// The ledger with more entries, the first of which has the index `first`.
fn grown(ledger: &Arc<Ledger>, first: u64, entries: &[Value]) -> Option<Arc<Ledger>> {
    let mut grown = Ledger::clone(ledger);
    for (index, text) in (first..).zip(entries) {
        if index == grown.applied + 1 {
            let entry: Entry = serde_json::from_value(text.clone()).ok()?;
            grown.apply(index, &entry);
        }
    }
    Some(Arc::new(grown))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::{ids::CellId, ledger::Command};

    use super::*;

    #[test]
    fn a_ledger_grows_by_what_it_lacks() {
        let entry = |command| serde_json::to_value(Entry { request: None, at_ms: 0, command }).unwrap();
        let admit = |id: u64| entry(Command::Admit { node: NodeId(id), name: format!("n{id}") });
        let found =
            entry(Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 });
        let one = grown(&Arc::default(), 1, &[found.clone(), admit(1)]).unwrap();
        // From the first on, though it has that one.
        let two = grown(&one, 1, &[found, admit(1), admit(2)]).unwrap();
        assert_eq!((two.applied, two.roster.len()), (3, 2));
        // What is not next does not fit.
        assert_eq!(grown(&one, 4, &[admit(4)]).unwrap().applied, 2);
        assert!(grown(&one, 3, &[Value::Null]).is_none());
    }
}
