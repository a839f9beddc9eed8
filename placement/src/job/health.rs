//! Checks of a running task, made by its node.

use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

/// A check that is made again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    #[serde(flatten)]
    pub probe: Probe,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// So many in a row make it unhealthy.
    pub failures: u32,
    /// Failures before the first success do not count for so long after the start.
    pub start_ms: u64,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Probe {
    /// `GET http://ADDRESS:PORT/PATH`: 200 to 399 is healthy.
    Http {
        /// Path, with the leading slash.
        http: String,
        /// Name of one of the task's ports.
        port: String,
    },
    /// Something accepts a connection.
    Tcp {
        /// Name of one of the task's ports.
        tcp: String,
    },
    /// A command in the task's container exits with 0.
    Command { command: Vec<String> },
}

impl Health {
    /// The name of the port that is checked, if one is.
    pub fn port(&self) -> Option<&str> {
        match &self.probe {
            Probe::Http { port, .. } | Probe::Tcp { tcp: port } => Some(port),
            Probe::Command { .. } => None,
        }
    }
}

/// What a task is checked for; each may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Whether it has come up: before its first success the others are not made, and after that this one is not.
    Startup,
    /// Whether it lives: failures start it again.
    Live,
    /// Whether it can be used: failures only say so.
    Ready,
}

impl Check {
    pub const ALL: [Check; 3] = [Check::Startup, Check::Live, Check::Ready];
}

/// By its key in a job file.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Startup => "startup",
            Check::Live => "health",
            Check::Ready => "ready",
        })
    }
}
