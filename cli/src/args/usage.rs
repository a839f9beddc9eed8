//! Verbs about limits, reservations and use.

use std::str::FromStr;

use clap::Args;
use gossip::wire::usage::UsageBy;

use crate::{output::Sort, times::Patience};

/// Show who has how much of the cell: limits, reservations and use
///
/// LIMIT is what tasks may use at most, RESERVED what their nodes believe that they need now, USED what they use.
/// RECLAIMED, the limits less the reservations, is lent to tasks of the bands batch and free. EVICTED counts the runs that the
/// cell ended within a day to give others room; --json has each cause. Every node is asked for its own.
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
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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

/// Nodes measure each two seconds or so; every look asks all of them.
fn interval(text: &str) -> Result<Patience, String> {
    let interval: Patience = text.parse()?;
    if (200..=3_600_000).contains(&interval.millis()) {
        Ok(interval)
    } else {
        Err("an interval is from 200ms to 1h".into())
    }
}
