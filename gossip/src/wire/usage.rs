//! What is told of limits, reservations and use.

use placement::{job::Band, task::Cause};
use serde::{Deserialize, Serialize};

/// What the tasks of a cell are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    Band,
    Owner,
    Job,
    Node,
    /// Each for itself.
    Task,
}

impl UsageBy {
    pub const ALL: [UsageBy; 5] = [UsageBy::Band, UsageBy::Owner, UsageBy::Job, UsageBy::Node, UsageBy::Task];

    pub fn as_str(self) -> &'static str {
        match self {
            UsageBy::Band => "band",
            UsageBy::Owner => "owner",
            UsageBy::Job => "job",
            UsageBy::Node => "node",
            UsageBy::Task => "task",
        }
    }
}

/// How many runs of a band's tasks ended on a node by one cause, not by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub band: Band,
    pub cause: Cause,
    /// In the last hour.
    pub hour: u32,
    /// In the last day.
    pub day: u32,
    /// Of the day's, those that the node told to end by SIGTERM.
    #[serde(default)]
    pub told: u32,
    /// Of these, those that ended by themselves then, or had their whole grace before SIGKILL.
    #[serde(default)]
    pub notified: u32,
}
