//! Verbs about one node: label, drain, undrain, leave, node rm.

use std::collections::BTreeMap;

use gossip::wire::Call;
use serde_json::Value;

use crate::{
    args::cell,
    failure::Failure,
    output::{Out, shown},
    session::Session,
};

pub(super) async fn label(args: cell::Label, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let labels: BTreeMap<_, _> = args.labels.into_iter().map(|change| (change.0, change.1)).collect();
    let done = session.ask(Call::Label { node: args.name, labels }).await?;
    out.either(&done, |done| {
        let set: Vec<String> = done["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{}={}", shown(key), shown(value.as_str().unwrap_or("?"))))
            .collect();
        let labels = if set.is_empty() { "no labels by operators".to_owned() } else { set.join(" ") };
        let already = if done["changed"] == false { " already" } else { "" };
        format!("{} has {labels}{already}", name(done))
    })
}

pub(super) async fn remove(node: String, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let done = session.ask(Call::NodeRemove { node, leaves: false }).await?;
    out.either(&done, |done| format!("{} is forgotten: its key is never let in again", name(done)))
}

pub(super) async fn drain(node: String, on: bool, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let done = session.ask(Call::Drain { node, on }).await?;
    out.either(&done, |done| match (on, done["changed"] == false) {
        (true, false) => format!("{} is drained: its tasks move to other nodes", name(done)),
        (true, true) => format!("{} is being drained already", name(done)),
        (false, false) => format!("{} takes tasks again", name(done)),
        (false, true) => format!("{} was not drained", name(done)),
    })
}

pub(super) async fn leave(args: cell::Leave, session: &Session, out: &mut Out) -> Result<(), Failure> {
    if !session.is_local() {
        return Err(Failure::Elsewhere("a node leaves its cell by its own command"));
    }
    let deadline_ms = args.deadline.map(|deadline| deadline.millis());
    let json = out.json();
    let done = session
        .ask_with_progress(Call::Leave { deadline_ms }, |what, done, total| {
            if !json && total > 0 {
                say!("covey: {}: {done} of {total}", shown(what));
            }
        })
        .await?;
    out.either(&done, |done| {
        let ended = match done["ended"].as_u64() {
            Some(0) | None => String::new(),
            Some(n) => format!("; {n} of its tasks found no other place and are ended"),
        };
        format!("{} has left the cell, and its agent ends{ended}", name(done))
    })
}

fn name(done: &Value) -> String {
    shown(done["name"].as_str().unwrap_or("the node")).into_owned()
}
