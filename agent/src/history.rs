//! What a node remembers of the jobs whose tasks it ran, in little and fixed memory: how much of CPU and memory a task of each
//! used (as Google's VPA recommender keeps it: weights in exponential buckets that halve each day), and what ended tasks.
//!
//! Pure: time is an argument (wall clock, milliseconds since 1970: it outlives the agent; where that is set, what is remembered
//! moves with it).

pub mod advice;
mod decaying;
mod endings;
mod job;
pub(crate) mod keep;

use std::collections::BTreeMap;

use gossip::wire::usage::Ended;
use placement::{
    ids::JobKey,
    resources::{CPU, MEMORY, Resources},
    task::Cause,
};

use self::{decaying::HALF_LIFE_MS, endings::Endings};
pub use self::{endings::Ending, job::JobHistory};
use crate::event::{Now, RunId};

/// The peak of a task's memory within so long is one that counts.
pub const WINDOW_MS: u64 = 600_000;
/// Between two looks at a task; beyond that nobody knows what it did.
const GAP_MS: u64 = 60_000;
/// The wall clock was set if it went so much further, or less far, than time did.
const SET_MS: u64 = 60_000;
/// Jobs that a node remembers: those whose tasks ran here last.
const JOBS: usize = 1_000;
/// What a job did so long ago weighs nothing any more.
const FORGET_MS: u64 = 8 * HALF_LIFE_MS;
/// A task that was killed at its memory limit wanted more than that; at least a fifth is VPA's guess.
const WANTED_MORE: f64 = 1.2;

/// One node's.
#[derive(Debug, Clone, Default)]
pub struct History {
    jobs: BTreeMap<JobKey, JobHistory>,
    /// The tasks that run.
    runs: BTreeMap<RunId, Window>,
    endings: Endings,
    looked: Option<Now>,
}

/// How much memory a run has used at most since `from_ms`.
#[derive(Debug, Clone, Copy)]
struct Window {
    from_ms: u64,
    seen_ms: u64,
    peak: u64,
    /// When it was last told how long its CPU limit held it back.
    strained_ms: u64,
}

impl Window {
    fn shift(&mut self, by_ms: i64) {
        for ms in [&mut self.from_ms, &mut self.seen_ms, &mut self.strained_ms] {
            *ms = ms.saturating_add_signed(by_ms);
        }
    }
}

impl History {
    /// What was kept before. What ended while no agent was here is counted already.
    pub fn resume(&mut self, kept: History) {
        self.jobs = kept.jobs;
        self.endings.merge(kept.endings);
    }

    /// Looks at the clocks, before whatever is of this time. Nothing grows old or is lost when the wall clock is set.
    pub fn look(&mut self, now: Now) {
        let Some(last) = self.looked.replace(now) else { return };
        let since = |then: u64, now: u64| now.cast_signed().wrapping_sub(then.cast_signed());
        let set_ms = since(last.wall_ms, now.wall_ms).wrapping_sub(since(last.mono_ms, now.mono_ms));
        if set_ms.unsigned_abs() < SET_MS {
            return;
        }
        self.jobs.values_mut().for_each(|job| job.shift(set_ms));
        self.runs.values_mut().for_each(|window| window.shift(set_ms));
        self.endings.shift(set_ms);
    }

    /// What a run uses now.
    pub fn used(&mut self, run: RunId, job: &JobKey, usage: &Resources, now_ms: u64) {
        let memory = usage.get(MEMORY);
        if !self.runs.contains_key(&run) {
            self.tidy(now_ms);
        }
        if !self.jobs.contains_key(job) {
            self.make_room();
            self.jobs.insert(job.clone(), JobHistory::default());
        }
        let new = Window { from_ms: now_ms, seen_ms: now_ms, peak: memory, strained_ms: now_ms };
        let window = self.runs.entry(run).or_insert(new);
        let Some(history) = self.jobs.get_mut(job) else { return };
        let passed_ms = now_ms.saturating_sub(window.seen_ms).min(GAP_MS);
        history.watched(now_ms, GAP_MS);
        // What could not be measured is not there.
        if passed_ms > 0 && usage.0.contains_key(CPU) {
            history.cpu.add(usage.get(CPU) as f64, passed_ms as f64 / 1000.0, now_ms);
        }
        window.seen_ms = now_ms;
        window.peak = window.peak.max(memory);
        // A clock that was set back begins a new one.
        if now_ms < window.from_ms || now_ms - window.from_ms >= WINDOW_MS {
            if window.peak > 0 {
                history.memory.add(window.peak as f64, 1.0, now_ms);
            }
            *window = Window { from_ms: now_ms, peak: memory, ..*window };
        }
    }

    /// Its CPU limit held a run back for this share of the time since that was told last, in thousandths.
    pub fn throttled(&mut self, run: RunId, job: &JobKey, permille: u64, now_ms: u64) {
        let (Some(window), Some(history)) = (self.runs.get_mut(&run), self.jobs.get_mut(job)) else { return };
        let passed_ms = now_ms.saturating_sub(window.strained_ms).min(GAP_MS);
        window.strained_ms = now_ms;
        // With several processors it can be more than the time.
        history.held_back(passed_ms as f64 / 1000.0 * permille.min(1000) as f64 / 1000.0, now_ms);
    }

    /// A run ended.
    pub fn ended(&mut self, run: RunId, job: &JobKey, ending: Ending, limit: &Resources, now_ms: u64) {
        self.endings.add(ending, now_ms);
        let window = self.runs.remove(&run);
        let Some(history) = self.jobs.get_mut(job) else { return };
        let most = limit.get(MEMORY);
        if ending.cause == Cause::OomLimit && most > 0 {
            history.memory.add(most as f64 * WANTED_MORE, 1.0, now_ms);
            history.killed(now_ms);
        } else if let Some(window) = window.filter(|window| window.peak > 0) {
            // A part of a window.
            let lived_ms = now_ms.saturating_sub(window.from_ms).min(WINDOW_MS);
            history.memory.add(window.peak as f64, lived_ms as f64 / WINDOW_MS as f64, now_ms);
        }
    }

    /// How many runs ended of late, and why; those that ended by themselves do not count.
    pub fn endings(&self, now_ms: u64) -> Vec<Ended> {
        self.endings.counts(now_ms)
    }

    pub fn jobs(&self) -> &BTreeMap<JobKey, JobHistory> {
        &self.jobs
    }

    /// Forgets what is too old to count.
    fn tidy(&mut self, now_ms: u64) {
        self.jobs.retain(|_, job| now_ms.saturating_sub(job.seen_ms()) < FORGET_MS);
        self.runs.retain(|_, window| now_ms.saturating_sub(window.seen_ms) < WINDOW_MS);
    }

    fn make_room(&mut self) {
        if self.jobs.len() < JOBS {
            return;
        }
        let oldest = self.jobs.iter().min_by_key(|(_, job)| job.seen_ms()).map(|(job, _)| job.clone());
        oldest.map(|job| self.jobs.remove(&job));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::{
        ids::{Generation, TaskKey, Uid},
        job::Band,
    };

    use super::*;

    const START: u64 = 1_700_000_000_000;
    const MIB: u64 = 1 << 20;

    fn run(index: u32) -> RunId {
        let key = TaskKey { uid: Uid { cell: 1, index: 7 }, index };
        RunId { key, generation: Generation { cell: 1, activation: 1, seq: 0 }, run: 0 }
    }

    fn job(name: &str) -> JobKey {
        JobKey { owner: "ann".into(), name: name.into() }
    }

    /// A task that is looked at each two seconds.
    fn watch(history: &mut History, from_s: u64, to_s: u64, usage: impl Fn(u64) -> Resources) {
        for s in (from_s..to_s).step_by(2) {
            history.used(run(0), &job("web"), &usage(s), START + s * 1000);
        }
    }

    #[test]
    fn cpu_counts_by_time_and_memory_by_the_peaks_of_windows() {
        let mut history = History::default();
        // A tenth of the time it uses much; once in an hour more memory.
        watch(&mut history, 0, 3600, |s| {
            let cpu = if s % 100 < 10 { 500 } else { 50 };
            Resources::new(cpu, if s == 1700 { 80 * MIB } else { 60 * MIB })
        });
        let web = &history.jobs()[&job("web")];
        assert_eq!(web.watched_ms(), 3_598_000);
        let share = web.cpu.share_above(100.0);
        assert!((share - 0.1).abs() < 0.01, "{share}");
        // Five windows have ended, one of which had the peak.
        let peaks = web.memory.share_above(70.0 * MIB as f64);
        assert!((peaks - 0.2).abs() < 0.01, "{peaks}");
    }

    #[test]
    fn the_time_in_which_the_limit_held_it_back_is_known() {
        let mut history = History::default();
        for s in (0..1000).step_by(2) {
            history.used(run(0), &job("web"), &Resources::new(50, 60 * MIB), START + s * 1000);
            if s % 10 == 0 {
                history.throttled(run(0), &job("web"), 200, START + s * 1000);
            }
        }
        let share = history.jobs()[&job("web")].held_back_share(START + 1_000_000);
        assert!((share - 0.2).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_kill_at_the_limit_counts_as_a_peak_above_it() {
        let mut history = History::default();
        watch(&mut history, 0, 120, |_| Resources::new(10, 60 * MIB));
        let limit = Resources::new(100, 64 * MIB);
        let ending = Ending { band: Band::Batch, cause: Cause::OomLimit, notified: None };
        history.ended(run(0), &job("web"), ending, &limit, START + 120_000);
        let web = &history.jobs()[&job("web")];
        assert_eq!(web.memory.share_above(64.0 * MIB as f64), 1.0);
        assert!(web.kills(START + 121_000) > 0.9 && web.kills(START + 121_000 + HALF_LIFE_MS) < 0.51);
        assert_eq!(history.endings(START + 121_000).len(), 1);
    }

    #[test]
    fn clocks_that_jump_are_survived() {
        let mut history = History::default();
        let usage = |_| Resources::new(50, 60 * MIB);
        watch(&mut history, 0, 600, usage);
        let years = 20 * 365 * 86_400;
        watch(&mut history, years, years + 10, usage);
        watch(&mut history, 0, 7200, |_| Resources::new(200, 90 * MIB));
        let web = &history.jobs()[&job("web")];
        // What comes after counts: it is not taken for what is twenty years old.
        assert!(web.cpu.share_above(100.0) > 0.8, "{}", web.cpu.share_above(100.0));
        assert!(web.watched_ms() < 7_200_000 + 600_000 + 3 * GAP_MS);
    }

    #[test]
    fn a_wall_clock_that_is_set_changes_nothing() {
        let limit = Resources::new(100, 64 * MIB);
        let reclaimed = Ending { band: Band::Free, cause: Cause::Reclaimed, notified: None };
        // Minutes by the kernel, and how far the wall clock is off from then on.
        let day = 86_400_000_i64;
        let seen = |set: [i64; 3]| {
            let mut history = History::default();
            let mut at = |minute: u64, set: i64| {
                let mono_ms = minute * 60_000;
                let wall_ms = (START + mono_ms).saturating_add_signed(set);
                history.look(Now { mono_ms, wall_ms });
                let name = if minute < 20 { "early" } else { "web" };
                history.used(
                    run(minute as u32 / 20),
                    &job(name),
                    &Resources::new(50 + minute, MIB << (minute / 20)),
                    wall_ms,
                );
                if minute == 10 {
                    history.throttled(run(0), &job(name), 500, wall_ms);
                    history.ended(run(7), &job(name), reclaimed, &limit, wall_ms);
                }
                wall_ms
            };
            let off = |minute: u64| set[usize::from(minute >= 30) + usize::from(minute >= 45)];
            let now_ms = (0..60).map(|minute| at(minute, off(minute))).last().unwrap();
            let jobs = history.jobs().values().map(|job| {
                let cpu = (job.cpu.total(now_ms), job.cpu.share_above(70.0));
                let memory = (job.memory.total(now_ms), job.memory.share_above(2.0 * MIB as f64));
                let rounded = |n: f64| (n * 1e6).round();
                let age_ms = now_ms - job.seen_ms();
                (
                    [cpu.0, cpu.1, memory.0, memory.1, job.held_back_share(now_ms)].map(rounded),
                    age_ms,
                    job.watched_ms(),
                )
            });
            (jobs.collect::<Vec<_>>(), history.endings(now_ms))
        };
        let usual = seen([0, 0, 0]);
        assert_eq!((usual.0.len(), usual.1.len()), (2, 1));
        assert_eq!(seen([0, 3650 * day, 0]), usual, "ten years ahead and back");
        assert_eq!(seen([0, -30 * day, -30 * day]), usual, "back");
        // A machine without a clock of its own, that is told the time.
        assert_eq!(seen([3_600_000 - START.cast_signed(), 0, 0]), usual, "from 1970");
    }

    #[test]
    fn memory_is_bounded_and_what_is_kept_is_read_back() {
        let mut history = History::default();
        let usage = |s: u64| Resources::new(1 << (s % 20), MIB << (s % 14));
        for n in 0..JOBS as u64 + 50 {
            history.used(run(0), &job(&format!("j{n:04}")), &usage(n), START + n);
        }
        assert_eq!((history.jobs().len(), history.jobs().contains_key(&job("j0049"))), (JOBS, false));
        // From a thousandth of a core to a thousand cores: every bucket is used.
        let (of, begin) = (job("j1000"), START + 10_000);
        for s in 0..200 {
            for at in [0, 1000, WINDOW_MS] {
                history.used(run(1), &of, &usage(s), begin + s * 2 * WINDOW_MS + at);
            }
        }
        let one = &history.jobs()[&of];
        assert!(one.bytes() <= 600, "{} bytes", one.bytes());
        let text = serde_json::to_string(one).unwrap();
        let back: JobHistory = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert!(text.len() < 1000, "{} bytes: {text}", text.len());
        for limit in [10.0, 1000.0, 1e5] {
            assert!((one.cpu.share_above(limit) - back.cpu.share_above(limit)).abs() < 0.001);
        }
        history.tidy(START + 100 * FORGET_MS);
        assert!(history.jobs().is_empty());
    }
}
