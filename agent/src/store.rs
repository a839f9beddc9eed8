//! `DIR/agent.redb`: what the node must not forget. One thread writes; whatever waits for it shares a transaction.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use gossip::wire::EventRecord;
use placement::{ids::Activation, node::Bad};
use redb::{Database, Durability, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::{
    core::record::Record,
    estimate::Learned,
    event::{Change, Ticket},
};

/// Task key → `Record`.
const TASKS: TableDefinition<&str, &[u8]> = TableDefinition::new("tasks");
/// `promise`, `life`, `bad`, `learned`: a JSON value each.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// `OWNER/NAME` → what the node remembers of the job: a JSON value.
const HISTORY: TableDefinition<&str, &[u8]> = TableDefinition::new("history");
/// Sequence number → `EventRecord`; the last `EVENTS_KEPT`.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Owner → number of its range of user ids on this node.
const OWNERS: TableDefinition<&str, u32> = TableDefinition::new("owners");
/// Task key → a record that could not be read, put aside.
const QUARANTINE: TableDefinition<&str, &[u8]> = TableDefinition::new("quarantine");

/// Events that a node has at hand: the last of those that it remembers.
pub const EVENTS_SHOWN: usize = 2_000;
/// Events that a node remembers.
pub const EVENTS_KEPT: u64 = 10_000;
/// Events that nothing else took along are forced to disk after so much quiet.
const FLUSH_EVENTS: Duration = Duration::from_millis(200);
/// redb would otherwise take up to a gigabyte.
const CACHE_BYTES: usize = 2 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "cannot open {path}: {source}. If it is damaged, move it away: the node's tasks are then placed anew"
    )]
    Open { path: PathBuf, source: redb::DatabaseError },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: redb::Error },
    #[error("cannot write to {path}: {source}")]
    Write { path: PathBuf, source: redb::Error },
    #[error("cannot write to {path}: the disk is full; free some space there, it is tried again")]
    Full { path: PathBuf },
    #[error("cannot start the thread that writes {path}: {source}")]
    Thread { path: PathBuf, source: std::io::Error },
}

/// What the store held when it was opened.
#[derive(Debug)]
pub struct Held {
    pub records: Vec<Record>,
    pub promise: Activation,
    /// What failed here again and again.
    pub bad: Vec<Bad>,
    /// This start's number (PROTOCOL 22).
    pub life: u64,
    /// The directory is older than the machine knows: it was put back from a copy (PROTOCOL 22).
    pub restored: bool,
    pub events: Vec<EventRecord>,
    /// Keys whose records could not be read, and why; they are put aside, nothing else stops.
    pub quarantined: Vec<(String, String)>,
    /// What was known of its tasks' needs, as it was written.
    pub learned: Option<Vec<u8>>,
    /// What it remembers of jobs, as it was written.
    pub history: Vec<(String, Vec<u8>)>,
    /// What ended tasks, as it was written.
    pub endings: Option<Vec<u8>>,
}

enum Job {
    Changes(Ticket, Vec<Change>),
    Event(Box<EventRecord>),
    History(BTreeMap<String, Vec<u8>>, Vec<u8>, tokio::sync::oneshot::Sender<Result<(), String>>),
    Learned(Box<Learned>, tokio::sync::oneshot::Sender<Result<(), String>>),
    Owner(String, tokio::sync::oneshot::Sender<Result<u32, String>>),
}

/// A handle on the thread that writes. The thread ends, with all that it was given written, when the last is dropped.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// Ranges that were asked for before: a start need not wait for the disk again.
    owners: Arc<Mutex<BTreeMap<String, u32>>>,
}

/// Called with each ticket once its changes are on disk, or cannot be.
pub type Stored = Box<dyn Fn(Ticket, Result<(), String>) + Send>;

impl Store {
    /// Opens or makes it, counts this start, and starts the thread. `durable`: off for throw-away cells. `known`: the last
    /// life that the machine knows of.
    pub fn open(path: &Path, durable: bool, known: u64, stored: Stored) -> Result<(Store, Held), StoreError> {
        let db = open(path).map_err(|source| StoreError::Open { path: path.to_path_buf(), source })?;
        let held =
            load(&db, known).map_err(|source| StoreError::Read { path: path.to_path_buf(), source })?;
        let (jobs, inbox) = mpsc::channel();
        let mut writer = Writer { db: Some(db), path: path.to_path_buf(), durable, stored, unflushed: false };
        thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&inbox))
            .map_err(|source| StoreError::Thread { path: path.to_path_buf(), source })?;
        Ok((Store { jobs, owners: Arc::default() }, held))
    }

    /// Answered through `Stored`. The thread lives as long as a handle does.
    pub fn change(&self, ticket: Ticket, changes: Vec<Change>) {
        let _ = self.jobs.send(Job::Changes(ticket, changes));
    }

    /// Kept without being forced to disk: the next change takes it along.
    pub fn event(&self, event: EventRecord) {
        let _ = self.jobs.send(Job::Event(Box::new(event)));
    }

    /// Keeps what is known of the tasks' needs, instead of what was known before.
    pub async fn learned(&self, learned: Learned) -> Result<(), String> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let _ = self.jobs.send(Job::Learned(Box::new(learned), tell));
        told.await.unwrap_or_else(|_| Err("the store has ended".to_string()))
    }

    /// Keeps what is remembered of jobs and of what ended tasks, instead of what was before.
    pub async fn history(&self, jobs: BTreeMap<String, Vec<u8>>, endings: Vec<u8>) -> Result<(), String> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let _ = self.jobs.send(Job::History(jobs, endings, tell));
        told.await.unwrap_or_else(|_| Err("the store has ended".to_string()))
    }

    /// The number of the owner's range of user ids here, given out once and kept.
    pub async fn owner(&self, owner: String) -> Result<u32, String> {
        if let Some(number) = self.known().get(&owner) {
            return Ok(*number);
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let _ = self.jobs.send(Job::Owner(owner.clone(), tell));
        let number = told.await.unwrap_or_else(|_| Err("the store has ended".to_string()))?;
        self.known().insert(owner, number);
        Ok(number)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

fn load(db: &Database, known: u64) -> Result<Held, redb::Error> {
    let write = db.begin_write()?;
    let mut held = Held {
        records: Vec::new(),
        promise: Activation::default(),
        bad: Vec::new(),
        life: 0,
        restored: false,
        events: Vec::new(),
        quarantined: Vec::new(),
        learned: None,
        history: Vec::new(),
        endings: None,
    };
    {
        let mut tasks = write.open_table(TASKS)?;
        let mut quarantine = write.open_table(QUARANTINE)?;
        let mut bad = Vec::new();
        for row in tasks.iter()? {
            let (key, bytes) = row?;
            match serde_json::from_slice(bytes.value()) {
                Ok(record) => held.records.push(record),
                Err(why) => bad.push((key.value().to_string(), bytes.value().to_vec(), why.to_string())),
            }
        }
        for (key, bytes, why) in bad {
            quarantine.insert(key.as_str(), bytes.as_slice())?;
            tasks.remove(key.as_str())?;
            held.quarantined.push((key, why));
        }
        let mut meta = write.open_table(META)?;
        let read = |value: Option<redb::AccessGuard<'_, &[u8]>>| value.map(|v| v.value().to_vec());
        if let Some(bytes) = read(meta.get("promise")?) {
            held.promise = serde_json::from_slice(&bytes).unwrap_or_default();
        }
        if let Some(bytes) = read(meta.get("bad")?) {
            held.bad = serde_json::from_slice(&bytes).unwrap_or_default();
        }
        let last: u64 = read(meta.get("life")?).and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(0);
        held.learned = read(meta.get("learned")?);
        held.endings = read(meta.get("endings")?);
        held.restored = last < known;
        held.life = last.max(known) + 1;
        meta.insert("life", held.life.to_string().as_bytes())?;
        for row in write.open_table(HISTORY)?.iter()? {
            let (job, bytes) = row?;
            held.history.push((job.value().to_string(), bytes.value().to_vec()));
        }
        for row in write.open_table(EVENTS)?.iter()?.rev().take(EVENTS_SHOWN) {
            held.events.extend(serde_json::from_slice::<EventRecord>(row?.1.value()).ok());
        }
        held.events.reverse();
        write.open_table(OWNERS)?;
    }
    write.commit()?;
    Ok(held)
}

struct Writer {
    /// None after a write that failed: redb then wants the file closed and opened again.
    db: Option<Database>,
    path: PathBuf,
    durable: bool,
    stored: Stored,
    /// Events were written that a crash would still lose.
    unflushed: bool,
}

impl Writer {
    fn run(&mut self, inbox: &mpsc::Receiver<Job>) {
        loop {
            let first = match inbox.recv_timeout(FLUSH_EVENTS) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) if self.unflushed => None,
                Err(RecvTimeoutError::Timeout) => match inbox.recv() {
                    Ok(first) => Some(first),
                    Err(_) => return,
                },
                Err(RecvTimeoutError::Disconnected) if self.unflushed => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // All that came while the last transaction was written goes into this one.
            let jobs: Vec<Job> = first.into_iter().chain(inbox.try_iter()).collect();
            // Events alone can wait for company, or for a quiet moment: an empty batch is that moment.
            let events_only = !jobs.is_empty() && jobs.iter().all(|job| matches!(job, Job::Event(_)));
            self.unflushed = events_only;
            let result = self
                .write(&jobs, !events_only)
                .map_err(|source| failed(self.path.clone(), source).to_string());
            for job in jobs {
                match job {
                    Job::Changes(ticket, _) => {
                        (self.stored)(ticket, result.as_ref().map(|_| ()).map_err(Clone::clone))
                    }
                    Job::Event(_) => {}
                    Job::History(_, _, tell) | Job::Learned(_, tell) => {
                        let _ = tell.send(result.as_ref().map(|_| ()).map_err(Clone::clone));
                    }
                    Job::Owner(owner, tell) => {
                        let _ = tell.send(match &result {
                            Ok(numbers) => numbers
                                .iter()
                                .find(|(o, _)| *o == owner)
                                .map(|(_, n)| *n)
                                .ok_or_else(|| format!("no range of user ids for {owner}")),
                            Err(why) => Err(why.clone()),
                        });
                    }
                }
            }
        }
    }

    /// One transaction; the numbers of the owners that were asked for.
    fn write(&mut self, jobs: &[Job], flush: bool) -> Result<Vec<(String, u32)>, redb::Error> {
        let db = match self.db.take() {
            Some(db) => db,
            None => open(&self.path)?,
        };
        let numbers = Writer::commit(&db, jobs, flush && self.durable)?;
        self.db = Some(db);
        Ok(numbers)
    }

    fn commit(db: &Database, jobs: &[Job], durable: bool) -> Result<Vec<(String, u32)>, redb::Error> {
        let mut write = db.begin_write()?;
        if !durable {
            write.set_durability(Durability::None)?;
        }
        let mut numbers = Vec::new();
        {
            let mut tasks = write.open_table(TASKS)?;
            let mut meta = write.open_table(META)?;
            let mut events = write.open_table(EVENTS)?;
            let mut owners = write.open_table(OWNERS)?;
            for job in jobs {
                match job {
                    Job::Changes(_, changes) => {
                        for change in changes {
                            match change {
                                Change::Put(record) => {
                                    tasks
                                        .insert(record.key.to_string().as_str(), json(record)?.as_slice())?;
                                }
                                Change::Drop(key) => {
                                    tasks.remove(key.to_string().as_str())?;
                                }
                                Change::Promise(activation) => {
                                    meta.insert("promise", json(activation)?.as_slice())?;
                                }
                                Change::Bad(bad) => {
                                    meta.insert("bad", json(bad)?.as_slice())?;
                                }
                            }
                        }
                    }
                    Job::Event(event) => {
                        events.insert(event.seq, json(event)?.as_slice())?;
                        if events.len()? > EVENTS_KEPT {
                            events.pop_first()?;
                        }
                    }
                    Job::History(jobs, endings, _) => {
                        meta.insert("endings", endings.as_slice())?;
                        let mut history = write.open_table(HISTORY)?;
                        history.retain(|job, _| jobs.contains_key(job))?;
                        for (job, bytes) in jobs {
                            history.insert(job.as_str(), bytes.as_slice())?;
                        }
                    }
                    Job::Learned(learned, _) => {
                        meta.insert("learned", json(learned)?.as_slice())?;
                    }
                    Job::Owner(owner, _) => {
                        let known = owners.get(owner.as_str())?.map(|n| n.value());
                        let number = match known {
                            Some(number) => number,
                            None => {
                                let next = u32::try_from(owners.len()?).unwrap_or(u32::MAX);
                                owners.insert(owner.as_str(), next)?;
                                next
                            }
                        };
                        numbers.push((owner.clone(), number));
                    }
                }
            }
        }
        write.commit()?;
        Ok(numbers)
    }
}

fn failed(path: PathBuf, source: redb::Error) -> StoreError {
    match source {
        redb::Error::Io(e) if e.kind() == ErrorKind::StorageFull => StoreError::Full { path },
        source => StoreError::Write { path, source },
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|e| redb::Error::Io(e.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::*;
    use crate::{clock, journal::Journal};

    type Answers = mpsc::Receiver<(Ticket, Result<(), String>)>;

    fn start(path: &Path) -> (Store, Held, Answers) {
        let (tell, told) = mpsc::channel();
        let stored = Box::new(move |ticket, result| {
            let _ = tell.send((ticket, result));
        });
        let (store, held) = Store::open(path, true, 0, stored).unwrap();
        (store, held, told)
    }

    /// redb lets go of its file when the thread has ended: then it can be opened again.
    fn reopen(path: &Path, store: Store, told: Answers) -> (Store, Held, Answers) {
        drop(store);
        while told.recv().is_ok() {}
        start(path)
    }

    #[tokio::test]
    async fn what_was_stored_is_there_at_the_next_start() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent.redb");
        let (store, held, told) = start(&path);
        assert_eq!((held.life, held.promise, held.records.len()), (1, Activation::default(), 0));
        let promise = Activation { cell: 1, index: 7 };
        store.change(3, vec![Change::Promise(promise)]);
        assert_eq!(told.recv().unwrap(), (3, Ok(())));
        assert_eq!(store.owner("ann".into()).await, Ok(0));
        assert_eq!(store.owner("bob".into()).await, Ok(1));
        assert_eq!(store.owner("ann".into()).await, Ok(0));
        let journal = Journal::new("n1", held.events, store.clone());
        journal.node("agent_started", "started".into());
        ["it is dark", "it is cold", "it is dark"].into_iter().for_each(|text| journal.warn(text.into()));
        let warned: Vec<String> = journal.warnings().into_iter().map(|warned| warned.text).collect();
        assert_eq!(warned, ["it is cold", "it is dark"]);
        drop(journal);

        let (store, held, told) = reopen(&path, store, told);
        assert_eq!((held.life, held.promise), (2, promise));
        assert_eq!(held.events.len(), 4);
        assert_eq!(store.owner("bob".into()).await, Ok(1));
        let last = held.events[3].seq;
        let journal = Journal::new("n1", held.events, store.clone());
        // Whoever is started looks again.
        assert_eq!(journal.warnings(), []);
        journal.node("agent_started", "again".into());
        let (events, _) = journal.read();
        // Numbers never come twice, whatever a crash kept from the disk.
        assert!(events[4].seq > last && events[4].time <= clock::rfc3339(clock::now().wall_ms));
        drop(journal);
        reopen(&path, store, told);
    }

    #[test]
    fn a_directory_that_is_older_than_the_machine_remembers_is_told_from_its_own_next_start() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent.redb");
        let lives = [(0, 1, false), (1, 2, false), (0, 3, false), (7, 8, true), (8, 9, false)];
        for (known, life, restored) in lives {
            let (told, gone) = mpsc::channel();
            let stored = Box::new(move |ticket, result| drop(told.send((ticket, result))));
            let (store, held) = Store::open(&path, true, known, stored).unwrap();
            assert_eq!((held.life, held.restored), (life, restored));
            drop(store);
            // The thread has let the file go.
            assert!(gone.recv().is_err());
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_put_aside_and_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent.redb");
        {
            let db = Database::create(&path).unwrap();
            let write = db.begin_write().unwrap();
            write.open_table(TASKS).unwrap().insert("1.7.0", b"{\"key\":".as_slice()).unwrap();
            write.commit().unwrap();
        }
        let (store, held, told) = start(&path);
        assert_eq!(held.quarantined.len(), 1);
        assert_eq!(held.quarantined[0].0, "1.7.0");
        let (_store, held, _told) = reopen(&path, store, told);
        assert!(held.quarantined.is_empty() && held.records.is_empty());
    }

    #[test]
    fn a_full_disk_refuses_and_the_store_goes_on_when_there_is_room() {
        let temp = tempfile::tempdir().unwrap();
        let disk = temp.path();
        let options = Some("size=2m");
        mount(Some("tmpfs"), disk, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        let (store, _, told) = start(&disk.join("agent.redb"));
        let kept = Activation { cell: 1, index: 7 };
        store.change(1, vec![Change::Promise(kept)]);
        assert_eq!(told.recv().unwrap(), (1, Ok(())));

        let hog = disk.join("hog");
        let full = fs::write(&hog, vec![1; 4 << 20]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let mut ticket = 1;
        let mut change = |index| {
            ticket += 1;
            store.change(ticket, vec![Change::Promise(Activation { cell: 1, index })]);
            told.recv().unwrap()
        };
        // What the file has room for goes in; it grows by and by, as owners are many.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let refused = (0..100_000).find_map(|n| runtime.block_on(store.owner(format!("owner-{n}"))).err());
        assert!(refused.as_ref().is_some_and(|why| why.contains("the disk is full")), "{refused:?}");

        fs::remove_file(&hog).unwrap();
        let (_, result) = change(8);
        assert_eq!(result, Ok(()));
        let (store, held, _told) = reopen(&disk.join("agent.redb"), store, told);
        assert_eq!(held.promise, Activation { cell: 1, index: 8 });
        drop(store);
        umount2(disk, MntFlags::MNT_DETACH).unwrap();
    }
}
