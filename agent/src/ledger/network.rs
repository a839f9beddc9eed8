//! How voters reach each other: not yet. A cell of one voter never calls any of this.

use openraft::{
    EmptyNode, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use placement::ids::NodeId;

use super::Daemon;

/// Knows no way to any other voter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alone;

/// No way to this voter.
#[derive(Debug)]
pub(super) struct NoWay(NodeId);

#[derive(Debug, thiserror::Error)]
#[error("cannot reach voter {0}: this version keeps the ledger on one voter only")]
struct OneVoterOnly(NodeId);

impl NoWay {
    fn error<E: std::error::Error>(&self) -> RPCError<NodeId, EmptyNode, E> {
        RPCError::Unreachable(Unreachable::new(&OneVoterOnly(self.0)))
    }
}

impl RaftNetworkFactory<Daemon> for Alone {
    type Network = NoWay;

    async fn new_client(&mut self, target: NodeId, _: &EmptyNode) -> NoWay {
        NoWay(target)
    }
}

impl RaftNetwork<Daemon> for NoWay {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Daemon>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, EmptyNode, RaftError<NodeId>>> {
        Err(self.error())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Daemon>,
        _: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<NodeId>,
        RPCError<NodeId, EmptyNode, RaftError<NodeId, InstallSnapshotError>>,
    > {
        Err(self.error())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, EmptyNode, RaftError<NodeId>>> {
        Err(self.error())
    }
}
