//! What the placer has seen of the nodes: soft state, rebuilt by each placer from reports.
//!
//! Beside what nodes reported stands what the placer told them and has no answer to yet, since that decides what may be
//! told next: an unanswered offer holds its index (PROTOCOL 15), a stop is never taken back (16).

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};

use crate::{
    ids::{Generation, JobKey, NodeId, TaskKey, Version},
    job::Band,
    node::{Books, NodeInfo},
    resources::Resources,
    room::Room,
    task::Report,
};

/// All nodes of the roster, as one placer sees them at one time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Monotonic, milliseconds: ends the memory of refusals.
    pub now_ms: u64,
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Names of jobs that are older than this placer: their indexes may run on a node that has not reported yet
    /// (PROTOCOL 11).
    pub old_names: BTreeSet<JobKey>,
    /// Members that are alive have not reported yet, and are waited for before anything is placed: else whoever reports
    /// first gets everything.
    pub gathering: bool,
    /// Completions proposed to the ledger and not applied yet: these indexes are not started (PROTOCOL 26).
    pub completing: BTreeSet<TaskKey>,
}

impl View {
    /// Whether every member has reported in this activation, or is gone (PROTOCOL 11, 26).
    pub fn complete(&self) -> bool {
        self.nodes.values().all(|n| n.standing != Standing::Unheard)
    }
}

/// What the placer knows of a node's whereabouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Has not reported to this placer: anything may run there.
    #[default]
    Unheard,
    /// Has reported in the open session.
    Live,
    /// Has reported to this placer, but has no session now: what it reported counts on.
    Away,
    /// Dead, or silent for too long: what it reported counts no more.
    Gone,
}

/// One node of the roster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeView {
    pub name: String,
    pub standing: Standing,
    /// It is to be rid of its tasks, as the ledger says.
    pub draining: bool,
    /// Set by operators, in the ledger.
    pub labels: BTreeMap<String, String>,
    /// None until the first report.
    pub info: Option<NodeInfo>,
    pub books: Books,
    pub usage: Resources,
    /// One copy for each key, as last reported.
    pub tasks: BTreeMap<TaskKey, Report>,
    /// Offers without an answer.
    pub offers: BTreeMap<TaskKey, OpenOffer>,
    /// Stops that no report has shown done yet.
    pub stops: BTreeMap<TaskKey, Generation>,
    /// Told in the open session.
    pub kept: BTreeMap<TaskKey, Generation>,
    /// Told in the open session.
    pub forgotten: BTreeSet<TaskKey>,
    /// Told in the open session: up to which restart.
    pub restarted: BTreeMap<TaskKey, u64>,
    /// Changes in place that were told in the open session and have no answer.
    pub amended: BTreeMap<TaskKey, OpenAmend>,
    /// Up to which version a copy cannot be changed in place, as its node says.
    pub rigid: BTreeMap<TaskKey, Version>,
    /// Why the node does not get a task for now.
    pub refusals: BTreeMap<TaskKey, Refusal>,
}

/// An offer as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOffer {
    pub job: JobKey,
    pub generation: Generation,
    pub version: Version,
    pub band: Band,
    pub restart_at: u64,
    pub limit: Resources,
    pub ports: u32,
}

/// A change in place as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAmend {
    pub generation: Generation,
    pub version: Version,
    pub band: Band,
    /// What it asks for beyond what the copy has. What it gives back counts when the node has reported it.
    pub more: Resources,
}

/// A node refused a task, or failed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A sentence without the node's name.
    pub why: String,
    /// What was refused: another version, or a later restart, may be tried at once.
    pub version: Version,
    pub restart_at: u64,
    /// Counts until then.
    pub until_ms: u64,
    /// How often in a row.
    pub times: u32,
    /// More room on the node may change its mind sooner.
    pub for_room: bool,
}

impl NodeView {
    /// Room as the next offer finds it: what the node's books, open offers and changes leave.
    pub fn room(&self) -> Room {
        let Some(info) = &self.info else { return Room::default() };
        let mut room = self.books.room(&info.capacity);
        self.offers.values().for_each(|o| room.take(o.band, &o.limit));
        self.amended.values().for_each(|a| room.take(a.band, &a.more));
        room
    }

    /// The value of a label: as an operator says, else as the agent does; `node` is the node's name.
    pub fn label(&self, label: &str) -> Option<&str> {
        let declared = || self.info.as_ref().and_then(|i| i.labels.get(label));
        let value = self.labels.get(label).or_else(declared).map(String::as_str);
        value.or_else(|| (label == "node").then_some(self.name.as_str()))
    }

    /// All labels, whoever set them.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut all = self.info.as_ref().map(|i| i.labels.clone()).unwrap_or_default();
        all.extend(self.labels.clone());
        all
    }

    /// Ports in use or on offer.
    pub fn ports(&self) -> u32 {
        let used: usize =
            self.tasks.values().filter(|t| t.state.holds_resources()).map(|t| t.ports.len()).sum();
        self.offers.values().fold(used as u32, |sum, o| sum.saturating_add(o.ports))
    }

    /// What speaks against offering this to the node again now.
    pub fn refusal(&self, key: TaskKey, version: Version, restart_at: u64, now_ms: u64) -> Option<&Refusal> {
        let refusal = self.refusals.get(&key)?;
        let same = refusal.version == version && refusal.restart_at >= restart_at;
        (same && refusal.until_ms > now_ms).then_some(refusal)
    }

    /// Whether a stop that takes this generation is under way (PROTOCOL 16).
    pub fn stopping(&self, key: TaskKey, generation: Generation) -> bool {
        self.stops.get(&key).is_some_and(|stop| *stop >= generation)
    }
}
