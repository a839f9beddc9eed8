//! A task: one index of a job, its states, and how it ended.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Generation, JobKey, TaskKey, Version},
    job::{Band, Check, Health, Kind, container::Container},
    resources::Resources,
};

/// Where a task stands, as users see it (INTERFACES).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Wanted, and on no node yet.
    Pending,
    /// Accepted by a node: image, rootfs, container, or waiting out a back-off.
    Starting,
    Running,
    /// Told to end, not yet gone.
    Stopping,
    Succeeded,
    Failed,
    /// Its node is gone.
    Lost,
    /// It may or may not run somewhere: not everybody has reported to a new placer.
    Unknown,
}

impl State {
    /// Whether a copy in this state still holds its share of the node (PROTOCOL 20).
    pub fn holds_resources(self) -> bool {
        matches!(self, State::Starting | State::Running | State::Stopping)
    }

    pub fn is_final(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Lost)
    }

    /// Whether the life of a task has this edge: DESIGN 3 and 4, Borg's figure 2.
    pub fn may_become(self, next: State) -> bool {
        use State::*;
        match self {
            Pending => matches!(next, Starting | Unknown),
            // Back to `Pending`: the node refused it, or gave it up before it ran.
            Starting => matches!(next, Running | Stopping | Succeeded | Failed | Lost | Unknown | Pending),
            Running => matches!(next, Starting | Stopping | Succeeded | Failed | Lost | Unknown),
            // Back to `Starting`: stopped in order to start again (restart, unhealthy).
            Stopping => matches!(next, Starting | Succeeded | Failed | Lost | Unknown | Pending),
            Unknown => !matches!(next, Unknown),
            Succeeded => false,
            Failed | Lost => matches!(next, Pending | Starting),
        }
    }
}

/// Why a task's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// By itself.
    #[serde(rename = "exited")]
    Exited,
    /// Somebody asked for it.
    #[serde(rename = "stopped")]
    Stopped,
    #[serde(rename = "unhealthy")]
    Unhealthy,
    /// It reached its own memory limit.
    #[serde(rename = "oom.limit")]
    OomLimit,
    /// The node took reclaimed room back.
    #[serde(rename = "reclaimed")]
    Reclaimed,
    /// The kernel chose it when the machine was short.
    #[serde(rename = "oom.host")]
    OomHost,
    #[serde(rename = "preempted")]
    Preempted,
    #[serde(rename = "disk")]
    Disk,
    #[serde(rename = "node_lost")]
    NodeLost,
    /// The shim ended without an exit record.
    #[serde(rename = "shim_lost")]
    ShimLost,
}

/// How a run of a task ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub cause: Cause,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.code == Some(0) && self.cause == Cause::Exited
    }
}

/// All that a node needs to run one index: the job's template with the index's overrides and digests filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub job: JobKey,
    pub kind: Kind,
    pub band: Band,
    pub priority: u32,
    /// As the user wrote it, to show.
    pub image: String,
    /// What runs: `sha256:…`.
    pub digest: String,
    /// None: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub limit: Resources,
    /// Names of the ports to allot.
    #[serde(default)]
    pub ports: Vec<String>,
    pub grace_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Health>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Health>,
    #[serde(default, skip_serializing_if = "Container::is_plain")]
    pub container: Container,
    /// Whether its node may count it with less than its limit, as it comes to know it.
    #[serde(default = "usual", skip_serializing_if = "is_usual")]
    pub estimate: bool,
    /// The ledger index of the last `restart` that somebody asked for this index; 0: none.
    #[serde(default)]
    pub restart_at: u64,
    /// How often a batch task may fail before it counts as failed for good.
    #[serde(default)]
    pub retries: u32,
}

fn usual() -> bool {
    true
}

fn is_usual(estimate: &bool) -> bool {
    *estimate
}

impl TaskSpec {
    pub fn check(&self, check: Check) -> Option<&Health> {
        match check {
            Check::Startup => self.startup.as_ref(),
            Check::Live => self.health.as_ref(),
            Check::Ready => self.ready.as_ref(),
        }
    }

    pub fn is_checked(&self) -> bool {
        Check::ALL.iter().any(|check| self.check(*check).is_some())
    }
}

/// One copy of a task as its node reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub key: TaskKey,
    pub job: JobKey,
    pub kind: Kind,
    pub band: Band,
    pub priority: u32,
    pub generation: Generation,
    pub version: Version,
    pub state: State,
    pub image: String,
    pub digest: String,
    pub pid: Option<u32>,
    pub ports: BTreeMap<String, u16>,
    /// Its own, in its node's private network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Restarts in place within this generation.
    pub restarts: u32,
    pub restart_at: u64,
    /// By all of its checks. None: there is none, or not known yet.
    pub healthy: Option<bool>,
    /// It may be used: it runs, was not told to end, and every check of it says so.
    #[serde(default)]
    pub ready: bool,
    /// Wall time of the last change of state, milliseconds since 1970.
    pub since_ms: u64,
    /// A sentence.
    pub reason: Option<String>,
    pub exit: Option<Exit>,
    pub limit: Resources,
    pub reservation: Resources,
    pub usage: Resources,
    /// None: it has not been looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strain: Option<Strain>,
}

/// How a task fares, by its node's last look. What the node's kernel does not tell is absent. Shares of time are in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Strain {
    /// The most that this run has used, pages of files included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// Read and written on block devices, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_bytes_per_second: Option<u64>,
    /// Held back by its CPU limit; more than one processor can be at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_permille: Option<u64>,
    /// Some process of it waited for CPU, for memory, for IO.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for_cpu_permille: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for_memory_permille: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for_io_permille: Option<u64>,
}
