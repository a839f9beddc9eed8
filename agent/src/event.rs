//! All that can happen to a node's core, and all that it can want. The core does nothing by itself: shells turn the
//! world into an `Event`, and carry out each `Action` in order.

use std::collections::BTreeMap;

use gossip::wire::{FromAgent, Hello, SessionId, ToAgent, Welcome};
use placement::{
    ids::{Activation, Generation, TaskKey},
    job::{Band, Health},
    resources::Resources,
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
    /// What the tasks use now.
    Measured(BTreeMap<RunId, Resources>),
    /// The node's capacity changed.
    Capacity(Resources),
    /// The time last asked for by `WakeAt` has come.
    Woke,
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A phase before the container runs, to show: "unpacking hello:1".
    Phase(String),
    /// The container's init runs.
    Started { pid: u32 },
    /// It never ran; nothing is left of it. `transient`: trying again may help.
    StartFailed { why: String, transient: bool },
    /// An allotted port is in use by somebody else; nothing was started.
    PortBusy { port: u16 },
    /// It ran and ended.
    Exited(Ended),
    /// Bundle and cgroup are gone.
    Removed,
    /// A health check's result; the text says what was seen.
    Health { ok: bool, text: String },
}

/// How a container ended, as its shim wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The kernel killed in its cgroup for want of memory.
    pub oom: bool,
    /// The shim left no record.
    pub shim_lost: bool,
    pub at_ms: u64,
}

/// What the shells found at the agent's start for a run that has a bundle.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Shim and container are alive.
    Running {
        pid: u32,
    },
    /// The shim is alive, the container not started yet: a `Started`, `StartFailed` or `Exited` will follow.
    Starting,
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write all of it, durably, in one transaction; answered by `Stored`.
    Store {
        ticket: Ticket,
        changes: Vec<Change>,
    },
    /// The answer to the last `Hello`.
    Welcome(Welcome),
    /// On the current session.
    Send(FromAgent),
    Start(Box<StartRun>),
    /// To the container's init.
    Signal {
        run: RunId,
        signal: Signal,
    },
    /// Remove bundle and cgroup once the container is gone, but keep logs of the newest `keep` runs of the key.
    Remove {
        run: RunId,
    },
    /// Check health from now on: each result comes as `RunEvent::Health`.
    Probe {
        run: RunId,
        health: Health,
        port: u16,
    },
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
}

/// All that the runner needs to make a container.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRun {
    pub run: RunId,
    pub owner: String,
    /// Shown as the container's host name.
    pub hostname: String,
    /// `sha256:…`
    pub digest: String,
    /// None: the image's entrypoint and command. Variables are not expanded yet.
    pub command: Option<Vec<String>>,
    /// The task's own and covey's (COVEY_…, PORT_…); laid over the image's.
    pub env: BTreeMap<String, String>,
    pub band: Band,
    pub limit: Resources,
    /// Bind-tested by the runner before the start.
    pub ports: BTreeMap<String, u16>,
}

/// An event for people, before the shell adds time, node and number.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// `accepted`, `started`, `exited`, …: a word for filters.
    pub kind: &'static str,
    pub owner: String,
    pub job: String,
    pub index: u32,
    pub generation: Generation,
    /// A sentence.
    pub text: String,
}
