//! A trace replayed: what each policy would have predicted, beside the peak that came.

use std::collections::BTreeMap;

use super::{
    Amounts, CPU, MEMORY,
    baseline::Windows,
    estimator::{Estimator, Present, State},
    lessons::Lessons,
    oracle,
    policy::Policy,
    settings::Settings,
    task::TaskId,
    trace::{NodeTrace, Trace},
};

/// Of all predictions, the share that `const` may have below the peak that came: CPU can be throttled, memory cannot.
pub const TOLERATED: Amounts = [0.005, 0.001];

/// How a policy did on a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    pub policy: Policy,
    /// [`CPU`] or [`MEMORY`].
    pub resource: usize,
    /// Mean of what is saved of the limits' sum.
    pub savings_ratio: f64,
    /// Share of the predictions that were below the peak that came.
    pub violation_rate: f64,
    /// Mean over all predictions of what was missing of the peak, as a share of it.
    pub violation_severity: f64,
    /// Predictions: one for each node and time.
    pub samples: usize,
}

/// A node's peaks: one for each of its times.
type Peaks = Vec<Amounts>;

/// What came out of a replay.
#[derive(Debug)]
pub struct Replay<'a> {
    trace: &'a Trace,
    /// The sums of the limits, and the peaks that came, of each node.
    limits: Vec<Peaks>,
    truth: Vec<Peaks>,
    /// What each policy predicted for each node.
    predicted: Vec<(Policy, Vec<Peaks>)>,
}

/// Replays the trace under each of the policies. `step` is called twice for each of the trace's [moments](Trace::moments).
///
/// Nodes tell each other their lessons at once.
pub fn replay<'a>(
    trace: &'a Trace,
    horizon_ms: u64,
    policies: &[Policy],
    mut step: impl FnMut(),
) -> Replay<'a> {
    let truth = trace.nodes.iter().map(|node| oracle::peaks(node, horizon_ms, &mut step)).collect();
    let limits = trace.nodes.iter().map(limits).collect();
    let mut replay = Replay { trace, limits, truth, predicted: Vec::new() };
    let mut predicted: BTreeMap<Policy, Vec<Peaks>> =
        policies.iter().map(|policy| (*policy, vec![Peaks::new(); trace.nodes.len()])).collect();
    replay.predict(horizon_ms, &mut predicted, step);
    for (policy, peaks) in &mut predicted {
        match policy {
            Policy::Oracle => peaks.clone_from(&replay.truth),
            Policy::Const => *peaks = replay.constant(),
            _ => {}
        }
    }
    // In the order that was asked for.
    replay.predicted = policies.iter().filter_map(|policy| predicted.remove_entry(policy)).collect();
    replay
}

/// One node under one of covey's presets.
struct Own {
    policy: Policy,
    lessons: Lessons,
    nodes: Vec<Estimator>,
}

impl Replay<'_> {
    /// Lets time pass, on all nodes at once.
    fn predict(&self, horizon_ms: u64, to: &mut BTreeMap<Policy, Vec<Peaks>>, mut step: impl FnMut()) {
        let nodes = &self.trace.nodes;
        let mut own: Vec<Own> = to
            .keys()
            .filter_map(|policy| match policy {
                Policy::Covey(preset) => {
                    let node = Estimator::new(Settings::of(*preset, horizon_ms), State::default());
                    Some(Own { policy: *policy, lessons: Lessons::default(), nodes: vec![node; nodes.len()] })
                }
                _ => None,
            })
            .collect();
        let mut windows = vec![Windows::default(); nodes.len()];
        let ids: Vec<Vec<TaskId>> = nodes
            .iter()
            .map(|node| node.tasks.iter().map(|task| task.name.as_str().into()).collect())
            .collect();
        let mut moments: Vec<(u64, usize, usize)> = Vec::with_capacity(self.trace.moments());
        for (place, node) in nodes.iter().enumerate() {
            moments.extend(node.times_ms.iter().enumerate().map(|(at, ms)| (*ms, place, at)));
        }
        moments.sort_unstable();
        let mut present = Vec::new();
        for (now_ms, place, at) in moments {
            let (node, ids) = (&nodes[place], &ids[place]);
            let samples = node.at(at);
            let limits = |resource| samples.iter().map(move |s| (s.task, f64::from(s.limit[resource])));
            let baselines = [CPU, MEMORY].map(|resource| windows[place].predict(resource, limits(resource)));
            for (policy, peaks) in to.iter_mut() {
                let peak = baselines.map(|baselines| match policy {
                    Policy::Limit => Some(baselines.limit),
                    Policy::BorgDefault => Some(baselines.borg_default),
                    Policy::RcLike => Some(baselines.rc_like),
                    Policy::NSigma => Some(baselines.n_sigma),
                    Policy::Max => Some(baselines.max),
                    Policy::Covey(_) | Policy::Const | Policy::Oracle => None,
                });
                if let [Some(cpu), Some(memory)] = peak {
                    peaks[place].push([cpu, memory]);
                }
            }
            if !own.is_empty() {
                present.clear();
                present.extend(samples.iter().map(|sample| Present {
                    task: ids[sample.task as usize].clone(),
                    band: node.tasks[sample.task as usize].band,
                    limit: sample.limit.map(f64::from),
                }));
            }
            for Own { policy, lessons, nodes } in &mut own {
                let estimator = &mut nodes[place];
                estimator.present(now_ms, &present, lessons);
                let peak = estimator.forecast(lessons).peak;
                if let Some(peaks) = to.get_mut(policy) {
                    peaks[place].push(peak);
                }
                let usage = samples.iter().map(|s| (&ids[s.task as usize], s.usage.map(f64::from)));
                estimator.observe(now_ms, usage, lessons);
            }
            for sample in samples {
                windows[place].observe(sample.task, sample.usage.map(f64::from));
            }
            step();
        }
    }

    /// The smallest share of the limits that is too little no oftener than is tolerated, in hindsight.
    fn constant(&self) -> Vec<Peaks> {
        let share = [CPU, MEMORY].map(|resource| {
            let mut shares: Vec<f64> = self
                .moments()
                .map(|(node, at)| self.truth[node][at][resource] / self.limits[node][at][resource])
                .filter(|share| share.is_finite())
                .collect();
            shares.sort_unstable_by(f64::total_cmp);
            let above = (TOLERATED[resource] * shares.len() as f64) as usize;
            shares.len().checked_sub(above + 1).map_or(1.0, |place| shares[place].min(1.0))
        });
        let of = |limits: &Amounts| [CPU, MEMORY].map(|resource| share[resource] * limits[resource]);
        self.limits.iter().map(|limits| limits.iter().map(of).collect()).collect()
    }

    fn moments(&self) -> impl Iterator<Item = (usize, usize)> {
        let times = |(node, limits): (usize, &Peaks)| (0..limits.len()).map(move |at| (node, at));
        self.limits.iter().enumerate().flat_map(times)
    }

    /// How each policy did, CPU first.
    pub fn scores(&self) -> Vec<Score> {
        let mut scores = Vec::new();
        for resource in [CPU, MEMORY] {
            scores.extend(self.predicted.iter().map(|(policy, peaks)| self.score(*policy, peaks, resource)));
        }
        scores
    }

    fn score(&self, policy: Policy, peaks: &[Peaks], resource: usize) -> Score {
        let (mut savings, mut violations, mut severity, mut samples) = (0.0, 0, 0.0, 0);
        for (node, at) in self.moments() {
            let limit = self.limits[node][at][resource];
            let (peak, truth) = (peaks[node][at][resource], self.truth[node][at][resource]);
            samples += 1;
            savings += if limit > 0.0 { (limit - peak.min(limit)) / limit } else { 0.0 };
            if peak < truth {
                violations += 1;
                severity += (truth - peak) / truth;
            }
        }
        let mean = |sum: f64| if samples == 0 { 0.0 } else { sum / samples as f64 };
        Score {
            policy,
            resource,
            savings_ratio: mean(savings),
            violation_rate: mean(f64::from(violations)),
            violation_severity: mean(severity),
            samples,
        }
    }

    /// Each prediction of CPU: time, node, policy, milli-CPU.
    pub fn predictions(&self) -> impl Iterator<Item = (u64, &str, Policy, f64)> {
        self.moments().flat_map(move |(place, at)| {
            let node = &self.trace.nodes[place];
            let of = move |(policy, peaks): &(Policy, Vec<Peaks>)| {
                (node.times_ms[at], node.name.as_str(), *policy, peaks[place][at][CPU])
            };
            self.predicted.iter().map(of)
        })
    }
}

fn limits(node: &NodeTrace) -> Peaks {
    let sum = |at: usize| {
        let mut sum = [0.0; 2];
        for sample in node.at(at) {
            for (sum, limit) in sum.iter_mut().zip(sample.limit) {
                *sum += f64::from(limit);
            }
        }
        sum
    };
    (0..node.times_ms.len()).map(sum).collect()
}

impl Replay<'_> {
    /// What a policy would save if its predictions were raised, by the same share of the way to the limits, until they are
    /// too low no oftener than is tolerated: in hindsight, so that policies can be compared at equal harm.
    pub fn inflated(&self, policy: Policy, resource: usize) -> f64 {
        let Some((_, peaks)) = self.predicted.iter().find(|(of, _)| *of == policy) else { return 0.0 };
        let of = |(node, at): (usize, usize)| {
            (self.limits[node][at][resource], peaks[node][at][resource], self.truth[node][at][resource])
        };
        let way = |(limit, peak, truth): (f64, f64, f64)| {
            let (room, missing) = (limit - peak, truth - peak);
            if missing <= 0.0 || room <= 0.0 { 0.0 } else { (missing / room).min(1.0) }
        };
        let mut ways: Vec<f64> = self.moments().map(of).map(way).collect();
        ways.sort_unstable_by(f64::total_cmp);
        let above = (TOLERATED[resource] * ways.len() as f64) as usize;
        let way = ways.len().checked_sub(above + 1).map_or(1.0, |place| ways[place]);
        let saved = |(limit, peak, _): (f64, f64, f64)| {
            if limit > 0.0 { (limit - peak.min(limit)) * (1.0 - way) / limit } else { 0.0 }
        };
        let total: f64 = self.moments().map(of).map(saved).sum();
        total / ways.len().max(1) as f64
    }
}
