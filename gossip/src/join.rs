//! Both ends of a stranger's one conversation with a member: it says who it is and by what it wants in, and is told.

use std::{net::SocketAddr, time::Duration};

use placement::{ids::CellId, ledger::Refusal};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    frame::FrameError,
    tls::{Binding, Key, TlsError},
    transport::{self, JoinError, Stream},
    wire::{
        PROTOCOL,
        join::{Join, Joined, MOST, MOST_ANSWER, Wanted, Whom},
    },
};

/// For a stranger to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the answer: the member may have to find the placer first, which may have to find a majority.
const ANSWER: Duration = Duration::from_secs(20);
/// This build's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A member that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    #[error(transparent)]
    Connect(#[from] JoinError),
    #[error("{to} has answered nothing within {} s", ANSWER.as_secs())]
    Silent { to: SocketAddr },
    #[error("{to} broke off: {source}")]
    Frame { to: SocketAddr, source: FrameError },
    #[error("{to} closed the connection before it had answered")]
    Closed { to: SocketAddr },
    #[error(transparent)]
    Key(#[from] TlsError),
}

/// Knocks at the member that listens on `to`. The secret in `whom` is sent to a member of `cell` only.
pub async fn knock(to: SocketAddr, cell: &CellId, key: &Key, whom: Whom) -> Result<Joined, KnockError> {
    let (mut stream, binding) = transport::join(to, cell).await?;
    let join = Join {
        protocol: PROTOCOL.into(),
        version: VERSION.into(),
        proof: key.prove(&binding)?,
        wanted: Wanted { public_key: key.public().clone(), whom },
    };
    let talk = async {
        // Who refuses without having read it all resets the stream: the reason is what there is to read.
        let wrote = stream.write(&join).await;
        let _ = stream.outgoing.finish();
        match (stream.read_at_most(MOST_ANSWER).await, wrote) {
            (Ok(Some(joined)), _) => Ok(joined),
            (Ok(None), Ok(())) => Err(KnockError::Closed { to }),
            (Err(source), _) | (Ok(None), Err(source)) => Err(KnockError::Frame { to, source }),
        }
    };
    timeout(ANSWER, talk).await.map_err(|_| KnockError::Silent { to })?
}

/// Serves one stranger. What it says is checked as far as it can be without the ledger; `decide` says the rest. Returns
/// when the answer has arrived or nobody waits for it.
pub async fn answer<Deciding: Future<Output = Joined>>(
    mut stream: Stream,
    binding: Binding,
    decide: impl FnOnce(Wanted) -> Deciding,
) -> Result<(), FrameError> {
    let read = timeout(PATIENCE, stream.read_at_most::<Value>(MOST)).await;
    let joined = match read {
        Err(_) | Ok(Ok(None)) => return Ok(()),
        Ok(Err(FrameError::Broken(source))) => return Err(FrameError::Broken(source)),
        Ok(Err(other)) => Joined::Refused(garbled(&other.to_string())),
        Ok(Ok(Some(value))) => match check(value, &binding) {
            Ok(wanted) => decide(wanted).await,
            Err(refusal) => Joined::Refused(refusal),
        },
    };
    stream.write(&joined).await?;
    let _ = timeout(PATIENCE, stream.finish()).await;
    Ok(())
}

/// What every version of a `Join` has.
#[derive(Deserialize)]
struct Spoken {
    protocol: String,
    #[serde(default)]
    version: String,
}

fn check(value: Value, binding: &Binding) -> Result<Wanted, Refusal> {
    let spoken = Spoken::deserialize(&value).map_err(|e| garbled(&e.to_string()))?;
    if spoken.protocol != PROTOCOL {
        let message = format!(
            "this cell speaks {PROTOCOL} (covey {VERSION}), the newcomer {} (covey {})",
            spoken.protocol, spoken.version
        );
        let hint = format!("install covey {VERSION} on it, or upgrade the cell first");
        return Err(Refusal::new("invalid", message, Some(&hint)));
    }
    let join = Join::deserialize(value).map_err(|e| garbled(&e.to_string()))?;
    if !join.wanted.public_key.is_proven(binding, &join.proof) {
        let message = "the newcomer has not shown that it holds the key it wants a certificate for";
        return Err(Refusal::new("denied", message, None));
    }
    Ok(join.wanted)
}

fn garbled(why: &str) -> Refusal {
    let hint = format!("is the newcomer's covey much newer than this member's ({VERSION})?");
    Refusal::new("invalid", format_args!("this is no request to join: {why}"), Some(&hint))
}
