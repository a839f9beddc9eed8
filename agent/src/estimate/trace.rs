//! What tasks used over time, as a trace tells it: nodes, their tasks, samples in order.

use std::collections::BTreeMap;

use placement::job::Band;

use super::Amounts;

/// One task at one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    pub time_ms: u64,
    pub node: &'a str,
    pub task: &'a str,
    pub band: Band,
    /// Milli-CPU, and memory in any unit that the whole trace keeps to.
    pub limit: Amounts,
    pub usage: Amounts,
}

/// Why a row does not fit behind those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("time {time_s} s is before the last row's {last_s} s: a trace is sorted by time")]
    Unsorted { time_s: u64, last_s: u64 },
    #[error("task {task} of node {node} has a second row for time {time_s} s")]
    Twice { task: String, node: String, time_s: u64 },
}

/// A task's sample. Single precision holds whole numbers to 16 million, and halves what a month of samples takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Of its node's tasks.
    pub(super) task: u32,
    pub(super) limit: [f32; 2],
    pub(super) usage: [f32; 2],
}

/// A task of a node, by its name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) band: Band,
}

/// A node's samples: one group for each time at which it has any.
#[derive(Debug)]
pub(super) struct NodeTrace {
    pub(super) name: String,
    pub(super) tasks: Vec<Named>,
    places: BTreeMap<String, u32>,
    pub(super) times_ms: Vec<u64>,
    /// Where each time's samples begin.
    begins: Vec<usize>,
    samples: Vec<Sample>,
    /// The last time at which each task had a sample.
    seen_ms: Vec<u64>,
}

impl NodeTrace {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tasks: Vec::new(),
            places: BTreeMap::new(),
            times_ms: Vec::new(),
            begins: Vec::new(),
            samples: Vec::new(),
            seen_ms: Vec::new(),
        }
    }

    /// The samples of the node's `at`-th time.
    pub(super) fn at(&self, at: usize) -> &[Sample] {
        let end = self.begins.get(at + 1).copied().unwrap_or(self.samples.len());
        &self.samples[self.begins[at]..end]
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Misfit> {
        let task = match self.places.get(row.task) {
            Some(&task) if self.seen_ms[task as usize] == row.time_ms => {
                return Err(Misfit::Twice {
                    task: row.task.to_owned(),
                    node: row.node.to_owned(),
                    time_s: row.time_ms / 1000,
                });
            }
            Some(&task) => task,
            None => {
                let task = self.tasks.len() as u32;
                self.places.insert(row.task.to_owned(), task);
                self.tasks.push(Named { name: row.task.to_owned(), band: row.band });
                self.seen_ms.push(row.time_ms);
                task
            }
        };
        self.seen_ms[task as usize] = row.time_ms;
        if self.times_ms.last() != Some(&row.time_ms) {
            self.times_ms.push(row.time_ms);
            self.begins.push(self.samples.len());
        }
        let single = |amounts: Amounts| amounts.map(|amount| amount as f32);
        self.samples.push(Sample { task, limit: single(row.limit), usage: single(row.usage) });
        Ok(())
    }
}

/// A whole trace, in memory.
#[derive(Debug, Default)]
pub struct Trace {
    pub(super) nodes: Vec<NodeTrace>,
    places: BTreeMap<String, usize>,
    last_ms: u64,
    rows: usize,
}

impl Trace {
    /// Adds the next row.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), Misfit> {
        if row.time_ms < self.last_ms {
            return Err(Misfit::Unsorted { time_s: row.time_ms / 1000, last_s: self.last_ms / 1000 });
        }
        self.last_ms = row.time_ms;
        self.rows += 1;
        if let Some(&place) = self.places.get(row.node) {
            return self.nodes[place].push(row);
        }
        self.places.insert(row.node.to_owned(), self.nodes.len());
        let mut node = NodeTrace::new(row.node);
        let pushed = node.push(row);
        self.nodes.push(node);
        pushed
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many predictions a policy makes: one for each node and time.
    pub fn moments(&self) -> usize {
        self.nodes.iter().map(|node| node.times_ms.len()).sum()
    }
}
