//! Lessons as nodes and placer tell them to each other.

use std::sync::Arc;

use gossip::wire::lesson as wire;
use placement::ids::JobKey;

use super::lessons::{IndexLesson, JobLesson, Lessons};

/// A lesson is told again when it has changed by such a share, or as much more was watched.
const NEWS: f32 = 0.1;
const MORE_SEEN: u32 = 4;
/// Less than this, as a share of the limit, is no change; and so many seconds.
const LEAST: f32 = 0.01;
const LEAST_S: u32 = 60;

/// What was told of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    peak: [f32; 2],
    together: f32,
    /// Of the indexes' peaks.
    sum: [f32; 2],
    seen_s: u32,
    ended: u32,
}

impl Told {
    pub(crate) fn of(lesson: &JobLesson) -> Self {
        let sum = |at: usize| lesson.indexes.values().map(|index| index.peak[at]).sum();
        Told { sum: [sum(0), sum(1)], ..Told::of_job(lesson) }
    }

    /// Without what was told of its indexes.
    pub(crate) fn of_job(lesson: &JobLesson) -> Self {
        let JobLesson { peak, together, seen_s, ended, .. } = *lesson;
        Told { peak, together, sum: [0.0; 2], seen_s, ended }
    }

    /// Whether that is news.
    pub(crate) fn differs(&self, now: &Told) -> bool {
        let moved = |told: f32, now: f32| (now - told).abs() > (told * NEWS).max(LEAST);
        now.ended != self.ended
            || now.seen_s > self.seen_s + self.seen_s / MORE_SEEN + LEAST_S
            || moved(self.together, now.together)
            || (0..2).any(|at| moved(self.peak[at], now.peak[at]) || moved(self.sum[at], now.sum[at]))
    }
}

/// The job that a lesson's name names.
pub(crate) fn job(name: &str) -> Option<JobKey> {
    let (owner, name) = name.rsplit_once('/')?;
    Some(JobKey { owner: owner.to_string(), name: name.to_string() })
}

/// Of which of its indexes a job's lesson tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    One(u32),
    None,
}

/// What a job teaches.
pub(crate) fn tell(job: JobKey, lesson: &JobLesson, which: Which, now_ms: u64) -> wire::JobLesson {
    let age_s = |then_s: u64| (now_ms / 1000).saturating_sub(then_s).min(u32::MAX.into()) as u32;
    let index = |(index, lesson): (&u32, &IndexLesson)| {
        let (peak, level) = (millionths(lesson.peak), millionths(lesson.level));
        (
            *index,
            wire::IndexLesson { peak, level, age_s: age_s(lesson.heard_s.into()), seen_s: lesson.seen_s },
        )
    };
    wire::JobLesson {
        job,
        peak: millionths(lesson.peak),
        level: millionths(lesson.level),
        together: millionths([lesson.together, 0.0])[0],
        age_s: age_s(lesson.heard_ms / 1000),
        seen_s: lesson.seen_s,
        ended: lesson.ended,
        lived_s: lesson.lived_s,
        indexes: lesson
            .indexes
            .iter()
            .filter(|(n, _)| which == Which::All || which == Which::One(**n))
            .map(index)
            .collect(),
    }
}

/// What somebody else has learned, as it fits beside one's own.
pub(crate) fn hear(told: &wire::JobLesson, now_ms: u64) -> Lessons {
    let then_ms = |age_s: u32| now_ms.saturating_sub(u64::from(age_s) * 1000);
    let index = |(index, told): (&u32, &wire::IndexLesson)| {
        let (peak, level) = (share(told.peak), share(told.level));
        (
            *index,
            IndexLesson { peak, level, seen_s: told.seen_s, heard_s: (then_ms(told.age_s) / 1000) as u32 },
        )
    };
    let lesson = JobLesson {
        peak: share(told.peak),
        level: share(told.level),
        together: share([told.together, 0])[0],
        heard_ms: then_ms(told.age_s),
        seen_s: told.seen_s,
        ended: told.ended,
        lived_s: told.lived_s,
        indexes: told.indexes.iter().map(index).collect(),
    };
    let name: Arc<str> = told.job.to_string().into();
    Lessons::of(name, lesson)
}

fn millionths(share: [f32; 2]) -> [u32; 2] {
    share.map(|share| (f64::from(share) * 1e6).round() as u32)
}

/// No more than the limit, whatever anybody says.
fn share(millionths: [u32; 2]) -> [f32; 2] {
    millionths.map(|millionths| (f64::from(millionths) / 1e6).min(1.0) as f32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let index = |peak| IndexLesson { peak: [peak, 0.25], level: [0.125, 0.25], seen_s: 90, heard_s: 900 };
        let lesson = JobLesson {
            peak: [0.5, 0.25],
            level: [0.125, 0.25],
            together: 0.5,
            heard_ms: 900_000,
            seen_s: 7_200,
            ended: 3,
            lived_s: 12,
            indexes: [(0, index(0.5)), (4, index(0.375))].into(),
        };
        let named = job("ann/web").unwrap();
        let told = tell(named.clone(), &lesson, Which::All, 1_000_000);
        assert_eq!((told.age_s, told.indexes.len()), (100, 2));
        assert_eq!(tell(named.clone(), &lesson, Which::None, 1_000_000).indexes.len(), 0);
        // The other's clock shows another time.
        let heard = hear(&told, 5_000_000);
        let back = heard.job("ann/web").unwrap();
        assert_eq!((back.heard_ms, back.indexes[&4].heard_s), (4_900_000, 4_900));
        let shown = tell(named.clone(), back, Which::One(4), 5_000_000);
        assert_eq!(shown.indexes.len(), 1);
        assert_eq!(shown, wire::JobLesson { indexes: [(4, told.indexes[&4])].into(), ..told.clone() });
        // Nonsense does not become a need beyond the limit.
        let wild = hear(&wire::JobLesson { peak: [u32::MAX, 7_000_000], ..told }, 0);
        assert_eq!(wild.job("ann/web").unwrap().peak, [1.0, 1.0]);
        assert_eq!(job("nonsense"), None);
    }

    #[test]
    fn only_what_has_changed_is_told_again() {
        let lesson = JobLesson { peak: [0.5, 0.3], seen_s: 3_600, ..JobLesson::default() };
        let told = Told::of(&lesson);
        let differs = |lesson: JobLesson| told.differs(&Told::of(&lesson));
        assert!(!differs(JobLesson { peak: [0.52, 0.28], seen_s: 4_200, ..lesson.clone() }));
        assert!(differs(JobLesson { peak: [0.56, 0.3], ..lesson.clone() }));
        assert!(differs(JobLesson { together: 0.2, ..lesson.clone() }));
        assert!(differs(JobLesson { seen_s: 4_700, ..lesson.clone() }));
        assert!(differs(JobLesson { ended: 1, ..lesson.clone() }));
        let index = IndexLesson { peak: [0.5, 0.3], ..IndexLesson::default() };
        assert!(differs(JobLesson { indexes: [(0, index)].into(), ..lesson }));
    }
}
