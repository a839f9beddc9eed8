//! What tasks need, estimated from what they use: a reservation for each, and the node's predicted peak.
//!
//! Pure: time, samples and what other nodes have learned are arguments. A node's agent feeds an [`Estimator`]; a trace is
//! replayed through the same one, beside the policies that others use ([`replay()`]).
//!
//! How a peak is predicted:
//! - A task of which nothing is known counts at its limit. The doubt fades as it is watched (`task`), and does not arise where
//!   earlier runs or siblings were watched, on any node ([`Lessons`]).
//! - What tasks use together is followed as one (`crowd`): its peak within a horizon, scaled when tasks come and go, and a
//!   margin as the statistics of extreme values have it. How far tasks move together (`company`) is measured, and known of a
//!   job wherever it runs; while less than a day was seen, what they have in common is expected to come.
//! - The node keeps score of its forecasts (`score`), and widens the margin when one was wrong.

mod baseline;
mod compact;
mod company;
mod crowd;
mod estimator;
mod learned;
mod lessons;
mod oracle;
mod policy;
mod replay;
mod score;
mod settings;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
pub(crate) mod told;
mod trace;

pub use self::{
    baseline::{Baselines, WINDOW, Windows},
    estimator::{Estimator, Forecast, Present, State},
    learned::{Learned, Time, Unreadable},
    lessons::{IndexLesson, JobLesson, Lessons, Start},
    policy::{Policy, Preset, UnknownPolicy},
    replay::{Replay, Score, TOLERATED, replay},
    settings::Settings,
    task::TaskId,
    trace::{Misfit, Row, Trace},
};

/// An amount of CPU and one of memory.
pub type Amounts = [f64; 2];
/// The place of CPU in [`Amounts`].
pub const CPU: usize = 0;
/// The place of memory in [`Amounts`].
pub const MEMORY: usize = 1;
