//! Amounts of things that can run out.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
};
use serde::{Deserialize, Serialize};

/// Thousandths of a core.
pub const CPU: &str = "cpu_milli";
/// Bytes of memory.
pub const MEMORY: &str = "memory_bytes";
/// Bytes of disk: writable layer and logs.
pub const DISK: &str = "disk_bytes";

/// A map from a resource's name to an amount: the three above and any other that a node declares. A name that is
/// absent counts as 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resources(pub BTreeMap<String, u64>);

impl Resources {
    /// CPU in thousandths of a core, memory in bytes.
    pub fn new(cpu_milli: u64, memory_bytes: u64) -> Self {
        [(CPU, cpu_milli), (MEMORY, memory_bytes)].into_iter().collect()
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn set(&mut self, name: &str, amount: u64) {
        self.0.insert(name.to_string(), amount);
    }

    pub fn add(&mut self, other: &Resources) {
        other.0.iter().for_each(|(name, amount)| self.raise(name, *amount));
    }

    /// Adds to one of them.
    pub fn raise(&mut self, name: &str, by: u64) {
        match self.0.get_mut(name) {
            Some(mine) => *mine = mine.saturating_add(by),
            None => self.set(name, by),
        }
    }

    /// Takes from one of them; what would fall below 0 becomes 0.
    pub fn lower(&mut self, name: &str, by: u64) {
        if let Some(mine) = self.0.get_mut(name) {
            *mine = mine.saturating_sub(by);
        }
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes `other` away; what would fall below 0 becomes 0.
    pub fn sub(&mut self, other: &Resources) {
        other.0.iter().for_each(|(name, amount)| self.lower(name, *amount));
    }

    /// The first resource, in order of name, of which `self` has less than `wanted`: (name, wanted, here).
    pub fn short_of<'a>(&self, wanted: &'a Resources) -> Option<(&'a str, u64, u64)> {
        wanted
            .0
            .iter()
            .map(|(name, amount)| (name.as_str(), *amount, self.get(name)))
            .find(|(_, amount, here)| amount > here)
    }
}

impl<'a> FromIterator<(&'a str, u64)> for Resources {
    fn from_iter<I: IntoIterator<Item = (&'a str, u64)>>(items: I) -> Self {
        Resources(items.into_iter().map(|(name, amount)| (name.to_string(), amount)).collect())
    }
}
