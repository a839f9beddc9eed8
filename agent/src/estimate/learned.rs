//! What a node has learned, as it is kept over restarts of its agent and of the machine; and the estimator's time.

use serde::{Deserialize, Serialize};

use super::{estimator::State, lessons::Lessons};

/// The newest form that this agent reads.
const FORM: u32 = 1;
/// Where time begins: lessons from elsewhere may be older than the node that hears of them.
const BEGINNING_MS: u64 = 30 * 86_400_000;
/// The longest that may pass from one look to the next: while nobody looks, nothing grows old.
const LONGEST_MS: u64 = 300_000;

/// The estimator's time. It follows the monotonic clock but goes on where an earlier agent stopped, and time in which no
/// agent looked, or the machine slept, does not count. No clock that is set, jumps or begins anew changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    at_ms: u64,
    /// The monotonic clock at the last look.
    looked_ms: Option<u64>,
}

impl Default for Time {
    fn default() -> Self {
        Time { at_ms: BEGINNING_MS, looked_ms: None }
    }
}

impl Time {
    /// Looks at the monotonic clock.
    pub fn advance(&mut self, mono_ms: u64) -> u64 {
        let since_ms = self.looked_ms.map_or(0, |looked_ms| mono_ms.saturating_sub(looked_ms));
        self.looked_ms = Some(mono_ms);
        self.at_ms = self.at_ms.saturating_add(since_ms.min(LONGEST_MS));
        self.at_ms
    }

    pub fn now_ms(&self) -> u64 {
        self.at_ms
    }
}

/// What is kept, as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    version: u32,
    at_ms: u64,
    /// The state's peaks are kept in parts of it.
    horizon_ms: u64,
    state: State,
    lessons: Lessons,
}

/// What was kept and is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is of form {0}, and this covey knows forms up to {FORM}")]
    Newer(u32),
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

impl Learned {
    pub fn new(time: Time, horizon_ms: u64, state: State, lessons: Lessons) -> Self {
        Learned { version: FORM, at_ms: time.now_ms(), horizon_ms, state, lessons }
    }

    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        match serde_json::from_slice::<Form>(bytes)?.version {
            newer if newer > FORM => Err(Unreadable::Newer(newer)),
            _ => Ok(serde_json::from_slice(bytes)?),
        }
    }

    /// To go on from. With another horizon only the lessons are of use.
    pub fn resume(self, horizon_ms: u64) -> (Time, State, Lessons) {
        let time = Time { at_ms: self.at_ms, looked_ms: None };
        let state = if self.horizon_ms == horizon_ms { self.state } else { State::default() };
        (time, state, self.lessons)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn time_goes_on_whatever_clocks_do() {
        let mut time = Time::default();
        let began = time.advance(5_000_000);
        assert_eq!(time.advance(5_010_000), began + 10_000);
        // The machine slept for a week; then the clock stood still, or was behind.
        assert_eq!(time.advance(5_010_000 + 7 * 86_400_000), began + 10_000 + LONGEST_MS);
        assert_eq!(time.advance(3), began + 10_000 + LONGEST_MS);
        // The machine was started again: its clock begins anew, and time goes on.
        let kept = Learned::new(time, 7, State::default(), Lessons::default());
        let (mut later, ..) = kept.resume(7);
        assert_eq!(later.advance(100), time.now_ms());
        assert_eq!(later.advance(10_100), time.now_ms() + 10_000);
    }

    #[test]
    fn what_a_newer_covey_wrote_or_nobody_is_said_to_be_so() {
        let kept = Learned::new(Time::default(), 7, State::default(), Lessons::default());
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(Learned::read(text.as_bytes()).unwrap(), kept);
        let newer = r#"{"version": 2, "state": "another"}"#;
        assert!(matches!(Learned::read(newer.as_bytes()), Err(Unreadable::Newer(2))));
        for bad in ["", "{}", &text[..text.len() / 2]] {
            assert!(matches!(Learned::read(bad.as_bytes()), Err(Unreadable::Damaged(_))), "{bad}");
        }
    }
}
