//! A network between ledgers: delay, loss, cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::{EmptyNode, Raft, impls::OneshotResponder};
use placement::{ids::NodeId, ledger::Answer};

use super::{
    runtime::{draw_from, happens, sleep},
    seeded::Seeded,
};
use crate::ledger::{Ask, Batch, CallError, Types, Unreached, answer};

openraft::declare_raft_types!(
    /// The ledger under virtual time.
    pub(crate) Sim:
        D = Batch,
        R = Vec<Answer>,
        NodeId = NodeId,
        Node = EmptyNode,
        Entry = openraft::Entry<Sim>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = OneshotResponder<Sim>,
        AsyncRuntime = Seeded,
);

impl Types for Sim {}

#[derive(Default)]
struct State {
    live: BTreeMap<NodeId, Raft<Sim>>,
    /// One way: what the first sends does not reach the second.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Out of a thousand messages.
    loss: u64,
    /// Chunks of snapshots that arrived.
    chunks: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

impl Net {
    pub(crate) fn join(&self, node: NodeId, raft: Raft<Sim>) {
        self.0.lock().unwrap().live.insert(node, raft);
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.0.lock().unwrap().live.remove(&node);
    }

    pub(crate) fn set_loss(&self, per_mille: u64) {
        self.0.lock().unwrap().loss = per_mille;
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().unwrap().cuts.insert((from, to));
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.0.lock().unwrap().chunks
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().cuts.clear();
    }

    /// How long the next message takes.
    pub(crate) fn delay() -> Duration {
        let slow = happens(10);
        Duration::from_micros(draw_from(if slow { 20_000..400_000 } else { 50..3_000 }))
    }

    /// Whether a message that arrives now does so.
    pub(crate) fn passes(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.0.lock().unwrap();
        !state.cuts.contains(&(from, to)) && !happens(state.loss)
    }

    /// Whether the way between them is cut, in either direction.
    pub(crate) fn apart(&self, one: NodeId, other: NodeId) -> bool {
        let cuts = &self.0.lock().unwrap().cuts;
        cuts.contains(&(one, other)) || cuts.contains(&(other, one))
    }

    /// Whether one hears the other, and not the other way round.
    pub(crate) fn half_cut(&self, one: NodeId, other: NodeId) -> bool {
        let cuts = &self.0.lock().unwrap().cuts;
        cuts.contains(&(one, other)) != cuts.contains(&(other, one))
    }

    /// Whether a message came through, after the time that it took.
    pub(crate) async fn carry(&self, from: NodeId, to: NodeId) -> bool {
        sleep(Net::delay()).await;
        self.passes(from, to)
    }

    fn live(&self, node: NodeId) -> Option<Raft<Sim>> {
        self.0.lock().unwrap().live.get(&node).cloned()
    }
}

#[derive(Debug)]
enum Lost {
    /// Nobody listens, and says so.
    Refused,
    /// Either way; nobody will ever know.
    Silently,
}

impl Net {
    /// How a node asks the others. What is lost is waited for without end: openraft has its own patience.
    pub(crate) fn ask(&self, from: NodeId) -> Ask {
        let net = self.clone();
        Arc::new(move |to, call| {
            let net = net.clone();
            Box::pin(async move {
                match net.call(from, to, &call).await {
                    Ok(reply) => Ok(reply),
                    Err(Lost::Refused) => Err(Unreached { node: to, why: "it does not listen".into() }),
                    Err(Lost::Silently) => std::future::pending().await,
                }
            })
        })
    }

    async fn call(&self, from: NodeId, to: NodeId, call: &[u8]) -> Result<Vec<u8>, Lost> {
        if !self.carry(from, to).await {
            return Err(Lost::Silently);
        }
        let Some(raft) = self.live(to) else {
            // A machine that is up with a dead process refuses; one that is off keeps silent.
            return Err(if happens(500) { Lost::Refused } else { Lost::Silently });
        };
        let reply = match answer(&raft, call).await {
            Err(CallError::Core { .. }) => return Err(Lost::Silently),
            reply => reply.expect("what one voter says the other understands"),
        };
        if call.starts_with(b"{\"install") {
            self.0.lock().unwrap().chunks += 1;
        }
        if self.carry(to, from).await { Ok(reply) } else { Err(Lost::Silently) }
    }

    /// Whether each would hear the other now.
    pub(crate) fn reaches(&self, one: NodeId, other: NodeId) -> bool {
        !self.apart(one, other) && self.0.lock().unwrap().live.contains_key(&other)
    }
}
