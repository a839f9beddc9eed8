//! Membership under faults, in virtual time. Figures: `cargo test -p gossip --test membership -- --nocapture figures`;
//! with COVEY_SIM_NODES=1000 also for so many. One seed again: COVEY_SIM_SEED=N and the test's name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sim;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use gossip::{
    membership::{Garbled, Health, Input, Membership, Output, Seen},
    peer::Peer,
};
use sim::{LAN, Net, Sim, ms};

/// The seeds to run: all, or the one that failed.
fn seeds(all: u64) -> Vec<u64> {
    match std::env::var("COVEY_SIM_SEED") {
        Ok(one) => vec![one.parse().expect("COVEY_SIM_SEED is a number")],
        Err(_) => (0..all).collect(),
    }
}

/// Random faults for a while, then none: all must find each other again. Returns the hash of all that happened.
fn faults(seed: u64, nodes: usize) -> u64 {
    let mut sim = Sim::start(seed, LAN, nodes);
    sim.net = Net { lost: sim.below(150) as u64, twice: 50, delay: ms(1 + sim.below(60) as u64) };
    for _ in 0..10 {
        // The first keeps its address: if the only one that anybody has heard of is gone, nobody can be found.
        let node = sim.below(nodes);
        match sim.below(10) {
            0 | 1 => sim.crash(node),
            2 | 3 if !sim.up(node) => sim.boot(node),
            4 | 5 if !sim.up(node) && node > 0 => sim.boot_elsewhere(node),
            4 => {
                sim.crash(node);
                sim.boot(node);
            }
            6 => {
                let other = sim.below(nodes);
                sim.cut(node, other);
            }
            7 => {
                let side: Vec<usize> = (0..nodes).filter(|_| sim.below(2) == 0).collect();
                sim.split(&side);
            }
            8 => sim.heal(),
            9 => sim.pause(node, ms(3000)),
            _ => {}
        }
        let how_long = sim.below(3000) as u64;
        sim.run(ms(how_long));
    }
    sim.heal();
    sim.net = LAN;
    for node in 0..nodes {
        if !sim.up(node) {
            sim.boot(node);
        }
    }
    let healed = sim.until(ms(40_000), Sim::complete);
    assert!(
        healed.is_some(),
        "not complete 40 s after the last fault. Again: COVEY_SIM_SEED={seed} cargo test -p gossip --test membership\n{}",
        sim.views()
    );
    sim.hash
}

#[test]
fn whatever_happens_all_find_each_other_again() {
    for seed in seeds(200) {
        faults(seed, 5);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in seeds(5) {
        assert_eq!(faults(seed, 4), faults(seed, 4), "seed {seed}");
    }
    assert_ne!(faults(1, 4), faults(2, 4));
}

fn formed(seed: u64, net: Net, nodes: usize) -> (Sim, Duration) {
    let mut sim = Sim::start(seed, net, nodes);
    let took = sim.until(ms(60_000), Sim::complete);
    let took =
        took.unwrap_or_else(|| panic!("seed {seed}: {nodes} nodes have not joined in 60 s\n{}", sim.views()));
    (sim, took)
}

fn seconds(times: &mut [Duration]) -> (f64, f64) {
    times.sort();
    (times[times.len() / 2].as_secs_f64(), times[times.len() - 1].as_secs_f64())
}

#[test]
fn figures_a_death() {
    for nodes in [5, 50] {
        let mut times = Vec::new();
        for seed in seeds(2) {
            let (mut sim, _) = formed(seed, LAN, nodes);
            for _ in 0..8 {
                let victim = sim.below(nodes);
                sim.crash(victim);
                times
                    .push(sim.until(ms(10_000), |sim| sim.all_know_dead(victim)).expect("known within 10 s"));
                sim.boot(victim);
                sim.until(ms(20_000), Sim::complete).expect("all back");
            }
        }
        let (median, worst) = seconds(&mut times);
        println!(
            "{nodes} nodes: all know of a death: median {median:.2} s, worst {worst:.2} s of {}",
            times.len()
        );
        assert!(median <= 4.0 && worst <= 6.0, "median {median} s, worst {worst} s");
    }
}

#[test]
fn figures_joining_and_standing() {
    let mut sizes = vec![5, 50];
    sizes.extend(
        std::env::var("COVEY_SIM_NODES")
            .ok()
            .map(|n| n.parse::<usize>().expect("COVEY_SIM_NODES is a number")),
    );
    for nodes in sizes {
        let (mut sim, took) = formed(1, Net { lost: 10, ..LAN }, nodes);
        sim.run(ms(20_000));
        let (before, downs) = (sim.bytes, sim.downs.len());
        sim.run(ms(20_000));
        let each = (sim.bytes - before) as f64 / 20.0 / nodes as f64;
        let false_alarms = sim.downs.len() - downs;
        println!(
            "{nodes} nodes, 1 % of datagrams lost: joined in {:.2} s; then {each:.0} B/s a node, {false_alarms} false alarms",
            took.as_secs_f64()
        );
        assert!(took <= ms(20_000), "{took:?}");
        assert!(each <= 300.0, "{each} B/s");
        assert_eq!(false_alarms, 0);
    }
}

#[test]
fn figures_false_alarms() {
    let (mut pauses, mut verdicts) = (0, 0);
    for seed in seeds(2) {
        let (mut sim, _) = formed(seed, Net { lost: 50, twice: 10, delay: ms(20) }, 50);
        sim.run(ms(5_000));
        let before = sim.downs.len();
        for _ in 0..20 {
            // A busy machine: an agent gets no turn for a second.
            let slow = sim.below(50);
            sim.pause(slow, ms(1_000));
            sim.run(ms(1_000));
            pauses += 1;
        }
        verdicts += sim.downs[before..].iter().map(|(_, _, whom)| whom).collect::<BTreeSet<_>>().len();
    }
    println!("50 nodes, 5 % of datagrams lost: {verdicts} of {pauses} pauses of 1 s were taken for a death");
    assert!(verdicts <= 1, "{verdicts} of {pauses}");
}

#[test]
fn hundreds_see_each_other() {
    // Without optimisation 300 would take ten seconds.
    let nodes = if cfg!(debug_assertions) { 100 } else { 300 };
    let (_, took) = formed(3, LAN, nodes);
    println!("{nodes} nodes joined in {:.2} s", took.as_secs_f64());
    assert!(took <= ms(20_000), "{took:?}");
}

#[test]
fn a_one_way_cut_kills_nobody() {
    let (mut sim, _) = formed(4, LAN, 5);
    sim.cut(1, 2);
    sim.run(ms(20_000));
    assert_eq!(sim.downs, [], "others could still reach it");
}

#[test]
fn who_stood_still_does_not_blame_the_others() {
    for seed in seeds(10) {
        let (mut sim, _) = formed(seed, LAN, 10);
        sim.run(ms(5_000));
        sim.pause(3, ms(8_000));
        sim.run(ms(8_000));
        let declared: Vec<_> = sim.downs.iter().map(|(_, _, whom)| *whom).collect();
        assert!(
            !declared.is_empty() && declared.iter().all(|whom| *whom == Sim::id(3)),
            "seed {seed}: {declared:?}"
        );
        let before = sim.downs.len();
        sim.until(ms(20_000), Sim::complete).expect("it is taken back");
        assert_eq!(sim.downs.len(), before, "seed {seed}: it declared others dead");
    }
}

#[test]
fn both_sides_of_a_split_go_on_and_find_each_other() {
    let (mut sim, _) = formed(6, LAN, 5);
    sim.split(&[0, 1]);
    sim.run(ms(30_000));
    assert!(sim.all_know_dead(4) || sim.downs.iter().any(|(_, by, whom)| *by == 0 && *whom == Sim::id(4)));
    assert!(!sim.downs.iter().any(|(_, by, whom)| *by == 0 && *whom == Sim::id(1)), "its own side lives");
    sim.heal();
    let took = sim.until(ms(20_000), Sim::complete).expect("one cell again");
    println!("a split of 2 and 3 was whole again after {:.2} s", took.as_secs_f64());
}

#[test]
fn all_off_and_on_again_with_new_addresses() {
    for seed in seeds(10) {
        let (mut sim, _) = formed(seed, LAN, 5);
        (0..5).for_each(|node| sim.crash(node));
        sim.run(ms(5_000));
        // One keeps its address: it is what the others remember.
        sim.boot(0);
        (1..5).for_each(|node| sim.boot_elsewhere(node));
        assert!(sim.until(ms(20_000), Sim::complete).is_some(), "seed {seed}\n{}", sim.views());
    }
}

#[test]
fn a_leaver_is_gone_at_once() {
    let (mut sim, _) = formed(8, LAN, 5);
    sim.leave(2);
    let took = sim.until(ms(10_000), |sim| sim.all_know_dead(2)).expect("all were told");
    assert!(took <= ms(1_500), "{took:?}");
}

#[test]
fn what_makes_no_sense_is_named_and_dropped() {
    let addr = |host: u8| SocketAddr::from(([10, 0, 0, host], 7946));
    let (one, two) = (Peer::new(Sim::id(0), addr(1), 1), Peer::new(Sim::id(1), addr(2), 1));
    let mut a = Membership::new(one, 1, ms(0));
    let mut b = Membership::new(two, 2, ms(0));
    let greeting = b.handle(Input::Greet(vec![one.addr]), ms(1));
    let Some(Output::Datagram { bytes, to }) = greeting.first() else { panic!("{greeting:?}") };
    assert_eq!(*to, Peer::anyone_at(one.addr));
    let mut told = |from, bytes: &[u8]| a.handle(Input::Datagram { from, bytes: bytes.to_vec() }, ms(2));

    let forged = told(Sim::id(2), bytes);
    assert_eq!(forged, [Output::Garbled(Garbled::Forged { from: Sim::id(2), claimed: two.id })]);
    for end in 0..bytes.len() {
        let out = told(two.id, &bytes[..end]);
        assert!(
            matches!(out[..], [Output::Garbled(Garbled::Datagram(n, from, _))] if (n, from) == (end, two.id)),
            "{out:?}"
        );
    }
    let long = [bytes.as_slice(), &[0; 2000]].concat();
    assert!(matches!(told(two.id, &long)[..], [Output::Garbled(_)]));
    assert!(told(two.id, bytes).contains(&Output::Up(two)), "and the good one is heard");
    assert!(!told(two.id, bytes).contains(&Output::Up(two)), "once");

    // A copied data directory: the same id, at another address.
    let mut twin = Membership::new(Peer { addr: addr(3), ..one }, 3, ms(0));
    let greeting = twin.handle(Input::Greet(vec![one.addr]), ms(1));
    let Some(Output::Datagram { bytes, .. }) = greeting.first() else { panic!("{greeting:?}") };
    assert_eq!(told(one.id, bytes), [Output::Twin(twin.me())]);
    assert_eq!(told(one.id, bytes), [], "once");
}

#[test]
fn a_node_whose_later_life_the_others_remember_outlives_it() {
    let addr = |host: u8| SocketAddr::from(([10, 0, 0, host], 7946));
    let (old, two) = (Peer::new(Sim::id(0), addr(1), 3), Peer::new(Sim::id(1), addr(2), 1));
    let later = Peer { life: 7, renewal: 2, addr: addr(3), ..old };
    let (mut a, mut b) = (Membership::new(old, 1, ms(0)), Membership::new(two, 2, ms(0)));
    let known = |peer, health| vec![Seen { peer, incarnation: 0, health }];
    b.handle(Input::State(known(later, Health::Alive)), ms(1));

    let out = a.handle(Input::State(b.state()), ms(2));
    assert!(out.contains(&Output::Twin(later)), "{out:?}");
    assert!(!a.handle(Input::State(b.state()), ms(3)).contains(&Output::Twin(later)), "told once");
    a.handle(Input::Outlive(Peer { life: 1, ..later }), ms(4));
    assert_eq!(a.me(), old, "what is earlier is outlived already");

    a.handle(Input::Outlive(later), ms(5));
    assert_eq!(a.me(), Peer { life: 8, ..old });
    let heard = b.handle(Input::State(a.state()), ms(6));
    assert!(heard.contains(&Output::Up(a.me())), "the others take it for the node: {heard:?}");
    // And now the other one, if it is still there, is told the same about us.
    let mut twin = Membership::new(later, 3, ms(0));
    let out = twin.handle(Input::State(b.state()), ms(7));
    assert!(out.contains(&Output::Twin(a.me())), "{out:?}");
}
