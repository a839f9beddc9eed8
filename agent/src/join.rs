//! How a node gets into a cell, and back into it: the newcomer's side. `admit` is the cell's, `asked` what its nodes ask
//! each other about it.

mod admit;
mod asked;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gossip::{
    join::{KnockError, knock},
    tls::Key,
    token::Token,
    transport::{ConnectError, JoinError as NoWay},
    wire::join::{Joined, NewNode, Whom},
};
use placement::{ids::CellId, ledger::Refusal};

pub use admit::{admit, decide, renew};
pub use asked::{asked, knocked};

use crate::{
    dir::DataDir,
    identity::{Identity, IdentityError, host_name, valid_name},
};

/// For all tries together: members may still be starting, or be about to agree on a placer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two rounds. Members let an address knock once a second.
const BETWEEN: Duration = Duration::from_secs(1);
/// The refusal that may be another one in a moment.
pub const NO_QUORUM: &str = "no_quorum";

/// A node that is not in the cell.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the cell refuses this node: {}", whole(.0))]
    Refused(Refusal),
    #[error(
        "cannot join: {0}. Take the token and the address from the same cell (`covey token` on one of its nodes)"
    )]
    OtherCell(String),
    #[error(
        "cannot join within {after} s: {why}. Is it the address of an agent (UDP, port 7411 unless its --listen says otherwise), \
         does that agent run, and do firewalls let it through?"
    )]
    NoAnswer { why: String, after: u64 },
    #[error("no address to join was given (--join HOST:PORT)")]
    NoAddress,
    #[error("{0} answered something else than was asked")]
    Confused(SocketAddr),
}

/// Joins the cell that `token` is of through the first of `addresses` (`HOST:PORT`) that lets it in, and writes the
/// identity that the cell gave. `name`: the host's if there is none; `cell`: the name that the cell must have.
/// `setback` is told what stands in the way while it is tried again. A try that was cut short may be repeated: it is the
/// same node.
pub async fn join(
    dir: &DataDir,
    addresses: &[String],
    token: &Token,
    name: Option<&str>,
    cell: Option<&str>,
    setback: impl FnMut(&str),
) -> Result<Identity, JoinError> {
    let name = name.map_or_else(|| Ok(host_name()), valid_name)?;
    let key = Identity::joining_key(dir)?;
    let (secret, wanted) = (token.secret().to_string(), cell.map(Into::into));
    let whom = Whom::Node { secret, name: name.clone(), cell: wanted };
    match enter(addresses, &token.cell, &key, &whom, setback).await? {
        (asked, Joined::Node(new)) => {
            let mut members = vec![asked];
            members.extend(new.members.iter().filter(|member| **member != asked));
            Ok(Identity::joined(dir, &key, &name, &token.cell, NewNode { members, ..*new })?)
        }
        (asked, _) => Err(JoinError::Confused(asked)),
    }
}

/// The way back for a member whose certificate expired while it was off: a new one, for its old key.
pub async fn come_back(identity: &Identity, addresses: &[String]) -> Result<String, JoinError> {
    let key = Key::from_pem(&identity.key).map_err(IdentityError::Make)?;
    match enter(addresses, &identity.cell, &key, &Whom::Returning, |_| {}).await? {
        (_, Joined::Renewed { certificate }) => Ok(certificate),
        (asked, _) => Err(JoinError::Confused(asked)),
    }
}

/// Knocks at each address in turn until somebody decides, or patience ends.
async fn enter(
    addresses: &[String],
    cell: &CellId,
    key: &Key,
    whom: &Whom,
    mut setback: impl FnMut(&str),
) -> Result<(SocketAddr, Joined), JoinError> {
    let begun = Instant::now();
    let mut told = String::new();
    loop {
        let mut why = Vec::new();
        let mut hopeless = !addresses.is_empty();
        for address in addresses {
            match at(address, cell, key, whom).await {
                Ok((_, Joined::Refused(refusal))) if refusal.code == NO_QUORUM => {
                    hopeless = false;
                    why.push(format!("{address}: {}", whole(&refusal)));
                }
                Ok((_, Joined::Refused(refusal))) => return Err(JoinError::Refused(refusal)),
                Ok(joined) => return Ok(joined),
                Err(Failed::OtherCell(text)) => why.push(text),
                Err(Failed::Now(text)) => {
                    hopeless = false;
                    why.push(text);
                }
            }
        }
        let why = why.join("; ");
        match (addresses.is_empty(), hopeless, begun.elapsed() + BETWEEN > PATIENCE) {
            (true, ..) => return Err(JoinError::NoAddress),
            (_, true, _) => return Err(JoinError::OtherCell(why)),
            (_, _, true) => return Err(JoinError::NoAnswer { why, after: PATIENCE.as_secs() }),
            _ => {}
        }
        if why != told {
            setback(&why);
            told = why;
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// With what to do.
fn whole(refusal: &Refusal) -> String {
    match &refusal.hint {
        Some(hint) => format!("{refusal} ({hint})"),
        None => refusal.to_string(),
    }
}

enum Failed {
    /// For good.
    OtherCell(String),
    Now(String),
}

async fn at(address: &str, cell: &CellId, key: &Key, whom: &Whom) -> Result<(SocketAddr, Joined), Failed> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|e| Failed::Now(format!("{address} is no address (HOST:PORT): {e}")))?;
    let mut failed = Failed::Now(format!("{address} has no address"));
    for to in resolved {
        match knock(to, cell, key, whom.clone()).await {
            Ok(joined) => return Ok((to, joined)),
            Err(error) => {
                let text = error.to_string();
                let other =
                    matches!(error, KnockError::Connect(NoWay::Connect(ConnectError::Subject { .. })));
                failed = if other { Failed::OtherCell(text) } else { Failed::Now(text) };
            }
        }
    }
    Err(failed)
}
