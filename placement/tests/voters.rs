//! What must hold of the voters' steps, from any state and whatever happens between them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use placement::{
    ids::NodeId,
    voters::{Candidate, Patience, Seats, VoterStep, next_step, size, successor, wanted},
};
use proptest::{collection::vec, prelude::*};

const PATIENCE: Patience = Patience { alive_ms: 1_000, dead_ms: 5_000 };

#[derive(Debug, Clone)]
struct World {
    seats: Seats,
    nodes: BTreeMap<NodeId, Candidate>,
    now_ms: u64,
}

impl World {
    fn step(&self) -> Option<VoterStep> {
        next_step(&self.seats, &self.nodes, PATIENCE, self.now_ms)
    }

    fn alive(&self, id: NodeId) -> bool {
        id == self.seats.leader || self.nodes.get(&id).is_some_and(|node| node.alive)
    }

    fn majority(&self) -> bool {
        let majority = |set: &BTreeSet<NodeId>| {
            set.is_empty() || set.iter().filter(|id| self.alive(**id)).count() * 2 > set.len()
        };
        majority(&self.seats.voters) && majority(&self.seats.leaving)
    }

    fn apply(&mut self, step: VoterStep) {
        let Seats { leader, voters, leaving, learners } = &mut self.seats;
        match step {
            VoterStep::Finish => leaving.clear(),
            VoterStep::Learn(id) => assert_eq!(learners.insert(id, false), None, "{id} learns already"),
            VoterStep::Promote(id) => {
                assert_eq!(learners.remove(&id), Some(true), "{id} has not caught up");
                assert!(voters.insert(id));
            }
            VoterStep::Demote(id) => {
                assert_ne!(id, *leader);
                assert!(voters.remove(&id));
                assert_eq!(learners.insert(id, true), None);
            }
            VoterStep::Forget(id) => assert!(learners.remove(&id).is_some()),
        }
        assert!(self.seats.voters.len() <= 6);
        assert!(self.majority(), "{step} leaves a majority of dead voters");
    }

    /// All that can catch up has, and time has passed; none: nothing more comes.
    fn settle(&mut self) {
        let mut steps = 0;
        for _ in 0..3 {
            while let Some(step) = self.step() {
                steps += 1;
                assert!(steps < 60, "no end of steps");
                self.apply(step);
                for (id, caught_up) in &mut self.seats.learners {
                    *caught_up |= self.nodes.get(id).is_some_and(|node| node.alive);
                }
            }
            self.now_ms += PATIENCE.dead_ms;
            let alive = &self.nodes;
            for (id, caught_up) in &mut self.seats.learners {
                *caught_up |= alive.get(id).is_some_and(|node| node.alive);
            }
        }
        assert_eq!(self.step(), None);
    }
}

fn node() -> impl Strategy<Value = (bool, u64, usize)> {
    (prop::bool::weighted(0.7), 0..10_000u64, 0..4usize)
}

fn world() -> impl Strategy<Value = World> {
    // For each node: what it is to the ledger.
    (vec((node(), 0..6u8), 1..10), 0..10usize, prop::bool::weighted(0.2)).prop_map(|(made, leader, joint)| {
        let leader = NodeId(leader as u64 % made.len() as u64 + 1);
        let mut seats = Seats {
            leader,
            voters: BTreeSet::from([leader]),
            leaving: BTreeSet::new(),
            learners: BTreeMap::new(),
        };
        let mut nodes = BTreeMap::new();
        for (number, ((alive, since_ms, rack), part)) in made.into_iter().enumerate() {
            let id = NodeId(number as u64 + 1);
            let alive = alive || id == leader;
            // One that has left the roster stays away.
            if part != 5 || id == leader {
                let rack = ["", "r1", "r2", "r3"][rack].into();
                nodes.insert(id, Candidate { rack, alive, drained: false, since_ms });
            }
            match part {
                0 | 1 | 5 if id != leader && seats.voters.len() < 5 => drop(seats.voters.insert(id)),
                2 if id != leader => drop(seats.learners.insert(id, alive && since_ms % 2 == 0)),
                _ => {}
            }
        }
        if joint {
            seats.leaving = seats.voters.clone();
            if let Some(last) = seats.voters.iter().rfind(|id| **id != leader).copied() {
                seats.voters.remove(&last);
                seats.learners.insert(last, true);
            }
        }
        World { seats, nodes, now_ms: 10_000 }
    })
}

/// After it, the voters are as the issue wants them.
fn check_settled(world: &World) {
    let alive: BTreeMap<_, _> = world.nodes.iter().filter(|(_, node)| node.alive).collect();
    let voters = &world.seats.voters;
    assert_eq!(voters.len(), size(alive.len()), "{world:?}");
    assert_eq!(*voters, wanted(&world.seats, &world.nodes, PATIENCE, world.now_ms));
    assert!(world.seats.learners.is_empty() && world.seats.leaving.is_empty());
    assert!(voters.iter().all(|id| alive.contains_key(id)), "a dead voter is left: {world:?}");
    let racks = |ids: &mut dyn Iterator<Item = &NodeId>| {
        ids.map(|id| world.nodes[id].rack.clone()).collect::<BTreeSet<_>>().len()
    };
    let (there, used) = (racks(&mut alive.keys().copied()), racks(&mut voters.iter()));
    assert_eq!(used, there.min(voters.len()), "{world:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn steps_end_at_the_right_voters_from_any_state(mut world in world()) {
        if world.majority() {
            world.settle();
            check_settled(&world);
        } else {
            prop_assert_eq!(world.step(), None);
        }
    }

    #[test]
    fn no_step_costs_the_majority_whatever_happens_between_them(
        mut world in world(),
        events in vec((0..10u64, any::<bool>(), 0..3_000u64), 0..30),
    ) {
        for (node, caught_up, later) in events {
            world.now_ms += later;
            let (now, leader) = (world.now_ms, world.seats.leader);
            if let Some(node) = world.nodes.get_mut(&NodeId(node)).filter(|_| NodeId(node) != leader) {
                *node = Candidate { alive: !node.alive, since_ms: now, ..node.clone() };
            }
            if caught_up {
                world.seats.learners.values_mut().for_each(|up| *up = true);
            }
            match world.step() {
                Some(step) => world.apply(step),
                None => continue,
            }
        }
        for node in world.nodes.values_mut() {
            node.alive = true;
        }
        if world.majority() {
            world.now_ms += PATIENCE.alive_ms;
            world.settle();
            check_settled(&world);
        }
    }
}

/// `count` nodes, alive for long, of which node 1 votes.
fn fresh(count: u64) -> World {
    let node = || Candidate { rack: String::new(), alive: true, drained: false, since_ms: 0 };
    World {
        seats: Seats {
            leader: NodeId(1),
            voters: BTreeSet::from([NodeId(1)]),
            leaving: BTreeSet::new(),
            learners: BTreeMap::new(),
        },
        nodes: (1..=count).map(|id| (NodeId(id), node())).collect(),
        now_ms: 10_000,
    }
}

#[test]
fn nodes_go_one_after_another_down_to_two() {
    let mut world = fresh(7);
    world.settle();
    check_settled(&world);
    for dead in (2..=7).rev() {
        world.now_ms += 60_000;
        let now = world.now_ms;
        let node = world.nodes.get_mut(&NodeId(dead)).unwrap();
        (node.alive, node.since_ms) = (false, now);
        if dead > 2 {
            world.settle();
            check_settled(&world);
        }
    }
    // Two nodes have one voter: the other's death needs no step.
    assert_eq!(world.seats.voters, BTreeSet::from([NodeId(1)]));
    world.settle();
}

#[test]
fn growth_stops_at_no_even_number() {
    let mut world = fresh(3);
    for id in [2, 3] {
        assert_eq!(world.step(), Some(VoterStep::Learn(NodeId(id))));
        world.apply(VoterStep::Learn(NodeId(id)));
    }
    world.seats.learners.insert(NodeId(2), true);
    assert_eq!(world.step(), None, "one of two is ready: both or none");
    world.seats.learners.insert(NodeId(3), true);
    assert_eq!(world.step(), Some(VoterStep::Promote(NodeId(2))));
    world.apply(VoterStep::Promote(NodeId(2)));
    assert_eq!(world.step(), Some(VoterStep::Promote(NodeId(3))));
}

#[test]
fn whoever_is_drained_gives_its_vote_to_another() {
    let mut world = fresh(4);
    world.settle();
    assert_eq!(world.seats.voters.len(), 3);
    let drained = *world.seats.voters.last().unwrap();
    world.nodes.get_mut(&drained).unwrap().drained = true;
    world.settle();
    assert!(world.seats.voters.len() == 3 && !world.seats.voters.contains(&drained), "{:?}", world.seats);

    // The leader of two cannot go before the other votes.
    let mut world = fresh(2);
    world.nodes.get_mut(&NodeId(1)).unwrap().drained = true;
    for step in [VoterStep::Learn(NodeId(2)), VoterStep::Promote(NodeId(2))] {
        assert_eq!(successor(&world.seats, &world.nodes), Some(step));
        world.apply(step);
        for caught_up in world.seats.learners.values_mut() {
            *caught_up = true;
        }
    }
    assert_eq!(successor(&world.seats, &world.nodes), None);
    // It was elected: what it takes to be rid of the former leader is there.
    world.seats.leader = NodeId(2);
    assert_eq!(world.step(), Some(VoterStep::Demote(NodeId(1))));
    world.nodes.get_mut(&NodeId(1)).unwrap().alive = false;
    assert_eq!(world.step(), None, "a majority of two is two");
}

#[test]
fn a_voter_that_is_away_for_a_moment_keeps_its_vote() {
    let mut world = fresh(4);
    world.settle();
    let gone = world.now_ms;
    let node = world.nodes.get_mut(&NodeId(3)).unwrap();
    (node.alive, node.since_ms) = (false, gone);
    world.now_ms = gone + PATIENCE.dead_ms - 1;
    assert_eq!(world.step(), None);
    world.now_ms += 1;
    assert_eq!(world.step(), Some(VoterStep::Learn(NodeId(4))));
}
