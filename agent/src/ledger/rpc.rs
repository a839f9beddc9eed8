//! What voters say to each other: JSON with named fields, in our own names as on disk (`record`). A chunk of a snapshot
//! follows its JSON as it is, behind a line break.

use openraft::{
    Raft, SnapshotMeta, SnapshotSegmentId, StoredMembership,
    error::{InstallSnapshotError, RaftError, SnapshotMismatch},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Types,
    record::{LogRecord, Mark, Members, VoteRecord},
};

/// Bytes of one call or answer; what is larger is refused unread. One entry of the log always fits.
pub const MAX_CALL: usize = 16 << 20;

/// What one voter asks of another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// From the leader: entries behind `prev`; none is a heartbeat.
    Append { vote: VoteRecord, prev: Option<Mark>, entries: Vec<LogRecord>, committed: Option<Mark> },
    /// From a candidate, whose log ends at `last`.
    Vote { vote: VoteRecord, last: Option<Mark> },
    /// From the leader: a part of a snapshot, in the bytes behind.
    Install {
        vote: VoteRecord,
        id: String,
        last: Option<Mark>,
        members_at: Option<Mark>,
        members: Members,
        offset: u64,
        done: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// All of it is on disk.
    Appended,
    /// The log has something else at `prev`.
    Conflict,
    /// A newer vote is known.
    Newer {
        vote: VoteRecord,
    },
    Voted {
        vote: VoteRecord,
        granted: bool,
        last: Option<Mark>,
    },
    Installed {
        vote: VoteRecord,
    },
    /// Another part of a snapshot is wanted.
    OtherPart {
        wanted: Part,
        got: Part,
    },
}

/// Where in which snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    pub id: String,
    pub offset: u64,
}

impl From<SnapshotSegmentId> for Part {
    fn from(part: SnapshotSegmentId) -> Part {
        Part { id: part.id, offset: part.offset }
    }
}

impl From<Part> for SnapshotSegmentId {
    fn from(part: Part) -> SnapshotSegmentId {
        SnapshotSegmentId { id: part.id, offset: part.offset }
    }
}

/// Why a voter's call was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    #[error("a voter's message of {size} bytes is too large, the limit is {MAX_CALL}")]
    TooLarge { size: usize },
    #[error("a voter's message cannot be understood: {why}")]
    Malformed { why: String },
    #[error("the ledger stopped: {why}; it is being started again")]
    Core { why: String },
    #[error("the ledger is shut down")]
    Closed,
}

impl From<serde_json::Error> for CallError {
    fn from(e: serde_json::Error) -> CallError {
        CallError::Malformed { why: e.to_string() }
    }
}

impl Call {
    pub fn append<C: Types>(request: AppendEntriesRequest<C>) -> Call {
        Call::Append {
            vote: request.vote.into(),
            prev: request.prev_log_id.map(Into::into),
            entries: request.entries.into_iter().map(LogRecord::new).collect(),
            committed: request.leader_commit.map(Into::into),
        }
    }

    pub fn vote(request: &VoteRequest<placement::ids::NodeId>) -> Call {
        Call::Vote { vote: request.vote.into(), last: request.last_log_id.map(Into::into) }
    }

    /// And the bytes that follow it.
    pub fn install<C: Types>(request: InstallSnapshotRequest<C>) -> (Call, Vec<u8>) {
        let call = Call::Install {
            vote: request.vote.into(),
            id: request.meta.snapshot_id,
            last: request.meta.last_log_id.map(Into::into),
            members_at: request.meta.last_membership.log_id().map(Into::into),
            members: request.meta.last_membership.membership().into(),
            offset: request.offset,
            done: request.done,
        };
        (call, request.data)
    }

    pub fn encode(&self, chunk: &[u8]) -> Result<Vec<u8>, CallError> {
        let mut bytes = serde_json::to_vec(self)?;
        if !chunk.is_empty() {
            bytes.push(b'\n');
            bytes.extend_from_slice(chunk);
        }
        bounded(&bytes)?;
        Ok(bytes)
    }
}

/// JSON holds no line break of its own: the first one ends it.
fn decode(bytes: &[u8]) -> Result<(Call, &[u8]), CallError> {
    bounded(bytes)?;
    let (call, chunk) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    Ok((serde_json::from_slice(call)?, chunk))
}

pub(super) fn decode_reply(bytes: &[u8]) -> Result<Reply, CallError> {
    bounded(bytes)?;
    Ok(serde_json::from_slice(bytes)?)
}

fn bounded(bytes: &[u8]) -> Result<(), CallError> {
    let size = bytes.len();
    if size > MAX_CALL { Err(CallError::TooLarge { size }) } else { Ok(()) }
}

/// Has this node's core answer what another voter asked.
pub async fn answer<C: Types>(raft: &Raft<C>, call: &[u8]) -> Result<Vec<u8>, CallError> {
    let (call, chunk) = decode(call)?;
    let reply = match call {
        Call::Append { vote, prev, entries, committed } => {
            let request = AppendEntriesRequest {
                vote: vote.into(),
                prev_log_id: prev.map(Into::into),
                entries: entries.into_iter().map(LogRecord::entry).collect(),
                leader_commit: committed.map(Into::into),
            };
            match raft.append_entries(request).await.map_err(stopped)? {
                // A core answers for all that it was sent: a part is for senders to say.
                AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => Reply::Appended,
                AppendEntriesResponse::Conflict => Reply::Conflict,
                AppendEntriesResponse::HigherVote(vote) => Reply::Newer { vote: vote.into() },
            }
        }
        Call::Vote { vote, last } => {
            let request = VoteRequest { vote: vote.into(), last_log_id: last.map(Into::into) };
            let VoteResponse { vote, vote_granted, last_log_id } =
                raft.vote(request).await.map_err(stopped)?;
            Reply::Voted { vote: vote.into(), granted: vote_granted, last: last_log_id.map(Into::into) }
        }
        Call::Install { vote, id, last, members_at, members, offset, done } => {
            let meta = SnapshotMeta {
                last_log_id: last.map(Into::into),
                last_membership: StoredMembership::new(members_at.map(Into::into), members.into()),
                snapshot_id: id,
            };
            let request =
                InstallSnapshotRequest { vote: vote.into(), meta, offset, data: chunk.to_vec(), done };
            match raft.install_snapshot(request).await {
                Ok(InstallSnapshotResponse { vote }) => Reply::Installed { vote: vote.into() },
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(SnapshotMismatch {
                    expect,
                    got,
                }))) => Reply::OtherPart { wanted: expect.into(), got: got.into() },
                Err(RaftError::Fatal(e)) => return Err(CallError::Core { why: e.to_string() }),
            }
        }
    };
    Ok(serde_json::to_vec(&reply)?)
}

fn stopped(e: RaftError<placement::ids::NodeId>) -> CallError {
    CallError::Core { why: e.to_string() }
}
