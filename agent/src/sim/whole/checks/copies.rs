//! No node runs two copies of an index; and no two nodes do, but for what may run on a node that was given up.

use std::collections::{BTreeMap, BTreeSet};

use placement::ids::{Activation, Generation, JobKey, NodeId};

use super::{super::machine::Machine, Verdict};
use crate::event::RunId;

/// An index by its name (PROTOCOL 2): later jobs of the same name count as one.
pub(in super::super) type Name = (JobKey, u32);

#[derive(Default)]
pub(in super::super) struct Copies {
    on: BTreeMap<NodeId, BTreeMap<Name, RunId>>,
    /// Whom the present placer has given up.
    gone: (Option<Activation>, BTreeSet<NodeId>),
    /// What was offered before a node was last given up may run beside its replacement: nobody can know.
    excused: BTreeMap<NodeId, Generation>,
}

impl Copies {
    pub(super) fn on(&mut self, id: NodeId, machine: &Machine) -> Verdict {
        let mut here: BTreeMap<Name, RunId> = BTreeMap::new();
        for (run, container) in machine.living() {
            let name = (container.job.clone(), run.key.index);
            if let Some(other) = here.insert(name, run) {
                return Err(format!(
                    "{}/{} runs as {other} and {run} on n{}",
                    container.job, run.key.index, id.0
                ));
            }
        }
        if self.on.get(&id) == Some(&here) {
            return Ok(());
        }
        let new: Vec<Name> = here.keys().cloned().collect();
        self.on.insert(id, here);
        new.iter().try_for_each(|name| self.once(name))
    }

    fn once(&self, name: &Name) -> Verdict {
        let excused = |id: &NodeId, run: &RunId| self.given_up(*id, run.generation);
        let runs = self.on.iter().filter_map(|(id, here)| here.get(name).map(|run| (id, run)));
        let counted: Vec<_> = runs.filter(|(id, run)| !excused(id, run)).collect();
        match counted.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("{}/{} runs at once: {counted:?}, and nobody was given up", name.0, name.1)),
        }
    }

    /// Whether a node was given up since that was offered to it.
    pub(super) fn given_up(&self, id: NodeId, generation: Generation) -> bool {
        self.excused.get(&id).is_some_and(|until| generation <= *until)
    }

    /// Returns whether that is news.
    pub(super) fn gone(
        &mut self,
        by: Option<Activation>,
        gone: BTreeSet<NodeId>,
        newest: Generation,
    ) -> bool {
        let before = if self.gone.0 == by { std::mem::take(&mut self.gone.1) } else { BTreeSet::new() };
        let mut news = false;
        for id in gone.difference(&before) {
            self.excused.insert(*id, newest);
            news = true;
        }
        self.gone = (by, gone);
        news
    }

    pub(super) fn running(&self) -> BTreeMap<Name, Vec<(NodeId, RunId)>> {
        let mut all: BTreeMap<Name, Vec<(NodeId, RunId)>> = BTreeMap::new();
        for (id, here) in &self.on {
            here.iter().for_each(|(name, run)| all.entry(name.clone()).or_default().push((*id, *run)));
        }
        all
    }
}
