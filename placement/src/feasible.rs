//! Which nodes can take a task, and for each that cannot, why.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};
use core::cmp::Ordering;

use crate::{
    ids::NodeId,
    job::{Band, Constraint, Op, Template},
    obstacle::{No, Obstacle},
    room::Room,
    task::Report,
    view::{NodeView, Standing, View},
};

/// A node allots ports from 20000 to 31999.
pub const PORTS: u32 = 12_000;
/// Values of a label that are named where none is what was asked for.
const VALUES: usize = 3;

/// A node as the plan goes: what earlier tasks of the same plan take is not free for later ones.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub id: NodeId,
    pub node: &'a NodeView,
    pub room: Room,
    ports: u32,
}

/// Every node of the view, in order of id.
pub fn places(view: &View) -> Vec<Place<'_>> {
    view.nodes
        .iter()
        .map(|(id, node)| Place { id: *id, node, room: node.room(), ports: node.ports() })
        .collect()
}

impl Place<'_> {
    /// Whether the amounts fit: what changes as the plan goes.
    pub fn fits(&self, band: Band, task: &Template) -> bool {
        self.room.shuts_out(band).is_none()
            && self.room.short_of(band, &task.limit).is_none()
            && self.ports + task.ports.len() as u32 <= PORTS
    }

    pub fn take(&mut self, band: Band, task: &Template) {
        self.room.take(band, &task.limit);
        self.ports += task.ports.len() as u32;
    }

    /// Gives back what a copy holds, as if it had ended.
    pub fn give(&mut self, copy: &Report) {
        self.room.give(copy.band, &copy.limit, &copy.reservation);
        self.ports = self.ports.saturating_sub(copy.ports.len() as u32);
    }

    /// Why nothing of the band can be offered to it now, whatever the task.
    pub fn closed(&self, band: Band) -> Option<No> {
        match self.node.standing {
            Standing::Live if self.node.draining => Some(No::Draining),
            Standing::Live => {
                let (resource, kept) = self.room.shuts_out(band)?;
                Some(No::Kept { resource: resource.to_string(), kept })
            }
            Standing::Unheard => Some(No::NotReported),
            Standing::Away => Some(No::Away),
            Standing::Gone => Some(No::Gone),
        }
    }

    /// The first constraint that it does not meet.
    pub fn unmet(&self, require: &[Constraint]) -> Option<No> {
        let unmet = require.iter().find(|c| !met(c, self.label(&c.label)))?;
        Some(No::Label {
            constraint: unmet.to_string(),
            label: unmet.label.clone(),
            value: self.label(&unmet.label).map(ToString::to_string),
        })
    }

    /// The node's value of a label.
    pub fn label(&self, label: &str) -> Option<&str> {
        self.node.label(label)
    }

    /// Whether the image with this digest is there already.
    pub fn holds(&self, digest: &str) -> bool {
        self.node.info.as_ref().is_some_and(|i| i.images.contains(digest))
    }

    /// Everything that it is short of.
    pub fn shortages(&self, band: Band, task: &Template) -> Vec<No> {
        let amounts = task.limit.0.iter().map(|(name, wanted)| (name, *wanted, self.room.of(band, name)));
        let mut nos: Vec<No> = amounts
            .filter(|(_, wanted, free)| wanted > free)
            .map(|(name, wanted, free)| No::Short {
                resource: name.clone(),
                wanted,
                free,
                capacity: self.room.capacity().get(name),
            })
            .collect();
        let (wanted, free) = (task.ports.len() as u64, u64::from(PORTS.saturating_sub(self.ports)));
        if wanted > free {
            nos.push(No::NoPort { wanted, free });
        }
        nos
    }
}

/// Whether a node with this value of the label meets the constraint. Only `!=` is met without the label.
pub fn met(constraint: &Constraint, value: Option<&str>) -> bool {
    let Some(value) = value else { return constraint.op == Op::Ne };
    let listed = constraint.values.iter().any(|v| v == value);
    let order = || compare(value, constraint.values.first().map_or("", String::as_str));
    match constraint.op {
        Op::Eq | Op::In => listed,
        Op::Ne => !listed,
        Op::Lt => order() == Some(Ordering::Less),
        Op::Le => order().is_some_and(Ordering::is_le),
        Op::Gt => order() == Some(Ordering::Greater),
        Op::Ge => order().is_some_and(Ordering::is_ge),
    }
}

/// Orders numbers and versions by their numeric parts: 5.9 < 5.19 = 5.19.0 < 6.1.0-18-amd64. None if one has none.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    let parts = |s: &str| -> Option<Vec<u64>> {
        let digits = |p: &str| p.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let mut numbers: Vec<u64> = s.split(['.', '-', '+', '_']).map_while(digits).collect();
        if numbers.is_empty() {
            return None;
        }
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(numbers)
    };
    Some(parts(a)?.cmp(&parts(b)?))
}

/// Obstacles of many nodes: equal ones become one; of shortages of one resource the least bad stands for all.
#[derive(Debug, Default)]
pub struct Obstacles {
    of: BTreeMap<Kind, Obstacle>,
}

/// What is told in one sentence.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Short(String),
    NoPort,
    Other(No),
}

impl Obstacles {
    pub fn add(&mut self, no: No, node: Option<&str>) {
        let entry = self.of.entry(kind(&no)).or_insert_with(|| Obstacle::everywhere(no.clone()));
        if free(&no) > free(&entry.no) {
            entry.no = no;
        }
        entry.nodes.extend(node.map(ToString::to_string));
    }

    /// One that was made before, with its nodes.
    pub fn add_all(&mut self, obstacle: Obstacle) {
        let of = self.of.get(&kind(&obstacle.no));
        let new = |node: &&String| of.is_none_or(|known| !known.nodes.contains(node));
        let new: Vec<String> = obstacle.nodes.iter().filter(new).cloned().collect();
        self.add(obstacle.no.clone(), None);
        self.of.entry(kind(&obstacle.no)).and_modify(|known| known.nodes.extend(new));
    }

    /// Of a constraint that no node meets one sentence is told instead of one for each node. A node of which nothing is
    /// known yet might meet it.
    pub fn sum_up(&mut self, places: &[Place<'_>], require: &[Constraint]) {
        let unknown = |p: &Place<'_>| p.node.info.is_none() && p.node.standing != Standing::Gone;
        if places.is_empty() || places.iter().any(unknown) {
            return;
        }
        for wanted in require {
            if places.iter().any(|p| met(wanted, p.label(&wanted.label))) {
                continue;
            }
            let text = wanted.to_string();
            self.of
                .retain(|_, told| !matches!(&told.no, No::Label { constraint, .. } if *constraint == text));
            let values: BTreeSet<&str> = places.iter().filter_map(|p| p.label(&wanted.label)).collect();
            let values = values.into_iter().take(VALUES).map(ToString::to_string).collect();
            self.add(No::Nowhere { constraint: text, label: wanted.label.clone(), values }, None);
        }
    }

    pub fn list(self) -> Vec<Obstacle> {
        self.of.into_values().collect()
    }
}

fn kind(no: &No) -> Kind {
    match no {
        No::Short { resource, .. } => Kind::Short(resource.clone()),
        No::NoPort { .. } => Kind::NoPort,
        other => Kind::Other(other.clone()),
    }
}

/// The node where least has to go comes first; where it could fit at all, before one that is too small.
fn free(no: &No) -> (bool, u64) {
    match no {
        No::Short { wanted, free, capacity, .. } => (capacity >= wanted, *free),
        No::NoPort { free, .. } => (true, *free),
        _ => (false, 0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn constraints() {
        for (text, value, is) in [
            ("arch=x86_64", Some("x86_64"), true),
            ("arch=x86_64", Some("aarch64"), false),
            ("arch=x86_64", None, false),
            ("disk!=hdd", None, true),
            ("disk!=hdd", Some("hdd"), false),
            ("zone in (a,b)", Some("b"), true),
            ("zone in (a,b)", Some("c"), false),
            ("kernel>=5.19", Some("6.1.0-18-amd64"), true),
            ("kernel>=5.19", Some("5.9"), false),
            ("kernel>5.19", Some("5.19.0"), false),
            ("kernel<=5.19", Some("5.19.0"), true),
            ("cores<8", Some("4"), true),
            ("cores<8", Some("many"), false),
        ] {
            assert_eq!(met(&text.parse().unwrap(), value), is, "{text} with {value:?}");
        }
    }
}
