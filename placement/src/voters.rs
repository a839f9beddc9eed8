//! Who should vote on the ledger, and the one next step towards it.
//!
//! 1 voter for 1 or 2 nodes, 3 for 3 or 4, 5 from 5 on, over as many racks as can be had. The steps are small, since a
//! Raft library's bugs cluster round fast membership change: a node first learns (is sent the log without a vote), is
//! promoted once it has caught up, and who is not wanted any more loses its vote before it is forgotten. Nothing is done
//! while a majority of the present voters is not alive, and no step leaves it so.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// What the leader knows of a member of the roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it stands: what fails together has the same. All without a label stand together.
    pub rack: String,
    pub alive: bool,
    /// It is being drained, and so may be about to leave: it keeps no vote, and gets none.
    pub drained: bool,
    /// Since when it is so (alive or not), by the leader's monotonic clock, in milliseconds.
    pub since_ms: u64,
}

/// Calls of the leader's that a node has not answered, by the leader's monotonic clock, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// The first.
    pub since_ms: u64,
    /// The last.
    pub called_ms: u64,
}

impl Candidate {
    /// As a leader finds it that has no answer: dead to the ledger, whatever membership sees, unless it has come back since the
    /// last call.
    pub fn unless_silent(self, silence: Option<Silence>) -> Candidate {
        match silence {
            Some(Silence { called_ms, .. }) if self.alive && self.since_ms > called_ms => self,
            Some(Silence { since_ms, .. }) if self.alive => Candidate { alive: false, since_ms, ..self },
            Some(Silence { since_ms, .. }) => Candidate { since_ms: since_ms.min(self.since_ms), ..self },
            None => self,
        }
    }
}

/// Who holds which part in the ledger now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seats {
    /// Who asks; always wanted as a voter, since leading cannot be handed over.
    pub leader: NodeId,
    /// During a change: of the newer set.
    pub voters: BTreeSet<NodeId>,
    /// Voters of the older set while a change is half done.
    pub leaving: BTreeSet<NodeId>,
    /// Nodes that are sent the log without a vote, and whether they have caught up.
    pub learners: BTreeMap<NodeId, bool>,
}

/// How long a verdict has to stand before voters change for it, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// A node that has just come is not asked to vote yet.
    pub alive_ms: u64,
    /// A dead voter keeps its vote for so long: an agent's restart or a machine's hiccup replaces nobody.
    pub dead_ms: u64,
}

impl Default for Patience {
    /// With a verdict in 4 s, a cell of 5 can lose its next node some 10 s after the last; a new cell settles in less.
    fn default() -> Patience {
        Patience { alive_ms: 1_000, dead_ms: 5_000 }
    }
}

/// One change of who holds which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoterStep {
    /// Complete a change that a former leader left half done.
    Finish,
    /// Send it the log.
    Learn(NodeId),
    /// A learner that has caught up gets a vote.
    Promote(NodeId),
    /// A voter becomes a learner: it hears that it votes no more.
    Demote(NodeId),
    /// A learner is sent nothing any more.
    Forget(NodeId),
}

impl fmt::Display for VoterStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VoterStep::Finish => f.write_str("finish the change of voters"),
            VoterStep::Learn(node) => write!(f, "node {node} learns"),
            VoterStep::Promote(node) => write!(f, "node {node} votes"),
            VoterStep::Demote(node) => write!(f, "node {node} votes no more"),
            VoterStep::Forget(node) => write!(f, "node {node} learns no more"),
        }
    }
}

/// How many vote in a cell of so many nodes.
pub fn size(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// The next step, or none if the voters are as they should be, or must wait: for a learner to catch up, for a verdict to
/// stand, or for a majority. To be asked again when anything changed, and when [`Patience`] may have run out.
pub fn next_step(
    seats: &Seats,
    nodes: &BTreeMap<NodeId, Candidate>,
    patience: Patience,
    now_ms: u64,
) -> Option<VoterStep> {
    let alive = |id: &NodeId| *id == seats.leader || nodes.get(id).is_some_and(|node| node.alive);
    let majority = |set: &BTreeSet<NodeId>| set.iter().filter(|id| alive(id)).count() * 2 > set.len();
    if !majority(&seats.voters) || !(seats.leaving.is_empty() || majority(&seats.leaving)) {
        return None;
    }
    if !seats.leaving.is_empty() {
        return Some(VoterStep::Finish);
    }
    let wanted = wanted(seats, nodes, patience, now_ms);
    if let Some(id) = seats.learners.keys().find(|id| !wanted.contains(id)) {
        return Some(VoterStep::Forget(*id));
    }
    let missing: Vec<NodeId> = wanted.iter().filter(|id| !seats.voters.contains(id)).copied().collect();
    if let Some(id) = missing.iter().find(|id| !seats.learners.contains_key(id)) {
        return Some(VoterStep::Learn(*id));
    }
    let surplus: Vec<NodeId> = seats.voters.iter().filter(|id| !wanted.contains(id)).copied().collect();
    let mut ready = missing.iter().filter(|id| seats.learners.get(id) == Some(&true));
    if let Some(id) = ready.next() {
        // An even number of voters bears no more deaths than one fewer: it is passed through, not waited in.
        let even = seats.voters.len().is_multiple_of(2);
        let room = seats.voters.len() <= wanted.len();
        if room && (even || !surplus.is_empty() || ready.next().is_some()) {
            return Some(VoterStep::Promote(*id));
        }
    }
    // The dead first: that never costs a majority.
    let leave = surplus.iter().find(|id| !alive(id)).or_else(|| surplus.first())?;
    let mut rest = seats.voters.clone();
    rest.remove(leave);
    let replaced = missing.is_empty() || seats.voters.len() > wanted.len();
    let dead_weight = !alive(leave) && seats.voters.len().is_multiple_of(2);
    // Who lives stays while one of the rest is dead and it could not bear another death: that may be so already, and nobody
    // have noticed yet.
    let living = rest.iter().filter(|id| alive(id)).count();
    let bears = living == rest.len() || living.saturating_sub(1) * 2 > rest.len();
    ((replaced || dead_weight) && majority(&rest) && (bears || !alive(leave)))
        .then_some(VoterStep::Demote(*leave))
}

/// The next step of a leader that is about to leave, towards somebody else who votes and can lead; none if there is one,
/// or it has to catch up first.
pub fn successor(seats: &Seats, nodes: &BTreeMap<NodeId, Candidate>) -> Option<VoterStep> {
    if !seats.leaving.is_empty() {
        return Some(VoterStep::Finish);
    }
    let alive =
        |id: &NodeId| *id != seats.leader && nodes.get(id).is_some_and(|node| node.alive && !node.drained);
    if seats.voters.iter().any(alive) {
        return None;
    }
    let learner = seats.learners.iter().find(|(id, _)| alive(id));
    match learner {
        Some((id, caught_up)) => caught_up.then_some(VoterStep::Promote(*id)),
        None => nodes.keys().copied().find(|id| alive(id)).map(VoterStep::Learn),
    }
}

/// Who should vote: a pure function of what is seen, and of who votes already, since a change for its own sake is none.
pub fn wanted(
    seats: &Seats,
    nodes: &BTreeMap<NodeId, Candidate>,
    patience: Patience,
    now_ms: u64,
) -> BTreeSet<NodeId> {
    let counts = |id: &NodeId, node: &Candidate| {
        let since = now_ms.saturating_sub(node.since_ms);
        if node.drained {
            return false;
        }
        match (node.alive, seats.voters.contains(id)) {
            (true, true) => true,
            (true, false) => since >= patience.alive_ms || seats.learners.contains_key(id),
            (false, true) => since < patience.dead_ms,
            (false, false) => false,
        }
    };
    let mut present: BTreeMap<NodeId, &str> = nodes
        .iter()
        .filter(|(id, node)| **id == seats.leader || counts(id, node))
        .map(|(id, node)| (*id, node.rack.as_str()))
        .collect();
    let size = size(present.len());
    let mut wanted = BTreeSet::from([seats.leader]);
    let mut in_rack: BTreeMap<&str, usize> = BTreeMap::new();
    if let Some(rack) = present.remove(&seats.leader) {
        in_rack.insert(rack, 1);
    }
    while wanted.len() < size {
        let rank = |id: &NodeId, rack: &str| {
            let crowd = in_rack.get(rack).copied().unwrap_or(0);
            (crowd, !seats.voters.contains(id), !seats.learners.contains_key(id), *id)
        };
        let Some((id, rack)) =
            present.iter().map(|(id, rack)| (*id, *rack)).min_by_key(|(id, rack)| rank(id, rack))
        else {
            break;
        };
        present.remove(&id);
        *in_rack.entry(rack).or_default() += 1;
        wanted.insert(id);
    }
    wanted
}
