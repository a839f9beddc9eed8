//! What one node asks another. On the lane `Ask`: one `Question`, answered by one or more `Told`. On the lane `Request`: one
//! `Passed`, answered by `Reply` frames.

use std::collections::BTreeMap;

use placement::{
    ids::{Activation, JobKey, TaskKey},
    job::Band,
    ledger::Refusal,
    node::{Books, NodeInfo},
    resources::Resources,
    task::{Report, Strain},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Request,
    examine::Examined,
    image::{ImageQuestion, ImageTold},
    join::{Joined, Wanted},
    usage::Ended,
};
use crate::tls::{AuthorityKey, PublicKey};

/// A client's request that the node which took it passes on. That node vouches for `request.principal`. Nobody passes it
/// on a second time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    pub request: Request,
    pub to: To,
    /// What each image of a `Run` was resolved to by the node which took it: reference → digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<BTreeMap<String, String>>,
    /// Which task `Logs` and what opens a way into a task mean: the node's ledger may be behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskKey>,
    /// Which of its runs `Logs` mean, if not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// As whom a node is passed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// As the placer; if it is not, it answers `NotPlacer`.
    Placer,
    /// As itself: about what it runs or has seen. `Logs` end with what there is on this node; followed `Events` begin with
    /// one `Item` that lists those that there are.
    Node,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What the ledger holds after its entry `after`, for a copy. Waits up to `wait_ms` for something to tell. Answered
    /// by `Entries`, or by `Part`s of the whole ledger if the entries are no longer at hand.
    Pull {
        after: u64,
        wait_ms: u64,
    },
    /// What the node itself runs: its part of what people read while no placer answers.
    Own,
    /// Is it there? Answered at once by `Pong`.
    Ping,
    /// What it finds out about itself and its ways to the others, for `covey doctor`. Answered by `Examined`.
    Examine,
    /// Somebody knocked at a member, which has seen the proof of the key. Only the placer can answer: by `Joined`.
    Join(Box<Wanted>),
    /// A node wants its certificate renewed. Any voter answers: by `Renewed`.
    Renew {
        public_key: PublicKey,
    },
    /// Keep the cell's authority: the node is about to become a voter. Answered by `Done`.
    Authority(Box<AuthorityKey>),
    /// Which runs of a task have logs there; with `job`, its name, those of earlier jobs of that name too.
    Runs {
        task: TaskKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobKey>,
    },
    /// Which volumes of an index the node has; with `remove` it has them no more when it answers. Answered by `Volumes`,
    /// or refused while a task uses one of them.
    Volumes {
        of: VolumesOf,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remove: bool,
    },
    /// What the node remembers of its jobs, or of one. Answered by `History`.
    History {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobKey>,
    },
    Image(ImageQuestion),
}

/// The volumes of one index of a job, or the one of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesOf {
    pub job: JobKey,
    pub index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
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
    Pong {
        wall_ms: u64,
    },
    Examined(Box<Examined>),
    Joined(Box<Joined>),
    /// PEM.
    Renewed {
        certificate: String,
    },
    /// It is so, and on disk.
    Done,
    /// The name of the newest run; none: no run of the task has logs there. And of all of them, the oldest first.
    Runs {
        newest: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        runs: Vec<String>,
        /// The newest of which the node keeps the files.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left: Option<String>,
    },
    /// What it has of them, or had.
    Volumes {
        names: Vec<String>,
        bytes: u64,
    },
    /// By `OWNER/NAME`: how much a task used, as the agent keeps it.
    History {
        jobs: BTreeMap<String, Value>,
    },
    Image(ImageTold),
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
    /// Whether it votes, as far as it knows.
    #[serde(default)]
    pub voter: bool,
    /// What ended tasks there of late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Ended>,
    /// How the tasks of its bands fare.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub strain: BTreeMap<Band, Strain>,
}
