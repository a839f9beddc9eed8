//! The disk that lasts: one redb file, written by one thread, so that no fsync ever holds up the async runtime.

use std::{
    future::Future,
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use placement::ids::NodeId;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tokio::sync::oneshot;

use super::{
    Change, Disk, DiskError, Note,
    record::{FORMAT, Head, written_by},
};

/// `head` and the notes, each under its name.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Log entries by index.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// The one snapshot, under `current`.
const SNAPSHOT: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshot");

const HEAD: &str = "head";
const CURRENT: &str = "current";

/// Pages kept in memory. The kernel has them too; what is read again soon is the newest entry.
const CACHE_BYTES: usize = 4 << 20;

/// `ledger.redb`. Clones share the file; it is closed with the last of them, or by [`File::close`].
#[derive(Debug, Clone)]
pub struct File {
    queue: mpsc::Sender<Job>,
    inner: Arc<Inner>,
    /// Which opening of the file this belongs to.
    era: u64,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    node: NodeId,
    /// None while closed.
    database: RwLock<Option<Database>>,
    /// Counts openings: what a Raft core that was given up still wants to write must not reach the file.
    era: AtomicU64,
    /// Why it failed first: after a failed write redb only says that something failed before.
    failure: Mutex<Option<DiskError>>,
}

#[derive(Debug)]
struct Job {
    era: u64,
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), DiskError>>,
}

impl File {
    /// Opens the file, or makes it. Blocks on the disk.
    pub fn open(path: &Path, node: NodeId) -> Result<File, DiskError> {
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            node,
            database: RwLock::new(None),
            era: AtomicU64::new(0),
            failure: Mutex::new(None),
        });
        inner.open()?;
        let (queue, jobs) = mpsc::channel();
        let writer = inner.clone();
        thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || write_all(&writer, &jobs))
            .map_err(|source| DiskError::Open { path: path.to_owned(), source: Arc::new(source.into()) })?;
        Ok(File { queue, inner, era: 0 })
    }

    /// Closes and opens again, which redb wants after a failed write, and tries a write. Older clones fail from here on.
    /// Blocks on the disk.
    pub fn reopen(&mut self) -> Result<(), DiskError> {
        self.inner.close();
        self.era = self.inner.era.load(Ordering::Acquire);
        self.inner.open()
    }

    /// Lets go of the file; everything after this fails with [`DiskError::Closed`]. Blocks on the disk.
    pub fn close(&self) {
        self.inner.close();
    }

    /// What failed first since the file was opened.
    pub fn failure(&self) -> Option<DiskError> {
        lock(&self.inner.failure).clone()
    }
}

impl Disk for File {
    async fn write(&self, changes: Vec<Change>) -> Result<(), DiskError> {
        let (done, result) = oneshot::channel();
        let closed = || DiskError::Closed { path: self.inner.path.clone() };
        self.queue.send(Job { era: self.era, changes, done }).map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }

    fn log(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, DiskError> {
        self.inner.read(|database| {
            let read = database.begin_read()?;
            let table = match read.open_table(LOG) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut found = Vec::new();
            for entry in table.range(range)? {
                found.push(entry?.1.value().to_vec());
            }
            Ok(found)
        })
    }

    fn last(&self) -> Result<Option<Vec<u8>>, DiskError> {
        self.inner.read(|database| {
            let read = database.begin_read()?;
            let table = match read.open_table(LOG) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            Ok(table.last()?.map(|(_, record)| record.value().to_vec()))
        })
    }

    fn note(&self, note: Note) -> Result<Option<Vec<u8>>, DiskError> {
        self.inner.read(|database| get(database, META, note.name()))
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, DiskError> {
        self.inner.read(|database| get(database, SNAPSHOT, CURRENT))
    }

    fn damaged(&self, what: String, why: String) -> DiskError {
        self.inner.remember(self.inner.damaged(&what, why))
    }

    fn aside<T, F>(&self, job: F) -> impl Future<Output = Option<T>> + Send
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let job = tokio::task::spawn_blocking(job);
        async move { job.await.ok() }
    }
}

/// The writer thread: whatever has queued up goes into one transaction.
fn write_all(inner: &Inner, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let era = inner.era.load(Ordering::Acquire);
        let (jobs, late): (Vec<Job>, Vec<Job>) =
            std::iter::once(first).chain(jobs.try_iter()).partition(|job| job.era == era);
        // Their waiters are told that the file is closed.
        drop(late);
        let result = inner.commit(jobs.iter().flat_map(|job| &job.changes));
        for job in jobs {
            // Nobody waits any more if the Raft core was stopped; the write stands all the same.
            let _ = job.done.send(result.clone());
        }
    }
}

impl Inner {
    fn open(&self) -> Result<(), DiskError> {
        let database = guarded(|| {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                // The file is small: better read all of it once than trust a page that went bad.
                .set_check_integrity_on_open(true)
                .create(&self.path)
        })
        .map_err(|panic| self.damaged("the file", panic))?
        .map_err(|e| self.cannot_open(e))?;
        if let Some(head) = guarded(|| get(&database, META, HEAD))
            .map_err(|panic| self.damaged("its head", panic))?
            .map_err(|e| self.foreign(&e))?
        {
            self.check_head(&head)?;
        }
        // Says who wrote last, and proves that writing works.
        let head = serde_json::to_vec(&Head { format: FORMAT, written_by: written_by(), node: self.node })
            .map_err(|e| self.damaged("its head", e.to_string()))?;
        guarded(|| {
            let write = database.begin_write()?;
            write.open_table(META)?.insert(HEAD, head.as_slice())?;
            Ok(write.commit()?)
        })
        .map_err(|panic| self.damaged("the file", panic))?
        .map_err(|e: redb::Error| self.cannot_write(e))?;
        *lock(&self.failure) = None;
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(())
    }

    fn close(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn check_head(&self, head: &[u8]) -> Result<(), DiskError> {
        let head: Head = serde_json::from_slice(head)
            .map_err(|e| DiskError::Foreign { path: self.path.clone(), why: format!("its head: {e}") })?;
        if head.format > FORMAT {
            return Err(DiskError::Newer {
                path: self.path.clone(),
                format: head.format,
                known: FORMAT,
                written_by: head.written_by,
            });
        }
        if head.node != self.node {
            return Err(DiskError::OtherNode { path: self.path.clone(), owner: head.node, node: self.node });
        }
        Ok(())
    }

    fn read<T>(&self, job: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, DiskError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| DiskError::Closed { path: self.path.clone() })?;
        let error = match guarded(|| job(database)) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(redb::Error::Corrupted(why))) | Err(why) => self.damaged("a page", why),
            Ok(Err(source)) => DiskError::Read { path: self.path.clone(), source: Arc::new(source) },
        };
        Err(self.remember(error))
    }

    /// One durable transaction.
    fn commit<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), DiskError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| DiskError::Closed { path: self.path.clone() })?;
        let error = match guarded(|| commit(database, changes)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => self.cannot_write(e),
            Err(panic) => self.damaged("a page", panic),
        };
        Err(self.remember(error))
    }

    fn remember(&self, error: DiskError) -> DiskError {
        lock(&self.failure).get_or_insert(error).clone()
    }

    fn cannot_open(&self, error: DatabaseError) -> DiskError {
        match error {
            DatabaseError::DatabaseAlreadyOpen => DiskError::InUse { path: self.path.clone() },
            DatabaseError::UpgradeRequired(version) => DiskError::Foreign {
                path: self.path.clone(),
                why: format!("a redb file of the old version {version}"),
            },
            DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {
                DiskError::Foreign { path: self.path.clone(), why: e.to_string() }
            }
            DatabaseError::Storage(redb::StorageError::Corrupted(why)) => self.damaged("the file", why),
            error => match self.cannot_write(error.into()) {
                DiskError::Write { path, source } => DiskError::Open { path, source },
                error => error,
            },
        }
    }

    fn foreign(&self, error: &redb::Error) -> DiskError {
        DiskError::Foreign { path: self.path.clone(), why: error.to_string() }
    }

    fn cannot_write(&self, error: redb::Error) -> DiskError {
        match error {
            redb::Error::Io(e)
                if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                DiskError::Full { path: self.path.clone() }
            }
            redb::Error::Corrupted(why) => self.damaged("a page", why),
            error => DiskError::Write { path: self.path.clone(), source: Arc::new(error) },
        }
    }

    fn damaged(&self, what: &str, why: String) -> DiskError {
        DiskError::Damaged { path: self.path.clone(), what: what.to_owned(), why }
    }
}

fn commit<'a>(database: &Database, changes: impl Iterator<Item = &'a Change>) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let mut log = write.open_table(LOG)?;
        for change in changes {
            match change {
                Change::Append(index, record) => drop(log.insert(index, record.as_slice())?),
                Change::CutFrom(index) => log.retain_in(*index.., |_, _| false)?,
                Change::PurgeTo(index) => log.retain_in(..=*index, |_, _| false)?,
                Change::Note(note, record) => drop(meta.insert(note.name(), record.as_slice())?),
                Change::Snapshot(snapshot) => {
                    drop(write.open_table(SNAPSHOT)?.insert(CURRENT, snapshot.as_slice())?);
                }
            }
        }
    }
    Ok(write.commit()?)
}

fn get(
    database: &Database,
    table: TableDefinition<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Vec<u8>>, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(table?.get(key)?.map(|value| value.value().to_vec())),
    }
}

/// redb may panic on pages that were altered behind its back: that is damage to this file, and must stay so.
fn guarded<T>(job: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("redb panicked").to_owned()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
