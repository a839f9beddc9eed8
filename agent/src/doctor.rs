//! What is wrong with a cell, from what its nodes found out: pure. Each finding says what it means and what to do.

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::examine::{Examined, Reach};
use placement::{ids::NodeId, voters};
use serde::Serialize;

/// Clocks that are apart by more, in milliseconds, mislead people and let tokens expire at the wrong time.
const APART_MS: i64 = 2_000;
/// A copy of the ledger that lags by more entries does not follow.
const BEHIND: u64 = 100;
/// A disk with less free than both is full soon.
const FREE_BYTES: u64 = 512 << 20;
const FREE_SHARE: u64 = 20;
/// A certificate is renewed at half of its seven days: one that ends so soon was not, for days.
const ENDS_MS: u64 = 2 * 24 * 3_600_000;

/// All that one node could gather.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) me: NodeId,
    /// Wall time, milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Everybody who should be here, by name.
    pub(crate) roster: BTreeMap<NodeId, String>,
    /// Whom membership sees from here.
    pub(crate) alive: BTreeSet<NodeId>,
    /// Who votes, as far as is known here.
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) examined: BTreeMap<NodeId, Examined>,
    /// Who did not answer, and why.
    pub(crate) mute: BTreeMap<NodeId, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// Somebody should do something.
    Wrong,
    /// Good to know.
    Note,
    /// Could be better, and does no harm.
    Hint,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// One word, for programs.
    pub(crate) kind: &'static str,
    pub(crate) nodes: Vec<String>,
    /// What is so.
    pub(crate) text: String,
    /// What that means.
    pub(crate) means: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Everything worth saying, the worst first.
pub(crate) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    presence(facts, &mut found);
    voting(facts, &mut found);
    pairs(facts, &mut found);
    clocks(facts, &mut found);
    facts.examined.values().for_each(|node| one(facts, node, &mut found));
    versions(facts, &mut found);
    warnings(facts, &mut found);
    disks(facts, &mut found);
    found.sort();
    found
}

impl Facts {
    fn name(&self, node: NodeId) -> String {
        self.roster.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    fn names(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        nodes.into_iter().map(|node| self.name(node)).collect()
    }

    /// The newest entry that anybody has.
    pub(crate) fn newest(&self) -> u64 {
        self.examined.values().map(|node| node.applied).max().unwrap_or(0)
    }

    /// Who votes, by everybody's account.
    pub(crate) fn voting(&self) -> BTreeSet<NodeId> {
        let own = self.examined.values().filter(|node| node.voter).map(|node| node.node);
        // A node that answered knows best about itself.
        let told = self.voters.iter().copied().filter(|node| !self.examined.contains_key(node));
        own.chain(told).collect()
    }

    /// By how much each clock is ahead of the one in the middle, in milliseconds.
    pub(crate) fn clocks(&self) -> BTreeMap<NodeId, i64> {
        let mine = self.examined.get(&self.me).map(|me| me.reaches.as_slice()).unwrap_or_default();
        let mut ahead: BTreeMap<NodeId, i64> =
            mine.iter().filter_map(|reach| Some((reach.node, reach.ahead_ms?))).collect();
        ahead.insert(self.me, 0);
        let mut sorted: Vec<i64> = ahead.values().copied().collect();
        sorted.sort_unstable();
        let middle = sorted.get((sorted.len() - 1) / 2).copied().unwrap_or(0);
        ahead.into_iter().map(|(node, ms)| (node, ms.saturating_sub(middle))).collect()
    }
}

fn finding(kind: &'static str, nodes: Vec<String>, text: String, means: &str, hint: &str) -> Finding {
    let (means, hint) = (means.to_owned(), hint.to_owned());
    Finding { weight: Weight::Wrong, kind, nodes, text, means, hint }
}

fn presence(facts: &Facts, found: &mut Vec<Finding>) {
    for (node, why) in &facts.mute {
        let name = facts.name(*node);
        // Somebody else may reach it.
        let reached: Vec<NodeId> = facts
            .examined
            .values()
            .filter(|other| other.reaches.iter().any(|reach| reach.node == *node && reach.rtt_us.is_some()))
            .map(|other| other.node)
            .collect();
        found.push(if !reached.is_empty() {
            let text = format!(
                "{name} answers {}, but not {}: {why}",
                list(&facts.names(reached)),
                facts.name(facts.me)
            );
            finding(
                "unreachable",
                vec![name],
                text,
                "what is asked here about it comes late or not at all",
                "let UDP through between the two, both ways (port 7411 unless --listen says otherwise)",
            )
        } else if facts.alive.contains(node) {
            finding(
                "mute",
                vec![name.clone()],
                format!("{name} is alive, but answers nobody: {why}"),
                "its agent is stuck or starved; what it runs goes on, and nothing new is placed there",
                "look at its agent's log, and start its agent again: containers do not notice",
            )
        } else {
            finding(
                "gone",
                vec![name.clone()],
                format!("{name} is gone: nobody reaches it"),
                "what ran there is placed elsewhere, if there is room",
                "start its agent or repair its network; if it never comes back: covey node rm NAME",
            )
        });
    }
}

fn voting(facts: &Facts, found: &mut Vec<Finding>) {
    let voters = facts.voting();
    let (here, away): (Vec<NodeId>, Vec<NodeId>) =
        voters.iter().copied().partition(|node| facts.examined.contains_key(node));
    let majority = here.len() * 2 > voters.len();
    let placers: Vec<NodeId> = facts.examined.values().filter(|n| n.places).map(|n| n.node).collect();
    if !majority {
        let text = format!(
            "{} of {} voters answer; missing: {}",
            here.len(),
            voters.len(),
            list(&facts.names(away.iter().copied()))
        );
        found.push(finding(
            "no_majority",
            facts.names(away),
            text,
            "nothing can be changed and nothing is placed; what runs goes on, and what is shown may be old",
            "bring back voters until most of them are here",
        ));
    } else if placers.is_empty() {
        found.push(finding(
            "no_placer",
            Vec::new(),
            "no node acts as the placer".to_owned(),
            "nothing can be changed and nothing is placed now; after a failure that is so for a second or two",
            "look again in a moment; if it stays so, look at the voters' logs",
        ));
    } else if !away.is_empty() {
        let text =
            format!("{} of {} voters are away", list(&facts.names(away.iter().copied())), voters.len());
        let means = "the ledger bears fewer further failures until the vote has gone to another node";
        let hint = "nothing, if other nodes are here: the vote moves by itself within seconds";
        let finding = finding("voter_away", facts.names(away), text, means, hint);
        found.push(Finding { weight: Weight::Note, ..finding });
    } else if voters.len() < voters::size(facts.examined.len()) {
        let text = format!(
            "{} of {} nodes vote, and {} should",
            voters.len(),
            facts.examined.len(),
            voters::size(facts.examined.len())
        );
        let means = "the ledger bears fewer failures than it could";
        let hint = "nothing: votes are given to more nodes within seconds; look again then";
        let finding = finding("voters_settling", Vec::new(), text, means, hint);
        found.push(Finding { weight: Weight::Note, ..finding });
    }
    if placers.len() > 1 {
        found.push(finding(
            "placers",
            facts.names(placers.iter().copied()),
            format!("{} all act as the placer", list(&facts.names(placers))),
            "only the newest is obeyed; an old one notices within a second",
            "look again in a moment; if it stays so, look at their logs",
        ));
    }
    for placer in facts.examined.values().filter(|node| node.places) {
        let silent = placer.silent.iter().filter(|node| !facts.mute.contains_key(node));
        for node in silent {
            let name = facts.name(*node);
            found.push(finding(
                "silent",
                vec![name.clone()],
                format!("{name} is alive, but does not report to the placer {}", placer.name),
                "after a while it counts as gone, and what runs there is started elsewhere too",
                "look at its agent's log, and whether the placer reaches it; then start its agent again",
            ));
        }
    }
}

/// Ways that are cut between nodes of which both answer.
fn pairs(facts: &Facts, found: &mut Vec<Finding>) {
    for from in facts.examined.values() {
        for Reach { node, why, .. } in &from.reaches {
            let Some(why) = why.as_ref().filter(|_| facts.examined.contains_key(node)) else { continue };
            let (a, b) = (facts.name(from.node), facts.name(*node));
            found.push(finding(
                "cut",
                vec![a.clone(), b.clone()],
                format!("{a} does not reach {b}: {why}"),
                "if one of them places, it cannot manage what runs on the other; images are not fetched between them",
                "let UDP through from the first to the second (port 7411 unless --listen or --advertise say otherwise)",
            ));
        }
    }
}

fn clocks(facts: &Facts, found: &mut Vec<Finding>) {
    for (node, ahead) in facts.clocks() {
        if ahead.abs() > APART_MS {
            let name = facts.name(node);
            let which = if ahead > 0 { "ahead of" } else { "behind" };
            found.push(finding(
                "clock",
                vec![name.clone()],
                format!("the clock of {name} is {} {which} the others'", seconds(ahead.unsigned_abs())),
                "times of events mislead, tokens expire early or late, and beyond an hour certificates are refused",
                "synchronise it: timedatectl set-ntp true, or chrony",
            ));
        }
    }
}

/// What is wrong on one node.
fn one(facts: &Facts, node: &Examined, found: &mut Vec<Finding>) {
    let name = || vec![node.name.clone()];
    if node.broken {
        found.push(finding(
            "ledger_broken",
            name(),
            format!("{} cannot write its ledger", node.name),
            "it does not vote until it can; nothing that was acknowledged is lost",
            "look at its agent's log; free its disk or mount it writable: it then goes on by itself",
        ));
    }
    if node.twin {
        found.push(finding(
            "twin",
            name(),
            format!(
                "another agent with the key of {} shows itself, from a copy of its data directory",
                node.name
            ),
            "the one that began later is turned away or ends, with what runs there; the node itself goes on",
            "start the copy with an empty data directory; `covey events` says where it is",
        ));
    }
    if let Some(disk) = node.disk
        && disk.free_bytes < FREE_BYTES
        && disk.free_bytes < disk.size_bytes / FREE_SHARE
    {
        let free = disk.free_bytes >> 20;
        found.push(finding(
            "disk",
            name(),
            format!("the disk of {} has {free} MiB left", node.name),
            "batch and free get nothing new there and give way; when it is full, all tasks are refused, and a voter's vote is lost until there is room",
            "free room on the file system with its data directory: covey image rm, logs of others",
        ));
    }
    let behind = facts.newest().saturating_sub(node.applied);
    if behind > BEHIND {
        found.push(finding(
            "ledger_behind",
            name(),
            format!("the ledger of {} is {behind} entries behind", node.name),
            "what it shows without the placer is old, and what it could restore after a disaster too",
            "if it is not catching up, look at its agent's log",
        ));
    }
    if let Some(ends) = node.certificate_ends_ms
        && ends < facts.now_ms.saturating_add(ENDS_MS)
    {
        let text = match ends.checked_sub(facts.now_ms) {
            Some(left) => format!("the certificate of {} ends in {}", node.name, seconds(left)),
            None => format!("the certificate of {} has ended", node.name),
        };
        found.push(finding(
            "certificate",
            name(),
            text,
            "it should have been renewed by now; once it has ended the others do not talk to the node",
            "look at its agent's log: it has to reach a voter, and the clocks have to agree",
        ));
    }
}

fn versions(facts: &Facts, found: &mut Vec<Finding>) {
    let mut by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    facts.examined.values().for_each(|node| by.entry(&node.version).or_default().push(node.name.clone()));
    if by.len() > 1 {
        let each: Vec<String> =
            by.iter().map(|(version, nodes)| format!("{version} on {}", list(nodes))).collect();
        found.push(Finding {
            weight: Weight::Note,
            kind: "versions",
            nodes: Vec::new(),
            text: format!("versions differ: {}", each.join("; ")),
            means: "that is fine while the cell is upgraded, node by node".to_owned(),
            hint: "finish the upgrade".to_owned(),
        });
    }
}

/// What agents warn of by themselves: those that warn of the same are named together.
fn warnings(facts: &Facts, found: &mut Vec<Finding>) {
    let mut by: BTreeMap<&str, (Vec<String>, u64)> = BTreeMap::new();
    for node in facts.examined.values() {
        for warned in &node.warnings {
            let (nodes, at_ms) = by.entry(&warned.text).or_default();
            nodes.push(node.name.clone());
            *at_ms = warned.at_ms.max(*at_ms);
        }
    }
    for (text, (nodes, at_ms)) in by {
        let warn = if nodes.len() == 1 { "warns" } else { "warn" };
        let ago = seconds(facts.now_ms.saturating_sub(at_ms));
        found.push(Finding {
            weight: Weight::Note,
            kind: "warning",
            text: format!("{} {warn}: {text}", list(&nodes)),
            nodes,
            means: format!(
                "that was noticed {ago} ago; an agent says such a thing once, and it may be over by now"
            ),
            hint: "what it says; an agent that is started again looks again, and containers do not notice"
                .to_owned(),
        });
    }
}

/// So it is on most machines.
fn disks(facts: &Facts, found: &mut Vec<Finding>) {
    let plain = |node: &&Examined| node.disk.is_some_and(|disk| disk.weighed == Some(false));
    let nodes: Vec<String> = facts.examined.values().filter(plain).map(|node| node.name.clone()).collect();
    if nodes.is_empty() {
        return;
    }
    let (disk, is) = if nodes.len() == 1 { ("disk", "is") } else { ("disks", "are") };
    found.push(Finding {
        weight: Weight::Hint,
        kind: "disk_unweighed",
        text: format!("the {disk} of {} {is} not shared by weight", list(&nodes)),
        nodes,
        means: "what batch and free read and write may slow production's".to_owned(),
        hint: "bfq as the disk's scheduler shares it, or io.cost on cgroup v2".to_owned(),
    });
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// In the largest unit of which there are two.
fn seconds(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests;
