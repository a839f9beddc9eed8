//! Images between nodes: a name becomes a digest, a node that lacks a blob gets it from one that has it, and what was
//! loaded is kept on several.
//!
//! Nothing that came from a peer is seen by anybody before its digest and size are what was wanted (`oci::content`).
//! Contents go over streams of their own, in pieces, at a lower priority than all else between two nodes.

mod ask;
mod copies;
mod fetch;
mod flight;
mod keep;
mod login;
mod names;
mod prune;
mod pull;
mod pulled;
pub mod registry;
mod serve;
mod transfer;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use oci::{content::Store, digest::Digest};
use placement::ids::NodeId;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use self::registry::Registries;
pub use self::{
    copies::{Kept, Step},
    fetch::FetchError,
    flight::{Fetched, Phase},
    keep::keep,
    login::LoggedIn,
    names::{CellName, CellNames, Removed},
    prune::{Pruned, Rules, tidy},
    pulled::{FILE, Moved, Pulled},
    serve::answer,
};
use crate::{cell::Cell, daemon::inbox::NodeHandle, event::Event, journal::Journal};

/// Blobs that come in at once. Together they hold at most half of what a connection lets wait unread (a stream's window
/// is an eighth of it): the other half is for what must not wait.
const INCOMING: usize = 4;
/// Blobs that are given away at once. Whoever else asks waits a moment, then looks for another node.
const OUTGOING: usize = 8;
/// Of the digests in a node's report.
const REPORTED: usize = 256;

/// How long others are waited for. Tests have less patience.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// For an answer to a question.
    pub answer: Duration,
    /// For the first byte of a blob, and for each piece of it (see `transfer`).
    pub piece: Duration,
    /// Before nodes are asked again for what none of them had; doubles up to thirty times that.
    pub again: Duration,
    /// Between two looks at whether there are copies enough.
    pub keep: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            answer: Duration::from_secs(1),
            piece: Duration::from_secs(5),
            again: Duration::from_millis(500),
            keep: Duration::from_secs(60),
        }
    }
}

/// The images of this node, and the way to those of the others. Clones are the same.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    node: NodeHandle,
    journal: Journal,
    pace: Pace,
    cell: Cell,
    registries: Registries,
    /// Images that are being fetched.
    flights: Mutex<BTreeMap<Digest, watch::Sender<Phase>>>,
    /// One at a time brings in the same blob, for whichever image.
    turns: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    /// Blobs that this node brings in from a registry (true), or is about to.
    coming: Mutex<BTreeMap<Digest, bool>>,
    /// How many blobs each node gives to this one now.
    givers: Mutex<BTreeMap<NodeId, usize>>,
    incoming: Semaphore,
    outgoing: Semaphore,
    /// Came from others since the agent's start.
    fetched: Mutex<BTreeSet<Digest>>,
    /// Counts each time that an image may have become available, here or elsewhere.
    changed: watch::Sender<u64>,
}

impl Images {
    pub fn new(
        store: Arc<Store>,
        node: NodeHandle,
        journal: Journal,
        cell: Cell,
        registries: Registries,
    ) -> Images {
        Images::with_pace(store, node, journal, cell, registries, Pace::default())
    }

    pub fn with_pace(
        store: Arc<Store>,
        node: NodeHandle,
        journal: Journal,
        cell: Cell,
        registries: Registries,
        pace: Pace,
    ) -> Images {
        Images(Arc::new(Inner {
            store,
            node,
            journal,
            cell,
            registries,
            pace,
            flights: Mutex::default(),
            turns: Mutex::default(),
            coming: Mutex::default(),
            givers: Mutex::default(),
            incoming: Semaphore::new(INCOMING),
            outgoing: Semaphore::new(OUTGOING),
            fetched: Mutex::default(),
            changed: watch::Sender::new(0),
        }))
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// Each time that an image may have become available, here or elsewhere.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The digests of the images that are whole here, for the node's report: so many at most, the named ones first.
    pub async fn here(&self) -> BTreeSet<String> {
        let used = self.0.node.read(|core| core.reports()).await.unwrap_or_default();
        let images = self.clone();
        let whole = spawn_blocking(move || {
            let named = images.0.store.list().map(|listing| listing.names).unwrap_or_default();
            let fetched = locked(&images.0.fetched).clone();
            let used = used.iter().filter_map(|report| report.digest.parse().ok());
            let mut seen = BTreeSet::new();
            let all = named.into_iter().map(|named| named.digest).chain(fetched).chain(used);
            let whole = all.filter(|digest| seen.insert(*digest) && images.is_whole(digest));
            whole.take(REPORTED).map(|digest| digest.to_string()).collect()
        });
        whole.await.unwrap_or_default()
    }

    /// Whether nothing of the image is missing.
    fn is_whole(&self, digest: &Digest) -> bool {
        self.0.store.missing(digest).is_ok_and(|missing| missing.is_empty())
    }

    fn touch(&self) {
        self.0.changed.send_modify(|times| *times += 1);
    }

    /// A node's name, to show.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.0.cell.name(node)
    }

    fn names(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        let mut names: Vec<String> = nodes.into_iter().map(|node| self.name(node)).collect();
        names.sort();
        names
    }
}

/// Tells the node's loop what images are here, for its reports. For as long as the agent runs.
pub async fn report(images: Images, node: NodeHandle) {
    let mut changed = images.changed();
    loop {
        changed.mark_unchanged();
        node.tell(Event::Images(images.here().await));
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Locked for look-ups only, never across an await; a panic elsewhere leaves the maps whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `h1, h2 and h3`.
fn listed(names: &[String]) -> String {
    match names {
        [] => "nobody".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `40 MiB`, `1.5 GiB`: to show.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (1..UNITS.len()).rev().find(|unit| n >= 1 << (10 * unit)).unwrap_or(0);
    let whole = n >> (10 * unit);
    match unit {
        0 => format!("{n} B"),
        unit if whole < 10 => format!("{whole}.{} {}", ((n * 10) >> (10 * unit)) % 10, UNITS[unit]),
        unit => format!("{whole} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 40 << 20, 3 << 30, 1 << 50].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "40 MiB", "3.0 GiB", "1024 TiB"]);
    }

    #[test]
    fn lists_are_sentences() {
        let names = ["a", "b", "c"].map(String::from);
        assert_eq!(listed(&names), "a, b and c");
        assert_eq!(listed(&names[..1]), "a");
    }
}
