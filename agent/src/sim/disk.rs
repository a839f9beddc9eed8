//! A disk in memory that takes its time, outlives its node's crashes, and may lose or keep what was being written then.

use std::{
    collections::BTreeMap,
    future::Future,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::runtime::{draw_from, happens, now, sleep_until};
use crate::ledger::{Change, Disk, DiskError, Note};

#[derive(Debug, Default)]
struct Stored {
    log: BTreeMap<u64, Vec<u8>>,
    notes: BTreeMap<Note, Vec<u8>>,
    snapshot: Option<Vec<u8>>,
    /// When what was handed over so far will be on disk.
    busy_until: u64,
    full: bool,
    /// Records that could not be understood: there must be none.
    damaged: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Stored>>);

impl Memory {
    pub(crate) fn fill(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    pub(crate) fn damage(&self) -> Vec<String> {
        self.0.lock().unwrap().damaged.clone()
    }
}

/// Writing; lands by half of the chances if its node dies meanwhile.
struct Write {
    stored: Arc<Mutex<Stored>>,
    changes: Vec<Change>,
}

impl Write {
    fn land(&mut self) {
        let mut stored = self.stored.lock().unwrap();
        for change in self.changes.drain(..) {
            match change {
                Change::Append(index, record) => drop(stored.log.insert(index, record)),
                Change::CutFrom(index) => drop(stored.log.split_off(&index)),
                Change::PurgeTo(index) => stored.log = stored.log.split_off(&(index + 1)),
                Change::Note(note, record) => drop(stored.notes.insert(note, record)),
                Change::Snapshot(snapshot) => stored.snapshot = Some(snapshot),
            }
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.changes.is_empty() && happens(500) {
            self.land();
        }
    }
}

impl Disk for Memory {
    async fn write(&self, changes: Vec<Change>) -> Result<(), DiskError> {
        let mut write = Write { stored: self.0.clone(), changes };
        // Mostly quick; now and then something else keeps the disk busy.
        let micros = if happens(20) { draw_from(5_000..60_000) } else { draw_from(100..2_000) };
        let done = {
            let mut stored = self.0.lock().unwrap();
            stored.busy_until = stored.busy_until.max(now()) + micros * 1_000;
            stored.busy_until
        };
        sleep_until(done).await;
        if self.0.lock().unwrap().full {
            write.changes.clear();
            return Err(DiskError::Full { path: PathBuf::from("memory") });
        }
        write.land();
        Ok(())
    }

    fn log(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, DiskError> {
        Ok(self.0.lock().unwrap().log.range(range).map(|(_, record)| record.clone()).collect())
    }

    fn last(&self) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.lock().unwrap().log.last_key_value().map(|(_, record)| record.clone()))
    }

    fn note(&self, note: Note) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.lock().unwrap().notes.get(&note).cloned())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.lock().unwrap().snapshot.clone())
    }

    fn damaged(&self, what: String, why: String) -> DiskError {
        self.0.lock().unwrap().damaged.push(format!("{what}: {why}"));
        DiskError::Damaged { path: PathBuf::from("memory"), what, why }
    }

    fn aside<T, F>(&self, job: F) -> impl Future<Output = Option<T>> + Send
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let wait = super::runtime::sleep(Duration::from_millis(1));
        async move {
            wait.await;
            Some(job())
        }
    }
}
