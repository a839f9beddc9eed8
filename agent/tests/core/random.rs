//! A seeded random driver: a model of the machine (runs, disk) and of a placer, sessions that break, agents that crash at
//! any point and lose what was not stored. After each event one check per property; at the end, without faults, everything
//! settles. `SEED=n` plays one seed and prints it, `SEEDS=n` so many.

use std::{
    env,
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::random::world::World;

mod checks;
mod dice;
mod machine;
mod placer;
mod world;

const SEEDS: u64 = 2_000;
const STEPS: u32 = 250;

#[test]
fn random() {
    if let Ok(seed) = env::var("SEED") {
        let mut world = World::new(seed.parse().unwrap());
        world.print = true;
        return play(&mut world);
    }
    let seeds = env::var("SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    let failed: Vec<u64> = (0..seeds)
        .filter(|seed| catch_unwind(AssertUnwindSafe(|| play(&mut World::new(*seed)))).is_err())
        .take(1)
        .collect();
    assert!(failed.is_empty(), "seed {failed:?} failed: SEED=n plays one");
}

/// What the seeds reach: a driver that never gets anywhere would find nothing.
#[test]
fn random_reaches_everything() {
    let mut kinds = std::collections::BTreeMap::new();
    for seed in 0..200 {
        let mut world = World::new(seed);
        play(&mut world);
        for (kind, n) in world.notes {
            *kinds.entry(kind).or_insert(0) += n;
        }
    }
    let mut text = String::new();
    for (kind, n) in &kinds {
        writeln!(text, "{kind} {n}").unwrap();
    }
    for kind in [
        "accepted",
        "exited",
        "failed",
        "killed",
        "port_busy",
        "readopted",
        "refused",
        "removed",
        "restarting",
        "session",
        "start_failed",
        "started",
        "stopping",
        "store_failed",
        "stray",
        "succeeded",
        "unhealthy",
    ] {
        assert!(kinds.get(kind).is_some_and(|n| *n > 2), "{kind} is rare:\n{text}");
    }
}

fn play(world: &mut World) {
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
}
