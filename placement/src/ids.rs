//! Names and orders of things: who, which, and which came later.

use alloc::string::{String, ToString};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct BadId {
    pub text: String,
    pub wanted: &'static str,
}

impl BadId {
    fn new(text: &str, wanted: &'static str) -> Self {
        BadId { text: text.to_string(), wanted }
    }
}

/// A node: the first 64 bits of its key's hash. Written as 16 hex digits, since JSON readers round large numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let bad = || BadId::new(s, "a node id of 16 hex digits");
        if s.len() != 16 {
            return Err(bad());
        }
        u64::from_str_radix(s, 16).map(NodeId).map_err(|_| bad())
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// The fingerprint (SHA-256, 64 hex digits) of the cell's authority. The cell's name is only a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellId(pub String);

/// Who asks. `root` is root on the local socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(pub String);

/// Chosen by the client, at random, once for each thing it wants done; repeating it does nothing more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

/// How people name a job: (owner, name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    pub owner: String,
    pub name: String,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A job as created once (PROTOCOL 1): a later job of the same name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    /// The cell generation in which it was created.
    pub cell: u64,
    /// The ledger index of the entry that created it.
    pub index: u64,
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cell, self.index)
    }
}

impl FromStr for Uid {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        numbers(s)
            .map(|[cell, index]| Uid { cell, index })
            .ok_or_else(|| BadId::new(s, "a job uid CELL.INDEX"))
    }
}

/// One index of one job as created once. Orders by job, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    pub uid: Uid,
    pub index: u32,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.uid, self.index)
    }
}

impl FromStr for TaskKey {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let bad = || BadId::new(s, "a task key CELL.INDEX.TASK");
        let [cell, index, task] = numbers(s).ok_or_else(bad)?;
        Ok(TaskKey { uid: Uid { cell, index }, index: u32::try_from(task).map_err(|_| bad())? })
    }
}

/// Orders the successive placements of a task (PROTOCOL 3): a later placer's always wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct Generation {
    pub cell: u64,
    /// Ledger index of the placer's own activation entry.
    pub activation: u64,
    pub seq: u64,
}

impl From<[u64; 3]> for Generation {
    fn from([cell, activation, seq]: [u64; 3]) -> Self {
        Generation { cell, activation, seq }
    }
}

impl From<Generation> for [u64; 3] {
    fn from(g: Generation) -> Self {
        [g.cell, g.activation, g.seq]
    }
}

impl Generation {
    /// The placer that made it.
    pub fn placer(&self) -> Activation {
        Activation { cell: self.cell, index: self.activation }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.cell, self.activation, self.seq)
    }
}

/// The ledger entry by which a placer begins to act; orders placers (PROTOCOL 3, 5, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Activation {
    pub cell: u64,
    pub index: u64,
}

/// A job's version: (cell generation of its commit, number), PROTOCOL 4. Numbers count from 1 within a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    pub cell: u64,
    pub number: u64,
}

fn numbers<const N: usize>(s: &str) -> Option<[u64; N]> {
    let mut out = [0; N];
    let mut parts = s.split('.');
    for slot in &mut out {
        *slot = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// As text, so that they can be keys of JSON maps.
macro_rules! serde_as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Uid, TaskKey);
