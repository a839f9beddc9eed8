//! All that can happen to a node's core, and all that it can want. The core does nothing by itself: shells turn the
//! world into an `Event`, and carry out each `Action` in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    str::FromStr,
};

use gossip::wire::{FromAgent, Hello, SessionId, ToAgent, Welcome};
use placement::{
    ids::{Activation, BadId, Generation, JobKey, TaskKey, Version},
    job::{Band, Check, Health, container::Container},
    node::{Bad, Held},
    resources::Resources,
    task::{Cause, Strain, TaskSpec},
};

use crate::core::record::Record;

/// When something happened: monotonic time (that counts suspension) for deadlines, wall time only to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    pub mono_ms: u64,
    pub wall_ms: u64,
}

/// One start of a container: names its bundle and its cgroup. `KEY-GENERATION-RUN`, for instance `1.7.0-1.2.5-0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    pub key: TaskKey,
    pub generation: Generation,
    /// 0 for the first start of a generation; restarts in place count up.
    pub run: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.key, self.generation, self.run)
    }
}

impl FromStr for RunId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: s.to_string(), wanted: "a run KEY-GENERATION-RUN" };
        let mut parts = s.split('-');
        let (Some(key), Some(generation), Some(run), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let mut numbers = generation.split('.').map(str::parse);
        let (Some(Ok(cell)), Some(Ok(activation)), Some(Ok(seq)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(bad());
        };
        Ok(RunId {
            key: key.parse()?,
            generation: Generation { cell, activation, seq },
            run: run.parse().map_err(|_| bad())?,
        })
    }
}

/// Pairs a `Store` with its `Stored`.
pub type Ticket = u64;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A placer opened a session's stream. `fresh`: the agent's random part of the session id.
    Hello {
        hello: Hello,
        fresh: u64,
    },
    Order(ToAgent),
    /// The session's stream ended.
    Closed(SessionId),
    /// A `Store` is on disk, or could not be written (a sentence says why).
    Stored {
        ticket: Ticket,
        result: Result<(), String>,
    },
    Run {
        run: RunId,
        what: RunEvent,
    },
    /// What the tasks use now. CPU or memory that is not named cannot be measured.
    Measured(BTreeMap<RunId, Resources>),
    /// How some of them fare.
    Strained(BTreeMap<RunId, Strain>),
    /// How all of a band's tasks together fare, of those bands that have any.
    BandsStrained(BTreeMap<Band, Strain>),
    /// The images that the node has whole, by their digests.
    Images(BTreeSet<String>),
    /// The volumes that the node has, as in `NodeInfo`.
    Volumes(BTreeMap<String, BTreeMap<u32, Held>>),
    /// The node's capacity changed.
    Capacity(Resources),
    /// A run below production has to go, for production's sake: `why` says what is short. `hard`: there is no time for its
    /// grace; it may follow one that was not. `what`: memory or disk; `used`: what it had of that, in bytes.
    Evict {
        run: RunId,
        hard: bool,
        what: &'static str,
        used: u64,
        why: String,
    },
    /// Memory that could be had without anybody's giving way, in bytes; told when it has moved.
    Free {
        memory: u64,
    },
    /// The disk of the data directory has less free than so many bytes, which are kept of it; none once there is more again.
    DiskShort(Option<u64>),
    /// The time last asked for by `WakeAt` has come.
    Woke,
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A phase before the container runs, to show: "unpacking hello:1".
    Phase(String),
    /// A phase is over, for people: what was done, and how long it took.
    PhaseOver { kind: &'static str, text: String, ms: u64 },
    /// The container's init runs.
    Started { pid: u32 },
    /// The address of its own, in its node's private network; it is known before the container runs, or as an agent finds
    /// it running.
    Address(Ipv4Addr),
    /// It never ran; nothing is left of it. `transient`: trying again may help.
    StartFailed { why: String, transient: bool },
    /// An allotted port is in use by somebody else; nothing was started.
    PortBusy { port: u16 },
    /// It ran and ended.
    Exited(Ended),
    /// Bundle and cgroup are gone.
    Removed,
    /// The `Amend` of that version is in force, or a sentence says why it cannot be while this runs; then all is as it was.
    Amended { version: Version, result: Result<(), String> },
    /// It is stopped for moments for what it takes too much of: a sentence.
    Held(String),
    /// A check's result; the text says what was seen. A success after a success need not be told.
    Health { check: Check, ok: bool, text: String },
}

/// How a container ended, as its shim wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The kernel killed it for want of memory: `OomLimit` or `OomHost`.
    pub oom: Option<Cause>,
    /// The shim left no record.
    pub shim_lost: bool,
    /// Bytes of its log that the disk had no room for.
    pub log_bytes_lost: u64,
    /// Which of its processes ended it, if it had several: a sentence.
    pub why: Option<String>,
    /// Wall time, by the shim's clock: an exit before the signal was the task's own.
    pub at_ms: u64,
}

impl Ended {
    /// Nothing wrote down how it ended; `at_ms`: when that was noticed.
    pub fn lost(at_ms: u64) -> Ended {
        Ended { code: None, signal: None, log_bytes_lost: 0, oom: None, shim_lost: true, why: None, at_ms }
    }
}

/// What the shells found at the agent's start for a run that has a bundle.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Shim and container are alive.
    Running {
        pid: u32,
        /// By the wall clock of then, to show.
        started_at_ms: u64,
        /// For how long by now, whatever the wall clock has done since.
        ran_ms: u64,
    },
    /// The shim is alive, the container not started yet: a `Started`, `StartFailed` or `Exited` will follow.
    Starting,
    /// A bundle, and neither a shim nor anything that one wrote: the agent (or the power) went before the start. It is
    /// removed and does not count as a run.
    Unstarted,
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write all of it, durably, in one transaction; answered by `Stored`. Stores are carried out and answered in the
    /// order in which they were asked for (several may share one transaction). Not written: nothing of it is.
    Store {
        ticket: Ticket,
        changes: Vec<Change>,
    },
    /// The answer to the last `Hello`.
    Welcome(Welcome),
    /// On the current session.
    Send(Box<FromAgent>),
    Start(Box<StartRun>),
    /// Its start is wanted no more. If it has not got as far as a shim, `StartFailed` follows soon; else what would
    /// follow anyway.
    Abandon {
        run: RunId,
    },
    /// To the container's init. Nothing happens if it is gone: its `Exited` is on the way.
    Signal {
        run: RunId,
        signal: Signal,
    },
    /// Give a running container other limits; answered by `Amended`. Doing it again is fine.
    Amend(Box<AmendRun>),
    /// Kill what is left in the run's cgroup (a lost shim may leave processes), wait until it is empty, remove cgroup and
    /// bundle, try again until that is done, then `Removed`. A run without a bundle is `Removed` at once. From then on a
    /// scan at the agent's start does not find it. Its logs stay readable elsewhere: those of the two newest runs of a
    /// key, so that `logs --previous` works; how long after the key's last record is gone is the shell's to bound. `own`:
    /// so do the volumes that the copy alone has, which else stay until it is over.
    Remove {
        run: RunId,
        own: bool,
    },
    /// Check from now on: results come as `RunEvent::Health`. `Check::Startup` ends with its first success.
    Probe {
        run: RunId,
        check: Check,
        health: Health,
        /// As the task knows it; none if a command is run.
        port: Option<u16>,
        /// It is known to be good: there is no hurry, and a first success is no news.
        good: bool,
    },
    /// No more of its checks.
    Unprobe {
        run: RunId,
    },
    /// Ask for `Woke` at this monotonic time; replaces the last one.
    WakeAt {
        mono_ms: u64,
    },
    /// For `covey events`.
    Note(Note),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Term,
    Kill,
}

/// A change of the agent's own records.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Put(Box<Record>),
    Drop(TaskKey),
    Promise(Activation),
    /// All that failed here again and again.
    Bad(Vec<Bad>),
}

/// All that the runner needs to make a container.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRun {
    pub run: RunId,
    pub owner: String,
    /// The job's.
    pub name: String,
    /// What people call the image.
    pub image: String,
    /// Shown as the container's host name.
    pub hostname: String,
    /// `sha256:…`
    pub digest: String,
    /// None: the image's entrypoint and command. Variables are not expanded yet.
    pub command: Option<Vec<String>>,
    /// The task's own and covey's (COVEY_…, PORT_…); laid over the image's.
    pub env: BTreeMap<String, String>,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
    pub band: Band,
    pub limit: Resources,
    /// Bind-tested by the runner before the start.
    pub ports: BTreeMap<String, u16>,
    pub container: Container,
}

/// A running container's new limits.
#[derive(Debug, Clone, PartialEq)]
pub struct AmendRun {
    pub run: RunId,
    pub version: Version,
    /// What it has now, to go back to if not all of `to` can be had.
    pub from: TaskSpec,
    pub to: TaskSpec,
}

/// An event for people, before the shell adds time, node and number.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// `accepted`, `started`, `exited`, …: a word for filters.
    pub kind: &'static str,
    /// None: the node itself.
    pub about: Option<About>,
    /// A sentence.
    pub text: String,
    /// How long it took, where that is of interest.
    pub ms: Option<u64>,
}

/// The copy of a task that a note is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub job: JobKey,
    pub index: u32,
    pub generation: Generation,
}
