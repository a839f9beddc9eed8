//! The whole cell in virtual time, from one seed: nodes' and placer's cores, sessions, membership and ledger, over machines,
//! disks and a network that fail. After each event the checks of `whole/checks`; when nothing new goes wrong, what is
//! wanted runs again where a majority is; when all is well again, exactly what is wanted runs.

mod agent;
mod checks;
mod clients;
mod faults;
mod links;
mod machine;
mod placer;
mod rest;
mod rules;
mod runner;
mod seats;
mod store;
mod stream;
mod swim;
mod world;

use std::{collections::BTreeMap, ops::Range, sync::Mutex};

use self::{clients::ask, faults::Run, rules::Rule, world::Telling};
use super::{
    runtime::{draw_from, happens, run},
    seeds::{self, seeds},
};

/// T of the last fault: where a majority is, each wanted index runs again within so many milliseconds.
const AGAIN_MS: u64 = 30_000;
/// When all is well, nothing more is to be done after so many.
const REST_MS: u64 = 40_000;

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Outcome {
    reached: BTreeMap<&'static str, u32>,
    acknowledged: usize,
    elections: usize,
    /// How long it took until everything ran again, and until it was at rest.
    again_ms: u64,
    rest_ms: u64,
    told: String,
}

async fn story(telling: Telling, without: Option<Rule>) -> Result<Outcome, String> {
    let size = draw_from(3..8);
    let late = draw_from(0..3).min(size - 3);
    let mut run = Run::begin(size - late, late, telling, without).await;
    for _ in 0..draw_from(2..5) {
        ask(&run.world, true);
    }
    run.pass(draw_from(1..2_000)).await;
    for _ in 0..draw_from(10..60) {
        run.action().await;
        run.verdict()?;
    }
    let mut outcome = Outcome::default();
    run.lose(0);
    run.calm();
    if let Some(side) = run.majority().filter(|_| happens(700)) {
        outcome.again_ms = run.until(AGAIN_MS, |run| rest::runs_again(run, &side)).await?;
    }
    run.heal();
    run.start_all().await;
    if happens(500) {
        run.undrain().await;
    }
    run.calm();
    outcome.rest_ms = run.until(REST_MS, rest::at_rest).await?;
    outcome.elections = run.cell.elections();
    let mut world = run.world.lock().unwrap();
    outcome.reached = std::mem::take(&mut world.reached);
    outcome.acknowledged = world.checks.acked.count();
    outcome.told = world.told();
    Ok(outcome)
}

/// Plays many seeds. Returns the first that failed, and what.
fn play(seeds: Range<u64>, all: &Mutex<Outcome>, without: Option<Rule>) -> Option<(u64, String)> {
    let telling = if seeds.clone().count() == 1 { Telling::Print } else { Telling::Nothing };
    seeds::play(seeds, |seed| {
        let outcome = run(seed, story(telling, without)).0?;
        let mut all = all.lock().unwrap();
        for (what, times) in outcome.reached {
            *all.reached.entry(what).or_default() += times;
        }
        all.acknowledged += outcome.acknowledged;
        all.elections += outcome.elections;
        all.again_ms = all.again_ms.max(outcome.again_ms);
        all.rest_ms = all.rest_ms.max(outcome.rest_ms);
        Ok(())
    })
}

#[test]
fn whole_cell() {
    let (seeds, all) = (seeds(1_000), Mutex::default());
    let count = seeds.clone().count();
    if let Some((seed, text)) = play(seeds, &all, None) {
        panic!(
            "seed {seed}: {text}\nplay it alone: SEED={seed} cargo nextest run --release -p agent --no-capture whole_cell"
        );
    }
    let all = all.into_inner().unwrap();
    println!("{count} seeds: {all:?}");
    if count >= 1_000 {
        // Otherwise the runs above show nothing.
        let often = [
            "accepted",
            "refused",
            "stopping",
            "succeeded",
            "failed",
            "gone",
            "dead",
            "activation",
            "step",
            "drain",
            "reclaimed",
            "goes_on",
            "bad_node",
            "returns",
        ];
        for what in often {
            assert!(
                all.reached.get(what).is_some_and(|n| *n as usize > count / 200),
                "{what} is rare: {all:?}"
            );
        }
        assert!(all.acknowledged > 5 * count && all.elections > count, "{all:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 0..3 {
        let (first, again) = (run(seed, story(Telling::Keep, None)), run(seed, story(Telling::Keep, None)));
        assert_eq!(first.1, again.1, "seed {seed}");
        assert_eq!(first, again, "seed {seed}");
    }
}

#[test]
fn each_rule_that_is_left_out_is_missed() {
    for (rule, check) in [(Rule::Quorum, "placers"), (Rule::Fence, "copies"), (Rule::Flush, "flushed")] {
        let (_, missed) = play(0..100, &Mutex::default(), Some(rule)).unwrap();
        assert!(missed.starts_with(check), "without {rule:?}: {missed}");
    }
}
