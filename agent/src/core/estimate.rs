//! What the node's tasks are believed to need (`crate::estimate`), and what follows from it: reservations, and the peak that
//! the node predicts. Both are told as they change, not at every flicker: more need at once, less after a while.

use std::{collections::BTreeMap, sync::Arc};

use gossip::wire::lesson as wire;
use placement::{
    ids::TaskKey,
    node::Predicted,
    resources::{CPU, MEMORY, Resources},
};

use super::Core;
use crate::{
    estimate::{
        self, Amounts, Estimator, Learned, Lessons, Present, Settings, State, Time,
        told::{self, Told, Which},
    },
    guard::decide,
};

/// Samples are taken so often; at once when a task uses more than it was believed to need.
const EVERY_MS: u64 = 10_000;
/// What is believed to be less than before is told so long after the last change.
const SLOWLY_MS: u64 = 60_000;
/// A change below this share of a limit, or of the capacity, is none.
const WORTH: u64 = 100;
/// A fall of the predicted peak by this share of the capacity is told at once: others may use it.
const MUCH: u64 = 20;
/// Lessons of jobs of which nothing ran here for so long are no more of use.
const FORGOTTEN_MS: u64 = 30 * 86_400_000;
/// Lessons in one message take so many bytes at most: each about so many, and more for each index.
const MESSAGE: usize = 64 << 10;
const A_LESSON: usize = 200;
const AN_INDEX: usize = 100;

/// How a node estimates.
#[derive(Debug, Clone)]
pub struct Estimates {
    pub settings: Settings,
    /// What an earlier agent had learned.
    pub learned: Option<Learned>,
}

/// All tasks together.
#[derive(Debug, Default)]
pub(crate) struct Estimation {
    /// None: nothing is estimated, and tasks count with their limits.
    own: Option<Own>,
    /// The books say something else than was told, though no task does.
    pub(crate) moved: bool,
    /// To be told with the next news.
    pub(crate) lessons: Vec<wire::JobLesson>,
}

#[derive(Debug)]
struct Own {
    settings: Settings,
    estimator: Estimator,
    lessons: Lessons,
    time: Time,
    /// Monotonic, of the last samples.
    sampled_ms: u64,
    /// Tasks in the last list.
    listed: usize,
    predicted: Option<Predicted>,
    /// Monotonic, of the last change of what is predicted.
    predicted_ms: u64,
    /// What the session was told of each job's lessons.
    told: BTreeMap<Arc<str>, Told>,
    /// Monotonic: no lessons before.
    tells_ms: u64,
    /// Tasks came or went since lessons were told.
    stirred: bool,
}

/// What one task needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Need {
    /// CPU and memory; none: its limit.
    amounts: Option<[u64; 2]>,
    /// Monotonic, of its last change.
    changed_ms: u64,
    /// The limit under which the estimator knows it.
    listed: Option<[u64; 2]>,
    /// What was measured since the last samples.
    looks: u32,
    cpu: f64,
    memory: f64,
    /// At the last look.
    now: [u64; 2],
}

fn amounts(of: &Resources) -> [u64; 2] {
    [of.get(CPU), of.get(MEMORY)]
}

impl Need {
    /// What is not among the figures could not be measured: it may be as much as the limit.
    pub(crate) fn look(&mut self, usage: &Resources) {
        let of = |name| usage.0.get(name).map_or(f64::NAN, |amount| *amount as f64);
        self.looks += 1;
        self.cpu += of(CPU);
        // What is unknown once stays so until the samples are taken.
        let memory = of(MEMORY);
        self.memory =
            if memory.is_nan() || self.memory.is_nan() { f64::NAN } else { memory.max(self.memory) };
        self.now = amounts(usage);
    }

    /// As a task with this limit has it reserved.
    pub(crate) fn of(&self, limit: &Resources) -> Resources {
        let mut reservation = limit.clone();
        for (name, need) in [CPU, MEMORY].into_iter().zip(self.amounts.unwrap_or([u64::MAX; 2])) {
            reservation.set(name, need.min(limit.get(name)));
        }
        reservation
    }

    /// Nothing of it runs now.
    pub(crate) fn ended(&mut self) {
        self.now = [0; 2];
    }

    /// It uses more than it was believed to need.
    fn is_short(&self, limit: [u64; 2]) -> bool {
        let used = |at: usize| self.now[at].min(limit[at]);
        self.amounts.is_some_and(|need| (0..2).any(|at| used(at) > need[at]))
    }

    fn sample(&mut self) -> Option<Amounts> {
        let looks = std::mem::take(&mut self.looks);
        let (cpu, memory) = (std::mem::take(&mut self.cpu), std::mem::take(&mut self.memory));
        (looks > 0).then(|| [cpu / f64::from(looks), memory])
    }

    /// Whether that is worth telling.
    fn change(&mut self, estimate: Amounts, limit: [u64; 2], now_ms: u64) -> bool {
        let wanted = [0, 1].map(|at| (estimate[at].ceil() as u64).max(self.now[at]).min(limit[at]));
        let Some(before) = self.amounts else {
            (self.amounts, self.changed_ms) = (Some(wanted), now_ms);
            return wanted != limit;
        };
        let more = self.is_short(limit) || (0..2).any(|at| wanted[at] > before[at] + limit[at] / WORTH);
        let less = (0..2).any(|at| wanted[at] + limit[at] / WORTH < before[at]);
        let next = match (more, less && now_ms >= self.changed_ms + SLOWLY_MS) {
            (true, _) => [0, 1].map(|at| wanted[at].max(before[at])),
            (false, true) => wanted,
            (false, false) => return false,
        };
        (self.amounts, self.changed_ms) = (Some(next), now_ms);
        next != before
    }
}

impl Estimation {
    pub(crate) fn new(estimates: Option<Estimates>) -> Self {
        let own = estimates.map(|Estimates { settings, learned }| {
            let fresh = || (Time::default(), State::default(), Lessons::default());
            let (time, state, lessons) = learned.map_or_else(fresh, |l| l.resume(settings.horizon_ms));
            Own {
                settings,
                estimator: Estimator::new(settings, state),
                lessons,
                time,
                sampled_ms: 0,
                listed: 0,
                predicted: None,
                predicted_ms: 0,
                told: BTreeMap::new(),
                tells_ms: 0,
                stirred: false,
            }
        });
        Estimation { own, ..Estimation::default() }
    }

    /// What the placer knows of a job of which a task is offered, or runs here.
    pub(crate) fn hear(&mut self, lesson: &wire::JobLesson) {
        let Some(own) = self.own.as_mut() else { return };
        own.lessons.merge(&told::hear(lesson, own.time.now_ms()), own.settings.memory_ms());
        if let Some((name, lesson)) = own.lessons.entry(&lesson.job.to_string()) {
            own.told.insert(name, Told::of(lesson));
        }
    }

    /// A new session: the placer may know nothing.
    pub(crate) fn tell_all(&mut self, now_ms: u64) {
        if let Some(own) = self.own.as_mut() {
            own.told.clear();
            own.tells_ms = now_ms;
        }
        self.lessons.clear();
        self.gather(now_ms);
    }

    /// Looks each minute for lessons that the session has not heard, so far as a message has room for them.
    pub(crate) fn gather(&mut self, now_ms: u64) {
        let Some(own) = self.own.as_mut().filter(|own| now_ms >= own.tells_ms) else { return };
        (own.tells_ms, own.stirred) = (now_ms + SLOWLY_MS, false);
        own.estimator.teach(&mut own.lessons);
        let at_ms = own.time.now_ms();
        own.lessons.forget_before(at_ms.saturating_sub(FORGOTTEN_MS));
        let mut room = MESSAGE;
        for (name, lesson) in own.lessons.entries() {
            let now = Told::of(lesson);
            if own.told.get(name).is_some_and(|told| !told.differs(&now)) {
                continue;
            }
            let Some(job) = told::job(name) else { continue };
            let size = A_LESSON + AN_INDEX * lesson.indexes.len();
            let Some(left) = room.checked_sub(size) else {
                own.stirred = true;
                break;
            };
            room = left;
            self.lessons.push(told::tell(job, lesson, Which::All, at_ms));
            own.told.insert(name.clone(), now);
        }
    }

    /// Whether there is something to say though no task changed.
    pub(crate) fn is_news(&self) -> bool {
        self.moved || !self.lessons.is_empty()
    }

    /// Monotonic: when lessons are looked for if nothing happens until then.
    pub(crate) fn tells_at(&self) -> Option<u64> {
        self.own.as_ref().filter(|own| own.stirred).map(|own| own.tells_ms)
    }
}

impl Core {
    /// What the next agent is to know.
    pub fn learned(&self) -> Option<Learned> {
        let own = self.estimation.own.as_ref()?;
        let mut lessons = own.lessons.clone();
        own.estimator.teach(&mut lessons);
        Some(Learned::new(own.time, own.settings.horizon_ms, own.estimator.state().clone(), lessons))
    }

    /// After each measurement: samples, if it is time for them.
    pub(crate) fn estimate(&mut self) {
        let now_ms = self.now.mono_ms;
        let Some(own) = self.estimation.own.as_mut() else { return };
        let short = |task: &super::task::Task| task.need.is_short(amounts(&task.held()));
        if now_ms < own.sampled_ms + EVERY_MS && !self.tasks.values().any(short) {
            return;
        }
        own.sampled_ms = now_ms;
        self.list();
        let Some(own) = self.estimation.own.as_mut() else { return };
        let at_ms = own.time.advance(now_ms);
        let estimated = self.tasks.values_mut().filter(|task| task.is_estimated());
        let samples: Vec<_> =
            estimated.filter_map(|task| Some((task.id.clone(), task.need.sample()?))).collect();
        if !samples.is_empty() {
            let samples = samples.iter().map(|(task, usage)| (task, *usage));
            own.estimator.observe(at_ms, samples, &mut own.lessons);
        }
        self.conclude(false);
    }

    /// Tasks that came, went or have other limits are counted, before anybody looks at the books.
    pub(crate) fn count(&mut self) {
        let Some(own) = self.estimation.own.as_ref() else { return };
        let held = self.tasks.values().filter(|task| task.holds_resources());
        let (mut listed, mut same) = (0, true);
        for task in held {
            listed += 1;
            same &= task.need.listed == Some(amounts(&task.held()));
        }
        if same && listed == own.listed {
            return;
        }
        self.list();
        if let Some(own) = self.estimation.own.as_mut() {
            own.stirred = true;
        }
        self.conclude(true);
    }

    /// Tells the estimator who is there.
    fn list(&mut self) {
        let Some(own) = self.estimation.own.as_mut() else { return };
        let (mut present, mut listed) = (Vec::new(), 0);
        for task in self.tasks.values_mut() {
            if !task.holds_resources() {
                task.need.listed = None;
                continue;
            }
            listed += 1;
            let limit = amounts(&task.held());
            task.need.listed = Some(limit);
            if task.is_estimated() {
                let (task, band) = (task.id.clone(), task.record.spec.band);
                present.push(Present { task, band, limit: limit.map(|amount| amount as f64) });
            }
        }
        own.listed = listed;
        own.estimator.present(own.time.advance(self.now.mono_ms), &present, &mut own.lessons);
    }

    /// What is believed now. `at_once`: others than before are there.
    fn conclude(&mut self, at_once: bool) {
        let now_ms = self.now.mono_ms;
        let Some(own) = self.estimation.own.as_mut() else { return };
        let forecast = own.estimator.forecast(&own.lessons);
        let (mut peak, mut used) = (forecast.peak, 0);
        let mut changed: Vec<TaskKey> = Vec::new();
        for (key, task) in &mut self.tasks {
            if !task.holds_resources() {
                continue;
            }
            let limit = amounts(&task.held());
            let known = if task.is_estimated() { own.estimator.reservation(&task.id) } else { None };
            match known {
                Some(estimate) => {
                    used += task.need.now[estimate::MEMORY].min(limit[estimate::MEMORY]);
                    if task.need.change(estimate, limit, now_ms) {
                        changed.push(*key);
                    }
                }
                None => {
                    task.need.amounts = None;
                    (0..2).for_each(|at| peak[at] += limit[at] as f64);
                }
            }
        }
        self.dirty.extend(changed);
        // What is in memory now cannot be taken back by a forecast.
        peak[estimate::MEMORY] = peak[estimate::MEMORY].max(used as f64);
        let confidence = |at: usize| (1000.0 * forecast.confidence[at]) as u64;
        let predicted = Predicted {
            peak: Resources::new(peak[0].ceil() as u64, peak[1].ceil() as u64),
            confidence_permille: Resources::new(confidence(0), confidence(1)),
            kept: [(MEMORY, decide::kept(self.config.node.capacity.get(MEMORY)))].into_iter().collect(),
        };
        let late = now_ms >= own.predicted_ms + SLOWLY_MS;
        let worth = match &own.predicted {
            Some(told) if !at_once => is_news(&told.peak, &predicted.peak, &self.config.node.capacity, late),
            told => told.as_ref() != Some(&predicted),
        };
        if worth {
            (own.predicted, own.predicted_ms) = (Some(predicted), now_ms);
            self.estimation.moved = true;
        }
    }

    /// The peak as it was told last.
    pub(crate) fn predicted(&self) -> Option<Predicted> {
        self.estimation.own.as_ref()?.predicted.clone()
    }
}

/// Whether the placer is to know.
fn is_news(told: &Resources, now: &Resources, capacity: &Resources, late: bool) -> bool {
    let moved = |name| {
        let (told, now, capacity) = (told.get(name), now.get(name), capacity.get(name));
        let least = if late { capacity / 1000 } else { capacity / MUCH };
        now > told + capacity / WORTH || (late && now > told + least) || told > now + least
    };
    moved(CPU) || moved(MEMORY)
}
