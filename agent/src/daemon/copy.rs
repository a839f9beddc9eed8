//! Keeps this node's copy of the ledger, by asking others what is new; and tells others who ask.

use std::time::Duration;

use gossip::{
    transport::Stream,
    wire::ask::{Question, Told},
};
use placement::ids::NodeId;
use tokio::time::{sleep, timeout};

use crate::{
    cell::Cell,
    ledger::{Copy, CopyError, Role, Since},
    peers::AskError,
};

/// How long an answer may wait for something new.
const WAIT: Duration = Duration::from_secs(10);
/// Of many changes at once a copy takes several at a time.
const GATHER: Duration = Duration::from_millis(50);
/// How often a voter looks whether it has been left out.
const LOOK: Duration = Duration::from_secs(3);
/// Bytes of text in one message.
const PART: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("node {0} answers another question")]
    Unfitting(NodeId),
    #[error("node {0} has not answered")]
    Silent(NodeId),
}

/// Pulls until the ledger is shut down. Whoever leads has all there is.
pub(super) async fn keep(cell: Cell, mut copy: Copy) {
    let mut failed = false;
    let mut role = cell.ledger.role();
    while role.wait_for(|role| !role.is_leader()).await.is_ok() {
        let Some((from, wait)) = whom(&cell) else {
            sleep(LOOK / 10).await;
            continue;
        };
        match pull(&cell, from, wait, copy).await {
            (kept, Ok(())) => (copy, failed) = (kept, false),
            (kept, Err(error)) => {
                copy = kept;
                if !std::mem::replace(&mut failed, true) {
                    tracing::debug!("the copy of the ledger lags: {error}");
                }
                sleep(LOOK / 10).await;
                continue;
            }
        }
        sleep(if wait.is_zero() { LOOK } else { GATHER }).await;
    }
}

/// Whom to ask, and how long he may take. A voter is sent all there is, unless it was left out while it was away.
fn whom(cell: &Cell) -> Option<(NodeId, Duration)> {
    let me = cell.me();
    let role = *cell.ledger.role().borrow();
    if role.is_leader() {
        return None;
    }
    let voter = cell.ledger.voters().contains(&me) && matches!(role, Role::Follower { leader: Some(_) });
    let wait = if voter { Duration::ZERO } else { WAIT };
    let placer = cell.placer().filter(|node| *node != me && cell.peers.is_alive(*node));
    // While nobody places, whoever is here may have heard more.
    let any = || {
        let members = cell.peers.members();
        let turn = crate::clock::now().mono_ms as usize / 1000;
        members.keys().nth(turn % members.len().max(1)).copied()
    };
    placer.or_else(any).map(|node| (node, wait))
}

async fn pull(cell: &Cell, from: NodeId, wait: Duration, mut copy: Copy) -> (Copy, Result<(), PullError>) {
    let pulled = async {
        let after = cell.ledger.state().applied;
        let question = Question::Pull { after, wait_ms: wait.as_millis() as u64 };
        let mut answers = cell.peers.begin(from, &question).await?;
        let mut whole = String::new();
        loop {
            let silent = |_| PullError::Silent(from);
            match timeout(wait + WAIT / 2, answers.next()).await.map_err(silent)?? {
                Told::Entries { first, entries } => return Ok(Pulled::Entries(first, entries)),
                Told::Part { text, last } => {
                    whole.push_str(&text);
                    if last {
                        return Ok(Pulled::Whole(whole));
                    }
                }
                _ => return Err(PullError::Unfitting(from)),
            }
        }
    };
    let pulled = match pulled.await {
        Ok(Pulled::Entries(_, entries)) if entries.is_empty() => return (copy, Ok(())),
        Ok(pulled) => pulled,
        Err(error) => return (copy, Err(error)),
    };
    let taken = tokio::task::spawn_blocking(move || {
        let taken = match pulled {
            Pulled::Entries(first, entries) => copy.add(first, &entries),
            Pulled::Whole(text) => copy.replace(&text),
        };
        (copy, taken.map_err(PullError::from))
    });
    match taken.await {
        Ok(done) => done,
        // The copy went with whatever broke; the process is ending.
        Err(_) => std::future::pending().await,
    }
}

enum Pulled {
    Entries(u64, Vec<serde_json::Value>),
    Whole(String),
}

/// Answers a `Pull`.
pub(super) async fn answer(mut stream: Stream, cell: &Cell, after: u64, wait_ms: u64) {
    let mut applied = cell.ledger.applied();
    let wait = Duration::from_millis(wait_ms).min(WAIT);
    if wait > Duration::ZERO {
        let newer = applied.wait_for(|applied| *applied > after);
        let _ = timeout(wait, async { drop(newer.await) }).await;
    }
    let sent = match cell.ledger.since(after) {
        Since::Entries(entries) => stream.write(&Told::Entries { first: after + 1, entries }).await,
        Since::Whole(ledger) => whole(&mut stream, &ledger).await,
    };
    match sent {
        Ok(()) => stream.finish().await,
        // Whoever asked has gone, or asks again.
        Err(error) => tracing::debug!("a copy of the ledger was not told: {error}"),
    }
}

async fn whole(
    stream: &mut Stream,
    ledger: &placement::ledger::Ledger,
) -> Result<(), gossip::frame::FrameError> {
    let text = serde_json::to_string(ledger).map_err(gossip::frame::FrameError::Garbled)?;
    let mut rest = text.as_str();
    loop {
        let mut end = rest.len().min(PART);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, more) = rest.split_at(end);
        rest = more;
        stream.write(&Told::Part { text: part.to_string(), last: rest.is_empty() }).await?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}
