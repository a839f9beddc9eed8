//! Verbs about limits, reservations and use.

use std::str::FromStr;

use clap::Args;
use gossip::wire::usage::UsageBy;

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
