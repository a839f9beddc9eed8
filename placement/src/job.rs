//! A job as its document says.

pub mod constraint;
pub mod container;
pub mod document;
pub mod expand;
mod field;
mod health;
pub mod name;
pub mod quantity;
pub mod signal;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

pub use field::{DocumentError, Step};
pub use health::{Check, Health, Probe};

use self::container::Container;
use crate::{
    ids::{BadId, JobKey},
    resources::Resources,
    task::TaskSpec,
};

/// How often a batch index may fail before it counts as failed for good. (The job file has no key for it yet.)
pub const BATCH_RETRIES: u32 = 3;

/// Borg's bands, lowest first. *prod* = the two highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    Free,
    Batch,
    Production,
    Monitoring,
}

impl Band {
    pub const ALL: [Band; 4] = [Band::Free, Band::Batch, Band::Production, Band::Monitoring];

    pub fn is_prod(self) -> bool {
        self >= Band::Production
    }

    /// The lowest priority in the band; a band holds 100 of them.
    pub fn lowest(self) -> u32 {
        match self {
            Band::Free => 0,
            Band::Batch => 100,
            Band::Production => 200,
            Band::Monitoring => 300,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Band::Free => "free",
            Band::Batch => "batch",
            Band::Production => "production",
            Band::Monitoring => "monitoring",
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Band {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        Band::ALL.into_iter().find(|b| b.as_str() == s).ok_or_else(|| BadId {
            text: s.to_string(),
            wanted: "a band: free, batch, production or monitoring",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Kept running.
    Service,
    /// Each index ends with success once.
    Batch,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Service => "service",
            Kind::Batch => "batch",
        })
    }
}

/// The comparison in a `require` or `prefer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Eq,
    Ne,
    In,
    Lt,
    Le,
    Gt,
    Ge,
}

/// `label OP value`, for instance `arch=x86_64`, `disk in (ssd,nvme)`, `kernel>=5.19`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub label: String,
    pub op: Op,
    /// One value, several for `in`.
    pub values: Vec<String>,
}

/// What one index runs: the `[task]` table, an `[[override]]` worked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub image: String,
    /// None: the image's own. `${VAR}`s as written.
    pub command: Option<Vec<String>>,
    pub env: BTreeMap<String, String>,
    pub limit: Resources,
    pub ports: Vec<String>,
    pub grace_ms: u64,
    /// Whether it lives: failures start it again.
    pub health: Option<Health>,
    /// Whether it can be used: failures only take it out of use.
    pub ready: Option<Health>,
    /// Whether it has come up: before this one's first success the others do not count.
    pub startup: Option<Health>,
    pub container: Container,
    /// Off: it counts with its limit, whatever it uses. Takes a grant.
    pub estimate: bool,
}

/// A job, read from its document. The document itself is what is stored and forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub name: String,
    pub kind: Kind,
    pub band: Band,
    pub priority: u32,
    pub count: u32,
    pub require: Vec<Constraint>,
    pub prefer: Vec<Constraint>,
    /// Labels over whose values tasks are spread, those with the fewest values first; `node` stands for the node itself.
    /// Empty: the node and those of `zone` and `rack` that the nodes declare.
    pub spread: Vec<String>,
    pub task: Template,
    /// Templates of the indexes that an `[[override]]` names, complete; indexes beyond the count are for later.
    pub overrides: BTreeMap<u32, Arc<Template>>,
}

/// An image of a job for which no digest was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image `{image}` has no digest; submit the job again to resolve it")]
pub struct Unresolved {
    pub image: String,
}

impl Template {
    /// Whether anything tells if it is well beside that it runs.
    pub fn is_checked(&self) -> bool {
        self.health.is_some() || self.ready.is_some() || self.startup.is_some()
    }
}

impl Job {
    /// What an index runs.
    pub fn template(&self, index: u32) -> &Template {
        self.overrides.get(&index).map_or(&self.task, |task| task)
    }

    /// Every image that an index may need, the ones beyond the count included.
    pub fn images(&self) -> BTreeSet<&str> {
        let overrides = self.overrides.values().map(|task| task.image.as_str());
        overrides.chain([self.task.image.as_str()]).collect()
    }

    /// What a node needs to run an index. `images`: reference to digest, from the submission; `restart_at`: the ledger
    /// index of the last restart asked for, 0 for none.
    pub fn task_spec(
        &self,
        index: u32,
        key: &JobKey,
        images: &BTreeMap<String, String>,
        restart_at: u64,
    ) -> Result<TaskSpec, Unresolved> {
        let task = self.template(index).clone();
        let digest = images.get(&task.image).ok_or_else(|| Unresolved { image: task.image.clone() })?;
        Ok(TaskSpec {
            job: key.clone(),
            kind: self.kind,
            band: self.band,
            priority: self.priority,
            digest: digest.clone(),
            image: task.image,
            command: task.command,
            env: task.env,
            limit: task.limit,
            ports: task.ports,
            grace_ms: task.grace_ms,
            health: task.health,
            ready: task.ready,
            startup: task.startup,
            container: task.container,
            estimate: task.estimate,
            restart_at,
            retries: if self.kind == Kind::Batch { BATCH_RETRIES } else { 0 },
        })
    }
}
