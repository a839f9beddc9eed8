//! How voters reach each other: by whatever carries bytes to a node and its answer back.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use openraft::{
    EmptyNode, RaftNetwork, RaftNetworkFactory,
    error::{
        InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
    },
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use placement::ids::NodeId;

use super::{
    Types,
    rpc::{Call, CallError, Reply, decode_reply},
};

/// Bytes of entries in one message, but always one entry.
const APPEND_BYTES: usize = 4 << 20;
/// A node that could not be reached is left alone for so long.
const BACK_OFF: Duration = Duration::from_millis(100);

pub type Asked = Pin<Box<dyn Future<Output = Result<Vec<u8>, Unreached>> + Send>>;
/// Carries a voter's call to a node, which has `LedgerHandle::answer` answer it, and the answer back. It need not give
/// up: who asks has patience of its own.
pub type Ask = Arc<dyn Fn(NodeId, Vec<u8>) -> Asked + Send + Sync>;

/// The call did not get there, or the answer did not come back.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot reach voter {node}: {why}")]
pub struct Unreached {
    pub node: NodeId,
    pub why: String,
}

/// No way to any other voter. A cell of one voter never needs one.
pub fn alone() -> Ask {
    Arc::new(|node, _| {
        let why = "this version keeps the ledger on one voter only".into();
        Box::pin(std::future::ready(Err(Unreached { node, why })))
    })
}

/// The ways to the other voters.
#[derive(Clone)]
pub(crate) struct Ways(pub(crate) Ask);

/// The way to one of them.
pub(crate) struct Way {
    ask: Ask,
    to: NodeId,
}

type RpcError<E = openraft::error::Infallible> = RPCError<NodeId, EmptyNode, RaftError<NodeId, E>>;

impl Way {
    async fn ask<E: std::error::Error>(&self, call: &Call, chunk: &[u8]) -> Result<Reply, RpcError<E>> {
        let call = call.encode(chunk).map_err(garbled)?;
        let answer = (self.ask)(self.to, call).await;
        let answer = answer.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?;
        decode_reply(&answer).map_err(garbled)
    }
}

fn garbled<E: std::error::Error>(e: CallError) -> RpcError<E> {
    RPCError::Network(NetworkError::new(&e))
}

/// An answer to something else.
fn unfitting<E: std::error::Error>(reply: &Reply) -> RpcError<E> {
    garbled(CallError::Malformed { why: format!("{reply:?} answers another question") })
}

impl<C: Types> RaftNetworkFactory<C> for Ways {
    type Network = Way;

    async fn new_client(&mut self, target: NodeId, _: &EmptyNode) -> Way {
        Way { ask: self.0.clone(), to: target }
    }
}

/// Keeps the entries that fit one message; tells the last of them if some did not.
fn fit<C: Types>(request: &mut AppendEntriesRequest<C>) -> Option<openraft::LogId<NodeId>> {
    let mut bytes = 0;
    let mut fits = |entry: &openraft::Entry<C>| {
        bytes += match &entry.payload {
            openraft::EntryPayload::Normal(batch) => batch.size(),
            _ => 0,
        };
        bytes <= APPEND_BYTES
    };
    let count = request.entries.iter().take_while(|entry| fits(entry)).count().max(1);
    (count < request.entries.len()).then(|| request.entries.truncate(count))?;
    request.entries.last().map(|entry| entry.log_id)
}

impl<C: Types> RaftNetwork<C> for Way {
    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError> {
        let cut_at = fit(&mut request);
        match self.ask(&Call::append(request), &[]).await? {
            Reply::Appended if cut_at.is_some() => Ok(AppendEntriesResponse::PartialSuccess(cut_at)),
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::Conflict => Ok(AppendEntriesResponse::Conflict),
            Reply::Newer { vote } => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            other => Err(unfitting(&other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<C>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, RpcError<InstallSnapshotError>> {
        let (call, chunk) = Call::install(request);
        match self.ask(&call, &chunk).await? {
            Reply::Installed { vote } => Ok(InstallSnapshotResponse { vote: vote.into() }),
            Reply::OtherPart { wanted, got } => {
                let mismatch = SnapshotMismatch { expect: wanted.into(), got: got.into() };
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RemoteError::new(self.to, error).into())
            }
            other => Err(unfitting(&other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError> {
        match self.ask(&Call::vote(&request), &[]).await? {
            Reply::Voted { vote, granted, last } => {
                let vote: openraft::Vote<NodeId> = vote.into();
                Ok(VoteResponse { vote, vote_granted: granted, last_log_id: last.map(Into::into) })
            }
            other => Err(unfitting(&other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACK_OFF))
    }
}
