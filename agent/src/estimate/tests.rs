#![allow(clippy::unwrap_used)]
//! What the estimator promises of one node and its tasks. How good its forecasts are: `tests/overcommit`.

use super::{crowd::Crowd, task::Known, *};
use placement::job::Band;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MEMORY_MS: f64 = 8.0 * DAY as f64;

/// A node that is measured now and then.
struct Node {
    estimator: Estimator,
    lessons: Lessons,
    now_ms: u64,
}

impl Node {
    fn new(lessons: Lessons) -> Self {
        let settings = Settings::of(Preset::Normal, DAY);
        Node { estimator: Estimator::new(settings, State::default()), lessons, now_ms: 0 }
    }

    fn present(&mut self, tasks: &[&str]) {
        let present = tasks.iter().map(|task| Present {
            task: (*task).into(),
            band: Band::Production,
            limit: [1000.0, 1000.0],
        });
        self.estimator.present(self.now_ms, &present.collect::<Vec<_>>(), &mut self.lessons);
    }

    /// Lets time pass; `usage` tells the use of a task (by its place) at a time.
    fn run(&mut self, tasks: &[&str], every_ms: u64, for_ms: u64, usage: impl Fn(usize, u64) -> Amounts) {
        let ids: Vec<TaskId> = tasks.iter().map(|task| (*task).into()).collect();
        let end = self.now_ms + for_ms;
        while self.now_ms < end {
            self.present(tasks);
            let samples = ids.iter().enumerate().map(|(at, id)| (id, usage(at, self.now_ms)));
            self.estimator.observe(self.now_ms, samples.collect::<Vec<_>>(), &mut self.lessons);
            self.now_ms += every_ms;
        }
    }

    fn reservation(&self, task: &str) -> Amounts {
        self.estimator.reservation(&task.into()).unwrap()
    }

    fn peak(&self) -> Amounts {
        self.estimator.forecast(&self.lessons).peak
    }
}

/// A wave that is never the same twice, from 0 to 1.
fn wave(at: usize, now_ms: u64) -> f64 {
    0.5 + 0.5 * ((now_ms / MINUTE) as f64 * (0.7 + 0.13 * at as f64)).sin()
}

#[test]
fn a_reservation_starts_at_the_limit_holds_falls_slowly_and_rises_at_once() {
    let mut node = Node::new(Lessons::default());
    node.run(&["web/0"], 2000, 5 * MINUTE, |_, _| [100.0, 200.0]);
    assert_eq!(node.reservation("web/0"), [1000.0, 1000.0], "held for the time in which tasks start");
    let mut before = [1000.0, 1000.0];
    for _ in 0..20 {
        node.run(&["web/0"], 2000, 3 * MINUTE, |_, _| [100.0, 200.0]);
        let now = node.reservation("web/0");
        for resource in [CPU, MEMORY] {
            assert!(now[resource] <= before[resource], "{now:?} after {before:?}");
            assert!(now[resource] > 0.7 * before[resource], "slowly: {now:?} after {before:?}");
        }
        before = now;
    }
    assert!(before[CPU] < 400.0 && before[MEMORY] < 600.0, "it falls: {before:?}");
    node.run(&["web/0"], 2000, DAY, |_, _| [100.0, 200.0]);
    let settled = node.reservation("web/0");
    assert!(settled[CPU] < 130.0 && settled[MEMORY] < 230.0, "{settled:?}");
    node.run(&["web/0"], 2000, 1, |_, _| [900.0, 800.0]);
    let risen = node.reservation("web/0");
    assert!(risen[CPU] >= 900.0 && risen[MEMORY] >= 800.0, "by the first sample: {risen:?}");
    // The burst was short: it is not forgotten, but smoothed.
    node.run(&["web/0"], 2000, HOUR, |_, _| [100.0, 200.0]);
    let after = node.reservation("web/0");
    assert!(after[CPU] < 300.0 && after[MEMORY] >= 800.0, "{after:?}");
}

#[test]
fn a_returning_index_and_a_sibling_begin_where_others_have_settled() {
    let usage = |at: usize, now: u64| [100.0 + 200.0 * wave(at, now), 300.0 + 50.0 * wave(at + 3, now)];
    let mut node = Node::new(Lessons::default());
    node.run(&["web/0", "web/1"], MINUTE, DAY, usage);
    let settled = node.reservation("web/0");
    // It is gone for a while, and returns beside a new sibling, on another node that has been told.
    node.present(&["web/1"]);
    let mut told = Lessons::default();
    told.merge(&node.lessons, MEMORY_MS);
    let mut other = Node::new(told);
    other.now_ms = node.now_ms + HOUR;
    for (task, at) in [("web/0", 0), ("web/7", 1)] {
        other.run(&[task], 20_000, MINUTE, |_, now| usage(at, now));
        for resource in [CPU, MEMORY] {
            let of = other.reservation(task)[resource] / settled[resource];
            assert!((0.9..1.1).contains(&of), "{task}: {:?}, settled {settled:?}", other.reservation(task));
        }
    }
    // Nobody has taught anything about this one.
    other.run(&["db/0"], 20_000, MINUTE, |_, _| [1.0, 1.0]);
    assert_eq!(other.reservation("db/0"), [1000.0, 1000.0]);
}

#[test]
fn memory_that_leaks_is_reserved_before_it_is_used() {
    let mut node = Node::new(Lessons::default());
    let tasks = ["leaky/0", "warm/0"];
    node.run(&tasks, MINUTE, 8 * HOUR, |at, now| match at {
        0 => [10.0, 100.0 + 20.0 * now as f64 / HOUR as f64],
        _ => [10.0, 260.0 - 160.0 * (-(now as f64) / HOUR as f64).exp()],
    });
    let [leaky, warm] = tasks.map(|task| node.reservation(task)[MEMORY]);
    assert!(leaky > 260.0 + 16.0 * 20.0, "most of a day's growth: {leaky}");
    assert!(warm < 320.0, "what warms up does not leak: {warm}");
}

#[test]
fn a_slow_leak_shows_through_noise_and_noise_alone_does_not() {
    let mut node = Node::new(Lessons::default());
    let tasks = ["leaky/0", "noisy/0"];
    node.run(&tasks, 5 * MINUTE, 8 * HOUR, |at, now| {
        // Up and down by up to 20, as it happens to be.
        let noise = ((now / MINUTE).wrapping_mul(2_654_435_761) >> 7) % 41;
        let grown = if at == 0 { 12.0 * now as f64 / HOUR as f64 } else { 0.0 };
        [10.0, 100.0 + grown + noise as f64]
    });
    let [leaky, noisy] = tasks.map(|task| node.reservation(task)[MEMORY]);
    assert!(leaky > 220.0 + 16.0 * 12.0, "most of a day's growth: {leaky}");
    assert!(noisy < 200.0, "what only varies does not leak: {noisy}");
}

#[test]
fn what_cannot_be_is_taken_for_the_worst() {
    let mut node = Node::new(Lessons::default());
    node.run(&["web/0"], MINUTE, 6 * HOUR, |_, _| [f64::NAN, -1.0]);
    assert_eq!((node.reservation("web/0"), node.peak()), ([1000.0, 1000.0], [1000.0, 1000.0]));
    // A node on which nothing is ever used is not measured.
    let mut idle = Node::new(Lessons::default());
    idle.run(&["web/0"], MINUTE, 6 * HOUR, |_, _| [0.0, 0.0]);
    assert_eq!(idle.peak(), [1000.0, 1000.0]);
    // The clock jumps back, and a year ahead.
    for now_ms in [0, 365 * DAY] {
        node.now_ms = now_ms;
        node.run(&["web/0"], MINUTE, 3 * MINUTE, |_, _| [500.0, 500.0]);
        let peak = node.peak();
        assert!(peak.iter().all(|peak| (500.0..=1000.0).contains(peak)), "{peak:?}");
    }
}

#[test]
fn the_peak_of_many_is_less_than_the_sum_of_their_reservations_and_goes_with_them() {
    let tasks: Vec<String> = (0..20).map(|index| format!("web/{index}")).collect();
    let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
    let mut node = Node::new(Lessons::default());
    // Each has its own minutes of much use.
    let usage = |at: usize, now: u64| {
        let dice =
            (at as u64 + 31 * (now / (5 * MINUTE))).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        [if dice.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 60 == 0 { 800.0 } else { 50.0 }, 100.0]
    };
    node.run(&tasks, MINUTE, 2 * DAY, usage);
    let reserved: f64 = tasks.iter().map(|task| node.reservation(task)[CPU]).sum();
    let all = node.peak()[CPU];
    println!("{:?}", node.estimator.forecast(&node.lessons));
    assert!(all < 0.6 * reserved, "{all} of {reserved}");
    node.present(&tasks[..10]);
    let half = node.peak()[CPU];
    assert!((0.4..0.75).contains(&(half / all)), "{half} of {all}");
    let forecast = node.estimator.forecast(&node.lessons);
    assert_eq!(forecast.bands.keys().copied().collect::<Vec<_>>(), [Band::Production]);
    assert!(forecast.confidence[CPU] > 0.8, "{forecast:?}");
    node.present(&[]);
    assert_eq!(node.peak(), [0.0, 0.0]);
}

#[test]
fn what_all_do_at_once_elsewhere_may_come_here() {
    // On another node the job's tasks go up at once, or each at its own time; here none has yet.
    let peak = |at_once: bool| {
        let names = |from: u32| (from..from + 16).map(|n| format!("web/{n}")).collect::<Vec<_>>();
        let (theirs, ours) = (names(0), names(16));
        let [theirs, ours] =
            [&theirs, &ours].map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        let (mut there, mut here) = (Node::new(Lessons::default()), Node::new(Lessons::default()));
        for part in 0..48 {
            there.run(&theirs, 5 * MINUTE, 5 * MINUTE, |at, now| {
                let goes = part % 16 == if at_once { 3 } else { at };
                [if goes { 600.0 } else { 100.0 + 20.0 * wave(at, now) }, 200.0]
            });
            here.lessons = there.lessons;
            here.run(&ours, 5 * MINUTE, 5 * MINUTE, |at, now| [100.0 + 20.0 * wave(at + 16, now), 200.0]);
            there.lessons = here.lessons.clone();
        }
        here.peak()[CPU]
    };
    let (at_once, apart) = (peak(true), peak(false));
    assert!(at_once > 16.0 * 400.0, "{at_once}");
    assert!(apart < 0.7 * at_once, "{apart} of {at_once}");
}

#[test]
fn a_wrong_forecast_widens_the_margin() {
    let mut node = Node::new(Lessons::default());
    let tasks = ["web/0", "web/1", "web/2", "web/3"];
    let steady = |level: f64| move |at: usize, now: u64| [level + 10.0 * wave(at, now), 100.0];
    node.run(&tasks, MINUTE, 3 * DAY, steady(100.0));
    let before = node.estimator.forecast(&node.lessons);
    node.run(&tasks, MINUTE, HOUR, steady(200.0));
    let after = node.estimator.forecast(&node.lessons);
    assert!(before.peak[CPU] < 4.0 * 200.0, "nobody could know: {before:?}");
    let margin = |forecast: &Forecast| forecast.peak[CPU] / forecast.seen[CPU];
    assert!(margin(&after) > 1.1 * margin(&before), "{before:?} {after:?}");
    assert!(after.confidence[CPU] < before.confidence[CPU]);
}

#[test]
fn what_is_known_outlives_the_agent_and_is_small() {
    let tasks: Vec<String> = (0..100).map(|n| format!("job-{}/{}", n % 10, n / 10)).collect();
    let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
    let mut node = Node::new(Lessons::default());
    node.run(&tasks, MINUTE, HOUR, |at, now| [100.0 * wave(at, now), 100.0]);
    let text = serde_json::to_string(node.estimator.state()).unwrap();
    let state: State = serde_json::from_str(&text).unwrap();
    let again = Estimator::new(Settings::of(Preset::Normal, DAY), state);
    let [before, after] =
        [&node.estimator, &again].map(|estimator| estimator.forecast(&node.lessons).peak[CPU]);
    assert!((after / before - 1.0).abs() < 1e-6, "{after} {before}");
    let back: Lessons = serde_json::from_str(&serde_json::to_string(&node.lessons).unwrap()).unwrap();
    assert!(back == node.lessons);
    let mut twice = node.lessons.clone();
    twice.merge(&node.lessons, MEMORY_MS);
    assert!(twice == node.lessons, "told twice, it says the same");

    node.estimator.teach(&mut node.lessons);
    let jobs = node.lessons.jobs().count();
    let indexes: usize = node.lessons.jobs().map(|(_, job)| job.indexes.len()).sum();
    assert_eq!((jobs, indexes), (10, 100));
    // A tree's nodes may be little more than half full.
    let lessons =
        2 * (jobs * (size_of::<JobLesson>() + 16 + "job-0".len()) + indexes * (4 + size_of::<IndexLesson>()));
    let state = size_of::<State>() + 100 * size_of::<Known>();
    println!(
        "state of 100 tasks: {state} bytes ({} a task, {} a crowd); lessons: {lessons}; as JSON: {}",
        size_of::<Known>(),
        size_of::<Crowd>(),
        text.len()
    );
    assert!(state <= 20 << 10);
}
