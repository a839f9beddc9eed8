//! Which of the nodes that can take a task is best.

use alloc::{collections::BTreeMap, string::ToString, vec::Vec};
use core::cmp::Reverse;

use crate::{
    feasible::{Place, met},
    ids::NodeId,
    job::{Constraint, Job, Template},
    resources::{CPU, MEMORY},
};

/// Greater is better, field by field. Ends with the node's id, so that no two are equal (DESIGN 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// How many of `prefer` are met.
    pub preferred: u32,
    /// How many tasks of the job are in the node's failure domains already, one number for all of `spread`.
    pub crowd: Reverse<u32>,
    /// What would be left over, unbalanced or unused: in thousandths of the node.
    pub left: Reverse<u64>,
    pub node: Reverse<NodeId>,
}

/// Where the tasks of one job are, for each label of its `spread`.
#[derive(Debug)]
pub struct Spread {
    /// For each label the domain of each place; None where the node does not have the label.
    domains: Vec<Vec<Option<usize>>>,
    /// For each label the tasks in each domain.
    counts: Vec<Vec<u32>>,
}

impl Spread {
    /// Of a job that has no task yet. By default over nodes, then over those of zone and rack that nodes declare.
    pub fn new(job: &Job, places: &[Place<'_>]) -> Spread {
        let default = || ["node", "zone", "rack"].map(ToString::to_string).to_vec();
        let labels = if job.spread.is_empty() { default() } else { job.spread.clone() };
        let domains: Vec<Vec<Option<usize>>> = labels.iter().map(|label| domains(label, places)).collect();
        let counts =
            domains.iter().map(|d| alloc::vec![0; d.iter().flatten().max().map_or(0, |m| m + 1)]).collect();
        Spread { domains, counts }
    }

    /// One more task of the job is on that place.
    pub fn add(&mut self, place: usize) {
        for (domains, counts) in self.domains.iter().zip(&mut self.counts) {
            if let Some(domain) = domains[place] {
                counts[domain] += 1;
            }
        }
    }

    fn crowd(&self, place: usize) -> u32 {
        let of =
            |(domains, counts): (&Vec<Option<usize>>, &Vec<u32>)| domains[place].map_or(0, |d| counts[d]);
        self.domains.iter().zip(&self.counts).map(of).sum()
    }
}

fn domains(label: &str, places: &[Place<'_>]) -> Vec<Option<usize>> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    places
        .iter()
        .map(|place| {
            let next = known.len();
            place.label(label).map(|value| *known.entry(value).or_insert(next))
        })
        .collect()
}

/// How good place number `at` is for one more task.
pub fn score(
    places: &[Place<'_>],
    at: usize,
    task: &Template,
    prefer: &[Constraint],
    spread: &Spread,
) -> Score {
    let place = &places[at];
    Score {
        preferred: prefer.iter().filter(|c| met(c, place.label(&c.label))).count() as u32,
        crowd: Reverse(spread.crowd(at)),
        left: Reverse(left_over(place, task)),
        node: Reverse(place.id),
    }
}

/// Best fit, balanced: the share of the node that stays free after the task, and as much again for each thousandth by
/// which free CPU and free memory differ, since one without the other is of no use.
fn left_over(place: &Place<'_>, task: &Template) -> u64 {
    let share = |name| {
        let left = place.room.get(name).saturating_sub(task.limit.get(name));
        let of = u128::from(place.capacity.get(name).max(1));
        u64::try_from(u128::from(left) * 1000 / of).unwrap_or(1000)
    };
    let (cpu, memory) = (share(CPU), share(MEMORY));
    (cpu + memory) / 2 + cpu.abs_diff(memory)
}
