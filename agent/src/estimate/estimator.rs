//! The estimator of one node: samples in; reservations and the predicted peak out. It has no clock and does no I/O.

use std::collections::BTreeMap;

use placement::job::Band;
use serde::{Deserialize, Serialize};

use super::{
    Amounts, CPU, MEMORY,
    company::{Company, Spread},
    crowd::{Crowd, Members, Peak},
    lessons::{IndexLesson, Lessons, Shown},
    settings::Settings,
    task::{Known, TaskId},
    tasks::Tasks,
};

const RESOURCES: [usize; 2] = [CPU, MEMORY];
/// All tasks together, then those of each band.
const CROWDS: usize = 1 + Band::ALL.len();
const ALL: usize = 0;
/// What a task's own peak may grow by, for each e-folding of the time ahead over the time seen.
const OWN_GROWTH: f64 = 0.1;

/// A task that is on the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Present {
    pub task: TaskId,
    pub band: Band,
    /// Milli-CPU, and memory in bytes (or any one unit).
    pub limit: Amounts,
}

/// What the node's tasks will need.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// The highest use of all tasks together from now to the horizon.
    pub peak: Amounts,
    /// The highest that was seen of these tasks within the last horizon.
    pub seen: Amounts,
    /// The share of earlier forecasts that came true, 0 to 1; a half before there was any.
    pub confidence: Amounts,
    /// The peak of each band's tasks by themselves; together more than `peak`.
    pub bands: BTreeMap<Band, Amounts>,
}

/// What the estimator knows; it outlives the agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    tasks: Tasks,
    crowds: [[Crowd; 2]; CROWDS],
    #[serde(default)]
    company: Company,
    now_ms: u64,
}

/// The estimator of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimator {
    settings: Settings,
    state: State,
}

impl Estimator {
    /// Goes on from what was known.
    pub fn new(settings: Settings, state: State) -> Self {
        Estimator { settings, state }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// These tasks are on the node now, each named once, whether or not they have been measured. New ones begin with what
    /// `lessons` know of them, and those that are gone leave theirs.
    pub fn present(&mut self, now_ms: u64, present: &[Present], lessons: &mut Lessons) {
        let horizon_ms = self.settings.horizon_ms;
        let State { tasks, crowds, now_ms: now, .. } = &mut self.state;
        // A clock that jumps back has stopped for a while.
        *now = now_ms.max(*now);
        let now_ms = *now;
        tasks.iter_mut().for_each(|known| {
            known.turn(now_ms, horizon_ms);
            known.listed = false;
        });
        let mut peaks = sums(tasks);
        for Present { task, band, limit } in present {
            let limit = sane(*limit, [0.0; 2]);
            if let Some(known) = tasks.get_mut(task) {
                known.limit = limit.map(|limit| limit as f32);
                known.listed = true;
                continue;
            }
            let mut known = Known::new(task.clone(), *band, limit, now_ms);
            known.turn(now_ms, horizon_ms);
            if let Some(start) = lessons.start(task) {
                let of = |shares: Amounts| RESOURCES.map(|resource| shares[resource] * limit[resource]);
                known.begin(of(start.peak), of(start.level), start.seen_s);
                change(crowds, &mut peaks, &known, 1.0, now_ms, horizon_ms);
            }
            tasks.insert(known);
        }
        for known in tasks.take_unlisted() {
            change(crowds, &mut peaks, &known, -1.0, now_ms, horizon_ms);
            if known.known {
                let lived_s = now_ms.saturating_sub(known.since_ms) / 1000;
                lessons.learn(&known.task, lesson(&known, now_ms), Some(lived_s));
            }
        }
    }

    /// What tasks use, each of them one that is [`present`](Self::present).
    pub fn observe<'a>(
        &mut self,
        now_ms: u64,
        usage: impl IntoIterator<Item = (&'a TaskId, Amounts)>,
        lessons: &mut Lessons,
    ) {
        let settings = self.settings;
        self.state.now_ms = now_ms.max(self.state.now_ms);
        let now_ms = self.state.now_ms;
        self.keep_score(lessons);
        let State { tasks, crowds, company, .. } = &mut self.state;
        let since_ms = crowds[ALL][CPU].since_ms(now_ms);
        let together = company.correlation();
        let (mut off, mut deviations) = (Spread::default(), Spread::default());
        let mut peaks = sums(tasks);
        let mut used = [[0.0; 2]; CROWDS];
        for (task, usage) in usage {
            let Some(known) = tasks.get_mut(task) else { continue };
            let limit = known.limit.map(f64::from);
            // What cannot be is taken for the worst.
            let usage = sane(usage, limit);
            let first = !known.known;
            let usage = known.observe(usage, now_ms, &settings);
            if first {
                change(crowds, &mut peaks, known, 1.0, now_ms, settings.horizon_ms);
            }
            off.add(known.off.into());
            deviations.add(f64::from(known.varies).sqrt());
            for crowd in [ALL, 1 + known.band as usize] {
                for resource in RESOURCES {
                    used[crowd][resource] += usage[resource];
                }
            }
            let share =
                |resource: usize| if limit[resource] > 0.0 { usage[resource] / limit[resource] } else { 0.0 };
            let share = [share(CPU), share(MEMORY)];
            let seen_s = (now_ms.saturating_sub(known.since_ms) / 1000) as u32;
            let shown = Shown { share, together, since_s: since_ms as f32 / 1000.0, seen_s };
            lessons.watch(task, &shown, now_ms, settings.memory_ms());
        }
        company.observe(&off, &deviations, since_ms, settings.horizon_ms);
        for (crowd, used) in crowds.iter_mut().zip(used) {
            for (crowd, used) in crowd.iter_mut().zip(used) {
                crowd.observe(used, now_ms, &settings);
            }
        }
    }

    /// Writes down what the tasks that run have needed so far, for others to begin with should this node be lost.
    pub fn teach(&self, lessons: &mut Lessons) {
        for known in self.state.tasks.iter().filter(|known| known.known) {
            lessons.learn(&known.task, lesson(known, self.state.now_ms), None);
        }
    }

    /// What the node's tasks will need from now to the horizon.
    pub fn forecast(&self, lessons: &Lessons) -> Forecast {
        let members = self.members(lessons);
        let peak = |crowd: usize| RESOURCES.map(|resource| self.peak(crowd, resource, &members));
        let all = peak(ALL);
        Forecast {
            peak: all.map(|peak| peak.predicted),
            seen: all.map(|peak| peak.seen),
            confidence: RESOURCES.map(|resource| self.state.crowds[ALL][resource].scores.confidence()),
            bands: Band::ALL
                .into_iter()
                .filter(|band| members[1 + *band as usize][CPU].tasks > 0)
                .map(|band| (band, peak(1 + band as usize).map(|peak| peak.predicted)))
                .collect(),
        }
    }

    /// What the task is believed to need: its limit at first, at least its use now.
    pub fn reservation(&self, task: &TaskId) -> Option<Amounts> {
        let (known, now_ms) = (self.state.tasks.get(task)?, self.state.now_ms);
        let horizon_ms = self.settings.horizon_ms as f64;
        let seen_ms = (known.evidence_ms(now_ms) as f64).clamp(1.0, horizon_ms);
        let growth = 1.0 + OWN_GROWTH * (1.0 + horizon_ms / seen_ms).ln();
        Some(RESOURCES.map(|resource| {
            let doubt = known.doubt(resource, now_ms, self.settings.hold_ms, self.settings.fall_ms);
            let leak = if resource == MEMORY { known.leak(horizon_ms, self.settings.leak) } else { 0.0 };
            let needed = known.peak(resource) * growth + doubt.max(leak);
            needed.min(known.limit[resource].into()).max(known.now[resource].into())
        }))
    }

    fn peak(&self, crowd: usize, resource: usize, members: &[[Members; 2]; CROWDS]) -> Peak {
        let crowd = (&self.state.crowds[crowd][resource], &members[crowd][resource]);
        crowd.0.predict(resource, crowd.1, self.state.now_ms, &self.settings)
    }

    /// Forecasts are written down before the sample that may refute them.
    fn keep_score(&mut self, lessons: &Lessons) {
        let (now_ms, horizon_ms) = (self.state.now_ms, self.settings.horizon_ms);
        if !self.state.crowds.iter().flatten().any(|crowd| crowd.scores.due(now_ms, horizon_ms)) {
            return;
        }
        let members = self.members(lessons);
        for crowd in 0..CROWDS {
            for resource in RESOURCES {
                let peak = self.peak(crowd, resource, &members);
                let scores = &mut self.state.crowds[crowd][resource].scores;
                if scores.due(now_ms, horizon_ms) {
                    scores.write(peak.seen, peak.predicted, now_ms, horizon_ms);
                }
            }
        }
    }

    fn members(&self, lessons: &Lessons) -> [[Members; 2]; CROWDS] {
        let mut members = [[Members::default(); 2]; CROWDS];
        let (now_ms, horizon_ms) = (self.state.now_ms, self.settings.horizon_ms as f64);
        for known in self.state.tasks.iter() {
            let seen_ms = (known.evidence_ms(now_ms) as f64).min(horizon_ms);
            let life_ms = lessons.life_ms(&known.task).unwrap_or(horizon_ms);
            let least_ms = (self.settings.hold_ms as f64).min(horizon_ms);
            let stays_ms = (self.settings.lives * life_ms).clamp(least_ms, horizon_ms);
            let job = lessons.job(&known.task.job);
            for resource in RESOURCES {
                let peak = known.peak(resource);
                let doubt = known.doubt(resource, now_ms, self.settings.hold_ms, self.settings.doubt_ms);
                let leak = if resource == MEMORY { known.leak(stays_ms, self.settings.leak) } else { 0.0 };
                let limit = f64::from(known.limit[resource]);
                let like = job.map_or(0.0, |job| f64::from(job.peak[resource]) * limit).max(peak);
                let like = (like - f64::from(known.level[resource])).max(0.0);
                for crowd in [ALL, 1 + known.band as usize] {
                    let members = &mut members[crowd][resource];
                    members.tasks += 1;
                    members.limits.add(limit);
                    members.peaks += peak;
                    members.peaks_seen_ms += peak * seen_ms;
                    members.peaks_life_ms += peak * life_ms.clamp(least_ms, horizon_ms);
                    members.peaks_stay_ms += peak * stays_ms;
                    members.doubts += doubt;
                    members.leaks += leak;
                    members.bursts.add(known.burst(resource));
                    members.like.add(like);
                    members.together += job.map_or(0.0, |job| job.together.into());
                }
            }
        }
        members
    }
}

/// The sums of the tasks' own peaks, by crowd.
type Sums = [[f64; 2]; CROWDS];

fn sums(tasks: &Tasks) -> Sums {
    let mut sums = Sums::default();
    for known in tasks.iter() {
        for crowd in [ALL, 1 + known.band as usize] {
            for resource in RESOURCES {
                sums[crowd][resource] += known.peak(resource);
            }
        }
    }
    sums
}

/// A task's peaks are added to its crowds, or taken away.
fn change(
    crowds: &mut [[Crowd; 2]; CROWDS],
    sums: &mut Sums,
    known: &Known,
    sign: f64,
    now_ms: u64,
    horizon_ms: u64,
) {
    for crowd in [ALL, 1 + known.band as usize] {
        for resource in RESOURCES {
            let sum = &mut sums[crowd][resource];
            let before = *sum;
            *sum = (before + sign * known.peak(resource)).max(0.0);
            crowds[crowd][resource].scale(before, *sum, now_ms, horizon_ms);
        }
    }
}

fn lesson(known: &Known, now_ms: u64) -> IndexLesson {
    let share = |amount: f64, resource: usize| {
        let limit = f64::from(known.limit[resource]);
        if limit > 0.0 { (amount / limit) as f32 } else { 0.0 }
    };
    IndexLesson {
        peak: RESOURCES.map(|resource| share(known.peak(resource), resource)),
        level: RESOURCES.map(|resource| share(known.level[resource].into(), resource)),
        seen_s: (known.evidence_ms(now_ms) / 1000).min(u64::from(u32::MAX)) as u32,
        heard_s: (now_ms / 1000) as u32,
    }
}

fn sane(amounts: Amounts, otherwise: Amounts) -> Amounts {
    RESOURCES.map(|resource| {
        let amount = amounts[resource];
        if amount.is_finite() && amount >= 0.0 { amount } else { otherwise[resource] }
    })
}
