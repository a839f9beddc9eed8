//! What `covey doctor` has each node find out: about itself, and whether it reaches the others.

use placement::ids::NodeId;
use serde::{Deserialize, Serialize};

/// One node's findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    pub node: NodeId,
    pub name: String,
    /// covey's version.
    pub version: String,
    /// The last entry of the ledger that it has applied.
    pub applied: u64,
    pub voter: bool,
    /// It acts as the placer.
    pub places: bool,
    /// Its ledger cannot be written.
    #[serde(default)]
    pub broken: bool,
    /// Another process runs with its id.
    #[serde(default)]
    pub twin: bool,
    /// Of the file system with its data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// When the others accept its certificate no more: wall time, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends_ms: Option<u64>,
    /// As the placer: members that membership sees and that do not report.
    #[serde(default)]
    pub silent: Vec<NodeId>,
    /// What its agent has warned of since it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warned>,
    pub reaches: Vec<Reach>,
}

/// Something that a node cannot do as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// A sentence.
    pub text: String,
    /// When that was last noticed: wall time, milliseconds since 1970.
    pub at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub free_bytes: u64,
    pub size_bytes: u64,
    /// Whether the kernel shares its time by weight, so that production comes before batch and free; none if nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighed: Option<bool>,
}

/// How it reaches another node: there and back, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    pub node: NodeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// By how much the other's wall clock is ahead, in milliseconds; as sure as half the way there and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
