//! Verbs that try things on paper: offline, no agent is asked.

use std::path::PathBuf;

use agent::estimate::Policy;
use clap::{Args, Subcommand};

use crate::times::Patience;

#[derive(Debug, Subcommand)]
pub(crate) enum Simulate {
    Overcommit(Overcommit),
}

/// Say how much of the tasks' limits could be reclaimed, and how often that would have been too much
///
/// Runs the agent's own estimator over a trace of what tasks used, beside the policies that others use. Each predicts the
/// peak that each node's tasks reach within the horizon, and has seen only samples before. SAVED is the mean share of the
/// limits above the prediction; TOO LOW says how often the peak was higher, MISSED how much of it was missing on the mean.
/// `const` and `oracle` know the future: the best constant share of the limits, and the true peak.
///
/// The trace is CSV, sorted by time, a row for each task and sample, with these columns in any order: time_s, node, task,
/// band, cpu_limit_milli, cpu_milli, memory_limit_mib, memory_mib. Tasks named JOB/INDEX are known as siblings.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey simulate overcommit --trace week.csv\n  covey simulate overcommit --trace week.csv --policy \
                        max --horizon 6h --json"
)]
pub(crate) struct Overcommit {
    /// The trace
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: PathBuf,
    /// Only this policy: covey, covey-conservative, covey-aggressive, limit, borg-default, rc-like, n-sigma, max, const or
    /// oracle
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<Policy>,
    /// How far ahead peaks are predicted
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = horizon)]
    pub(crate) horizon: Patience,
    /// Write each prediction of CPU there: time_s,node,policy,predicted_peak_milli
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,
}

/// The estimator remembers in parts of the horizon.
fn horizon(text: &str) -> Result<Patience, String> {
    let horizon: Patience = text.parse()?;
    let s = horizon.0.as_secs();
    if (60..=366 * 86_400).contains(&s) { Ok(horizon) } else { Err("a horizon is from 1m to 366d".into()) }
}
