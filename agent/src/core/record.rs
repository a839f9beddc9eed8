//! What a node writes down of a task before it answers for it (PROTOCOL 19). All that `restore` needs beside what it
//! finds running; sessions, tombstones and keeps are never in it.

use std::collections::BTreeMap;

use placement::{
    ids::{Generation, TaskKey, Version},
    job::container::Network,
    task::{Exit, State, TaskSpec},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub key: TaskKey,
    pub generation: Generation,
    pub version: Version,
    pub spec: TaskSpec,
    /// Kept over restarts in place.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// The newest run that may have been started: written before it is, so that no run is started twice.
    pub run: u32,
    /// Restarts in place, as users see them.
    #[serde(default)]
    pub restarts: u32,
    /// The ledger index of the newest restart that was done.
    #[serde(default)]
    pub restart_at: u64,
    /// Failures of a batch task, against its `retries`.
    #[serde(default)]
    pub failures: u32,
    /// How the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Succeeded or failed: final, kept until the placer says forget (or, a failure, stop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What its owner should know of this copy as long as it lives: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Wall time of the last change of state that was written, milliseconds since 1970.
    pub since_ms: u64,
    /// Told to end for good: a stop survives the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
    /// What a newer version gives it where it is, while that is not in force yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<Next>>,
    /// What is known of its newest run's health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
    /// What a newer agent wrote and this one does not know.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Record {
    /// The number that one of its ports has where it runs.
    pub(crate) fn port_inside(&self, name: &str) -> Option<u16> {
        let container = &self.spec.container;
        let inside = container.inside.get(name).filter(|_| container.network == Network::Private);
        inside.or_else(|| self.ports.get(name)).copied()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    pub reason: String,
    /// Wall time of the first SIGTERM; a success before it is a success (PROTOCOL 25).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_ms: Option<u64>,
}

/// What the checks of a run have said, as far as they had made up their minds: an agent that finds it running goes on from
/// there, and need not find out anew what was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub run: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
}

/// A change in place (`Order::Amend`): on disk before it is carried out, so that an agent that dies in between ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    pub version: Version,
    pub spec: TaskSpec,
}
