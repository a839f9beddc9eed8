//! `covey logs` through any node: from the node that has them, and on to the next one when the task moves.

mod found;

use std::time::Duration;

use gossip::wire::{
    Call, LogPlace, Reply,
    ask::{Passed, To, Told},
};
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    ledger::Refusal,
};
use tokio::time::sleep;

use self::found::find;
use super::{
    Out, Services, Stopped,
    locate::{Located, locate},
    log::{self, Wanted},
    pass::{Unpassed, pass},
    reach::left,
};
use crate::event::RunId;

/// Between two looks for a follower whose task is on its way from one node to another.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One index of a job.
pub(super) struct Index<'a> {
    pub(super) job: &'a JobKey,
    pub(super) index: u32,
}

pub(super) async fn logs(
    services: &Services,
    passed: &Passed,
    about: Index<'_>,
    mut wanted: Wanted,
    out: &mut Out,
) -> Result<(), Stopped> {
    let follow = wanted.follow || wanted.from.is_some();
    let mut read: Option<RunId> = None;
    loop {
        let Located { task, node: likely, .. } = locate(services, passed, about.job, about.index).await?;
        let found = find(services, task, likely, wanted.previous.then_some(about.job)).await?;
        let run = found.choose(task, wanted.previous).filter(|_| follow || !found.newest_missing);
        if wanted.previous {
            // The run before the newest may have been on another node: there it is the newest.
            wanted.run = run.map(|(run, _)| run);
        }
        match run {
            Some((run, node)) if read.is_none_or(|read| run > read) => {
                let mut place = wanted.from.clone();
                let sent = from_node(services, passed, node, run.key, &wanted, &mut place, out).await?;
                let last = place.as_ref().and_then(|place| place.run.parse().ok());
                // Where the next node's log begins is its beginning. A node that broke off is asked for the rest.
                read = if sent.whole { Some(last.map_or(run, |last: RunId| last.max(run))) } else { read };
                if follow && place.is_some() {
                    (wanted.from, wanted.tail) = (place, None);
                }
                match sent {
                    Sent { whole: true, .. } if !follow => return Ok(()),
                    Sent { whole: false, why, .. } if !follow => return Err(broken(&about, &why).into()),
                    _ => {}
                }
            }
            None if wanted.previous => {
                return Err(nothing_before(&about, &found.but()).into());
            }
            None if !follow => {
                let wants = services.ledger.state().jobs.get(about.job).map_or(0, |record| record.count());
                let why = match found.newest_missing {
                    false if about.index >= wants => {
                        format!("is not wanted: the job wants {wants}, from index 0{}", found.but())
                    }
                    true => format!("is on {}, which does not answer", found.missing.join(" or ")),
                    false => format!("has not run, or too long ago{}", found.but()),
                };
                return Err(nothing(&about, &why).into());
            }
            _ => {}
        }
        // What a follower read to its end may go on elsewhere, while the index is wanted.
        if !services.ledger.state().job_of(task.uid).is_some_and(|(_, r)| r.wanted().any(|i| i == task.index))
        {
            return match read {
                Some(_) => Ok(()),
                None => Err(nothing(&about, &format!("has not run, or too long ago{}", found.but())).into()),
            };
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What one node sent.
struct Sent {
    /// To its end, or the node broke off.
    whole: bool,
    why: String,
}

async fn from_node(
    services: &Services,
    passed: &Passed,
    node: NodeId,
    task: TaskKey,
    wanted: &Wanted,
    place: &mut Option<LogPlace>,
    out: &mut Out,
) -> Result<Sent, Stopped> {
    if node == services.cell.me() {
        log::here(services, task, wanted, place, out).await?;
        return Ok(Sent { whole: true, why: String::new() });
    }
    let mut question = passed.clone();
    (question.to, question.task) = (To::Node, Some(task));
    question.run = wanted.run.map(|run| run.to_string());
    if let Call::Logs { tail, from, .. } = &mut question.request.call {
        (*tail, *from) = (wanted.tail, wanted.from.clone());
    }
    let name = services.cell.name(node);
    let broken = |why: String| Ok(Sent { whole: false, why: format!("{name}: {why}") });
    let mut answer = match pass(&services.cell, node, &question).await {
        Ok(answer) => answer,
        Err(error) => return broken(error.to_string()),
    };
    loop {
        match answer.next().await {
            Ok(Some(reply)) => {
                advance(place, &reply);
                out.send(&reply).await?;
            }
            Ok(None) => return Ok(Sent { whole: true, why: String::new() }),
            // It had logs a moment ago.
            Err(Unpassed::Refused(refusal)) if refusal.code == "not_found" => {
                return Ok(Sent { whole: true, why: String::new() });
            }
            Err(Unpassed::Refused(refusal)) => return Err(refusal.into()),
            Err(error) => return broken(error.to_string()),
        }
    }
}

/// The place behind a piece of a log.
fn advance(place: &mut Option<LogPlace>, reply: &Reply) {
    let Reply::Log { run, stream, offset, text, bytes, .. } = reply else { return };
    let length = if bytes.is_empty() { text.len() } else { bytes.len() };
    if place.as_ref().is_none_or(|place| place.run != *run) {
        *place = Some(LogPlace { run: run.clone(), stdout: 0, stderr: 0 });
    }
    if let Some(place) = place {
        let next = offset + length as u64;
        match stream {
            gossip::wire::LogStream::Stdout => place.stdout = next,
            gossip::wire::LogStream::Stderr => place.stderr = next,
        }
    }
}

fn nothing(about: &Index<'_>, why: &str) -> Refusal {
    let Index { job, index } = about;
    Refusal {
        code: "not_found".into(),
        message: format!("no log of {}/{index}: the task {why}", job.name),
        hint: Some(format!(
            "covey why {0}/{index} says whether it runs, covey logs --previous {0}/{index} what ran before",
            job.name
        )),
    }
}

/// Of one before the newest.
fn nothing_before(about: &Index<'_>, but: &str) -> Refusal {
    let why = format!(
        "has been neither restarted nor moved, nor had an earlier job of this name one, or too long ago{but}"
    );
    let hint = format!("covey logs {}/{} shows what it says now", about.job.name, about.index);
    Refusal { hint: Some(hint), ..nothing(about, &why) }
}

fn broken(about: &Index<'_>, why: &str) -> Refusal {
    let Index { job, index } = about;
    Refusal {
        code: "not_found".into(),
        message: format!("the log of {}/{index} broke off: {why}", job.name),
        hint: Some("the same command may be given again".into()),
    }
}

/// The question's answer, for a node that asks.
pub(super) async fn runs(services: &Services, task: TaskKey, earlier: Option<JobKey>) -> Told {
    match log::names(services, task, earlier.clone()).await {
        Ok(runs) => {
            let runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
            let left = left::newest(services, task, earlier).await.map(|run| run.to_string());
            Told::Runs { newest: runs.last().cloned(), runs, left }
        }
        Err(refusal) => Told::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use gossip::wire::LogStream::{self, Stderr, Stdout};

    use super::*;

    #[test]
    fn a_reader_goes_on_behind_what_it_was_sent() {
        let mut place = None;
        let mut sent = |run: &str, stream: LogStream, offset, text: &str, bytes: &[u8]| {
            let (run, text, bytes) = (run.to_string(), text.to_string(), bytes.to_vec());
            advance(&mut place, &Reply::Log { run, stream, offset, text, bytes, lost: 0 });
            place.clone()
        };
        let at = |run: &str, stdout, stderr| Some(LogPlace { run: run.into(), stdout, stderr });
        assert_eq!(sent("a", Stdout, 10, "abc", &[]), at("a", 13, 0));
        // Bytes that are no text are longer or shorter than their rendering.
        assert_eq!(sent("a", Stderr, 0, "\u{fffd}", &[0xff]), at("a", 13, 1));
        assert_eq!(sent("b", Stderr, 0, "x", &[]), at("b", 0, 1));
        advance(&mut place, &Reply::End);
        assert_eq!(place, at("b", 0, 1));
    }
}
