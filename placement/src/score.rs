//! Which of the nodes that can take a task is best.

use alloc::{collections::BTreeMap, string::ToString, vec::Vec};
use core::cmp::Reverse;

use crate::{
    feasible::{Place, met},
    ids::NodeId,
    job::{Band, Job, Template, document::MOST_SPREAD as MOST_LABELS},
    resources::{CPU, MEMORY},
};

/// Greater is better, field by field. Ends with the node's id, so that no two are equal (DESIGN 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// How many of `prefer` are met.
    pub preferred: u32,
    /// How many tasks of the job are in the node's failure domains already, the widest domain first.
    pub crowd: Reverse<Crowd>,
    /// Nobody has to make room.
    pub spares: bool,
    /// What would be left over, unbalanced or unused: in tenths of the node, then in thousandths. Nodes that fit about
    /// equally well differ by whether they hold the image.
    pub left: Reverse<u64>,
    pub image: bool,
    pub left_exact: Reverse<u64>,
    pub node: Reverse<NodeId>,
}

/// Tasks in a node's domains, one number for each label.
pub type Crowd = [u16; MOST_LABELS];

/// Where the tasks of one job are, for each label of its `spread`, the widest domains first: a job is even over racks
/// before it is even over nodes, also where one rack has more nodes than another.
#[derive(Debug)]
pub struct Spread {
    labels: Vec<Domains>,
}

#[derive(Debug)]
struct Domains {
    /// The domain of each place. Nodes without the label are one domain: nobody said that they fail apart.
    of: Vec<usize>,
    /// The tasks in each domain.
    counts: Vec<u16>,
}

impl Spread {
    /// Of a job that has no task yet. By default over nodes and over those of zone and rack that nodes declare.
    pub fn new(job: &Job, places: &[Place<'_>]) -> Spread {
        let default = || ["zone", "rack", "node"].map(ToString::to_string).to_vec();
        let labels = if job.spread.is_empty() { default() } else { job.spread.clone() };
        let mut labels: Vec<Domains> =
            labels.iter().take(MOST_LABELS).map(|label| Domains::new(label, places)).collect();
        labels.sort_by_key(|domains| domains.counts.len());
        Spread { labels }
    }

    /// One more task of the job is on that place.
    pub fn add(&mut self, place: usize) {
        for Domains { of, counts } in &mut self.labels {
            let count = &mut counts[of[place]];
            *count = count.saturating_add(1);
        }
    }

    fn crowd(&self, place: usize) -> Crowd {
        let mut crowd = Crowd::default();
        for (slot, domains) in crowd.iter_mut().zip(&self.labels) {
            *slot = domains.counts[domains.of[place]];
        }
        crowd
    }
}

impl Domains {
    fn new(label: &str, places: &[Place<'_>]) -> Domains {
        let mut known: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        let mut of = Vec::with_capacity(places.len());
        for place in places {
            let next = known.len();
            of.push(*known.entry(place.label(label)).or_insert(next));
        }
        Domains { of, counts: alloc::vec![0; known.len()] }
    }
}

/// How good place number `at` is for one more task, whose image has this digest.
pub fn score(
    places: &[Place<'_>],
    at: usize,
    job: &Job,
    task: &Template,
    digest: &str,
    spread: &Spread,
) -> Score {
    let place = &places[at];
    let left = left_over(place, job.band, task);
    Score {
        preferred: job.prefer.iter().filter(|c| met(c, place.label(&c.label))).count() as u32,
        crowd: Reverse(spread.crowd(at)),
        spares: !place.room.displaces(&task.limit),
        left: Reverse(left / 100),
        image: place.holds(digest),
        left_exact: Reverse(left),
        node: Reverse(place.id),
    }
}

/// Best fit, balanced: the share of the node that stays free after the task, and as much again for each thousandth by
/// which free CPU and free memory differ, since one without the other is of no use.
fn left_over(place: &Place<'_>, band: Band, task: &Template) -> u64 {
    let share = |name| {
        let left = place.room.of(band, name).saturating_sub(task.limit.get(name));
        let of = u128::from(place.room.capacity().get(name).max(1));
        u64::try_from(u128::from(left) * 1000 / of).unwrap_or(1000)
    };
    let (cpu, memory) = (share(CPU), share(MEMORY));
    (cpu + memory) / 2 + cpu.abs_diff(memory)
}
