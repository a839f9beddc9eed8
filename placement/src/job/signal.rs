//! What production says of itself: beyond it, its node takes room back from batch and free.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Looked at each second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    #[serde(flatten)]
    pub of: Figure,
    /// More than this is too much.
    pub above: u64,
    /// When it has been too much for so long.
    pub for_ms: u64,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figure {
    /// Percent of the time in which something of the task waits for it.
    Pressure { pressure: Pressure },
    /// What the task itself says: the largest value of `metric` in the text that it answers, as Prometheus reads it.
    Metric {
        /// Path, with the leading slash.
        http: String,
        /// Name of one of the task's ports.
        port: String,
        metric: String,
    },
}

/// What a task may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pressure {
    Cpu,
    Memory,
    Io,
}

impl Pressure {
    pub fn as_str(self) -> &'static str {
        match self {
            Pressure::Cpu => "cpu",
            Pressure::Memory => "memory",
            Pressure::Io => "io",
        }
    }
}

impl Signal {
    /// The name of the port that is asked, if one is.
    pub fn port(&self) -> Option<&str> {
        match &self.of {
            Figure::Metric { port, .. } => Some(port),
            Figure::Pressure { .. } => None,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Pressure { pressure } => write!(f, "percent of waiting for {}", pressure.as_str()),
            Figure::Metric { metric, .. } => f.write_str(metric),
        }
    }
}
