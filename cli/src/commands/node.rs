//! Verbs about one node: label, node rm.

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
    let done = session.ask(Call::Label { node: args.node, labels }).await?;
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
    let done = session.ask(Call::NodeRemove { node }).await?;
    out.either(&done, |done| format!("{} is forgotten: its key is never let in again", name(done)))
}

fn name(done: &Value) -> String {
    shown(done["name"].as_str().unwrap_or("the node")).into_owned()
}
