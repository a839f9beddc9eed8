//! `run --wait`: shows how a job gets to what was asked for, and tells in the end whether it did.

mod progress;

use std::{future::pending, io::IsTerminal, ops::ControlFlow, time::Duration};

use gossip::wire::{Call, JobName, Reply};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::{sleep, timeout};

pub(super) use self::progress::Goal;
use self::progress::{Ailing, Progress, Verdict};
use crate::{
    failure::Failure,
    output::{Out, shown},
    session::{Reader, Session},
    times::Patience,
};

/// A placer that does not act is waited for so long.
const PLACER_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// So many lines of a failing task's log are shown.
const LOG_LINES: u64 = 5;
/// What is only nice to know is not waited for longer.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Follows the job until it is settled. Fails when that cannot be, not within `patience`, or when the user has seen
/// enough; the job goes on in each case.
pub(super) async fn until_settled(
    goal: Goal,
    patience: Option<Patience>,
    session: &Session,
    out: &mut Out,
) -> Result<(), Failure> {
    let mut watch = Watch { goal, last: None, display: Display::new() };
    let late = async {
        match patience {
            Some(Patience(time)) => sleep(time).await,
            None => pending().await,
        }
    };
    let ending = tokio::select! {
        // In this order, so that the signal's handler is there before anything is shown.
        biased;
        _ = tokio::signal::ctrl_c() => Err(interrupted(&watch.goal)),
        done = watch.run(session) => done.map(|()| None),
        () = late => Ok(patience.map(|Patience(time)| format!("within {}", humantime::format_duration(time)))),
    };
    watch.display.clear();
    let late = ending?;
    let name = watch.goal.job.name.clone();
    match watch.last {
        Some((document, Progress { verdict: Verdict::Settled(how), .. })) => {
            out.either(&document, |_| format!("{name} is settled: {how}"))
        }
        last => Err(unsettled(&watch.goal, last.map(|(_, progress)| progress), late, session).await),
    }
}

fn interrupted(goal: &Goal) -> Failure {
    let name = &goal.job.name;
    Failure::Interrupted {
        goes_on: format!("{name} itself goes on"),
        hint: format!("`covey tasks {name}` shows how it does, `covey stop {name}` ends it"),
    }
}

async fn unsettled(goal: &Goal, last: Option<Progress>, late: Option<String>, session: &Session) -> Failure {
    let name = &goal.job.name;
    let late = late.map_or(String::new(), |late| format!(" {late}"));
    let hint =
        format!("the job goes on; `covey why {name}` says what would help, `covey stop {name}` ends it");
    let Some(progress) = last else {
        return Failure::Unsettled {
            message: format!("{name} did not settle{late}: nothing was heard of it"),
            hint,
        };
    };
    let mut message = format!("{name} did not settle{late}: {}", progress.counts);
    let hint = match &progress.verdict {
        Verdict::Never(_) => format!("`covey why {name}` says what would help"),
        _ => hint,
    };
    if let Verdict::Never(Some(reason)) = &progress.verdict {
        message.push_str(&format!("\n  {reason}"));
    }
    for Ailing { task, text, .. } in &progress.ailing {
        message.push_str(&format!("\n  {task}: {text}"));
    }
    if let Some(ailing) = progress.ailing.iter().find(|ailing| ailing.ran)
        && let Some(lines) = last_words(&goal.job, ailing, session).await
    {
        message.push_str(&format!("\n  the last lines of {}'s log:{lines}", ailing.task));
    }
    Failure::Unsettled { message, hint }
}

/// The end of the log of a task that does not do well; of the run before, if this one said nothing yet.
async fn last_words(job: &JobName, ailing: &Ailing, session: &Session) -> Option<String> {
    for previous in [false, true] {
        let mut log = Log { job: job.clone(), index: ailing.index?, previous, text: String::new() };
        // A task without a log is no second failure.
        let _ = timeout(LOG_PATIENCE, session.follow(&mut log)).await;
        let lines: Vec<_> = log.text.lines().collect();
        let skip = lines.len().saturating_sub(usize::try_from(LOG_LINES).unwrap_or(0));
        if !lines.is_empty() {
            return Some(lines[skip..].iter().map(|line| format!("\n    {}", shown(line))).collect());
        }
    }
    None
}

struct Log {
    job: JobName,
    index: u32,
    previous: bool,
    text: String,
}

impl Reader for Log {
    fn call(&self) -> Call {
        let (follow, tail, from) = (false, Some(LOG_LINES), None);
        Call::Logs {
            job: self.job.clone(),
            index: self.index,
            follow,
            previous: self.previous,
            tail,
            from,
            since_ms: None,
        }
    }

    fn take(&mut self, part: Reply) -> Result<ControlFlow<()>, Failure> {
        if let Reply::Log { text, .. } = part {
            self.text.push_str(&text);
        }
        Ok(ControlFlow::Continue(()))
    }
}

struct Watch {
    goal: Goal,
    last: Option<(Value, Progress)>,
    display: Display,
}

impl Reader for Watch {
    fn call(&self) -> Call {
        Call::Watch { job: self.goal.job.clone() }
    }

    fn take(&mut self, part: Reply) -> Result<ControlFlow<()>, Failure> {
        let Reply::Item(document) = part else { return Ok(ControlFlow::Continue(())) };
        let progress = Progress::of(&document, &self.goal);
        let done = progress.verdict != Verdict::UnderWay;
        if !done {
            self.display.show(&self.goal.job.name, &progress);
        }
        self.last = Some((document, progress));
        Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

impl Watch {
    /// Watches until the version that is waited for is settled or never will be.
    async fn run(&mut self, session: &Session) -> Result<(), Failure> {
        let mut patience = PLACER_PATIENCE;
        loop {
            let decided = |watch: &Watch| {
                watch.last.as_ref().is_some_and(|(_, progress)| progress.verdict != Verdict::UnderWay)
            };
            match session.follow(self).await {
                Ok(()) if decided(self) || patience.is_zero() => return Ok(()),
                // The placer has not seen the change yet, or is not there yet.
                Ok(()) => {}
                Err(Failure::Refused(refusal)) if refusal.code == "no_quorum" && !patience.is_zero() => {}
                Err(why) => return Err(why),
            }
            sleep(LOOK_AGAIN).await;
            patience = patience.saturating_sub(LOOK_AGAIN);
        }
    }
}

/// Progress on stderr: a line that changes on a terminal, else a line for each change.
enum Display {
    Live(ProgressBar),
    Lines { last: String },
}

impl Display {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Display::Lines { last: String::new() };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Display::Live(bar)
    }

    fn show(&mut self, name: &str, progress: &Progress) {
        let line = format!("{name}: {progress}");
        match self {
            Display::Live(bar) => bar.set_message(line),
            Display::Lines { last } if *last != line => {
                say!("{line}");
                *last = line;
            }
            Display::Lines { .. } => {}
        }
    }

    fn clear(&self) {
        if let Display::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}
