//! The cell's side: who is let in, and gets a certificate.

use std::{net::SocketAddr, time::Duration, time::SystemTime};

use gossip::{
    tls::{Authority, PublicKey},
    token::Token,
    wire::{
        ask::{Question, Told},
        join::{Joined, NewNode, NewPrincipal, Wanted, Whom},
    },
};
use placement::{
    ids::NodeId,
    ledger::{Access, Answer, Command, Entry, Ledger, Refusal},
};
use tokio::time::timeout;

use super::NO_QUORUM;
use crate::{
    cell::Cell,
    clock,
    identity::Held,
    ledger::{LedgerHandle, ProposeError},
    peers::AskError,
};

/// For a majority to commit the entry. The newcomer waits longer.
const COMMIT: Duration = Duration::from_secs(5);
/// Addresses that a newcomer is given: one that works is enough, membership brings the rest.
const MEMBERS: usize = 32;

/// Answers who knocked at this node: by itself if it can, else by whoever can.
pub async fn decide(cell: &Cell, held: &Held, wanted: Wanted) -> Joined {
    let authority = held.authority();
    let returning = wanted.whom == Whom::Returning;
    let placer = cell.placer();
    if placer == Some(cell.me()) || (returning && authority.is_some()) {
        return admit(&cell.ledger, authority.as_deref(), &wanted, members(cell), SystemTime::now()).await;
    }
    let mut others: Vec<NodeId> = placer.into_iter().filter(|node| *node != cell.me()).collect();
    if returning {
        others.extend(cell.ledger.voters().into_iter().filter(|node| cell.peers.is_alive(*node)));
    }
    let mut why = "nobody leads it now".to_string();
    let question = Question::Join(Box::new(wanted));
    for node in others {
        match cell.peers.ask(node, &question).await {
            Ok(Told::Joined(joined)) => return *joined,
            Ok(_) => why = format!("node {} answered something else than was asked", cell.name(node)),
            Err(AskError::Refused { refusal, .. }) => return Joined::Refused(refusal),
            Err(error) => why = format!("{}: {}", cell.name(node), error.of_it()),
        }
    }
    Joined::Refused(later(why))
}

/// Lets in whoever may be: at the placer, or, for a member that returns, at any voter. `members`: where some are.
pub async fn admit(
    ledger: &LedgerHandle,
    authority: Option<&Authority>,
    wanted: &Wanted,
    members: Vec<SocketAddr>,
    now: SystemTime,
) -> Joined {
    admitted(ledger, authority, wanted, members, now).await.unwrap_or_else(Joined::Refused)
}

async fn admitted(
    ledger: &LedgerHandle,
    authority: Option<&Authority>,
    wanted: &Wanted,
    members: Vec<SocketAddr>,
    now: SystemTime,
) -> Result<Joined, Refusal> {
    let key = &wanted.public_key;
    // Before anything is counted: a use of the token that gave nothing would have to be explained.
    let authority = authority.ok_or_else(|| later("its placer does not hold the authority yet"))?;
    let Some(cell) = ledger.state().cell.clone() else { return Err(later("it is not founded yet")) };
    let issued = |made: Result<String, _>| {
        made.map_err(|e| Refusal::new("internal", format_args!("no certificate can be made: {e}"), None))
    };
    match &wanted.whom {
        Whom::Returning => {
            let certificate = renew(&ledger.state(), authority, key, now)?;
            Ok(Joined::Renewed { certificate })
        }
        Whom::Node { secret, name, cell: insists } => {
            if let Some(other) = insists.as_ref().filter(|name| **name != cell.name) {
                let message = format_args!("this is the cell `{}`, not `{other}`", cell.name);
                let hint = "leave out --cell, or join another cell";
                return Err(Refusal::new("conflict", message, Some(hint)));
            }
            let token_hash = Token::hash(secret);
            let command = Command::Join { node: key.node(), name: name.clone(), token_hash, addr: None };
            let Access::Node { promise, .. } = propose(ledger, command).await? else { return Err(unlike()) };
            Ok(Joined::Node(Box::new(NewNode {
                certificate: issued(authority.issue(key, name, now))?,
                authority: authority.certificate().to_string(),
                cell: cell.name,
                promise,
                members,
            })))
        }
        Whom::Principal { secret } => {
            let command = Command::Login { key_hash: key.hash(), token_hash: Token::hash(secret) };
            let Access::Principal { principal, role } = propose(ledger, command).await? else {
                return Err(unlike());
            };
            Ok(Joined::Principal(Box::new(NewPrincipal {
                certificate: issued(authority.issue_principal(key, &principal, now))?,
                principal,
                role,
                authority: authority.certificate().to_string(),
                cell: cell.name,
                nodes: members,
            })))
        }
    }
}

/// The next certificate of a node of the roster, under the name that it has there. `key` is the node's own, as it has
/// shown: by its certificate, or by a proof.
pub fn renew(
    ledger: &Ledger,
    authority: &Authority,
    key: &PublicKey,
    now: SystemTime,
) -> Result<String, Refusal> {
    let node = key.node();
    let again = "join it again, with an empty data directory and a new token (`covey token` on a member)";
    if ledger.removed.contains(&node) {
        return Err(Refusal::new(
            "denied",
            format_args!("the node {node} was removed from this cell"),
            Some(again),
        ));
    }
    let Some(member) = ledger.roster.get(&node) else {
        return Err(Refusal::new("denied", format_args!("this cell has no node {node}"), Some(again)));
    };
    let made = authority.issue(key, &member.name, now);
    made.map_err(|e| Refusal::new("internal", format_args!("no certificate can be made: {e}"), None))
}

async fn propose(ledger: &LedgerHandle, command: Command) -> Result<Access, Refusal> {
    let entry = Entry { request: None, at_ms: clock::now().wall_ms, command };
    match timeout(COMMIT, ledger.propose(&entry)).await {
        Err(_) => Err(later("no majority of its voters answers")),
        Ok(Err(error @ (ProposeError::TooLarge { .. } | ProposeError::Encode(_)))) => {
            Err(Refusal::new("invalid", error, None))
        }
        Ok(Err(error)) => Err(later(error)),
        Ok(Ok(Answer::Refused(refusal))) => Err(refusal),
        Ok(Ok(Answer::Done { access: Some(access), .. })) => Ok(access),
        Ok(Ok(Answer::Done { access: None, .. })) => Err(unlike()),
    }
}

/// Where some of the members are, this node's neighbours first.
pub(super) fn members(cell: &Cell) -> Vec<SocketAddr> {
    cell.peers.members().values().map(|peer| peer.addr).take(MEMBERS).collect()
}

pub(super) fn later(why: impl std::fmt::Display) -> Refusal {
    let message = format_args!("the cell cannot take a decision now: {why}");
    Refusal::new(NO_QUORUM, message, Some("nothing is lost: try again in a moment"))
}

fn unlike() -> Refusal {
    Refusal::new("internal", "the ledger answered something else than was asked", None)
}
