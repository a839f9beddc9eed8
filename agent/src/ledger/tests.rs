//! The ledger on disks that are small, foreign, damaged or old, and its forms on disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod golden;
mod trouble;

use std::collections::BTreeMap;

use placement::{
    ids::{CellId, JobKey, NodeId},
    ledger::{Command, Entry, Expect},
};
use serde_json::json;

pub(crate) const NODE: NodeId = NodeId(0xa);

pub(crate) fn entry(command: Command) -> Entry {
    Entry { request: None, at_ms: 1_700_000_000_000, command }
}

pub(crate) fn first() -> Vec<Entry> {
    vec![
        entry(Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 }),
        entry(Command::Admit { node: NODE, name: "a".into() }),
    ]
}

/// A job whose document is a little larger than `size` bytes.
pub(crate) fn submit(name: &str, size: usize) -> Entry {
    let task = json!({"image": "hello:1", "env": {"FILL": "x".repeat(size)}});
    entry(Command::Submit {
        job: JobKey { owner: "root".into(), name: name.into() },
        document: json!({"name": name, "task": task}),
        images: BTreeMap::from([("hello:1".into(), format!("sha256:{}", "0".repeat(64)))]),
        expect: Expect::Any,
    })
}
