//! Intent minus reports: what the placer tells the nodes and the ledger next.
//!
//! A plan is a value in buckets, made from scratch each time; whoever carries it out notes what it told in the `View`,
//! so that the next plan does not say it again. In a settled world the plan is empty. The rules are PROTOCOL's; each is
//! named where it is kept.

mod amend;
mod choose;
mod copies;
mod elsewhere;
mod replace;
mod settle;

use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};

pub use elsewhere::failed_on;

use crate::{
    feasible::places,
    ids::{Generation, NodeId, TaskKey, Version},
    intent::Intent,
    ledger::Completion,
    obstacle::Obstacle,
    resources::Resources,
    task::TaskSpec,
    view::View,
};

/// What to do now, and for what is wanted and cannot be done, why.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Best first: highest priority, then in turn over owners.
    pub offers: Vec<PlannedOffer>,
    pub stops: Vec<PlannedStop>,
    pub keeps: Vec<Told>,
    pub restarts: Vec<PlannedRestart>,
    /// Other values for what runs.
    pub amends: Vec<PlannedAmend>,
    /// Records of ended tasks that nobody needs any more.
    pub forgets: Vec<(NodeId, TaskKey)>,
    /// Batch indexes that ended for good.
    pub complete: Vec<Completion>,
    /// Wanted, on no node, and not offered by this plan: each with at least one obstacle.
    pub pending: BTreeMap<TaskKey, Pending>,
    /// Run on in an old version, or where they fail again and again, and why they are not replaced now.
    pub stuck: BTreeMap<TaskKey, Arc<Vec<Obstacle>>>,
}

/// A task to offer; its generation is drawn by whoever sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedOffer {
    pub node: NodeId,
    pub key: TaskKey,
    pub version: Version,
    pub spec: TaskSpec,
    /// What its owner should know of this start: a sentence.
    pub remark: Option<String>,
}

/// Ends all generations up to this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStop {
    pub node: NodeId,
    pub key: TaskKey,
    pub generation: Generation,
    pub reason: String,
}

/// A copy that is meant as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub node: NodeId,
    pub key: TaskKey,
    pub generation: Generation,
}

/// A restart in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRestart {
    pub node: NodeId,
    pub key: TaskKey,
    pub generation: Generation,
    pub at: u64,
}

/// A change in place: the copy keeps its generation and its process.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedAmend {
    pub node: NodeId,
    pub key: TaskKey,
    pub generation: Generation,
    pub version: Version,
    pub spec: TaskSpec,
    /// What it asks for beyond what the copy has.
    pub more: Resources,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// It may run on a node that has not reported yet (PROTOCOL 11): `unknown`, not `pending`.
    pub unknown: bool,
    /// Shared by the equal tasks of a job.
    pub obstacles: Arc<Vec<Obstacle>>,
}

impl Plan {
    /// Whether there is nothing to do. (There may still be tasks that wait.)
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
            && self.stops.is_empty()
            && self.keeps.is_empty()
            && self.restarts.is_empty()
            && self.amends.is_empty()
            && self.forgets.is_empty()
            && self.complete.is_empty()
    }
}

/// The next steps of the whole cell. The same inputs give the same plan, in whatever order they were gathered.
pub fn plan(intent: &Intent, view: &View) -> Plan {
    let mut plan = Plan::default();
    let mut places = places(view);
    let copies = copies::survey(view);
    let mut jobs = settle::settle(intent, view, &copies, &mut plan);
    amend::amend(&mut jobs, view, &mut places, &mut plan);
    let jobs = choose::choose(jobs, view, &copies, &mut places, &mut plan);
    replace::replace(jobs, view, &mut places, &mut plan);
    plan
}
