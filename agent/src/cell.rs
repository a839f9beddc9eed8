//! The cell as one node knows it: the other nodes, the ledger, and who places now.

use placement::{
    ids::{Activation, NodeId},
    ledger::Ledger,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

use crate::{
    clock,
    ledger::{LedgerHandle, Role},
    peers::Peers,
};

/// A twin that has not shown itself for so long is gone: one that is started again and again shows itself often.
const TWIN_MS: u64 = 60_000;

/// Who acts as placer, and since which activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acting {
    pub node: NodeId,
    pub activation: Activation,
}

/// A handle for all parts of the agent; clones are the same one.
#[derive(Clone)]
pub struct Cell {
    pub peers: Peers,
    pub ledger: LedgerHandle,
    acting: Arc<watch::Sender<Option<Acting>>>,
    /// Monotonic: until when the last twin counts as one that runs.
    twin_until: Arc<AtomicU64>,
}

impl Cell {
    pub fn new(peers: Peers, ledger: LedgerHandle) -> Cell {
        Cell { peers, ledger, acting: Arc::new(watch::Sender::new(None)), twin_until: Arc::default() }
    }

    pub fn me(&self) -> NodeId {
        self.peers.me()
    }

    /// The ledger as this node has it: as a voter, or its copy.
    pub fn state(&self) -> Arc<Ledger> {
        self.ledger.state()
    }

    /// A placer showed itself: by a session, or this node acts itself.
    pub fn heard(&self, acting: Acting) {
        self.acting.send_if_modified(|known| {
            let newer = known.is_none_or(|old| old.activation < acting.activation);
            if newer {
                *known = Some(acting);
            }
            newer
        });
    }

    /// Another process runs with this node's key, or tried to. Whether that is news.
    pub fn saw_twin(&self) -> bool {
        let now = clock::now().mono_ms;
        self.twin_until.swap(now + TWIN_MS, Ordering::Relaxed) <= now
    }

    pub fn has_twin(&self) -> bool {
        clock::now().mono_ms < self.twin_until.load(Ordering::Relaxed)
    }

    /// The newest placer that has shown itself here, each time there is another.
    pub fn acting(&self) -> watch::Receiver<Option<Acting>> {
        self.acting.subscribe()
    }

    /// Whom to pass to what only the placer can do, as far as this node knows. It may be gone all the same.
    pub fn placer(&self) -> Option<NodeId> {
        match *self.ledger.role().borrow() {
            Role::Leader { .. } => return Some(self.me()),
            Role::Follower { leader: Some(leader) } if self.peers.is_alive(leader) => return Some(leader),
            _ => {}
        }
        self.acting.borrow().map(|acting| acting.node).filter(|node| *node != self.me())
    }

    /// The name of a node, as the ledger has it.
    pub fn name(&self, node: NodeId) -> String {
        self.state().roster.get(&node).map_or_else(|| node.to_string(), |member| member.name.clone())
    }
}
