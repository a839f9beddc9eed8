//! The ledger from outside, on a real file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, path::PathBuf};

use agent::ledger::{LedgerHandle, ProposeError, Role};
use placement::{
    ids::{CellId, JobKey, NodeId},
    ledger::{Answer, Command, Entry, Expect},
};
use serde_json::json;
use tempfile::TempDir;

const NODE: NodeId = NodeId(0xa);

fn entry(command: Command) -> Entry {
    Entry { request: None, at_ms: 1_700_000_000_000, command }
}

fn first() -> Vec<Entry> {
    vec![
        entry(Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 }),
        entry(Command::Admit { node: NODE, name: "a".into() }),
    ]
}

fn submit(name: &str) -> Entry {
    entry(Command::Submit {
        job: JobKey { owner: "root".into(), name: name.into() },
        document: json!({"name": name, "count": 1, "task": {"image": "hello:1"}}),
        images: BTreeMap::from([("hello:1".into(), format!("sha256:{}", "0".repeat(64)))]),
        expect: Expect::Any,
    })
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    (dir, path)
}

fn uid(answer: &Answer) -> u64 {
    match answer {
        Answer::Done { job: Some((uid, _)), .. } => uid.index,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founded_ledger_leads_and_is_there_after_a_restart() {
    let (_dir, path) = place();
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    assert_eq!(*ledger.role().borrow(), Role::Follower { leader: None });
    ledger.found(first()).await.unwrap();
    assert!(ledger.role().borrow().is_leader());
    assert_eq!(ledger.millis_since_quorum_ack(), Some(0));
    assert_eq!(uid(&ledger.propose(&submit("web")).await.unwrap()), 3);
    let before = ledger.state();
    ledger.shutdown().await;
    assert!(matches!(ledger.propose(&submit("late")).await, Err(ProposeError::Closed)));

    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    assert!(ledger.role().borrow().is_leader());
    assert_eq!(ledger.state(), before);
    assert_eq!(*ledger.applied().borrow(), 3);
    // Founding again changes nothing.
    ledger.found(first()).await.unwrap();
    assert_eq!(ledger.state().applied, 3);
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_proposed_before_the_cell_is_founded() {
    let (_dir, path) = place();
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    let refused = ledger.propose(&submit("web")).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { leader: None })), "{refused:?}");
    assert_eq!(ledger.millis_since_quorum_ack(), None);
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_get_each_its_own_index() {
    let (_dir, path) = place();
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    ledger.found(first()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..500 {
        let ledger = ledger.clone();
        tasks.spawn(async move { uid(&ledger.propose(&submit(&format!("job{i}"))).await.unwrap()) });
    }
    let mut indexes = tasks.join_all().await;
    indexes.sort_unstable();
    assert_eq!(indexes, (3..503).collect::<Vec<_>>());
    assert_eq!(ledger.state().jobs.len(), 500);
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_held_by_a_reader_does_not_change_under_it() {
    let (_dir, path) = place();
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    ledger.found(first()).await.unwrap();
    let held = ledger.state();
    let mut applied = ledger.applied();
    applied.mark_unchanged();
    ledger.propose(&submit("web")).await.unwrap();
    applied.changed().await.unwrap();
    assert_eq!(*applied.borrow(), 3);
    assert!(held.jobs.is_empty());
    assert_eq!(ledger.state().jobs.len(), 1);
    ledger.shutdown().await;
}
