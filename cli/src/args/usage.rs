//! Verbs about limits, reservations and use.

use std::str::FromStr;

use clap::Args;
use gossip::wire::{JobName, usage::UsageBy};

use crate::{output::Sort, times::Patience};

/// Show who has how much of the cell: limits, reservations and use
///
/// LIMIT is what tasks may use at most, RESERVED what their nodes believe that they need now, USED what they use.
/// RECLAIMED, the limits less the reservations, is lent to tasks of the bands batch and free; their room is what all tasks are predicted to leave, less the memory that
/// each node keeps free for prod (--json: kept). EVICTED counts the runs that the
/// cell ended within a day to give others room; --json has each cause. By band it is said, too, how many of the tasks that were
/// told to end had SIGTERM and their whole grace (notice); who is killed at a limit, or at once since there was no time, is
/// not told. Every node is asked for its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  covey usage\n  covey usage --by job\n  covey usage --by node --json")]
pub(crate) struct Usage {
    /// Put together by band, owner, job, node or task
    #[arg(long, value_name = "WHAT", default_value = "band")]
    pub(crate) by: By,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct By(pub(crate) UsageBy);

impl FromStr for By {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<By, Self::Err> {
        let by = UsageBy::ALL.into_iter().find(|by| by.as_str() == text);
        by.map(By).ok_or("usage is shown by band, owner, job, node or task")
    }
}

/// Show what the cell does now, again and again: nodes, bands, and tasks by use
///
/// The bars are of a node's capacity: # used, + reserved beyond that, - limits beyond that. Keys: c and m show the tasks
/// that use most CPU or memory first, n by name; q leaves. Without a terminal a page after the other is printed, with --json
/// a document a line.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey top\n  covey top --sort memory --interval 1s\n  covey top -n 1 --json"
)]
pub(crate) struct Top {
    /// Between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Patience,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = looks, allow_negative_numbers = true)]
    pub(crate) count: Option<u64>,
    /// Show tasks by cpu, memory or name
    #[arg(long, value_name = "WHAT", default_value = "cpu")]
    pub(crate) sort: SortBy,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SortBy(pub(crate) Sort);

impl FromStr for SortBy {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<SortBy, Self::Err> {
        match text {
            "cpu" => Ok(SortBy(Sort::Cpu)),
            "memory" => Ok(SortBy(Sort::Memory)),
            "name" => Ok(SortBy(Sort::Name)),
            _ => Err("tasks are sorted by cpu, memory or name"),
        }
    }
}

fn looks(text: &str) -> Result<u64, &'static str> {
    super::number_within(
        text,
        1..,
        "it is a number of looks, 1 or more; without -n it goes on until q or Ctrl-C",
    )
}

/// Nodes measure each two seconds or so; every look asks all of them.
fn interval(text: &str) -> Result<Patience, String> {
    let interval: Patience = text.parse()?;
    if (200..=3_600_000).contains(&interval.millis()) {
        Ok(interval)
    } else {
        Err("an interval is from 200ms to 1h".into())
    }
}

/// Say which limits would fit a job, and what risk they carry
///
/// Nodes remember how much CPU and memory the tasks of each job used; what is older counts less, a day old half. HELD BACK
/// is the share of time in which a task wants more CPU than it may use, KILLED/DAY the probability that it reaches its memory
/// limit within a day: at the limit as it is, and at the one that fits. What a task could not get nobody has seen: one that
/// is often at its limit is advised to try more, and what that would do is not known (?).
///
/// --apply changes the jobs, in place: nothing is restarted. A later `covey run` of a file sets what the file says.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  covey advise\n  covey advise web --risk low\n  covey advise web --apply\n  covey advise --history 10m --json"
)]
pub(crate) struct Advise {
    /// NAME or OWNER/NAME; default: every job
    #[arg(value_name = "JOB", value_parser = crate::names::job)]
    pub(crate) job: Option<JobName>,
    /// How much risk: low (0.1 %), normal (1 %), high (5 %), or a percentage such as 2%
    #[arg(long, value_name = "RISK", default_value = "normal")]
    pub(crate) risk: Risk,
    /// Advise nothing for jobs that were watched for less
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) history: Patience,
    /// Change the jobs accordingly
    #[arg(long)]
    pub(crate) apply: bool,
}

/// From 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Risk(pub(crate) f64);

impl FromStr for Risk {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Risk, Self::Err> {
        let percent = match text {
            "low" => 0.1,
            "normal" => 1.0,
            "high" => 5.0,
            other => other.strip_suffix('%').and_then(|n| n.trim().parse().ok()).unwrap_or(f64::NAN),
        };
        let sane = (0.001..=50.0).contains(&percent);
        if sane {
            Ok(Risk(percent / 100.0))
        } else {
            Err("a risk is low, normal, high, or from 0.001% to 50%")
        }
    }
}
