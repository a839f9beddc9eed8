//! What one node asks another: one `Question` on a stream of the lane `Ask`, answered by one or more `Told`.

use placement::{
    ids::Activation,
    ledger::Refusal,
    node::{Books, NodeInfo},
    resources::Resources,
    task::Report,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::join::{Joined, Wanted};
use crate::tls::{AuthorityKey, PublicKey};

/// One question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What the ledger holds after its entry `after`, for a copy. Waits up to `wait_ms` for something to tell. Answered
    /// by `Entries`, or by `Part`s of the whole ledger if the entries are no longer at hand.
    Pull { after: u64, wait_ms: u64 },
    /// What the node itself runs: its part of what people read while no placer answers.
    Own,
    /// Somebody knocked at a member, which has seen the proof of the key. Only the placer can answer: by `Joined`.
    Join(Box<Wanted>),
    /// A node wants its certificate renewed. Any voter answers: by `Renewed`.
    Renew { public_key: PublicKey },
    /// Keep the cell's authority: the node is about to become a voter. Answered by `Done`.
    Authority(Box<AuthorityKey>),
}

/// The answer, or a part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Entries of the ledger as they stand in its log, the first with index `first`; perhaps none.
    Entries {
        first: u64,
        entries: Vec<Value>,
    },
    /// A piece of the ledger's text, in order.
    Part {
        text: String,
        last: bool,
    },
    Own(Box<OwnPart>),
    Joined(Box<Joined>),
    /// PEM.
    Renewed {
        certificate: String,
    },
    /// It is so, and on disk.
    Done,
    /// The node cannot or will not answer.
    Refused(Refusal),
}

/// What one node knows of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnPart {
    pub node: NodeInfo,
    pub books: Books,
    pub usage: Resources,
    pub tasks: Vec<Report>,
    /// Of the newest placer that it has answered.
    pub promise: Activation,
    /// The last entry of the ledger that it has applied.
    pub applied: u64,
}
