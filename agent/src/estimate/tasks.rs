//! The tasks of a node, sorted by name: a vector, since a tree would leave a third of its memory empty.

use serde::{Deserialize, Serialize};

use super::task::{Known, TaskId};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Tasks(Vec<Known>);

impl Tasks {
    fn place(&self, task: &TaskId) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.task.cmp(task))
    }

    pub(super) fn get(&self, task: &TaskId) -> Option<&Known> {
        self.place(task).ok().map(|place| &self.0[place])
    }

    pub(super) fn get_mut(&mut self, task: &TaskId) -> Option<&mut Known> {
        self.place(task).ok().map(|place| &mut self.0[place])
    }

    pub(super) fn insert(&mut self, known: Known) {
        match self.place(&known.task) {
            Ok(place) => self.0[place] = known,
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, known);
            }
        }
    }

    /// Those that the last list did not have: they are here no more.
    pub(super) fn take_unlisted(&mut self) -> Vec<Known> {
        self.0.extract_if(.., |known| !known.listed).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        self.0.iter_mut()
    }
}
