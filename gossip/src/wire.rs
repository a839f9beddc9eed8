//! Every message, in one place. JSON with named fields in frames (`frame`); a reader ignores what it does not know,
//! documents are carried as they are. `PROTOCOL` names the encoding and its version.

pub mod ask;
pub mod examine;
pub mod image;
pub mod join;
pub mod lesson;
pub mod stream;
pub mod usage;

use std::collections::{BTreeMap, BTreeSet};

use placement::{
    ids::{Activation, Generation, NodeId, Principal, RequestId, TaskKey, Version},
    ledger::{Refusal, Role},
    node::{Books, NodeInfo},
    resources::Resources,
    task::{Exit, Report, TaskSpec},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::usage::UsageBy;
use crate::membership::Seen;

/// The encoding and its version: sent first on every stream, and QUIC's ALPN.
pub const PROTOCOL: &str = "covey/1";

// ---- client → node ------------------------------------------------------------------------------------------------

/// A client's first frame on a stream. The node answers with `Reply` frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub protocol: String,
    /// What the client calls itself. The node that takes the request puts in whom the kernel or the certificate names,
    /// whatever stands here.
    pub principal: Option<Principal>,
    /// Chosen by the client; the same id again does nothing more.
    pub id: RequestId,
    pub call: Call,
}

/// What can be asked: one for each verb that needs a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Lists: answered by one `Item` with the whole document.
    Nodes,
    Jobs,
    Job {
        job: JobName,
    },
    Tasks {
        job: Option<JobName>,
    },
    Task {
        job: JobName,
        index: u32,
    },
    Why {
        job: JobName,
        index: Option<u32>,
    },
    /// Limits, reservations and use, as the nodes themselves have them now: an `Item` `{as_of, stale, missing, by, items,
    /// total, prod, non_prod, nodes, capacity, room}`.
    Usage {
        by: UsageBy,
    },
    /// The same by nodes, bands and tasks at once: an `Item` as `Usage`'s, with `nodes`, `bands` and `tasks` for `items`.
    Top,
    /// Limits that would fit a job, or each: an `Item` `{as_of, stale, missing, risk, enough_s, items: [{job, owner, advice,
    /// watched_s, confidence, kills, cpu, memory, saved, …}]}`; `advice` is one of `not_enough_history`, `keep`, `lower`, `raise`
    /// and `change`.
    Advise {
        job: Option<JobName>,
        /// From 0 to 1: the share of time in which a task may be held back, the probability of its being killed in a day.
        risk: f64,
        /// With less history nothing is advised.
        enough_ms: u64,
    },
    /// The last events, oldest first, those with `job`/`node` only; with `follow` an `Item` each, without end.
    Events {
        job: Option<JobName>,
        node: Option<String>,
        since_ms: Option<u64>,
        follow: bool,
    },
    /// Create or change a job. `read`: what the client read, as the field `read` of `Job`'s document shows it; none: it
    /// saw no such job, or a stopped one. Answered by an `Item` `{name, owner, uid, version, was, changed}`; the
    /// versions are numbers, `was` the one before or null if the job was created.
    Run {
        document: Value,
        owner: Option<String>,
        create: bool,
        read: Option<ReadVersion>,
        /// Image names stand for what they stood for in the version that is there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep_images: bool,
    },
    /// `Stop`, `Restart` and `Scale`: answered by an `Item` `{name, owner, version, changed}`.
    Stop {
        job: JobName,
        index: Option<u32>,
    },
    Restart {
        job: JobName,
        index: Option<u32>,
    },
    Scale {
        job: JobName,
        count: u32,
    },
    /// `Item`s of the job (as `Job`, with its tasks) at once and whenever it changes, until it is settled (a service:
    /// `count` tasks of its newest version running and healthy; batch: all succeeded) or cannot be; then `End`. The
    /// field `settled` is `{state, reason}`, `state` one of `yes`, `not_yet` and `never`.
    Watch {
        job: JobName,
    },
    /// `Log` frames of the newest run, or of the one before it with `previous`. With `follow` they go on, from run to
    /// run (restarts in place too), until the task has ended for good. `from`, when a follower comes back: nothing
    /// before these places, then on as with `follow`; `tail` does not count then.
    Logs {
        job: JobName,
        index: u32,
        follow: bool,
        previous: bool,
        tail: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<LogPlace>,
        /// Nothing that was written before this time (milliseconds since 1970), as closely as the node has noted it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<u64>,
    },
    /// A command in a task that runs, by whoever may change its job. The task's node answers with an `Item`
    /// `{node, pid, generation}`; then come parts, both ways: see `stream`.
    Exec {
        job: JobName,
        index: u32,
        command: Vec<String>,
        /// Laid over the task's.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
        /// `USER[:GROUP]`; the task's own if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// The task's own if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workdir: Option<String>,
        /// With a terminal instead of three pipes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terminal: Option<stream::TerminalSize>,
    },
    /// A connection to a port of a task that runs, by its name or number: an `Item` `{node, port}`, then parts.
    Forward {
        job: JobName,
        index: u32,
        port: String,
    },
    /// A file or directory of a task, as a tar archive: an `Item` `{node, generation, over}`, then parts. What is copied is
    /// what the container has now; or what the last one has left, if none runs or with `previous`: then `over` is true.
    CopyOut {
        job: JobName,
        index: u32,
        path: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        previous: bool,
    },
    /// An archive into a task: the one thing in it to `path` (below it, if that is a directory), or `all` of it below the
    /// directory `path`. An `Item` `{node}`, then parts.
    CopyIn {
        job: JobName,
        index: u32,
        path: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all: bool,
    },
    /// The archive or directory is read by the node, which runs on the client's machine. `Progress` frames, then an
    /// `Item`: a list as that of `ImageLs`, of what was loaded.
    ImageLoad {
        /// Absolute.
        path: String,
        name: Option<String>,
    },
    /// A list with the items `{reference, digest, size_bytes, layers, created}`.
    ImageLs,
    /// Answered by an `Item` `{reference, digest, changed}`.
    ImageRm {
        reference: String,
    },
    /// The node asks the image's registry what the name stands for now and brings it in, from other nodes or from there.
    /// `Progress` frames, then an `Item`: a list as that of `ImageLs`, of one.
    ImagePull {
        reference: String,
    },
    /// Every node forgets the images that no job uses, those unused for so long. Answered by an `Item`
    /// `{changed, freed_bytes, images, missing, items: [{node, images, freed_bytes, trouble}]}`.
    ImagePrune {
        unused_ms: u64,
    },
    /// Credentials for a registry, for every node; the node that is asked tries them first. Answered by an `Item`
    /// `{registry, user, changed, nodes, missing}`.
    ImageLogin {
        registry: String,
        user: String,
        password: Secret,
    },
    /// Answered as `ImageLogin`.
    ImageLogout {
        registry: String,
    },
    /// Removes the volumes of a job's index, or the one called `name`, from all nodes that answer, or from the node `on`
    /// alone; refused while a task uses one of them there. Answered by an `Item` `{job, owner, index, changed,
    /// freed_bytes, missing, items: [{node, names, freed_bytes}]}`.
    VolumeRm {
        job: JobName,
        index: u32,
        name: Option<String>,
        on: Option<String>,
    },
    /// What is wrong with the cell, as its nodes find it. An `Item`
    /// `{as_of, stale, missing, healthy, items: [{weight, kind, nodes, text, means, hint}], nodes, pairs}`.
    Doctor,
    /// The cell itself: an `Item` `{id, name, generation, placer, voters, nodes, settings}`.
    Cell,
    /// Settings of the cell; what is left out stays. Answered by an `Item` as `Cell`'s, with `changed`.
    CellSet {
        lost_after_ms: Option<u64>,
    },
    /// A token for nodes, or for a user or admin called `name`. The client draws the secret and tells nobody but whom the
    /// token is for, so that the same request made twice is one token. Answered by an `Item`
    /// `{cell, cell_name, role, name, uses, expires}`.
    Token {
        /// `gossip::token::Token::hash` of the secret.
        hash: String,
        role: Role,
        name: Option<String>,
        uses: u32,
        ttl_ms: u64,
    },
    /// Rights of a user beyond its role's. Answered by an `Item` `{name, role, grants, changed}`.
    Grant {
        principal: Principal,
        #[serde(default)]
        give: BTreeSet<String>,
        #[serde(default)]
        take: BTreeSet<String>,
    },
    /// A list with the items `{name, role, grants, created}`: who has logged in.
    Principals,
    /// What operators say of a node (by name or id); no value takes a label away. Answered by an `Item`
    /// `{id, name, labels, changed}`, `labels` being all that operators have set.
    Label {
        node: String,
        labels: BTreeMap<String, Option<String>>,
    },
    /// Forgets a node that is gone, for good. Answered by an `Item` `{id, name, changed}`.
    NodeRemove {
        node: String,
        /// It says so itself, drained: then it may be here still.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        leaves: bool,
    },
    /// The node's tasks move to other nodes, and it gets no new ones; or, off, it is as any other again. Answered by an
    /// `Item` `{id, name, draining, changed}` when that is committed, not when they have moved.
    Drain {
        node: String,
        on: bool,
    },
    /// The node that is asked leaves the cell: it is drained, gives its vote back and is forgotten, and its agent ends.
    /// After the deadline, tasks that found no other place are ended with it. `Progress` frames, then an `Item`
    /// `{id, name, ended}`.
    Leave {
        deadline_ms: Option<u64>,
    },
}

/// What no log, event or error message may show: its debug form does not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A job as people write it: `NAME` is one's own, `OWNER/NAME` anybody's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobName {
    pub owner: Option<String>,
    pub name: String,
}

/// How far a reader of a task's log has got: the next byte of each stream of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogPlace {
    pub run: String,
    #[serde(default)]
    pub stdout: u64,
    #[serde(default)]
    pub stderr: u64,
}

/// The version that a client read before it changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadVersion {
    pub uid: placement::ids::Uid,
    pub version: Version,
}

/// A node's answer: any number of `Item`, `Progress` and `Log`, then `End`, `Error` or `NotPlacer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A document of INTERFACES.
    Item(Value),
    Progress {
        what: String,
        done: u64,
        total: u64,
    },
    Log {
        /// Which start of the task's container wrote it; offsets count within it.
        #[serde(default)]
        run: String,
        stream: LogStream,
        /// Of the first byte.
        offset: u64,
        text: String,
        /// The bytes themselves where they are not UTF-8; `text` is then only a rendering.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        bytes: Vec<u8>,
        /// So many bytes before `offset` are gone, deleted beyond the log's cap.
        #[serde(default)]
        lost: u64,
    },
    End,
    Error(Refusal),
    /// Only to a node that passed the request on: this one does not place. Who does, as far as it knows. Nothing was done.
    NotPlacer {
        placer: Option<NodeId>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
}

// ---- placer ↔ agent: the session (PROTOCOL 14) --------------------------------------------------------------------

/// One session: a fresh part from each side; what belongs to another session is ignored by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId {
    pub placer: u64,
    pub agent: u64,
}

/// The placer's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: String,
    pub placer: NodeId,
    pub activation: Activation,
    /// The placer's part of the session id.
    pub fresh: u64,
}

/// The agent's answer to `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Welcome {
    Open {
        session: SessionId,
        life: u64,
    },
    /// It has promised a newer placer (PROTOCOL 7).
    Promised(Activation),
}

/// Placer → agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToAgent {
    pub session: SessionId,
    pub order: Order,
    /// What runs on other nodes have taught of jobs that run here as well, without their indexes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lessons: Vec<lesson::JobLesson>,
}

impl ToAgent {
    /// An order, and nothing else.
    pub fn new(session: SessionId, order: Order) -> Self {
        ToAgent { session, order, lessons: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Start this task.
    Offer(Box<Offer>),
    /// End all generations of this key up to this one; irrevocable (PROTOCOL 16).
    Stop { key: TaskKey, generation: Generation, reason: String },
    /// The only copy: it may (re)start (PROTOCOL 23).
    Keep { key: TaskKey, generation: Generation },
    /// Its ending is committed, or no longer of interest: drop the record (PROTOCOL 25).
    Forget { key: TaskKey },
    /// Nothing: the session lives.
    Beat,
    /// Start again in place, unless a restart as new as `at` (a ledger index) was done.
    Restart { key: TaskKey, generation: Generation, at: u64 },
    /// Give what runs the values of a newer version: same generation, same process.
    Amend(Box<Offer>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    pub key: TaskKey,
    pub generation: Generation,
    pub version: Version,
    pub spec: TaskSpec,
    /// What the task's owner should know of this start: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// What is known of the index's needs, or of its siblings'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lesson: Option<Box<lesson::JobLesson>>,
}

/// Agent → placer. `number` counts from 0 without a gap; 0 is the full report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FromAgent {
    pub session: SessionId,
    pub number: u64,
    pub news: News,
    /// What its runs have taught since they were told last, or for as long as anything is remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lessons: Vec<lesson::JobLesson>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// All there is.
    Full { node: NodeInfo, books: Books, usage: Resources, tasks: Vec<Report> },
    /// What changed since the last one.
    Delta(Delta),
    /// Persisted, and will be started. The task is in `delta`.
    Accepted { key: TaskKey, generation: Generation, delta: Delta },
    /// A refusal carries the newest books, so that the next offer is right.
    Refused { key: TaskKey, generation: Generation, refused: RefusedOffer, delta: Delta },
    /// The copy stays as it is. (One that is changed shows its new version in a delta.)
    NotAmended { key: TaskKey, generation: Generation, version: Version, why: NotAmended, delta: Delta },
}

/// Why a node does not change a copy in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotAmended {
    /// Its own books have no room for what is asked beyond what the copy has.
    Short { resource: String, wanted: u64, free: u64 },
    /// Not now: the record could not be written.
    Store { why: String },
    /// Not while it runs: a sentence.
    Rigid { why: String },
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Delta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeInfo>,
    pub books: Books,
    #[serde(default)]
    pub usage: Resources,
    /// New or changed.
    pub tasks: Vec<Report>,
    /// No longer there.
    #[serde(default)]
    pub gone: Vec<TaskKey>,
}

/// Why a node refuses an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedOffer {
    /// Its own books have no room.
    Short {
        resource: String,
        wanted: u64,
        free: u64,
    },
    NoPort {
        free: u64,
    },
    /// The generation, or its placer, is older than what the node has answered already.
    Stale {
        seen: Generation,
    },
    /// An older copy of this index is still there.
    Busy {
        generation: Generation,
    },
    /// The index succeeded here (PROTOCOL 24).
    Succeeded {
        exit: Exit,
    },
    /// The record could not be written.
    Store {
        why: String,
    },
}

/// A document of `events` (INTERFACES), as the node that saw it wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    pub time: String,
    pub node: String,
    pub seq: u64,
    pub kind: String,
    #[serde(default)]
    pub job: Option<String>,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub index: Option<u32>,
    #[serde(default)]
    pub generation: Option<Generation>,
    pub text: String,
    #[serde(default)]
    pub detail: BTreeMap<String, Value>,
}

// ---- node ↔ node: who is here -------------------------------------------------------------------------------------

/// On a stream of the lane `Exchange`: `Compare`; `Same` or `Members`; and, after `Members`, the other side's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// `Membership::digest` in 16 hex digits: readers of JSON round large numbers.
    Compare {
        digest: String,
    },
    Same,
    Members {
        members: Vec<Seen>,
    },
}
