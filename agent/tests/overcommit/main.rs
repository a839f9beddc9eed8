#![allow(clippy::unwrap_used, clippy::expect_used)]
//! How much the estimator reclaims on traces of every kind, and how often that is too much, beside the peak that really came.
//!
//! `cargo nextest run -p agent --test overcommit --no-capture` prints the table. With `COVEY_TRACES=DIR` set the traces are
//! written there, for `covey simulate overcommit --trace`.

mod traces;

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::Path,
};

use agent::estimate::{CPU, MEMORY, Policy, Preset, Row, Score, Trace, replay};

const SEED: u64 = 1;
const DAY_MS: u64 = 86_400_000;
const COVEY: Policy = Policy::Covey(Preset::Normal);

/// What a policy did with a resource.
struct Did {
    covey: Score,
    oracle: Score,
    constant: Score,
    /// What `max` would save if it had been raised, in hindsight, to what is tolerated.
    max: f64,
}

impl Did {
    /// How far it is from the oracle's savings, in units of `max`'s way at what is tolerated.
    fn gap(&self) -> f64 {
        (self.oracle.savings_ratio - self.covey.savings_ratio) / (self.oracle.savings_ratio - self.max)
    }
}

fn played(scenario: &str, seed: u64) -> [Did; 2] {
    let rows = traces::make(scenario, seed);
    if let Some(dir) = env::var_os("COVEY_TRACES") {
        write(&Path::new(&dir).join(format!("{scenario}.csv")), &rows);
    }
    let mut trace = Trace::default();
    for row in &rows {
        let band = row.band.parse().unwrap();
        let limit = [row.cpu_limit as f64, row.memory_limit as f64];
        let usage = [row.cpu as f64, row.memory as f64];
        let node = format!("n{:03}", row.node);
        trace
            .push(&Row { time_ms: row.time_s * 1000, node: &node, task: &row.task, band, limit, usage })
            .unwrap();
    }
    replayed(scenario, &trace)
}

fn replayed(scenario: &str, trace: &Trace) -> [Did; 2] {
    let policies = [COVEY, Policy::Max, Policy::Const, Policy::Oracle];
    let replay = replay(trace, DAY_MS, &policies, || ());
    let scores = replay.scores();
    [CPU, MEMORY].map(|resource| {
        let of = |policy| *scores.iter().find(|s| s.resource == resource && s.policy == policy).unwrap();
        let (raw, max) = (of(Policy::Max), replay.inflated(Policy::Max, resource));
        let did = Did { covey: of(COVEY), oracle: of(Policy::Oracle), constant: of(Policy::Const), max };
        println!(
            "{scenario:10} {:6} covey {:.3} ({:.2} % too low) max {:.3} ({:.1} %), at what is tolerated {max:.3}; const {:.3} \
             oracle {:.3}; gap {:.2} of max's",
            ["cpu", "memory"][resource],
            did.covey.savings_ratio,
            100.0 * did.covey.violation_rate,
            raw.savings_ratio,
            100.0 * raw.violation_rate,
            did.constant.savings_ratio,
            did.oracle.savings_ratio,
            did.gap(),
        );
        did
    })
}

fn write(path: &Path, rows: &[traces::Row]) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    writeln!(file, "time_s,node,task,band,cpu_limit_milli,cpu_milli,memory_limit_mib,memory_mib").unwrap();
    for r in rows {
        let (cpu, memory) = ((r.cpu_limit, r.cpu), (r.memory_limit, r.memory));
        let (time_s, node, task, band) = (r.time_s, r.node, &r.task, r.band);
        writeln!(file, "{time_s},n{node:03},{task},{band},{},{},{},{}", cpu.0, cpu.1, memory.0, memory.1)
            .unwrap();
    }
}

/// CPU: at most 0.8 of `max`'s gap, too low in at most so many of a thousand forecasts. Memory: more saved than by `max`.
fn holds(scenario: &str, too_low: [f64; 2]) -> [Did; 2] {
    let did = played(scenario, SEED);
    for (did, too_low) in did.iter().zip(too_low) {
        assert!(did.covey.violation_rate <= too_low / 1000.0, "{scenario}: {:?}", did.covey);
        assert!(did.covey.savings_ratio > did.max, "{scenario}: {:?}, max {}", did.covey, did.max);
    }
    assert!(did[CPU].gap() <= 0.8, "{scenario}: {}", did[CPU].gap());
    did
}

const TOLERATED: [f64; 2] = [5.0, 1.0];

#[test]
fn services_that_follow_the_day() {
    holds("services", TOLERATED);
}

#[test]
fn bursty_batch() {
    holds("batch", TOLERATED);
}

#[test]
fn leaks() {
    holds("leaks", TOLERATED);
}

#[test]
fn steps() {
    holds("steps", TOLERATED);
}

#[test]
fn correlated_peaks() {
    holds("correlated", TOLERATED);
}

#[test]
fn churn_with_returning_indexes() {
    holds("churn", TOLERATED);
}

#[test]
fn nodes_that_differ() {
    let did = holds("uneven", TOLERATED);
    for did in did {
        assert!(did.covey.savings_ratio > did.constant.savings_ratio);
    }
}

/// Machines that idle and burst, rarely and high: the first hours tell little of them.
#[test]
fn rare_high_bursts() {
    holds("spiky", TOLERATED);
}

/// The services again, but nothing is known at midnight, and all rises three times as high until noon.
#[test]
fn the_first_night() {
    holds("midnight", TOLERATED);
}

/// A few of what chance makes have a step or a burst that nothing announced. Nine in ten hold all of it:
/// `SEEDS=22 cargo nextest run --release -p agent --test overcommit seeds --no-capture` tells which do not.
#[test]
fn seeds() {
    let count = env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let kinds = ["services", "batch", "leaks", "steps", "correlated", "churn", "uneven"];
    let mut missed = Vec::new();
    for (kind, seed) in kinds.iter().flat_map(|kind| (1..=count).map(move |seed| (*kind, seed))) {
        let did = played(kind, seed);
        let mut miss = |is: bool, what: &str| missed.extend(is.then(|| format!("{kind} {seed}: {what}")));
        for ((resource, tolerated), did) in ["cpu", "memory"].iter().zip(TOLERATED).zip(&did) {
            let tolerated = tolerated / 1000.0;
            let too_low = 100.0 * did.covey.violation_rate;
            miss(did.covey.violation_rate > tolerated, &format!("{resource} {too_low:.2} % too low"));
            miss(did.covey.savings_ratio <= did.max, &format!("{resource} saves no more than max"));
            let differ = kind == "uneven" && did.covey.savings_ratio <= did.constant.savings_ratio;
            miss(differ, &format!("{resource} saves no more than const"));
        }
        miss(did[CPU].gap() > 0.8, &format!("{:.2} of max's gap", did[CPU].gap()));
    }
    let all = kinds.len() * count as usize;
    println!("{} of {all} figures' sets are missed: {missed:#?}", missed.len());
    assert!(missed.len() * 8 <= all, "{missed:#?}");
}

/// A day of 400 measured machines. Not in the repository: `shared/data` beside it (or above) may have the file.
#[test]
fn measured_machines() {
    const FILE: &str = "shared/data/planetlab-20110303.csv";
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find_map(|dir| fs::read_to_string(dir.join(FILE)).ok());
    let Some(text) = found else {
        return println!("skipped: there is no {FILE} in any directory above");
    };
    let mut trace = Trace::default();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [time, node, task, band, numbers @ ..] = cells.as_slice() else { panic!("{line}") };
        let numbers: Vec<f64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
        let [cpu_limit, cpu, memory_limit, memory] = numbers[..] else { panic!("{line}") };
        let time_ms = time.parse::<u64>().unwrap() * 1000;
        let (limit, usage) = ([cpu_limit, memory_limit], [cpu, memory]);
        trace.push(&Row { time_ms, node, task, band: band.parse().unwrap(), limit, usage }).unwrap();
    }
    let [cpu, memory] = replayed("planetlab", &trace);
    assert!(cpu.covey.violation_rate <= 0.005 && memory.covey.violation_rate <= 0.001);
    assert!(cpu.gap() <= 0.6, "{}", cpu.gap());
    // The nodes are all alike: there the best constant in hindsight is hard to beat.
    assert!(cpu.covey.savings_ratio >= cpu.constant.savings_ratio - 0.02);
}

/// The simulation is the same everywhere.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let [one, two] = [traces::make("churn", 7), traces::make("churn", 7)];
    assert!(one == two);
    assert!(one != traces::make("churn", 8));
}
