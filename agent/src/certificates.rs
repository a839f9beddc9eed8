//! Certificates while the agent runs: this node's is renewed long before it expires, or after, if the node was off; the
//! authority is handed to who is to vote.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use gossip::{
    tls::{Key, TlsError},
    transport::BindError,
    wire::ask::{Question, Told},
};
use placement::{ids::NodeId, ledger::Refusal};

use crate::{
    cell::Cell,
    identity::{Held, Identity, IdentityError},
    join::{self, JoinError},
    peers::AskError,
};

/// Clocks are set, machines sleep: what is due is looked at this often.
const LOOK: Duration = Duration::from_secs(600);
/// Between two tries. Half of a certificate's life is left for them; none of it after it has expired.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_EXPIRED: Duration = Duration::from_secs(5);
/// Nodes asked in one try.
const ASKED: usize = 8;

/// A certificate that is not there, or an authority that was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Use(#[from] BindError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("no other node is here that could be asked")]
    Alone,
    #[error("node {0} answered something else than was asked")]
    Confused(NodeId),
    #[error("this node does not hold the authority")]
    NotHeld,
}

/// What is to be done about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    In(Duration),
    /// Others still accept it: any voter renews it.
    Renewal,
    /// Nobody accepts it: the way back is that of strangers.
    Return,
}

/// `from` and `until` are the certificate's, `renew` when it should be replaced.
pub fn due(from: SystemTime, renew: SystemTime, until: SystemTime, now: SystemTime) -> Due {
    if now < from || now >= until {
        Due::Return
    } else {
        match renew.duration_since(now) {
            Ok(left) if !left.is_zero() => Due::In(left),
            _ => Due::Renewal,
        }
    }
}

/// Keeps this node's certificate good, from its start on. Never ends; `tell` is told what goes wrong, once for each new reason.
pub async fn keep(cell: Cell, held: Held, tell: impl Fn(&str)) {
    let mut told = String::new();
    loop {
        let wait = match renew_if_due(&cell, &held).await {
            Ok(wait) => {
                told.clear();
                wait
            }
            Err((error, wait)) => {
                let why = format!("this node's certificate is not renewed: {error}");
                if why != told {
                    tell(&why);
                    told = why;
                }
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// One look: renews the certificate if it is time, uses it from then on, and says when to look again.
pub async fn renew_if_due(cell: &Cell, held: &Held) -> Result<Duration, (CertificateError, Duration)> {
    let identity = held.identity();
    let look = || -> Result<Due, CertificateError> {
        let credentials = identity.credentials()?;
        let (from, until) = credentials.validity()?;
        Ok(due(from, credentials.renew_at()?, until, SystemTime::now()))
    };
    let due = look().map_err(|error| (error, AGAIN))?;
    let again = if due == Due::Return { AGAIN_EXPIRED } else { AGAIN };
    let new = match due {
        Due::In(left) => return Ok(left.min(LOOK)),
        Due::Renewal => renewed(cell, held, &identity).await,
        Due::Return => returned(cell, held, &identity).await,
    };
    let take = |certificate| -> Result<(), CertificateError> {
        Ok(cell.peers.transport().renew(&held.renewed(certificate)?)?)
    };
    // Not at once: a clock may be so far off that the new one is no good to it either.
    new.and_then(take).map(|()| again).map_err(|error| (error, again))
}

/// By its own hand, if it votes; else by a voter's.
async fn renewed(cell: &Cell, held: &Held, identity: &Identity) -> Result<String, CertificateError> {
    let key = Key::from_pem(&identity.key)?;
    if let Some(made) = by_itself(cell, held, &key) {
        return made;
    }
    let question = Question::Renew { public_key: key.public().clone() };
    let voters = cell.ledger.voters();
    let alive = cell.peers.members();
    // Who is known to vote comes first; a copy of the ledger may not say who does.
    let others = cell.placer().into_iter().chain(voters).filter(|node| alive.contains_key(node));
    let mut asked = BTreeSet::from([cell.me()]);
    let mut failed = CertificateError::Alone;
    for node in others.chain(alive.keys().copied()) {
        if asked.len() > ASKED || !asked.insert(node) {
            continue;
        }
        match cell.peers.ask(node, &question).await {
            Ok(Told::Renewed { certificate }) => return Ok(certificate),
            Ok(_) => failed = CertificateError::Confused(node),
            // A copy of the ledger that is behind may not know the node yet: others are asked too.
            Err(AskError::Refused { refusal, .. }) => failed = CertificateError::Refused(refusal),
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

async fn returned(cell: &Cell, held: &Held, identity: &Identity) -> Result<String, CertificateError> {
    let key = Key::from_pem(&identity.key)?;
    if let Some(made) = by_itself(cell, held, &key) {
        return made;
    }
    let state = cell.state();
    let known = state.roster.iter().filter(|(node, _)| **node != cell.me());
    let known = known.filter_map(|(node, member)| {
        cell.peers.address(*node).or_else(|| member.addr.as_deref()?.parse().ok())
    });
    let addresses: BTreeSet<SocketAddr> = known.chain(identity.members.iter().copied()).collect();
    let addresses: Vec<String> = addresses.iter().take(ASKED).map(ToString::to_string).collect();
    drop(state);
    Ok(join::come_back(identity, &addresses).await?)
}

fn by_itself(cell: &Cell, held: &Held, key: &Key) -> Option<Result<String, CertificateError>> {
    let authority = held.authority()?;
    let made = join::renew(&cell.state(), &authority, key.public(), SystemTime::now());
    Some(made.map_err(CertificateError::Refused))
}

/// Hands the authority to `node`, which is to vote. Doing it again does no harm.
pub async fn hand_authority(cell: &Cell, held: &Held, node: NodeId) -> Result<(), CertificateError> {
    let key = held.authority_key()?.ok_or(CertificateError::NotHeld)?;
    match cell.peers.ask(node, &Question::Authority(Box::new(key))).await? {
        Told::Done => Ok(()),
        _ => Err(CertificateError::Confused(node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_before_it_expires_and_fetched_after() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 3600);
        let (from, renew, until) = (at(10), at(14), at(17));
        let due = |now| due(from, renew, until, now);
        assert_eq!(due(at(11)), Due::In(Duration::from_secs(3 * 24 * 3600)));
        assert_eq!((due(renew), due(at(16))), (Due::Renewal, Due::Renewal));
        // Off for long; or the clock is far from the one of who issued it.
        assert_eq!((due(until), due(at(400)), due(at(9))), (Due::Return, Due::Return, Due::Return));
    }
}
