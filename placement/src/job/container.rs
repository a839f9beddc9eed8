//! What a task's container is like beside image, command, environment and the amounts it may use.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use super::signal::Signal;

/// How a container differs from a plain one, in which every field is as in `Container::default()`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// `USER[:GROUP]`, by name or number; none: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute; none: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "Network::is_host")]
    pub network: Network,
    /// Numbers that ports have inside a private network, by name; those that are absent have the node's number there too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inside: BTreeMap<String, u16>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    #[serde(skip_serializing_if = "Io::is_free")]
    pub io: Io,
    /// None: by its band.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Of production only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Disk that each of stdout and stderr may take, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Beside the main one, in the order in which they are written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    #[serde(skip_serializing_if = "Privileges::is_none")]
    pub privileges: Privileges,
}

impl Container {
    pub fn is_plain(&self) -> bool {
        *self == Container::default()
    }
}

/// Whether somebody waits for what a task does. Only within production it makes a difference: everything below it gives
/// way in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It has the CPU as soon as it wants it: production's default.
    Latency,
    /// It has what the others of its band leave.
    Batch,
}

/// Whose network a task uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The node's; its ports are allotted.
    #[default]
    Host,
    /// Its own, with its ports published on the node.
    Private,
    /// None but a loopback of its own.
    None,
}

impl Network {
    pub fn is_host(&self) -> bool {
        *self == Network::Host
    }
}

/// Block IO: the most of reads and of writes, each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Io {
    /// Operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
}

impl Io {
    pub fn is_free(&self) -> bool {
        *self == Io::default()
    }
}

/// Something mounted in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where: absolute.
    pub path: String,
    #[serde(flatten)]
    pub source: Source,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A directory of the node that stays with (job, index), by its name.
    Name(String),
    /// Memory, of so many bytes; it counts as the task's.
    Tmpfs(u64),
    /// A path of the node, read-only; needs a grant.
    Host(String),
}

/// A process of the task beside its main one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub kind: ProcessKind,
    pub command: Vec<String>,
}

/// When a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// Before the main process, one after the other; each must succeed.
    Init,
    /// Beside the main process, started again when it ends.
    Side,
    /// After the main process has ended, however it did.
    Final,
}

/// What a plain container may not do; each needs a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// Without `CAP_`, upper case: `NET_ADMIN`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Paths below `/dev`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Without a user namespace: root inside is root outside.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub host_users: bool,
}

impl Privileges {
    pub fn is_none(&self) -> bool {
        *self == Privileges::default()
    }
}
