//! Which node keeps what the last run of a task has left.

use std::{collections::BTreeMap, time::Duration};

use gossip::wire::ask::{Question, Told};
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    ledger::Refusal,
};
use tokio::task::{JoinSet, spawn_blocking};

use super::Services;
use crate::{event::RunId, left::KEPT_FOR, logs};

/// For a node to say what it keeps.
const SOON: Duration = Duration::from_millis(500);

/// The newest run of which files are kept, and where; with `earlier`, the job's name, also of earlier jobs of that name. Else
/// that there is `nothing`, and why that may be so.
pub(super) async fn find(
    services: &Services,
    task: TaskKey,
    earlier: Option<&JobKey>,
    nothing: Refusal,
) -> Result<(RunId, NodeId), Refusal> {
    let me = services.cell.me();
    let (mut asked, mut missing) = (JoinSet::new(), Vec::new());
    for node in services.ledger.state().roster.keys().copied().filter(|node| *node != me) {
        if !services.cell.peers.is_alive(node) {
            missing.push(services.cell.name(node));
            continue;
        }
        let peers = services.cell.peers.clone();
        let question = Question::Runs { task, job: earlier.cloned() };
        asked.spawn(async move { (node, peers.ask_within(node, &question, SOON).await) });
    }
    let mut kept: BTreeMap<RunId, NodeId> =
        newest(services, task, earlier.cloned()).await.map(|run| (run, me)).into_iter().collect();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((node, Ok(Told::Runs { left: Some(run), .. }))) => {
                kept.extend(run.parse().ok().map(|run: RunId| (run, node)));
            }
            Ok((node, Err(_))) => missing.push(services.cell.name(node)),
            Ok(_) | Err(_) => {}
        }
    }
    missing.sort();
    kept.pop_last().ok_or_else(|| why(nothing, &missing))
}

/// On this node. Which job an earlier run was of is said by its logs.
pub(in crate::server) async fn newest(
    services: &Services,
    task: TaskKey,
    earlier: Option<JobKey>,
) -> Option<RunId> {
    let (left, bundles, logs) =
        (services.left_files.clone(), services.bundles.clone(), services.logs.clone());
    let look = move || {
        left.newest(task).or_else(|| {
            let runs = logs::before_task(&bundles, &logs, task, &earlier?).ok()?;
            runs.into_iter().rev().map(|(run, _)| run).find(|run| left.bundle(*run).is_some())
        })
    };
    spawn_blocking(look).await.ok().flatten()
}

fn why(nothing: Refusal, missing: &[String]) -> Refusal {
    let but = match missing {
        [] => String::new(),
        missing => format!("; no answer from {}, which may have them", missing.join(", ")),
    };
    let hours = KEPT_FOR.as_secs() / 3600;
    let message = format!(
        "{}: a node keeps what the last run of a task has written for {hours} hours, less while its disk is full or many \
         others end{but}",
        nothing.message
    );
    Refusal { message, ..nothing }
}
