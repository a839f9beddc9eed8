//! A node as it describes itself.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Generation, NodeId, TaskKey, Version},
    job::Band,
    resources::Resources,
    room::Room,
};

/// Labels that an agent finds out by itself; `node` is the node's name. Any other is what its operators say.
pub const DETECTED: [&str; 8] = ["node", "arch", "kernel", "os", "cgroup", "cores", "cpu", "memory"];

/// What does not change while an agent runs, or seldom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub id: NodeId,
    pub name: String,
    pub addr: String,
    /// covey's version.
    pub version: String,
    /// Detected by the agent: arch, kernel, cgroup, …
    pub labels: BTreeMap<String, String>,
    pub capacity: Resources,
    /// Digests of the images that it holds whole: with equal fit it comes before a node that would have to fetch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub images: BTreeSet<String>,
    /// Volumes that stay with a job's index, by job (`OWNER/NAME`) and index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, BTreeMap<u32, Held>>,
    /// Tasks that failed here again and again, also when they have moved: until each is forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<Bad>,
}

/// The volumes of one index that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Of the newest copy that used them: where two nodes have volumes of one index, the later counts.
    pub generation: Generation,
    pub names: BTreeSet<String>,
    /// Disk that they take, as last measured.
    #[serde(default)]
    pub bytes: u64,
}

/// A task that failed on a node several times in a row. Its node remembers it for a while, so that any placer knows it, and
/// forgets it by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    pub key: TaskKey,
    /// Of the copy that failed: while it is there it asks for another node.
    pub generation: Generation,
    /// What failed: another version, or a later restart, is another matter.
    pub version: Version,
    pub restart_at: u64,
    /// In a row.
    pub times: u32,
    /// How it failed last.
    pub why: String,
    /// Wall time of the end of this memory, milliseconds since 1970: to show.
    pub until_ms: u64,
    /// It did not fail: its room was taken back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub reclaimed: bool,
}

impl Bad {
    /// The hour and minute until which other nodes come first.
    pub fn until(&self) -> String {
        let minutes = self.until_ms / 60_000;
        format!("{:02}:{:02} UTC", minutes / 60 % 24, minutes % 60)
    }
}

/// Sums over a band's tasks that hold resources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BandBook {
    pub limit: Resources,
    pub reservation: Resources,
}

/// A node's books: what its tasks may use and are believed to need, per band.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Books {
    pub bands: BTreeMap<Band, BandBook>,
    /// None while the node predicts nothing: then all count at their limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
    /// What the node itself has less of than it keeps free for prod, and how much it keeps: until there is more, no other
    /// band gets anything new.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub short: Resources,
}

/// What a node believes that its tasks will need at most, all together: of CPU and memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Predicted {
    /// Within the horizon of the node's estimates; less than the sum of the reservations, as peaks do not coincide.
    pub peak: Resources,
    /// How many of a thousand earlier predictions came true.
    #[serde(default)]
    pub confidence_permille: Resources,
    /// What the node keeps free beside that, so that production finds it when it wants more.
    #[serde(default)]
    pub kept: Resources,
}

impl Books {
    pub fn add(&mut self, band: Band, limit: &Resources, reservation: &Resources) {
        let book = self.bands.entry(band).or_default();
        book.limit.add(limit);
        book.reservation.add(reservation);
    }

    /// Sum of all limits.
    pub fn limits(&self) -> Resources {
        let mut sum = Resources::default();
        self.bands.values().for_each(|b| sum.add(&b.limit));
        sum
    }

    /// Sum of all reservations.
    pub fn reserved(&self) -> Resources {
        let mut sum = Resources::default();
        self.bands.values().for_each(|b| sum.add(&b.reservation));
        sum
    }

    /// What tasks to come may ask for.
    pub fn room(&self, capacity: &Resources) -> Room {
        let mut room = Room::new(capacity);
        room.reserve(&self.short);
        for (band, book) in &self.bands {
            room.take(*band, &book.limit);
        }
        if let Some(predicted) = &self.predicted {
            let mut held = predicted.peak.clone();
            held.add(&predicted.kept);
            room.predict(&held);
        }
        room
    }

    /// As if a task that is in them had ended.
    pub fn without(&mut self, band: Band, limit: &Resources, reservation: &Resources) {
        if let Some(book) = self.bands.get_mut(&band) {
            book.limit.sub(limit);
            book.reservation.sub(reservation);
        }
        if let Some(predicted) = self.predicted.as_mut() {
            predicted.peak.sub(reservation);
        }
    }
}
