//! What runs of a job have taught about what its tasks need, from node to placer to the node that gets the next one. Pairs are
//! of CPU and memory, in millionths of the task's limit. Ages instead of times: clocks differ.

use std::collections::BTreeMap;

use placement::ids::JobKey;
use serde::{Deserialize, Serialize};

/// Of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLesson {
    pub job: JobKey,
    /// The highest use of any task.
    pub peak: [u32; 2],
    /// The mean use of any task.
    pub level: [u32; 2],
    /// How far its tasks use CPU at the same time as the others of their nodes: correlation, in millionths.
    #[serde(default)]
    pub together: u32,
    /// Since it was last confirmed, in seconds.
    pub age_s: u32,
    /// The longest that one task was watched, in seconds.
    pub seen_s: u32,
    /// Runs that have ended, and how long they lasted together.
    #[serde(default)]
    pub ended: u32,
    #[serde(default)]
    pub lived_s: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub indexes: BTreeMap<u32, IndexLesson>,
}

/// Of an index's last run, or of the one that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexLesson {
    pub peak: [u32; 2],
    pub level: [u32; 2],
    pub age_s: u32,
    pub seen_s: u32,
}
