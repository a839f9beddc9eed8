//! The ledger: what people asked for. Entries in, state and answers out; every voter computes the same.
//!
//! `Ledger::apply` is the whole state machine (`apply` what is about the cell, `roster` its nodes, `access` who gets in,
//! `settings` what holds for all, `change` what is about a job); `record` are views of one job, `requests` remembers what
//! was answered.

mod access;
mod apply;
mod change;
pub mod grants;
mod record;
mod refusal;
mod requests;
mod roster;
mod settings;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use access::{LONGEST_MS, MOST_USES, PrincipalRecord, ROOT, Role, TokenRecord};
pub use settings::{LOST_AFTER_MS, Settings};

use crate::{
    ids::{Activation, CellId, JobKey, NodeId, Principal, RequestId, Uid, Version},
    task::Exit,
};

/// One entry of the log. Written as JSON with named fields; a field that this build does not know is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Present on everything that a client asked for: makes repeating it harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestStamp>,
    /// The proposer's wall clock, milliseconds since 1970. To show, and for expiry; never to order.
    pub at_ms: u64,
    pub command: Command,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestStamp {
    pub principal: Principal,
    pub id: RequestId,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The first entry of a cell.
    Found { cell: CellId, name: String, generation: u64 },
    /// A node joins the roster. Its name must be free.
    Admit { node: NodeId, name: String },
    /// A node leaves the roster for good.
    Remove { node: NodeId },
    /// Its tasks move to other nodes, and it gets no new ones; or, off, it is as any other again.
    Drain { node: NodeId, on: bool },
    /// What an operator says of a node; no value takes a label away.
    Label { node: NodeId, labels: BTreeMap<String, Option<String>> },
    /// Where a member was last seen: for nodes that are off, and to find the cell again after all were.
    Address { node: NodeId, addr: String },
    /// Make a token. `hash` is the SHA-256 of its secret; it expires `ttl_ms` after the entry's `at_ms`.
    Token {
        hash: String,
        role: Role,
        /// Of the principal, for users and admins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        uses: u32,
        ttl_ms: u64,
    },
    /// A stranger joins by a token: the token is checked, its use counted and the node admitted, or nothing of it. The
    /// same node again, with the same token, is answered the same.
    Join {
        node: NodeId,
        name: String,
        token_hash: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        addr: Option<String>,
    },
    /// Whoever has the key with this SHA-256 becomes the principal that the token names.
    Login { key_hash: String, token_hash: String },
    /// Gives a user rights, or takes them away.
    Grant {
        principal: Principal,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        give: BTreeSet<String>,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        take: BTreeSet<String>,
    },
    /// Settings of the cell; what is left out stays.
    Set {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_after_ms: Option<u64>,
    },
    /// A placer begins to act; this entry's index is its activation.
    Activate { node: NodeId },
    /// Create or change a job.
    Submit {
        job: JobKey,
        /// As submitted; unknown keys and all.
        document: Value,
        /// What each image of the document was resolved to at submission: reference → digest.
        images: BTreeMap<String, String>,
        expect: Expect,
    },
    /// End a job, or take one index of it out until it is restarted or the job changed.
    Stop { job: JobKey, index: Option<u32> },
    /// Start again, in place where it runs.
    Restart { job: JobKey, index: Option<u32> },
    /// Change the count in the job's document.
    Scale { job: JobKey, count: u32, expect: Expect },
    /// Batch indexes that ended for good.
    Complete { done: Vec<Completion> },
}

/// Compare-and-set on what the client read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Whatever there is.
    Any,
    /// No live job of this name.
    Absent,
    /// This very version of this very job.
    Version { uid: Uid, version: Version },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    pub uid: Uid,
    pub index: u32,
    pub exit: Exit,
    /// Succeeded, or failed for good.
    pub success: bool,
    /// The newest restart that this run knew of (`TaskSpec::restart_at`). A failure from before the last restart is
    /// no news; a success always counts.
    #[serde(default)]
    pub restart_at: u64,
}

/// What the state machine answers to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is so now. For a job: which, and the version that now counts; `changed` is false if it was so before.
    Done {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<(Uid, Version)>,
        /// Who was let in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access: Option<Access>,
        changed: bool,
    },
    Refused(Refusal),
}

/// What a token gave: a certificate may be made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// To the node that joined. `admitted` is the entry that admitted it, `promise` the activation then in force: with
    /// that its promise begins (PROTOCOL 8).
    Node { admitted: u64, promise: Activation },
    /// To whoever logged in.
    Principal { principal: Principal, role: Role },
}

/// A refusal that a user reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// INTERFACES: `no_quorum`, `conflict`, `denied`, `invalid`, `not_found`, `over_quota`, …
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

/// The state that the entries add up to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ledger {
    pub cell: Option<Cell>,
    /// Index of the last entry applied.
    pub applied: u64,
    /// The newest placer.
    pub activation: Activation,
    pub placer: Option<NodeId>,
    pub roster: BTreeMap<NodeId, Member>,
    /// Nodes that were members and are never again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<NodeId>,
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub settings: Settings,
    /// By the SHA-256 of the secret, in hex; bounded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, TokenRecord>,
    /// Users and admins who logged in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub principals: BTreeMap<Principal, PrincipalRecord>,
    /// The newest job of each name, ended ones included until they are forgotten.
    /// Shared, so that copying a ledger while somebody reads it copies no documents.
    #[serde(with = "pairs")]
    pub jobs: BTreeMap<JobKey, Arc<JobRecord>>,
    /// Per principal the last requests and their answers, oldest first; bounded.
    pub requests: BTreeMap<Principal, VecDeque<Remembered>>,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

/// A request that was answered, so that repeating it does nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub id: RequestId,
    /// The ledger index at which it was done.
    pub index: u64,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub id: CellId,
    pub name: String,
    /// The cell generation (recovery makes a new one).
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    /// The entry that admitted it (PROTOCOL 8).
    pub admitted: u64,
    /// Set by operators; they outweigh those that the agent detects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its last known address, `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Its tasks move to other nodes, and it gets no new ones.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub draining: bool,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub uid: Uid,
    pub version: Version,
    pub document: Value,
    pub images: BTreeMap<String, String>,
    /// Earlier and present versions, oldest first; bounded.
    pub versions: Vec<VersionRecord>,
    /// Ended by `stop`.
    pub stopped: bool,
    /// Indexes taken out by `stop JOB/I`.
    #[serde(default)]
    pub held: BTreeSet<u32>,
    /// Ledger index of the last restart asked for, per index.
    #[serde(default)]
    pub restarts: BTreeMap<u32, u64>,
    /// Batch indexes that ended for good.
    #[serde(default)]
    pub finished: BTreeMap<u32, Completion>,
    pub created_ms: u64,
    pub changed_ms: u64,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    pub version: Version,
    pub at_ms: u64,
    pub by: Option<Principal>,
    pub document: Value,
    pub images: BTreeMap<String, String>,
    /// Fields of a later covey: kept.
    #[serde(flatten)]
    pub later: Later,
}

/// What a stored record holds beyond what this build knows. It is written again as it came (DESIGN 11).
pub type Later = BTreeMap<String, Value>;

/// A map whose keys are not text, as a list of pairs.
mod pairs {
    use super::{BTreeMap, Vec};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(d: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}
