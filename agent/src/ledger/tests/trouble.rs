//! Disks that fail.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use openraft::SnapshotPolicy;
use placement::ids::NodeId;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde_json::json;
use tempfile::TempDir;

use super::{NODE, first, submit};
use crate::ledger::{DiskError, LedgerHandle, ProposeError, Role, alone};

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    (dir, path)
}

/// A ledger with `jobs` jobs, closed.
async fn filled(path: &Path, jobs: usize) {
    let ledger = LedgerHandle::open(path, NODE).await.unwrap();
    ledger.found(first()).await.unwrap();
    for i in 0..jobs {
        ledger.propose(&submit(&format!("job{i}"), 0)).await.unwrap();
    }
    ledger.shutdown().await;
}

async fn refused(path: &Path, node: NodeId) -> DiskError {
    match LedgerHandle::open(path, node).await {
        Err(ProposeError::Disk(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn put(path: &Path, table: &str, key: &str, value: &str) {
    let database = Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    let table = TableDefinition::<&str, &[u8]>::new(table);
    write.open_table(table).unwrap().insert(key, value.as_bytes()).unwrap();
    write.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_is_refused() {
    let (_dir, path) = place();
    fs::write(&path, "not a database\n".repeat(1000)).unwrap();
    let error = refused(&path, NODE).await;
    assert!(matches!(error, DiskError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    // And is left as it was.
    assert!(fs::read_to_string(&path).unwrap().starts_with("not a database"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_is_refused_by_the_name_of_its_writer() {
    let (_dir, path) = place();
    filled(&path, 1).await;
    let head = json!({"format": 2, "written_by": "covey 9.0.0", "node": NODE, "later": true});
    put(&path, "meta", "head", &head.to_string());
    let error = refused(&path, NODE).await;
    assert!(matches!(error, DiskError::Newer { format: 2, .. }), "{error}");
    assert!(error.to_string().contains("install covey 9.0.0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_another_node_is_refused() {
    let (_dir, path) = place();
    filled(&path, 1).await;
    let error = refused(&path, NodeId(0xb)).await;
    assert!(matches!(error, DiskError::OtherNode { owner: NODE, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_use_is_refused() {
    let (_dir, path) = place();
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    let error = refused(&path, NODE).await;
    assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    ledger.shutdown().await;
    LedgerHandle::open(&path, NODE).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_nobody_understands_are_named() {
    let (_dir, path) = place();
    filled(&path, 3).await;
    put(&path, "meta", "vote", "{");
    let error = refused(&path, NODE).await;
    assert!(matches!(&error, DiskError::Damaged { what, .. } if what == "vote"), "{error}");

    let (_dir, path) = place();
    filled(&path, 3).await;
    put(&path, "snapshot", "current", "[]");
    let error = refused(&path, NODE).await;
    assert!(matches!(&error, DiskError::Damaged { what, .. } if what == "the snapshot"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_newer_version_stops_the_ledger_by_name() {
    let (_dir, path) = place();
    filled(&path, 3).await;
    {
        let database = Database::open(&path).unwrap();
        let log = TableDefinition::<u64, &[u8]>::new("log");
        let last = {
            let read = database.begin_read().unwrap();
            let table = read.open_table(log).unwrap();
            let (index, text) = redb::ReadableTable::last(&table).unwrap().unwrap();
            (index.value(), String::from_utf8(text.value().to_vec()).unwrap())
        };
        let write = database.begin_write().unwrap();
        let text = last.1.replace(r#""submit""#, r#""levitate""#);
        write.open_table(log).unwrap().insert(last.0, text.as_bytes()).unwrap();
        write.commit().unwrap();
    }
    let error = refused(&path, NODE).await;
    assert!(matches!(&error, DiskError::Damaged { why, .. } if why.contains("levitate")), "{error}");
    assert!(error.to_string().contains("install the newest version"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_makes_it_panic_or_lie() {
    let (_dir, path) = place();
    filled(&path, 5).await;
    let whole = fs::read(&path).unwrap();
    let state = {
        let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
        let state = ledger.state();
        ledger.shutdown().await;
        state
    };
    // The written pages are few: a prime step reaches into each, headers most of all.
    let places = (0..512).step_by(7).chain((512..whole.len()).step_by(1999));
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        match LedgerHandle::open(&path, NODE).await {
            Ok(ledger) => {
                assert_eq!(ledger.state(), state, "byte {at}");
                ledger.shutdown().await;
            }
            Err(ProposeError::Disk(_)) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_take_the_place_of_the_log() {
    let (_dir, path) = place();
    let config = openraft::Config {
        snapshot_policy: SnapshotPolicy::LogsSinceLast(20),
        max_in_snapshot_log_to_keep: 5,
        purge_batch_size: 1,
        ..crate::ledger::config()
    };
    let ledger = LedgerHandle::open_with(&path, NODE, config.clone(), alone()).await.unwrap();
    ledger.found(first()).await.unwrap();
    for i in 0..200 {
        ledger.propose(&submit(&format!("job{i}"), 0)).await.unwrap();
    }
    let before = ledger.state();
    ledger.shutdown().await;
    {
        let database = Database::open(&path).unwrap();
        let read = database.begin_read().unwrap();
        let log = read.open_table(TableDefinition::<u64, &[u8]>::new("log")).unwrap();
        let kept = redb::ReadableTableMetadata::len(&log).unwrap();
        assert!(kept < 150, "{kept} entries are still in the log");
    }
    let ledger = LedgerHandle::open_with(&path, NODE, config, alone()).await.unwrap();
    assert_eq!(ledger.state(), before);
    ledger.propose(&submit("after", 0)).await.unwrap();
    assert_eq!(ledger.state().applied, before.applied + 1);
    ledger.shutdown().await;
}

/// A file system of a few MiB.
struct Small(TempDir);

impl Small {
    fn new(size: &str) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        Small(dir)
    }

    fn grow(&self, size: &str) {
        let size = format!("size={size}");
        mount(Some("tmpfs"), self.0.path(), Some("tmpfs"), MsFlags::MS_REMOUNT, Some(size.as_str())).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let small = Small::new("6m");
    let path = small.0.path().join("ledger.redb");
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    ledger.found(first()).await.unwrap();
    let mut taken = 0;
    let refused = loop {
        match ledger.propose(&submit(&format!("job{taken}"), 100 << 10)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000);
    };
    assert!(matches!(refused, ProposeError::Disk(DiskError::Full { .. })), "{refused}");
    assert!(refused.to_string().contains("free some"), "{refused}");
    assert!(taken > 5, "{taken}");
    // What was acknowledged can still be read.
    assert!(ledger.state().jobs.len() >= taken);

    // Still full: refused again, or, if the core has started anew meanwhile, tried again and refused.
    let again = ledger.propose(&submit("again", 200 << 10)).await.unwrap_err();
    assert!(matches!(again, ProposeError::Disk(_)), "{again}");

    small.grow("64m");
    let mut role = ledger.role();
    let led = role.wait_for(|role| role.is_leader()).await.map(|role| *role).unwrap();
    assert!(matches!(led, Role::Leader { start: 2.., .. }), "{led:?}");
    ledger.propose(&submit("later", 100 << 10)).await.unwrap();
    let before = ledger.state();
    assert!(before.jobs.len() > taken);
    ledger.shutdown().await;

    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    assert_eq!(ledger.state(), before);
    ledger.shutdown().await;
}
