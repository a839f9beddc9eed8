//! Every *no* of placement, as a value that explains itself.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use crate::{
    ids::Generation,
    resources::{CPU, DISK, MEMORY},
};

/// Why a wanted task does not run, and on which nodes that holds: none for what holds everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub no: No,
    /// Names, in order of node id.
    pub nodes: Vec<String>,
}

/// One kind of no.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum No {
    /// The job's document, or its image: a sentence.
    Job(String),
    /// The cell has no node at all.
    NoNode,
    /// Of a node where it could start: too little are free. Wanted, free and capacity, in the resource's own unit.
    Short {
        resource: String,
        wanted: u64,
        free: u64,
        capacity: u64,
    },
    /// The node has less of it than it keeps for prod, and this is not prod.
    Kept {
        resource: String,
        kept: u64,
    },
    /// Too few free ports.
    NoPort {
        wanted: u64,
        free: u64,
    },
    /// A `require` that no node meets, and what nodes have instead.
    Nowhere {
        constraint: String,
        label: String,
        values: Vec<String>,
    },
    /// A `require` is not met by the node's value of that label.
    Label {
        constraint: String,
        label: String,
        value: Option<String>,
    },
    Gone,
    /// Has not reported to this placer.
    NotReported,
    /// Has not reported to this placer, and this index may run there (PROTOCOL 11).
    MayRun,
    /// Has no session with the placer now.
    Away,
    /// The node said no, or gave the task up: its sentence.
    Refused(String),
    /// It has its place, but does not run well there: a sentence.
    NotWell(String),
    /// Offered, and not answered yet.
    Offered,
    /// A copy of this index has to end first.
    Ending {
        generation: Generation,
    },
    /// It has ended, which the ledger does not say yet.
    Recording,
    /// It is to be rid of its tasks.
    Draining,
    /// The index of an older job of this name is not gone yet.
    OlderJob,
    /// The data of this volume is on one node, and it starts on no other.
    Volume {
        volume: String,
    },
    /// The present copy is not replaced while another index of the job is not well.
    Budget {
        index: u32,
    },
}

impl No {
    /// Whether it would be so however empty and lively the nodes were.
    pub fn for_good(&self) -> bool {
        match self {
            No::Job(_) | No::Nowhere { .. } | No::Label { .. } => true,
            No::Short { wanted, capacity, .. } => wanted > capacity,
            _ => false,
        }
    }
}

impl Obstacle {
    pub fn everywhere(no: No) -> Obstacle {
        Obstacle { no, nodes: Vec::new() }
    }

    pub fn on(no: No, node: &str) -> Obstacle {
        Obstacle { no, nodes: Vec::from([node.to_string()]) }
    }

    /// A sentence in the user's units.
    pub fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = Names(&self.nodes);
        let many = self.nodes.len() > 1;
        let (is, has) = if many { ("are", "have") } else { ("is", "has") };
        match &self.no {
            No::Job(text) => f.write_str(text),
            No::NoNode => f.write_str("the cell has no node"),
            No::Short { resource, wanted, free, capacity } => {
                let amounts = Amounts { resource, wanted: *wanted, free: *free, capacity: *capacity };
                let (name, wanted, left) = amounts.text();
                let most = if many { "at most " } else { "" };
                write!(f, "{name}: wants {wanted}, {most}{left} are free on {nodes}")
            }
            No::Kept { resource, kept } => {
                let (name, kept) = (units(resource).0, amount(resource, *kept));
                let keeps = if many { "keep" } else { "keeps" };
                write!(f, "{name}: {nodes} {has} less than {kept} left, and {keeps} that for production")
            }
            No::NoPort { wanted, free } => write!(f, "ports: wants {wanted}, {free} are free on {nodes}"),
            No::Nowhere { constraint, .. } if constraint.contains("!=") => {
                write!(f, "no node meets {constraint}")
            }
            No::Nowhere { constraint, label, values } => {
                write!(f, "no node has {constraint}")?;
                match values.as_slice() {
                    [] => Ok(()),
                    values => write!(f, ", only {label}={}", values.join(&format!(", {label}="))),
                }
            }
            No::Label { constraint, label, value: Some(value) } => {
                write!(f, "it requires {constraint}, and {label} is {value} on {nodes}")
            }
            No::Label { constraint, label, value: None } => {
                write!(f, "it requires {constraint}, and {nodes} {has} no label {label}")
            }
            No::Gone => write!(f, "{nodes} {is} gone"),
            No::Draining => write!(f, "{nodes} {is} being drained"),
            No::NotReported => write!(f, "{nodes} {has} not reported to the placer yet"),
            No::MayRun => {
                write!(f, "it may run on {nodes}, which {has} not reported to the new placer yet")
            }
            No::Away => write!(f, "{nodes} {has} no connection to the placer"),
            No::Refused(why) | No::NotWell(why) => write!(f, "{nodes}: {why}"),
            No::Offered => write!(f, "it was offered to {nodes}, which has not answered yet"),
            No::Ending { generation } => write!(f, "its copy {generation} on {nodes} has to end first"),
            No::Volume { volume } => write!(f, "the data of its volume {volume} is on {nodes}"),
            No::Recording => f.write_str("its end is being recorded"),
            No::OlderJob => write!(f, "an older job of this name has not ended on {nodes} yet"),
            No::Budget { index } => {
                write!(f, "its copy on {nodes} is replaced once index {index} runs well: one at a time")
            }
        }
    }
}

/// `n1`, `n1 and n2`, `n1, n2, n3 and 97 more`.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("any node"),
            [one] => f.write_str(one),
            [head @ .., last] if head.len() < 4 => write!(f, "{} and {last}", head.join(", ")),
            all => write!(f, "{} and {} more", all[..3].join(", "), all.len() - 3),
        }
    }
}

/// "memory: wants 9 GiB, 3.2 GiB are free", of a node whose capacity the speaker does not know.
pub fn shortage(resource: &str, wanted: u64, free: u64) -> String {
    let (name, unit) = units(resource);
    if wanted <= free {
        // It is not the amount that it is about.
        return format!("{name}: what is left is kept for production");
    }
    let (wanted, free) = (unit(wanted, Round::Up), unit(free, Round::Down));
    format!("{name}: wants {}, {} are free", join(&wanted), join(&free))
}

/// As a job file has it: `3.2GiB`, `250m`. Rounded down.
pub fn amount(resource: &str, amount: u64) -> String {
    match resource {
        CPU if amount.is_multiple_of(1000) => (amount / 1000).to_string(),
        CPU => format!("{amount}m"),
        _ => {
            let (number, unit) = bytes(amount, Round::Down);
            // A fraction of a MiB is of no use to anybody.
            let number =
                if unit == "GiB" { number.as_str() } else { number.split('.').next().unwrap_or(&number) };
            format!("{number}{unit}")
        }
    }
}

fn units(resource: &str) -> (&str, Unit) {
    match resource {
        MEMORY => ("memory", bytes),
        DISK => ("disk", bytes),
        CPU => ("cpu", cores),
        other => (other, plain),
    }
}

fn join((number, unit): &(String, &str)) -> String {
    match *unit {
        "" => number.clone(),
        unit => format!("{number} {unit}"),
    }
}

struct Amounts<'a> {
    resource: &'a str,
    wanted: u64,
    free: u64,
    capacity: u64,
}

impl Amounts<'_> {
    /// The resource's name, what is wanted, and "3.2 of 4 GiB". Wanted is rounded up and free down, so that the
    /// shortage still shows.
    fn text(&self) -> (&str, String, String) {
        let Amounts { resource, wanted, free, capacity } = *self;
        let (name, unit) = units(resource);
        let (free, capacity) = (unit(free, Round::Down), unit(capacity, Round::Down));
        let left = if free.1 == capacity.1 || free.0 == "0" {
            format!("{} of {}", free.0, join(&capacity))
        } else {
            format!("{} of {}", join(&free), join(&capacity))
        };
        (name, join(&unit(wanted, Round::Up)), left)
    }
}

/// A number to show, and its unit.
type Unit = fn(u64, Round) -> (String, &'static str);

#[derive(Clone, Copy, PartialEq)]
enum Round {
    Up,
    Down,
}

fn plain(amount: u64, _: Round) -> (String, &'static str) {
    (amount.to_string(), "")
}

fn cores(milli: u64, _: Round) -> (String, &'static str) {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    let text = text.trim_end_matches('0').trim_end_matches('.').to_string();
    (text, if milli == 1000 { "core" } else { "cores" })
}

fn bytes(amount: u64, round: Round) -> (String, &'static str) {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, size)) = UNITS.into_iter().find(|(_, size)| amount >= *size) else {
        return (amount.to_string(), "B");
    };
    let scaled = u128::from(amount) * 10;
    let tenths = match round {
        Round::Up => scaled.div_ceil(u128::from(size)),
        Round::Down => scaled / u128::from(size),
    };
    let number = match tenths % 10 {
        0 => format!("{}", tenths / 10),
        rest => format!("{}.{rest}", tenths / 10),
    };
    (number, unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn short(resource: &str, wanted: u64, free: u64, capacity: u64, nodes: &[&str]) -> String {
        let no = No::Short { resource: resource.into(), wanted, free, capacity };
        Obstacle { no, nodes: nodes.iter().map(|n| n.to_string()).collect() }.text()
    }

    #[test]
    fn in_the_users_units() {
        const G: u64 = 1 << 30;
        for (text, wanted) in [
            (
                short(MEMORY, 9 * G, 33 * G / 10, 4 * G, &["n1"]),
                "memory: wants 9 GiB, 3.2 of 4 GiB are free on n1",
            ),
            (short(MEMORY, G + 1, G, 4 * G, &["n1"]), "memory: wants 1.1 GiB, 1 of 4 GiB are free on n1"),
            (short(MEMORY, G, 0, 4 * G, &["n1"]), "memory: wants 1 GiB, 0 of 4 GiB are free on n1"),
            (short(MEMORY, G, 300 << 20, G, &["n1"]), "memory: wants 1 GiB, 300 MiB of 1 GiB are free on n1"),
            (
                short(CPU, 2500, 250, 4000, &["n1", "n2"]),
                "cpu: wants 2.5 cores, at most 0.25 of 4 cores are free on n1 and n2",
            ),
            (short("gpu", 2, 0, 1, &["n1"]), "gpu: wants 2, 0 of 1 are free on n1"),
        ] {
            assert_eq!(text, wanted);
        }
    }

    #[test]
    fn names_of_many_nodes() {
        let names: Vec<String> = (1..=100).map(|i| format!("n{i}")).collect();
        let text = |n: usize| Obstacle { no: No::Gone, nodes: names[..n].to_vec() }.text();
        assert_eq!(
            [text(1), text(3), text(100)],
            vec!["n1 is gone", "n1, n2 and n3 are gone", "n1, n2, n3 and 97 more are gone"][..]
        );
    }
}
