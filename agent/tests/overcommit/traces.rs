//! Traces of the kinds that overcommit meets, made from a seed: each a named scenario.

use std::collections::BTreeMap;

/// One task at one sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) time_s: u64,
    pub(super) node: usize,
    pub(super) task: String,
    pub(super) band: &'static str,
    pub(super) cpu_limit: u64,
    pub(super) cpu: u64,
    pub(super) memory_limit: u64,
    pub(super) memory: u64,
}

/// Between two samples, seconds.
const STEP_S: u64 = 300;
const DAY: f64 = 288.0;

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Rng(seed)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// From 0 up to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// What all tasks of a job have in common.
struct Job {
    name: String,
    prod: bool,
    cpu_limit: f64,
    memory_limit: f64,
    /// Mean use of CPU, as a share of the limit.
    level: f64,
    /// Height of the day's wave, as a share of the level; and its phase, in days.
    wave: f64,
    phase: f64,
    /// Deviation of the noise, as a share of the level.
    noise: f64,
    /// Of memory: the share of the limit that is used at first, what is added by full CPU load, what leaks a sample.
    resident: f64,
    by_load: f64,
    leak: f64,
    /// Chance of a burst at a sample, its height as a share of the limit, its mean length in samples.
    burst: (f64, f64, f64),
    /// Chance of a burst of memory.
    memory_burst: (f64, f64, f64),
    /// When the whole job changes its level, and to how much of it.
    steps: Vec<(u64, f64)>,
    /// Mean life in samples; 0: as long as the trace.
    life: f64,
}

/// One run of an index.
struct Run {
    job: usize,
    index: usize,
    started: u64,
    ends: u64,
    personal: f64,
    noise: f64,
    burst: f64,
    memory_burst: f64,
    leaked: f64,
}

/// The scenario's rows, sorted by time. Days begin at nine in the morning, except for `midnight`.
pub(super) fn make(scenario: &str, seed: u64) -> Vec<Row> {
    let scenarios =
        ["services", "batch", "leaks", "steps", "correlated", "churn", "uneven", "spiky", "midnight"];
    let place = scenarios.iter().position(|name| *name == scenario).expect("a scenario");
    let mut rng = Rng::new(seed * 1000 + place as u64);
    let (nodes, days) = match scenario {
        "uneven" => (12, 2),
        "services" | "midnight" => (8, 4),
        _ => (8, 2),
    };
    let samples = days * DAY as u64;
    let jobs: Vec<Job> = (0..24).map(|n| job(scenario, n, samples, &mut rng)).collect();
    let mut next_index = vec![0; jobs.len()];
    let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut slots: Vec<Vec<Option<Run>>> = (0..nodes)
        .map(|node| {
            let count = if scenario == "uneven" { 4 + 5 * (node % 6) } else { 16 };
            (0..count).map(|_| None).collect()
        })
        .collect();
    let mut rows = Vec::new();
    let mut together = vec![0.0_f64; nodes];
    for at in 0..samples {
        for (node, tasks) in slots.iter_mut().enumerate() {
            // What hits all tasks of a node at once: the top of the hour, mostly.
            together[node] *= 0.3;
            let top = at % 12 == 0 && rng.unit() < 0.6;
            if scenario == "correlated" && (top || rng.unit() < 0.01) {
                together[node] = rng.between(0.3, 1.0);
            }
            for slot in tasks.iter_mut() {
                if let Some(run) = slot.take_if(|run| run.ends <= at) {
                    free.entry(run.job).or_default().push(run.index);
                }
                if slot.is_none() && (at == 0 || rng.unit() < 0.2) {
                    *slot =
                        Some(start(scenario, node, at, samples, &jobs, &mut next_index, &mut free, &mut rng));
                }
                if let Some(run) = slot {
                    rows.push(sample(run, &jobs[run.job], node, at, together[node], &mut rng));
                    if run.leaked >= 1.0 {
                        // Killed at its limit; the index returns.
                        run.ends = at + 1;
                    }
                }
            }
        }
    }
    rows
}

fn job(scenario: &str, n: usize, samples: u64, rng: &mut Rng) -> Job {
    let cpu_limit = [500.0, 1000.0, 1000.0, 2000.0, 4000.0][rng.below(5)];
    let memory_limit = [512.0, 1024.0, 2048.0, 4096.0][rng.below(4)];
    let mut job = Job {
        name: format!("job{n:02}"),
        prod: rng.unit() < 0.5,
        cpu_limit,
        memory_limit,
        level: rng.between(0.08, 0.3),
        wave: 0.0,
        phase: 0.225 + 0.03 * rng.normal(),
        noise: rng.between(0.1, 0.4),
        resident: rng.between(0.2, 0.6),
        by_load: rng.between(0.0, 0.15),
        leak: 0.0,
        burst: (0.0, 0.0, 1.0),
        memory_burst: (0.0, 0.0, 1.0),
        steps: Vec::new(),
        life: 0.0,
    };
    match scenario {
        "services" | "midnight" => {
            if scenario == "midnight" {
                job.phase += 0.375;
            }
            job.wave = rng.between(0.3, 0.8);
            job.noise = rng.between(0.05, 0.25);
        }
        "batch" => {
            job.life = rng.between(6.0, 80.0);
            job.level = rng.between(0.2, 0.6);
            job.burst = (rng.between(0.02, 0.1), rng.between(0.2, 0.5), 4.0);
            job.by_load = rng.between(0.1, 0.4);
            job.prod = false;
        }
        "leaks" => job.leak = if n.is_multiple_of(3) { rng.between(0.001, 0.004) } else { 0.0 },
        "steps" => {
            for _ in 0..rng.below(3) {
                job.steps.push((rng.below(samples as usize) as u64, rng.between(-0.35, 0.35).exp()));
            }
        }
        "correlated" => job.burst = (0.0, rng.between(0.1, 0.4), 1.0),
        "churn" => {
            job.life = rng.between(24.0, 200.0);
            job.wave = rng.between(0.0, 0.5);
        }
        "uneven" => {
            job.level = if n.is_multiple_of(3) { rng.between(0.4, 0.7) } else { rng.between(0.02, 0.2) };
            job.wave = rng.between(0.0, 0.3);
        }
        "spiky" => {
            job.level = rng.between(0.01, 0.08);
            job.burst = (rng.between(0.003, 0.03), rng.between(0.1, 0.7), 2.0);
            job.memory_burst = (rng.between(0.003, 0.02), rng.between(0.1, 0.4), 2.0);
            job.resident = rng.between(0.03, 0.2);
        }
        _ => {}
    }
    job
}

#[allow(clippy::too_many_arguments)]
fn start(
    scenario: &str,
    node: usize,
    at: u64,
    samples: u64,
    jobs: &[Job],
    next_index: &mut [usize],
    free: &mut BTreeMap<usize, Vec<usize>>,
    rng: &mut Rng,
) -> Run {
    // Nodes that differ have different work, too.
    let chosen =
        if scenario == "uneven" { (node * 2 + rng.below(6)) % jobs.len() } else { rng.below(jobs.len()) };
    let back = free.get_mut(&chosen).filter(|_| rng.unit() < 0.8).and_then(Vec::pop);
    let index = back.unwrap_or_else(|| {
        next_index[chosen] += 1;
        next_index[chosen] - 1
    });
    let life = jobs[chosen].life;
    let ends = if life == 0.0 { samples } else { at + 2 + (-(1.0 - rng.unit()).ln() * life) as u64 };
    // An index is what it is, run after run.
    let personal = (0.15 * Rng::new((chosen * 1000 + index) as u64).normal()).exp();
    Run {
        job: chosen,
        index,
        started: at,
        ends,
        personal,
        noise: 0.0,
        burst: 0.0,
        memory_burst: 0.0,
        leaked: 0.0,
    }
}

fn sample(run: &mut Run, job: &Job, node: usize, at: u64, together: f64, rng: &mut Rng) -> Row {
    run.noise = 0.7 * run.noise + 0.71 * rng.normal();
    let day = ((at as f64 / DAY - job.phase) * std::f64::consts::TAU).cos();
    let stepped: f64 = job.steps.iter().filter(|(when, _)| *when <= at).map(|(_, to)| to).product();
    let mut load =
        job.level * stepped * run.personal * (1.0 + job.wave * day) * (1.0 + job.noise * run.noise).max(0.1);
    if run.burst > 0.0 && rng.unit() < 1.0 / job.burst.2 {
        run.burst = 0.0;
    }
    if rng.unit() < job.burst.0 {
        run.burst = job.burst.1 * rng.between(0.5, 1.5);
    }
    if run.memory_burst > 0.0 && rng.unit() < 1.0 / job.memory_burst.2 {
        run.memory_burst = 0.0;
    }
    if rng.unit() < job.memory_burst.0 {
        run.memory_burst = job.memory_burst.1 * rng.between(0.5, 1.5);
    }
    load += run.burst + together * job.burst.1;
    // Work that starts warms up.
    let warm = 1.0 - 0.5 * (-((at - run.started) as f64) / 3.0).exp();
    run.leaked += job.leak * run.personal;
    let used = job.resident * run.personal.min(1.3) * warm + job.by_load * load.min(1.0);
    let memory = used + run.leaked + run.memory_burst + 0.002 * rng.normal();
    if memory >= 1.0 {
        run.leaked = run.leaked.max(if job.leak > 0.0 { 1.0 } else { 0.0 });
    }
    Row {
        time_s: at * STEP_S,
        node,
        task: format!("{}/{}", job.name, run.index),
        band: if job.prod { "production" } else { "batch" },
        cpu_limit: job.cpu_limit as u64,
        cpu: (job.cpu_limit * load.clamp(0.0, 1.0)) as u64,
        memory_limit: job.memory_limit as u64,
        memory: (job.memory_limit * memory.clamp(0.01, 1.0)) as u64,
    }
}
