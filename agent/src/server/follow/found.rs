//! Where the runs of a task have their logs: on the node where it is, where it was before, and who could not say.

use std::{collections::BTreeMap, time::Duration};

use gossip::wire::ask::{Question, Told};
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    ledger::Refusal,
};
use tokio::task::JoinSet;

use super::{Services, log};
use crate::event::RunId;

/// For a node to say which logs of a task it has.
const SOON: Duration = Duration::from_millis(500);
/// For the node where the task is: it matters most.
const LIKELY: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Every run that has a log somewhere, and where.
    pub(super) runs: BTreeMap<RunId, NodeId>,
    /// Nodes of the cell that did not answer, by their names.
    pub(super) missing: Vec<String>,
    /// The task is on one of those: whatever was found is not its newest log.
    pub(super) newest_missing: bool,
}

impl Found {
    /// The newest, or with `previous` the one before the task's newest, if need be of an earlier job of its name.
    pub(super) fn choose(&self, task: TaskKey, previous: bool) -> Option<(RunId, NodeId)> {
        let has_run = self.runs.keys().next_back().is_some_and(|run| run.key == task);
        self.newest(usize::from(previous && has_run))
    }

    /// The newest, or the one `back` before it.
    fn newest(&self, back: usize) -> Option<(RunId, NodeId)> {
        self.runs.iter().rev().nth(back).map(|(run, node)| (*run, *node))
    }

    /// As the end of a sentence that says that something was not found.
    pub(super) fn but(&self) -> String {
        match self.missing.is_empty() {
            true => String::new(),
            false => format!("; no answer from {}, which may have it", self.missing.join(", ")),
        }
    }
}

/// The runs with logs: of the node where the task should be (`likely`) if that has any, or else of all; with `earlier`, the
/// job's name, of all in any case, and those of earlier jobs of that name.
pub(super) async fn find(
    services: &Services,
    task: TaskKey,
    likely: Option<NodeId>,
    earlier: Option<&JobKey>,
) -> Result<Found, Refusal> {
    let mut found = Found::default();
    if let (Some(node), None) = (likely, earlier) {
        match ask(services, node, task, LIKELY).await? {
            Some(runs) if !runs.is_empty() => {
                found.runs.extend(runs.into_iter().map(|run| (run, node)));
                return Ok(found);
            }
            Some(_) => {}
            None => found.newest_missing = true,
        }
    }
    let me = services.cell.me();
    let mut asked = JoinSet::new();
    for node in services.ledger.state().roster.keys().copied().filter(|node| *node != me) {
        if !services.cell.peers.is_alive(node) {
            found.missing.push(services.cell.name(node));
            continue;
        }
        let (peers, question) = (services.cell.peers.clone(), Question::Runs { task, job: earlier.cloned() });
        asked.spawn(async move { (node, peers.ask_within(node, &question, SOON).await) });
    }
    let here = log::names(services, task, earlier.cloned()).await?;
    found.runs.extend(here.into_iter().map(|run| (run, me)));
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((node, Ok(told))) => found.runs.extend(told_runs(told).into_iter().map(|run| (run, node))),
            Ok((node, Err(_))) => found.missing.push(services.cell.name(node)),
            Err(_) => {}
        }
    }
    found.missing.sort();
    Ok(found)
}

/// None: no answer.
async fn ask(
    services: &Services,
    node: NodeId,
    task: TaskKey,
    within: Duration,
) -> Result<Option<Vec<RunId>>, Refusal> {
    if node == services.cell.me() {
        return log::names(services, task, None).await.map(Some);
    }
    Ok(services
        .cell
        .peers
        .ask_within(node, &Question::Runs { task, job: None }, within)
        .await
        .ok()
        .map(told_runs))
}

fn told_runs(told: Told) -> Vec<RunId> {
    let Told::Runs { newest, runs, .. } = told else { return Vec::new() };
    // An older covey tells of the newest alone.
    runs.into_iter().chain(newest).filter_map(|run| run.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn runs_are_in_order_wherever_they_are() {
        let run = |text: &str| text.parse::<RunId>().unwrap();
        let mut found = Found::default();
        found.runs.insert(run("1.7.0-1.5.0-0"), NodeId(3));
        found.runs.insert(run("1.7.0-1.2.9-4"), NodeId(2));
        found.runs.insert(run("1.7.0-1.2.9-5"), NodeId(2));
        assert_eq!(found.newest(0), Some((run("1.7.0-1.5.0-0"), NodeId(3))));
        assert_eq!(found.newest(1), Some((run("1.7.0-1.2.9-5"), NodeId(2))));
        assert_eq!(found.newest(3), None);
        let key = |text: &str| text.parse::<TaskKey>().unwrap();
        assert_eq!(found.choose(key("1.7.0"), true), found.newest(1));
        assert_eq!(found.choose(key("1.7.0"), false), found.newest(0));
        assert_eq!(found.choose(key("1.9.0"), true), found.newest(0), "it has not run itself");
        assert_eq!(found.but(), "");
        found.missing = vec!["n2".into(), "n3".into()];
        assert_eq!(found.but(), "; no answer from n2, n3, which may have it");
    }
}
