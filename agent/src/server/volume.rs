//! `covey volume rm`: all nodes that have volumes of an index are asked whether they may go, and then to remove them.

use std::time::Duration;

use gossip::wire::ask::{Question, Told, VolumesOf};
use placement::{
    ids::{JobKey, NodeId},
    ledger::{Command, Refusal, RequestStamp},
};
use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};

use super::{Services, invalid, member::find};
use crate::{api, clock, volumes::Found};

/// For a node to look, and to delete what may be much.
const LOOK: Duration = Duration::from_secs(3);
const DELETE: Duration = Duration::from_secs(60);

/// Every node's answer, by its name, and who gave none and why.
#[derive(Default)]
struct Answers {
    found: Vec<(NodeId, Found)>,
    missing: Vec<(String, String)>,
}

/// `on`: of that node alone.
pub(super) async fn remove(
    services: &Services,
    stamp: &RequestStamp,
    of: VolumesOf,
    on: Option<&str>,
) -> Result<Value, Refusal> {
    let ledger = services.ledger.state();
    // Whoever may end the task may end its data.
    let command = Command::Stop { job: of.job.clone(), index: Some(of.index) };
    ledger.may(&stamp.principal, &command).map_err(|refusal| {
        services.journal.node("denied", format!("{}: {refusal}", stamp.principal.0));
        refusal
    })?;
    let nodes: Vec<NodeId> = match on {
        Some(name) => vec![find(&ledger, name)?],
        None => ledger.roster.keys().copied().collect(),
    };
    // None removes anything before all have been asked.
    let looked = ask(services, nodes, &of, false).await?;
    let have: Vec<NodeId> =
        looked.found.iter().filter(|(_, found)| !found.names.is_empty()).map(|(node, _)| *node).collect();
    if have.is_empty() {
        return Err(nothing(&of, on, &looked.missing));
    }
    let done = ask(services, have, &of, true).await?;
    if let (true, Some((node, why))) = (done.found.is_empty(), done.missing.first()) {
        let message = format!("it is not known whether {} was removed: {node}: {why}", shown(&of));
        let hint = Some("covey volume ls shows what is left; the command may be given again");
        return Err(Refusal::new("unreachable", message, hint));
    }
    let mut items = Vec::new();
    for (node, found) in &done.found {
        let (name, bytes) = (services.cell.name(*node), found.bytes);
        let text = format!("{} removed {} from {name}", stamp.principal.0, found.names.join(", "));
        services.journal.job("volume_removed", &of.job.owner, &of.job.name, text);
        items.push(json!({"node": name, "names": found.names, "freed_bytes": bytes}));
    }
    let freed: u64 = done.found.iter().map(|(_, found)| found.bytes).sum();
    let mut missing: Vec<String> =
        looked.missing.into_iter().chain(done.missing).map(|(node, _)| node).collect();
    missing.sort();
    let mut answer = api::answer(clock::now(), false, &missing, items);
    answer["job"] = json!(of.job.name);
    answer["owner"] = json!(of.job.owner);
    answer["index"] = json!(of.index);
    answer["changed"] = json!(freed > 0 || done.found.iter().any(|(_, found)| !found.names.is_empty()));
    answer["freed_bytes"] = json!(freed);
    Ok(answer)
}

/// Asks each of the nodes, this one among them.
///
/// # Errors
/// One of them refuses.
async fn ask(
    services: &Services,
    nodes: Vec<NodeId>,
    of: &VolumesOf,
    remove: bool,
) -> Result<Answers, Refusal> {
    let (mut answers, mut asked) = (Answers::default(), JoinSet::new());
    let me = services.cell.me();
    for node in nodes.iter().copied().filter(|node| *node != me) {
        if !services.cell.peers.is_alive(node) {
            answers.missing.push((services.cell.name(node), "it is not here".into()));
            continue;
        }
        let (peers, question) = (services.cell.peers.clone(), Question::Volumes { of: of.clone(), remove });
        let patience = if remove { DELETE } else { LOOK };
        asked.spawn(async move { (node, peers.ask_within(node, &question, patience).await) });
    }
    if nodes.contains(&me) {
        answers.found.push((me, here(services, of, remove).await?));
    }
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((node, Ok(Told::Volumes { names, bytes }))) => {
                answers.found.push((node, Found { names, bytes }))
            }
            Ok((_, Err(crate::peers::AskError::Refused { refusal, .. }))) => return Err(refusal),
            Ok((node, Err(error))) => answers.missing.push((services.cell.name(node), error.of_it())),
            Ok((node, Ok(_))) => {
                answers.missing.push((services.cell.name(node), "it answered something else".into()))
            }
            Err(_) => {}
        }
    }
    answers.found.sort_by_key(|(node, _)| *node);
    Ok(answers)
}

/// This node's part: what it has, or had.
async fn here(services: &Services, of: &VolumesOf, remove: bool) -> Result<Found, Refusal> {
    // From the look to the removal nothing begins to use them.
    let quiet = services.volumes.quiet().await;
    let VolumesOf { job, index, name } = of.clone();
    let (owner, wanted) = (job.clone(), name.clone());
    let user = services.node.read(move |core| core.uses_volume(&owner, index, wanted.as_deref())).await;
    let user = user.ok_or_else(|| invalid("the agent is ending".to_string()))?;
    let (volumes, bundles) = (services.volumes.clone(), services.bundles.clone());
    let done = spawn_blocking(move || {
        let name = name.as_deref();
        let found = volumes.of(&job, index, name);
        let mounted = !found.names.is_empty() && volumes.are_mounted(&job, index, name, &bundles);
        match remove && user.is_none() && !mounted {
            true => volumes.remove(&job, index, name).map(|found| (found, user, mounted)),
            false => Ok((found, user, mounted)),
        }
    });
    let done = done.await.map_err(|_| invalid("the removal broke off".to_string()))?;
    drop(quiet);
    let node = services.cell.name(services.cell.me());
    let (found, user, mounted) =
        done.map_err(|error| Refusal::new("failed", format!("on {node}: {error}"), None))?;
    if !found.names.is_empty() && (mounted || user.is_some()) {
        let how = user.map_or_else(
            || "its container has not gone yet".to_string(),
            |state| format!("it is {}", json!(state).as_str().unwrap_or_default()),
        );
        let task = format!("{}/{}", of.job, of.index);
        let them = if of.name.is_some() { "it" } else { "them" };
        let message = format!("{task} uses {them} on {node} ({how})");
        let hint = format!("covey stop {task} ends the task; --on NODE removes what another node has of it");
        return Err(Refusal { code: "conflict".into(), message, hint: Some(hint) });
    }
    if remove {
        services.volumes.look();
    }
    Ok(found)
}

/// The question's answer, for a node that asks.
pub(super) async fn told(services: &Services, of: &VolumesOf, remove: bool) -> Told {
    match here(services, of, remove).await {
        Ok(Found { names, bytes }) => Told::Volumes { names, bytes },
        Err(refusal) => Told::Refused(refusal),
    }
}

fn shown(of: &VolumesOf) -> String {
    match &of.name {
        Some(name) => format!("volume {name} of {}/{}", of.job, of.index),
        None => format!("the volumes of {}/{}", of.job, of.index),
    }
}

fn nothing(of: &VolumesOf, on: Option<&str>, missing: &[(String, String)]) -> Refusal {
    let JobKey { owner, name } = &of.job;
    let what = of.name.as_ref().map_or_else(|| "no volumes".to_string(), |name| format!("no volume {name}"));
    let place = on.map_or_else(|| "any node".to_string(), str::to_owned);
    let hint = Some("covey volume ls shows which there are");
    match missing {
        [] => {
            let message = format!("{owner}/{name}/{} has {what} on {place}", of.index);
            Refusal::new("not_found", message, hint)
        }
        missing => {
            let silent: Vec<String> = missing.iter().map(|(node, why)| format!("{node}: {why}")).collect();
            let message = format!(
                "{what} of {owner}/{name}/{} on the nodes that answer ({})",
                of.index,
                silent.join("; ")
            );
            Refusal::new("unreachable", message, hint)
        }
    }
}
