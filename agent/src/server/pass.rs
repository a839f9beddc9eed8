//! Passing a client's request on to the node that decides about it: one hop, never a second.

use std::{collections::BTreeMap, fmt, time::Duration};

use gossip::{
    transport::{Lane, Stream},
    wire::{Reply, ask::Passed},
};
use placement::{ids::NodeId, ledger::Refusal};
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cell::Cell;

/// For a change until it is done, over all placers that there are meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Before the same node is tried again, if nothing changes sooner.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// Why a node did not do what it was asked for. Only `Refused` is a decision.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unpassed {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("does not place")]
    NotPlacer(Option<NodeId>),
    /// It is not known whether it was done.
    #[error("{0}")]
    Broken(String),
}

/// The answer of the node to which a request was passed.
pub(super) struct Passing {
    stream: Stream,
}

/// Passes it to `node`. Whoever drops the answer ends the request there.
pub(super) async fn pass(cell: &Cell, node: NodeId, passed: &Passed) -> Result<Passing, Unpassed> {
    let broken = |why: String| Unpassed::Broken(why);
    let mut stream = cell.peers.open(node, Lane::Request).await.map_err(|error| broken(error.of_it()))?;
    stream.write(passed).await.map_err(|error| broken(error.to_string()))?;
    Ok(Passing { stream })
}

impl Passing {
    /// The next part; none after the last. Not cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Reply>, Unpassed> {
        match self.stream.read().await {
            Ok(Some(Reply::End)) => Ok(None),
            Ok(Some(Reply::NotPlacer { placer })) => Err(Unpassed::NotPlacer(placer)),
            // It would do it, and cannot now.
            Ok(Some(Reply::Error(refusal))) if refusal.code == "no_quorum" => {
                Err(Unpassed::Broken(refusal.message))
            }
            Ok(Some(Reply::Error(refusal))) => Err(refusal.into()),
            Ok(Some(reply)) => Ok(Some(reply)),
            Ok(None) => Err(Unpassed::Broken("it closed the stream before it had answered".into())),
            Err(error) => Err(Unpassed::Broken(error.to_string())),
        }
    }

    /// The one document of the whole answer.
    pub(super) async fn document(&mut self) -> Result<Value, Unpassed> {
        let mut document = Value::Null;
        while let Some(reply) = self.next().await? {
            if let Reply::Item(item) = reply {
                document = item;
            }
        }
        Ok(document)
    }
}

/// Has it done by whoever places, here (`here`) or elsewhere: again when another shows himself or the stream breaks. The
/// request's id makes it once.
///
/// # Errors
/// The placer's refusal; `no_quorum` if none has decided in time.
pub(super) async fn insist<F: Future<Output = Result<Value, Unpassed>>>(
    cell: &Cell,
    passed: &Passed,
    here: impl Fn() -> F,
) -> Result<Value, Refusal> {
    insist_for(PATIENCE, cell, passed, here).await
}

async fn insist_for<F: Future<Output = Result<Value, Unpassed>>>(
    patience: Duration,
    cell: &Cell,
    passed: &Passed,
    here: impl Fn() -> F,
) -> Result<Value, Refusal> {
    let deadline = Instant::now() + patience;
    let mut tried = Tried::default();
    // Whom the last one named who does not place himself.
    let mut named = None;
    loop {
        let known = cell.placer();
        let node = named.take().or(known);
        let attempt = async {
            match node {
                Some(node) if node == cell.me() => here().await,
                Some(node) => pass(cell, node, passed).await?.document().await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            done = attempt => match done {
                Ok(document) => return Ok(document),
                Err(Unpassed::Refused(refusal)) => return Err(refusal),
                Err(failed) => failed,
            },
            // Whoever placed before may be dead, and silent for long.
            () = another(cell, known, node) => Unpassed::Broken("another placer showed itself meanwhile".into()),
            () = sleep_until(deadline) => Unpassed::Broken("does not answer".into()),
        };
        if let Some(node) = node {
            if let Unpassed::NotPlacer(other) = failed {
                named = other.filter(|other| *other != node);
            }
            tried.note(cell.name(node), &failed);
            let alone = node == cell.me() && cell.ledger.voters().iter().all(|voter| *voter == node);
            if let (Unpassed::Broken(why), true) = (&failed, alone) {
                // Nobody else will ever do it.
                return Err(super::no_quorum(why.clone()));
            }
        }
        if Instant::now() >= deadline {
            return Err(tried.no_quorum());
        }
        if named.is_none() {
            let _ = timeout(AGAIN, another(cell, known, node)).await;
        }
    }
}

/// Returns when another placer is known than `known`, and than the one who is being asked.
pub(super) async fn another(cell: &Cell, known: Option<NodeId>, asked: Option<NodeId>) {
    let (mut acting, mut role, mut members) = (cell.acting(), cell.ledger.role(), cell.peers.watch());
    loop {
        // Before the look, so that no change is lost between them.
        acting.mark_unchanged();
        role.mark_unchanged();
        members.mark_unchanged();
        let now = cell.placer();
        if now.is_some() && now != known && now != asked {
            return;
        }
        // A sender that is gone changes nothing any more: the agent ends.
        tokio::select! {
            Ok(()) = acting.changed() => {}
            Ok(()) = role.changed() => {}
            Ok(()) = members.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Who was asked, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Tried(BTreeMap<String, String>);

impl Tried {
    pub(super) fn note(&mut self, node: String, why: &impl fmt::Display) {
        self.0.insert(node, why.to_string());
    }

    pub(super) fn no_quorum(&self) -> Refusal {
        let tried: Vec<String> = self.0.iter().map(|(node, why)| format!("{node}: {why}")).collect();
        let why = match tried.is_empty() {
            true => "none has shown itself".to_string(),
            false => tried.join("; "),
        };
        super::no_quorum(format!("no placer has answered within {} s ({why})", PATIENCE.as_secs()))
    }
}

#[cfg(test)]
mod tests;
