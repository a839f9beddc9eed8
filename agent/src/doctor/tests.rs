#![allow(clippy::unwrap_used)]

use super::*;
use gossip::wire::examine::{Disk, Warned};

const NOW: u64 = 1_777_896_000_000;

/// Three nodes, all well: n1 places and asks.
fn well() -> Facts {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let node = |id: NodeId| Examined {
        node: id,
        name: format!("n{}", id.0),
        version: "0.1.0".into(),
        applied: 40,
        voter: true,
        places: id.0 == 1,
        broken: false,
        twin: false,
        disk: Some(Disk { free_bytes: 10 << 30, size_bytes: 20 << 30, weighed: Some(true) }),
        certificate_ends_ms: Some(NOW + 5 * 24 * 3_600_000),
        silent: Vec::new(),
        warnings: Vec::new(),
        reaches: ids
            .into_iter()
            .filter(|other| *other != id)
            .map(|node| Reach { node, rtt_us: Some(300), ahead_ms: Some(1), why: None })
            .collect(),
    };
    Facts {
        me: NodeId(1),
        now_ms: NOW,
        roster: ids.map(|id| (id, format!("n{}", id.0))).into(),
        alive: ids.into(),
        voters: ids.into(),
        examined: ids.map(|id| (id, node(id))).into(),
        mute: BTreeMap::new(),
    }
}

impl Facts {
    fn node(&mut self, id: u64) -> &mut Examined {
        self.examined.get_mut(&NodeId(id)).unwrap()
    }

    fn loses(&mut self, id: u64) {
        self.examined.remove(&NodeId(id));
        self.mute.insert(NodeId(id), "it does not answer".into());
        for node in self.examined.values_mut() {
            for reach in node.reaches.iter_mut().filter(|reach| reach.node == NodeId(id)) {
                (reach.rtt_us, reach.ahead_ms, reach.why) = (None, None, Some("it does not answer".into()));
            }
        }
    }

    fn kinds(&self) -> Vec<(&'static str, Vec<String>)> {
        diagnose(self).into_iter().map(|finding| (finding.kind, finding.nodes)).collect()
    }
}

fn of(kind: &'static str, nodes: &[&str]) -> (&'static str, Vec<String>) {
    (kind, nodes.iter().map(|node| (*node).to_owned()).collect())
}

#[test]
fn a_cell_that_is_well_has_no_findings() {
    assert_eq!(diagnose(&well()), []);
}

#[test]
fn what_agents_warn_of_is_told_once_with_their_names() {
    let mut facts = well();
    let warned = |text: &str, ago_s: u64| Warned { text: text.into(), at_ms: NOW - ago_s * 1000 };
    facts.node(1).warnings = vec![warned("no PSI", 600)];
    facts.node(3).warnings = vec![warned("no PSI", 60), warned("its cgroups lie", 7)];
    let found = diagnose(&facts);
    let said: Vec<_> =
        found.iter().map(|f| (f.weight, f.text.as_str(), f.means.split(';').next().unwrap())).collect();
    assert_eq!(
        said,
        [
            (Weight::Note, "n1 and n3 warn: no PSI", "that was noticed 60 s ago"),
            (Weight::Note, "n3 warns: its cgroups lie", "that was noticed 7 s ago"),
        ]
    );
}

#[test]
fn a_dead_voter_is_gone_and_its_vote_away() {
    let mut facts = well();
    facts.loses(3);
    facts.alive.remove(&NodeId(3));
    assert_eq!(facts.kinds(), [of("gone", &["n3"]), of("voter_away", &["n3"])]);
    facts.loses(2);
    // Membership has not noticed yet.
    assert_eq!(facts.kinds(), [of("gone", &["n3"]), of("mute", &["n2"]), of("no_majority", &["n2", "n3"])]);
}

#[test]
fn a_cut_is_named_by_its_ends() {
    let mut facts = well();
    let reach = &mut facts.node(2).reaches[1];
    assert_eq!(reach.node, NodeId(3));
    (reach.rtt_us, reach.why) = (None, Some("it does not answer".into()));
    let found = diagnose(&facts);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].text, "n2 does not reach n3: it does not answer");

    // One that only the asker does not reach.
    let mut facts = well();
    facts.examined.remove(&NodeId(3));
    facts.mute.insert(NodeId(3), "no answer in 3 s".into());
    facts.node(1).reaches[1].rtt_us = None;
    let found = diagnose(&facts);
    assert_eq!(found[0].kind, "unreachable");
    assert_eq!(found[0].text, "n3 answers n2, but not n1: no answer in 3 s");
}

#[test]
fn the_clock_that_is_alone_is_the_wrong_one() {
    let mut facts = well();
    let skew = |facts: &mut Facts, skews: [i64; 2]| {
        for (reach, ahead) in facts.node(1).reaches.iter_mut().zip(skews) {
            reach.ahead_ms = Some(ahead);
        }
    };
    skew(&mut facts, [3_600_000, 0]);
    assert_eq!(diagnose(&facts)[0].text, "the clock of n2 is 60 min ahead of the others'");
    skew(&mut facts, [-5000, -5000]);
    assert_eq!(diagnose(&facts)[0].text, "the clock of n1 is 5 s ahead of the others'");
    skew(&mut facts, [-1500, 1500]);
    assert_eq!(diagnose(&facts), []);
}

#[test]
fn what_is_wrong_on_one_node_is_said_of_it() {
    type Harm = fn(&mut Examined);
    let harms: [(&str, Harm); 6] = [
        ("ledger_broken", |node| node.broken = true),
        ("twin", |node| node.twin = true),
        ("disk", |node| {
            node.disk = Some(Disk { free_bytes: 100 << 20, size_bytes: 10 << 30, weighed: None })
        }),
        ("certificate", |node| node.certificate_ends_ms = Some(NOW + 3_600_000)),
        ("certificate", |node| node.certificate_ends_ms = Some(NOW - 1)),
        ("versions", |node| node.version = "0.2.0".into()),
    ];
    for (kind, harm) in harms {
        let mut facts = well();
        harm(facts.node(2));
        let found = diagnose(&facts);
        assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [kind]);
        assert_eq!(found[0].weight == Weight::Note, kind == "versions");
    }
    let mut facts = well();
    facts.node(3).applied = 1_000_000;
    assert_eq!(facts.kinds(), [of("ledger_behind", &["n1"]), of("ledger_behind", &["n2"])]);
    // A small disk that is half empty.
    let mut facts = well();
    facts.node(2).disk = Some(Disk { free_bytes: 100 << 20, size_bytes: 200 << 20, weighed: None });
    assert_eq!(diagnose(&facts), []);
}

#[test]
fn placers_and_those_who_do_not_report_to_them() {
    let mut facts = well();
    facts.node(1).silent = vec![NodeId(2)];
    assert_eq!(facts.kinds(), [of("silent", &["n2"])]);
    let mut facts = well();
    facts.node(2).places = true;
    assert_eq!(facts.kinds(), [of("placers", &["n1", "n2"])]);
    let mut facts = well();
    facts.node(1).places = false;
    assert_eq!(facts.kinds(), [of("no_placer", &[])]);
    let mut facts = well();
    facts.voters = [NodeId(1)].into();
    for id in [2, 3] {
        facts.node(id).voter = false;
    }
    assert_eq!(facts.kinds(), [of("voters_settling", &[])]);
}

#[test]
fn disks_that_could_be_shared_better_are_a_hint_that_comes_last() {
    let mut facts = well();
    for id in [1, 3] {
        facts.node(id).disk = Some(Disk { free_bytes: 10 << 30, size_bytes: 20 << 30, weighed: Some(false) });
    }
    let found = diagnose(&facts);
    assert_eq!(
        (found.len(), found[0].weight, &found[0].nodes[..]),
        (1, Weight::Hint, &["n1", "n3"].map(String::from)[..])
    );
    assert_eq!(found[0].text, "the disks of n1 and n3 are not shared by weight");
    facts.node(2).version = "0.2.0".into();
    assert_eq!(diagnose(&facts).last().unwrap().kind, "disk_unweighed");
}
