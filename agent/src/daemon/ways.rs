//! The way of the ledger's voters to each other: a stream for each call. What is sent ends with the stream's end.

use std::sync::Arc;

use gossip::transport::{Lane, Stream};
use placement::ids::NodeId;

use crate::{
    ledger::{Ask, LedgerHandle, MAX_CALL, Unreached},
    peers::Peers,
};

/// Before all else that goes over the same connection.
const PRIORITY: i32 = 10;

/// Carries calls to other voters.
pub(super) fn ask(peers: Peers) -> Ask {
    Arc::new(move |node, call| {
        let peers = peers.clone();
        Box::pin(async move { carry(&peers, node, &call).await })
    })
}

async fn carry(peers: &Peers, node: NodeId, call: &[u8]) -> Result<Vec<u8>, Unreached> {
    let unreached = |why: String| Unreached { node, why };
    let mut stream = peers.open(node, Lane::Raft).await.map_err(|e| unreached(e.to_string()))?;
    let _ = stream.outgoing.set_priority(PRIORITY);
    stream.outgoing.write_all(call).await.map_err(|e| unreached(e.to_string()))?;
    stream.outgoing.finish().map_err(|e| unreached(e.to_string()))?;
    stream.incoming.read_to_end(MAX_CALL).await.map_err(|e| unreached(e.to_string()))
}

/// Answers one call of another voter. Who cannot answer breaks the stream off: the other side asks again.
pub(super) async fn answer(mut stream: Stream, ledger: &LedgerHandle) {
    let _ = stream.outgoing.set_priority(PRIORITY);
    let Ok(call) = stream.incoming.read_to_end(MAX_CALL).await else { return };
    match ledger.answer(&call).await {
        Ok(reply) => {
            if stream.outgoing.write_all(&reply).await.is_ok() {
                let _ = stream.outgoing.finish();
            }
        }
        Err(error) => {
            tracing::debug!("a call of another voter: {error}");
            let _ = stream.outgoing.reset(1u32.into());
        }
    }
}
