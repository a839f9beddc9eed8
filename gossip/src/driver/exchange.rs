//! Two members compare what they know, and tell each other if it differs.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};

use super::{Lane, Peer, Seen, Stream, Transport};
use crate::wire::Exchange;

/// For all of it. The next one is with somebody else.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this node knew when the exchange began.
pub(super) struct Mine {
    pub(super) digest: u64,
    pub(super) members: Vec<Seen>,
}

/// One that fails is made up for by the next: there is nobody to tell.
pub(super) async fn ask(transport: Transport, with: Peer, mine: Mine, seen: mpsc::Sender<Vec<Seen>>) {
    let talk = async {
        let mut stream = transport.open(with, Lane::Exchange).await.ok()?;
        stream.write(&Exchange::Compare { digest: hex(mine.digest) }).await.ok()?;
        if let Exchange::Members { members } = stream.read().await.ok()?? {
            seen.send(members).await.ok()?;
            stream.write(&Exchange::Members { members: mine.members }).await.ok()?;
        }
        stream.finish().await;
        Some(())
    };
    let _ = timeout(PATIENCE, talk).await;
}

pub(super) async fn answer(mut stream: Stream, mine: Mine, seen: mpsc::Sender<Vec<Seen>>) {
    let talk = async {
        let Exchange::Compare { digest } = stream.read().await.ok()?? else { return None };
        if digest == hex(mine.digest) {
            stream.write(&Exchange::Same).await.ok()?;
        } else {
            stream.write(&Exchange::Members { members: mine.members }).await.ok()?;
            if let Exchange::Members { members } = stream.read().await.ok()?? {
                seen.send(members).await.ok()?;
            }
        }
        stream.finish().await;
        Some(())
    };
    let _ = timeout(PATIENCE, talk).await;
}

fn hex(digest: u64) -> String {
    format!("{digest:016x}")
}
