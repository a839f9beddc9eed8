//! A network between ledgers: delay, loss, cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::{
    EmptyNode, Raft, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable},
    impls::OneshotResponder,
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use placement::{ids::NodeId, ledger::Answer};

use super::{
    runtime::{draw_from, happens, sleep},
    seeded::Seeded,
};
use crate::ledger::{Batch, Types};

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

    /// Whether a message came through, after the time that it took.
    async fn carry(&self, from: NodeId, to: NodeId) -> bool {
        let slow = happens(10);
        sleep(Duration::from_micros(draw_from(if slow { 20_000..400_000 } else { 50..3_000 }))).await;
        let state = self.0.lock().unwrap();
        !state.cuts.contains(&(from, to)) && !happens(state.loss)
    }

    fn live(&self, node: NodeId) -> Option<Raft<Sim>> {
        self.0.lock().unwrap().live.get(&node).cloned()
    }
}

pub(crate) struct From {
    pub(crate) net: Net,
    pub(crate) node: NodeId,
}

impl RaftNetworkFactory<Sim> for From {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _: &EmptyNode) -> Line {
        Line { net: self.net.clone(), from: self.node, to: target }
    }
}

pub(crate) struct Line {
    net: Net,
    from: NodeId,
    to: NodeId,
}

#[derive(Debug, thiserror::Error)]
#[error("node {0} does not listen")]
struct Refused(NodeId);

impl Line {
    /// Asks, and waits for ever if either way is lost: openraft has its own patience.
    async fn call<T, E, F>(
        &self,
        ask: impl FnOnce(Raft<Sim>) -> F,
    ) -> Result<T, RPCError<NodeId, EmptyNode, RaftError<NodeId, E>>>
    where
        F: Future<Output = Result<T, RaftError<NodeId, E>>>,
        E: std::error::Error,
    {
        if !self.net.carry(self.from, self.to).await {
            return std::future::pending().await;
        }
        let Some(raft) = self.net.live(self.to) else {
            // A machine that is up with a dead process refuses; one that is off keeps silent.
            if happens(500) {
                return Err(Unreachable::new(&Refused(self.to)).into());
            }
            return std::future::pending().await;
        };
        let answer = ask(raft).await;
        if matches!(answer, Err(RaftError::Fatal(_))) || !self.net.carry(self.to, self.from).await {
            return std::future::pending().await;
        }
        answer.map_err(|e| RemoteError::new(self.to, e).into())
    }
}

impl RaftNetwork<Sim> for Line {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Sim>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, EmptyNode, RaftError<NodeId>>> {
        self.call(|raft| async move { raft.append_entries(request).await }).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Sim>,
        _: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<NodeId>,
        RPCError<NodeId, EmptyNode, RaftError<NodeId, InstallSnapshotError>>,
    > {
        let answer = self.call(|raft| async move { raft.install_snapshot(request).await }).await;
        self.net.0.lock().unwrap().chunks += 1;
        answer
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, EmptyNode, RaftError<NodeId>>> {
        self.call(|raft| async move { raft.vote(request).await }).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}
