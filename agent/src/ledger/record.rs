//! What stands on disk: JSON with named fields. Our own names, so that a release of the Raft library that calls its
//! types otherwise changes nothing here. Fields that this build does not know are passed over.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    CommittedLeaderId, EmptyNode, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership,
    Vote,
};
use placement::{ids::NodeId, ledger::Ledger};
use serde::{Deserialize, Serialize};

use super::{Batch, Types};

/// The newest format of `ledger.redb` that this build writes and reads.
pub const FORMAT: u64 = 1;

/// Who wrote a file or a snapshot last.
pub fn written_by() -> String {
    concat!("covey ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Whose file this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: u64,
    pub written_by: String,
    pub node: NodeId,
}

/// A place in the log: index, and the leader who put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub index: u64,
    pub term: u64,
    pub leader: NodeId,
}

impl From<LogId<NodeId>> for Mark {
    fn from(id: LogId<NodeId>) -> Mark {
        Mark { index: id.index, term: id.leader_id.term, leader: id.leader_id.node_id }
    }
}

impl From<Mark> for LogId<NodeId> {
    fn from(mark: Mark) -> LogId<NodeId> {
        LogId::new(CommittedLeaderId::new(mark.term, mark.leader), mark.index)
    }
}

/// Whom a node voted for; `committed` once a majority did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    pub term: u64,
    pub node: NodeId,
    pub committed: bool,
}

impl From<Vote<NodeId>> for VoteRecord {
    fn from(vote: Vote<NodeId>) -> VoteRecord {
        VoteRecord { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote<NodeId> {
    fn from(vote: VoteRecord) -> Vote<NodeId> {
        if vote.committed {
            Vote::new_committed(vote.term, vote.node)
        } else {
            Vote::new(vote.term, vote.node)
        }
    }
}

/// Who votes and who only listens. Two sets of voters stand here while they change: then both have to agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub voters: Vec<BTreeSet<NodeId>>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub learners: BTreeSet<NodeId>,
}

impl From<&Membership<NodeId, EmptyNode>> for Members {
    fn from(membership: &Membership<NodeId, EmptyNode>) -> Members {
        Members {
            voters: membership.get_joint_config().clone(),
            learners: membership.learner_ids().collect(),
        }
    }
}

impl From<Members> for Membership<NodeId, EmptyNode> {
    fn from(members: Members) -> Membership<NodeId, EmptyNode> {
        let nodes: BTreeMap<_, _> =
            members.voters.iter().flatten().chain(&members.learners).map(|id| (*id, EmptyNode {})).collect();
        Membership::new(members.voters, nodes)
    }
}

/// One entry of the Raft log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogRecord {
    #[serde(rename = "at")]
    pub mark: Mark,
    pub payload: Payload,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// A new leader's first word.
    Blank,
    /// What people asked for.
    Entries(Batch),
    Members(Members),
}

impl LogRecord {
    pub fn new<C: Types>(entry: Entry<C>) -> LogRecord {
        LogRecord {
            mark: entry.log_id.into(),
            payload: match entry.payload {
                EntryPayload::Blank => Payload::Blank,
                EntryPayload::Normal(batch) => Payload::Entries(batch),
                EntryPayload::Membership(membership) => Payload::Members((&membership).into()),
            },
        }
    }

    pub fn entry<C: Types>(self) -> Entry<C> {
        Entry {
            log_id: self.mark.into(),
            payload: match self.payload {
                Payload::Blank => EntryPayload::Blank,
                Payload::Entries(batch) => EntryPayload::Normal(batch),
                Payload::Members(members) => EntryPayload::Membership(members.into()),
            },
        }
    }
}

/// The state that the log's first entries add up to, in their stead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot<L = Ledger> {
    pub format: u64,
    pub written_by: String,
    /// The last log entry in it.
    pub last: Option<Mark>,
    /// The log entry that set the members.
    pub members_at: Option<Mark>,
    pub members: Members,
    pub ledger: L,
}

impl<L> Snapshot<L> {
    pub fn meta(&self) -> SnapshotMeta<NodeId, EmptyNode> {
        let last: Option<LogId<NodeId>> = self.last.map(Into::into);
        SnapshotMeta {
            last_log_id: last,
            last_membership: StoredMembership::new(
                self.members_at.map(Into::into),
                self.members.clone().into(),
            ),
            // The same place in the log is the same state, on every voter.
            snapshot_id: last.map_or_else(|| "empty".to_owned(), |last| last.to_string()),
        }
    }
}
