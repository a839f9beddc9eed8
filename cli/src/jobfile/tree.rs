//! Where the parts of a document stand in its text.

use std::ops::Range;

use placement::job::Step;

/// A value's place, and those of what is in it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) span: Range<usize>,
    pub(super) inside: Inside,
}

#[derive(Debug)]
pub(super) enum Inside {
    Leaf,
    Array(Vec<Tree>),
    Table(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key alone.
    pub(super) at: Range<usize>,
    pub(super) value: Tree,
}

impl Tree {
    pub(super) fn leaf(span: Range<usize>) -> Self {
        Tree { span, inside: Inside::Leaf }
    }

    /// The place of `path`: of its last key if `key`, else of the value. What is not there has the place of the nearest
    /// thing around it.
    pub(super) fn locate(&self, path: &[Step], key: bool) -> Range<usize> {
        let mut here = self;
        let mut name = None;
        let mut found = 0;
        for step in path {
            let Some((at, tree)) = here.step(step) else { break };
            (name, here, found) = (Some(at), tree, found + 1);
        }
        // The span of a table is its header or all that is in it: its key says better what is meant.
        let table = matches!(here.inside, Inside::Table(_));
        match name {
            Some(at) if key || table || found < path.len() => at,
            Some(_) => here.span.clone(),
            None => self.span.start..self.span.start,
        }
    }

    /// The place of a step's key (of the value, in a list), and the value there.
    fn step(&self, step: &Step) -> Option<(Range<usize>, &Tree)> {
        match (&self.inside, step) {
            (Inside::Array(items), Step::Index(index)) => {
                items.get(*index).map(|item| (item.span.clone(), item))
            }
            (Inside::Table(entries), Step::Key(key)) => {
                entries.iter().find(|e| e.key == *key).map(|e| (e.at.clone(), &e.value))
            }
            _ => None,
        }
    }
}
