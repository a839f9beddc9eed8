//! What stands on disk, field by field: a change here is a change of the format.

use std::collections::BTreeSet;

use openraft::{Entry, EntryPayload, LogId, Membership, Vote};
use placement::{ids::NodeId, ledger::Ledger};
use redb::{ReadableDatabase, TableHandle};
use serde::Serialize;
use serde_json::Value;

use super::{NODE, entry, first, submit};
use crate::ledger::{
    Batch, Daemon, LedgerHandle, alone,
    record::{FORMAT, Head, LogRecord, Mark, Members, Snapshot, VoteRecord},
};

const GOLDEN: &str = include_str!("golden.json");

fn golden(name: &str) -> Value {
    serde_json::from_str::<Value>(GOLDEN).unwrap()[name].take()
}

#[track_caller]
fn same(name: &str, value: &impl Serialize) {
    let value = serde_json::to_value(value).unwrap();
    assert_eq!(value, golden(name), "{name} is now {}", serde_json::to_string_pretty(&value).unwrap());
}

fn mark(index: u64) -> LogId<NodeId> {
    Mark { index, term: 1, leader: NODE }.into()
}

fn record(payload: EntryPayload<Daemon>) -> LogRecord {
    LogRecord::new(Entry { log_id: mark(7), payload })
}

fn members() -> Membership<NodeId, openraft::EmptyNode> {
    Members { voters: vec![BTreeSet::from([NODE])], learners: BTreeSet::from([NodeId(0xb)]) }.into()
}

#[test]
fn log_entries() {
    let mut batch = Batch::default();
    for entry in first() {
        batch.append(Batch::one(&entry).unwrap());
    }
    same("log_entries", &record(EntryPayload::Normal(batch)));
    same("log_blank", &record(EntryPayload::Blank));
    same("log_members", &record(EntryPayload::Membership(members())));
}

#[test]
fn log_entries_are_read_back() {
    for name in ["log_entries", "log_blank", "log_members"] {
        let record: LogRecord = serde_json::from_str(&golden(name).to_string()).unwrap();
        let again = LogRecord::new(record.entry::<Daemon>());
        same(name, &again);
    }
}

#[test]
fn a_field_that_this_build_does_not_know_stays_in_the_log() {
    let text = r#"{"at":{"index":7,"term":1,"leader":"000000000000000a","x":1},"later":2,
        "payload":{"entries":[{"at_ms":1,"command":{"activate":{"node":"000000000000000a"}},"later":{"a":[1]}}]}}"#;
    let record: LogRecord = serde_json::from_str(text).unwrap();
    let stored = serde_json::to_string(&LogRecord::new(record.entry::<Daemon>())).unwrap();
    assert!(stored.contains(r#""later":{"a":[1]}"#), "{stored}");
}

#[test]
fn votes() {
    same("vote", &VoteRecord::from(Vote::new_committed(3, NODE)));
    let back: VoteRecord = serde_json::from_value(golden("vote")).unwrap();
    assert_eq!(Vote::from(back), Vote::new_committed(3, NODE));
}

#[test]
fn marks() {
    same("committed", &Mark::from(mark(7)));
    same("head", &Head { format: FORMAT, written_by: "covey 0.1.0".into(), node: NODE });
}

#[test]
fn snapshots() {
    let mut ledger = Ledger::default();
    for (index, entry) in (1..).zip(first()) {
        ledger.apply(index, &entry);
    }
    let snapshot = Snapshot {
        format: FORMAT,
        written_by: "covey 0.1.0".into(),
        last: Some(mark(7).into()),
        members_at: Some(mark(0).into()),
        members: Members::from(&members()),
        ledger,
    };
    same("snapshot", &snapshot);
    let mut later = golden("snapshot");
    later["later"] = Value::from(1);
    later["ledger"]["later"] = Value::from(2);
    let read: Snapshot = serde_json::from_str(&later.to_string()).unwrap();
    // What the ledger says beyond this build stays in it.
    assert_eq!(serde_json::to_value(&read).unwrap()["ledger"], later["ledger"]);
    let mut known = read;
    known.ledger.later.clear();
    assert_eq!(known, snapshot);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let config = openraft::Config {
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(2),
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        ..crate::ledger::config()
    };
    let ledger = LedgerHandle::open_with(&path, NODE, config, alone()).await.unwrap();
    ledger.found(first()).await.unwrap();
    // The purge comes some time after the snapshot; each entry gives it another chance.
    for i in 0..50 {
        ledger.propose(&submit(&format!("job{i}"), 0)).await.unwrap();
    }
    ledger.propose(&entry(placement::ledger::Command::Activate { node: NODE })).await.unwrap();
    ledger.shutdown().await;

    let database = redb::Database::open(&path).unwrap();
    let read = database.begin_read().unwrap();
    let mut tables: Vec<String> = read.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    tables.sort();
    let meta = read.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta")).unwrap();
    let keys: Vec<String> =
        meta.range::<&str>(..).unwrap().map(|pair| pair.unwrap().0.value().to_owned()).collect();
    same("tables", &tables);
    same("keys of meta", &keys);
}
