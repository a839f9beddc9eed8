//! The documents of INTERFACES, made of what the placer and the ledger show. Fields may be added here, never changed.

use std::collections::BTreeMap;

use placement::{
    ids::{Uid, Version},
    job::Kind,
    ledger::JobRecord,
    node::Held,
    resources::Resources,
    view::Standing,
    why::Why,
};
use serde_json::{Value, json};

use crate::{
    clock,
    core::place::{JobRow, NodeRow, Settled, TaskRow},
    event::Now,
};
use placement::task::State;

/// A list, as of now, to which all that there are could answer.
pub(crate) fn list(now: Now, items: Vec<Value>) -> Value {
    answer(now, false, &[], items)
}

/// A list; stale: no placer could be asked; `missing`: the names of nodes that could not answer.
pub(crate) fn answer(now: Now, stale: bool, missing: &[String], items: Vec<Value>) -> Value {
    json!({"as_of": clock::rfc3339(now.wall_ms), "stale": stale, "missing": missing, "items": items})
}

/// One document of what could be a list.
pub(crate) fn one(mut document: Value, stale: bool, missing: &[String]) -> Value {
    if let Value::Object(fields) = &mut document {
        fields.insert("stale".into(), json!(stale));
        fields.insert("missing".into(), json!(missing));
    }
    document
}

/// What others than the placer's core know of a node.
#[derive(Debug, Default)]
pub(crate) struct About<'a> {
    pub(crate) placer: bool,
    pub(crate) voter: bool,
    /// Membership sees it.
    pub(crate) alive: bool,
    /// No placer was asked: a node that said nothing is not gone for that.
    pub(crate) stale: bool,
    /// It is to be rid of its tasks.
    pub(crate) draining: bool,
    /// Where membership sees it, or saw it last.
    pub(crate) addr: Option<&'a str>,
}

pub(crate) fn node(row: &NodeRow, about: &About<'_>) -> Value {
    let silent = about.stale && row.standing == Standing::Unheard;
    let state = match about.alive && !row.suspect {
        _ if row.standing == Standing::Gone => "gone",
        true if silent => "suspect",
        true => "alive",
        false if silent => "gone",
        // The placer has not given it up yet.
        false => "suspect",
    };
    let info = row.info.as_ref();
    let addr = about.addr.or(info.map(|i| i.addr.as_str()));
    json!({
        "id": row.id,
        "name": row.name,
        "addr": addr,
        "state": state,
        "admin": match about.draining {
            false => "active",
            true if row.tasks > 0 => "draining",
            true => "drained",
        },
        "placer": about.placer,
        "voter": about.voter,
        "labels": row.labels,
        "version": info.map(|i| i.version.as_str()),
        "capacity": info.map(|i| &i.capacity),
        "limits": row.limits,
        "reserved": row.reserved,
        "usage": row.usage,
        "predicted": row.predicted.as_ref().map(|predicted| &predicted.peak),
        "confidence_permille": row.predicted.as_ref().map(|predicted| &predicted.confidence_permille),
        "room": {"prod": row.room.prod, "non_prod": row.room.non_prod},
        "kept": row.room.kept,
        "short": row.short,
        "tasks": row.tasks,
        "volumes": info.map(|i| volumes(&i.volumes)).unwrap_or_default(),
    })
}

/// One row for each index.
fn volumes(held: &BTreeMap<String, BTreeMap<u32, Held>>) -> Vec<Value> {
    let rows =
        held.iter().flat_map(|(job, indexes)| indexes.iter().map(move |(index, held)| (job, index, held)));
    let row = |(job, index, held): (&String, &u32, &Held)| {
        let (owner, name) = job.rsplit_once('/').unwrap_or(("", job));
        json!({"owner": owner, "job": name, "index": index, "names": held.names, "bytes": held.bytes})
    };
    rows.map(row).collect()
}

pub(crate) fn task(row: &TaskRow) -> Value {
    let copy = row.report.as_ref();
    json!({
        "job": row.job.name,
        "owner": row.job.owner,
        "index": row.key.index,
        "uid": row.key.uid,
        "generation": row.generation,
        "state": row.state,
        "node": row.node_name,
        "pid": copy.and_then(|c| c.pid),
        "ports": copy.map(|c| json!(c.ports)).unwrap_or_else(|| json!({})),
        "address": copy.and_then(|c| c.address.as_deref()),
        "restarts": copy.map_or(0, |c| c.restarts),
        "version": row.version.number,
        "image": image(&row.image, &row.digest),
        "healthy": copy.and_then(|c| c.healthy),
        "ready": row.state == State::Running && copy.is_some_and(|c| c.ready),
        "since": copy.map(|c| clock::rfc3339(c.since_ms)),
        "reason": row.reason,
        "exit": row.exit,
        "limit": row.limit,
        "reservation": copy.map_or_else(Resources::default, |c| c.reservation.clone()),
        "usage": copy.map_or_else(Resources::default, |c| c.usage.clone()),
        "strain": copy.and_then(|c| c.strain),
    })
}

/// What keeps a task from running, and what would help.
pub(crate) fn why(row: &TaskRow, why: Option<&Why>) -> Value {
    let obstacles = why.map(|w| w.obstacles.as_slice()).unwrap_or_default();
    let obstacles: Vec<Value> =
        obstacles.iter().map(|o| json!({"text": o.text(), "nodes": o.nodes})).collect();
    let fixes = why.map(|w| w.fixes.as_slice()).unwrap_or_default();
    let fixes: Vec<Value> =
        fixes.iter().map(|f| json!({"command": f.command, "text": f.text, "cost": f.cost})).collect();
    json!({
        "job": row.job.name,
        "owner": row.job.owner,
        "index": row.key.index,
        "state": row.state,
        "reason": row.reason,
        "obstacles": obstacles,
        "fixes": fixes,
    })
}

/// `hello:1@sha256:…`: what the user wrote, and what runs.
fn image(name: &str, digest: &str) -> String {
    match digest {
        "" => name.to_string(),
        digest => format!("{}@{digest}", name.split('@').next().unwrap_or(name)),
    }
}

pub(crate) fn job(row: &JobRow) -> Value {
    json!({
        "name": row.job.name,
        "owner": row.job.owner,
        "uid": row.uid,
        "band": row.band,
        "priority": row.priority,
        "kind": row.kind,
        "count": row.count,
        "running": row.running,
        "pending": row.pending,
        "version": row.version.number,
        "state": row.state,
        "reason": row.reason,
        "created": clock::rfc3339(row.created_ms),
        "changed": clock::rfc3339(row.changed_ms),
    })
}

/// One job whole: with its versions and tasks, and whether it is as it was asked to be.
pub(crate) fn whole_job(
    row: &JobRow,
    record: &JobRecord,
    tasks: &[TaskRow],
    settled: Option<&Settled>,
) -> Value {
    let mut document = job(row);
    let versions: Vec<Value> = record.versions.iter().map(version).collect();
    let succeeded = record.finished.values().filter(|done| done.success).count();
    if let Value::Object(fields) = &mut document {
        fields.insert("read".into(), read(row.uid, row.version));
        fields.insert("document".into(), record.document.clone());
        fields.insert("versions".into(), Value::Array(versions));
        fields.insert("tasks".into(), Value::Array(tasks.iter().map(task).collect()));
        fields.insert("settled".into(), settled_document(settled));
        if row.kind == Kind::Batch {
            fields.insert("succeeded".into(), json!(succeeded));
        }
    }
    document
}

/// What a client sends back with a change (compare-and-set).
fn read(uid: Uid, version: Version) -> Value {
    json!({"uid": uid, "version": version})
}

fn version(record: &placement::ledger::VersionRecord) -> Value {
    json!({
        "version": record.version.number,
        "time": clock::rfc3339(record.at_ms),
        "by": record.by,
        "images": record.images,
        "document": record.document,
    })
}

fn settled_document(settled: Option<&Settled>) -> Value {
    match settled {
        Some(Settled::Yes) => json!({"state": "yes", "reason": null}),
        Some(Settled::NotYet(reason)) => json!({"state": "not_yet", "reason": reason}),
        Some(Settled::Never(reason)) => json!({"state": "never", "reason": reason}),
        None => json!({"state": "not_yet", "reason": "no placer acts"}),
    }
}

#[cfg(test)]
mod tests {
    use placement::ids::NodeId;

    use super::*;

    #[test]
    fn a_node_is_what_the_placer_and_membership_say_together() {
        use Standing::*;
        // What the placer or its absence shows, whether membership sees it, whether no placer was asked, and the word.
        let cases = [
            (Live, true, false, "alive"),
            (Live, false, false, "suspect"),
            (Away, true, false, "alive"),
            (Away, false, false, "suspect"),
            (Unheard, true, false, "alive"),
            (Unheard, false, false, "suspect"),
            (Gone, true, false, "gone"),
            (Gone, false, false, "gone"),
            (Live, true, true, "alive"),
            (Live, false, true, "suspect"),
            // It was asked and said nothing.
            (Unheard, true, true, "suspect"),
            (Unheard, false, true, "gone"),
        ];
        for (standing, alive, stale, word) in cases {
            let row = NodeRow {
                id: NodeId(1),
                name: "n1".into(),
                standing,
                suspect: false,
                info: None,
                labels: Default::default(),
                limits: Resources::default(),
                reserved: Resources::default(),
                usage: Resources::default(),
                predicted: None,
                room: Default::default(),
                short: Resources::default(),
                tasks: 0,
            };
            let about = About { alive, stale, addr: Some("10.0.0.1:7411"), ..About::default() };
            let document = node(&row, &about);
            assert_eq!(document["state"], word, "{standing:?} {alive} {stale}");
            assert_eq!(document["addr"], "10.0.0.1:7411");
        }
    }
}
