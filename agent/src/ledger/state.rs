//! Raft's state machine: the ledger as applied so far, its snapshots, and the view that everybody else reads.

use std::{
    collections::VecDeque,
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use openraft::{
    EmptyNode, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder,
    SnapshotMeta, StorageError, StoredMembership, storage::RaftStateMachine,
};
use placement::{
    ids::NodeId,
    ledger::{Answer, Ledger},
};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Batch, Change, Disk, DiskError, Types,
    log::{decode, failed},
    record::{FORMAT, Snapshot, written_by},
};

/// Entries at hand for those who keep copies: so many, and so many bytes of text.
const RECENT: usize = 4_096;
const RECENT_BYTES: usize = 4 << 20;
/// Of which so many are told at a time.
const TOLD: usize = 512;

/// The applied ledger. Reading is a pointer copy; whoever holds one makes the next change copy the ledger, so let go soon.
#[derive(Debug)]
pub struct View {
    ledger: RwLock<Arc<Ledger>>,
    /// Pulled from others while this node does not vote.
    copy: RwLock<Arc<Ledger>>,
    members: RwLock<StoredMembership<NodeId, EmptyNode>>,
    applied: watch::Sender<u64>,
    recent: Mutex<Recent>,
}

/// The last entries, as they stand in the log, without a gap. As text: read, they would take ten times as much memory.
#[derive(Debug, Default)]
struct Recent {
    entries: VecDeque<(u64, Arc<str>)>,
    size: usize,
}

/// What the ledger holds after a given entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Since {
    /// The first has the index after the given one; perhaps none, and perhaps not all.
    Entries(Vec<Value>),
    /// The entries are no longer at hand.
    Whole(Arc<Ledger>),
}

impl Default for View {
    fn default() -> View {
        View {
            ledger: RwLock::default(),
            copy: RwLock::default(),
            members: RwLock::default(),
            applied: watch::Sender::new(0),
            recent: Mutex::default(),
        }
    }
}

impl View {
    /// As applied here, or as copied, whichever is newer.
    pub fn ledger(&self) -> Arc<Ledger> {
        let applied = self.ledger.read().unwrap_or_else(PoisonError::into_inner).clone();
        let copy = self.copy.read().unwrap_or_else(PoisonError::into_inner);
        if age(&copy) > age(&applied) { copy.clone() } else { applied }
    }

    /// The index of the ledger's last applied entry, each time it grows.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Who votes and who learns, as applied.
    pub fn members(&self) -> StoredMembership<NodeId, EmptyNode> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seat(&self, members: StoredMembership<NodeId, EmptyNode>) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Arc<Ledger>) -> T) -> T {
        let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut ledger);
        drop(ledger);
        self.tell();
        result
    }

    /// A newer copy, and the entries that made it so.
    pub(super) fn copied(&self, ledger: Arc<Ledger>) {
        *self.copy.write().unwrap_or_else(PoisonError::into_inner) = ledger;
        self.tell();
    }

    fn tell(&self) {
        let applied = self.ledger().applied;
        self.applied.send_if_modified(|known| std::mem::replace(known, applied) != applied);
    }

    /// What those lack who have all up to `after`.
    pub fn since(&self, after: u64) -> Since {
        let ledger = self.ledger();
        if ledger.applied <= after {
            return Since::Entries(Vec::new());
        }
        let recent = self.recent();
        let from = recent.entries.partition_point(|(index, _)| *index <= after);
        match recent.entries.get(from) {
            Some((first, _)) if *first == after + 1 => {
                let texts: Vec<_> =
                    recent.entries.range(from..).take(TOLD).map(|(_, text)| text.clone()).collect();
                drop(recent);
                // What is in the log was read before.
                Since::Entries(
                    texts.iter().map(|text| serde_json::from_str(text).unwrap_or_default()).collect(),
                )
            }
            _ => Since::Whole(ledger),
        }
    }

    pub(super) fn remember(&self, index: u64, text: &str) {
        let mut recent = self.recent();
        match recent.entries.back() {
            Some((last, _)) if index <= *last => return,
            Some((last, _)) if index > last + 1 => *recent = Recent::default(),
            _ => {}
        }
        recent.entries.push_back((index, text.into()));
        recent.size += text.len();
        while recent.entries.len() > RECENT || recent.size > RECENT_BYTES {
            let oldest = recent.entries.pop_front();
            recent.size -= oldest.map_or(0, |(_, text)| text.len());
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newer of two states of one ledger has more of it.
fn age(ledger: &Ledger) -> (u64, u64) {
    (ledger.cell.as_ref().map_or(0, |cell| cell.generation), ledger.applied)
}

/// The state machine as openraft wants it.
#[derive(Debug)]
pub struct Machine<D> {
    disk: D,
    view: Arc<View>,
    last: Option<LogId<NodeId>>,
    members: StoredMembership<NodeId, EmptyNode>,
}

impl<D: Disk> Machine<D> {
    /// Starts from the snapshot on disk; openraft then applies the log behind it.
    pub fn open(disk: D, view: Arc<View>) -> Result<Machine<D>, DiskError> {
        let mut machine = Machine { disk, view, last: None, members: StoredMembership::default() };
        match machine.disk.snapshot()? {
            Some(stored) => {
                let snapshot = decode(&machine.disk, &stored, "the snapshot")?;
                machine.restore(snapshot);
            }
            None => {
                machine.view.seat(StoredMembership::default());
                machine.view.change(|ledger| *ledger = Arc::default());
            }
        }
        Ok(machine)
    }

    fn restore(&mut self, snapshot: Snapshot) {
        let meta = snapshot.meta();
        self.last = meta.last_log_id;
        self.members = meta.last_membership;
        self.view.seat(self.members.clone());
        self.view.change(|ledger| *ledger = Arc::new(snapshot.ledger));
    }

    fn apply_all<C: Types>(
        &mut self,
        entries: impl Iterator<Item = Entry<C>>,
    ) -> Result<Vec<Vec<Answer>>, (LogId<NodeId>, DiskError)> {
        let (disk, view, last, members) = (&self.disk, &self.view, &mut self.last, &mut self.members);
        let unknown = |at: LogId<NodeId>, e: serde_json::Error| {
            (at, disk.damaged(format!("log entry {}", at.index), e.to_string()))
        };
        self.view.change(|ledger| {
            let mut answers = Vec::new();
            for entry in entries {
                answers.push(match &entry.payload {
                    EntryPayload::Blank => Vec::new(),
                    EntryPayload::Normal(batch) => {
                        let before = ledger.applied;
                        let answers =
                            apply(Arc::make_mut(ledger), batch).map_err(|e| unknown(entry.log_id, e))?;
                        for (index, text) in (before + 1..).zip(batch.texts()) {
                            view.remember(index, text);
                        }
                        answers
                    }
                    EntryPayload::Membership(changed) => {
                        *members = StoredMembership::new(Some(entry.log_id), changed.clone());
                        view.seat(members.clone());
                        Vec::new()
                    }
                });
                *last = Some(entry.log_id);
            }
            Ok(answers)
        })
    }

    fn snapshot(&self) -> Snapshot<Arc<Ledger>> {
        Snapshot {
            format: FORMAT,
            written_by: written_by(),
            last: self.last.map(Into::into),
            members_at: self.members.log_id().map(Into::into),
            members: self.members.membership().into(),
            ledger: self.view.ledger(),
        }
    }
}

/// Entries are numbered by the ledger itself, one after the other: Raft's index counts batches, and words of its own.
fn apply(ledger: &mut Ledger, batch: &Batch) -> Result<Vec<Answer>, serde_json::Error> {
    // All of a batch or nothing.
    let entries = batch.entries().collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(|entry| ledger.apply(ledger.applied + 1, entry)).collect())
}

impl<C: Types, D: Disk> RaftStateMachine<C> for Machine<D> {
    type SnapshotBuilder = Builder<D>;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, EmptyNode>), StorageError<NodeId>> {
        Ok((self.last, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Answer>>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let applied = self.apply_all::<C>(entries.into_iter());
        applied.map_err(|(at, e)| failed(ErrorSubject::Apply(at), ErrorVerb::Read, &e))
    }

    async fn get_snapshot_builder(&mut self) -> Builder<D> {
        Builder { disk: self.disk.clone(), snapshot: Some(self.snapshot()) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, EmptyNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<NodeId>> {
        let stored = snapshot.into_inner();
        let failed = |verb, e| failed(ErrorSubject::Snapshot(Some(meta.signature())), verb, &e);
        // Only what can be read may take the place of what is there.
        let snapshot = decode(&self.disk, &stored, "the snapshot sent by the leader");
        let snapshot = snapshot.map_err(|e| failed(ErrorVerb::Read, e))?;
        let written = self.disk.write(vec![Change::Snapshot(stored)]).await;
        written.map_err(|e| failed(ErrorVerb::Write, e))?;
        self.restore(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<openraft::Snapshot<C>>, StorageError<NodeId>> {
        let stored =
            stored(&self.disk).map_err(|e| failed(ErrorSubject::Snapshot(None), ErrorVerb::Read, &e))?;
        Ok(stored.map(|(meta, stored)| openraft::Snapshot { meta, snapshot: Box::new(Cursor::new(stored)) }))
    }
}

/// The snapshot on disk, as text; its ledger is passed over unread.
fn stored(disk: &impl Disk) -> Result<Option<(Meta, Vec<u8>)>, DiskError> {
    let Some(stored) = disk.snapshot()? else { return Ok(None) };
    let snapshot: Snapshot<serde::de::IgnoredAny> = decode(disk, &stored, "the snapshot")?;
    Ok(Some((snapshot.meta(), stored)))
}

type Meta = SnapshotMeta<NodeId, EmptyNode>;

/// Writes a snapshot of the ledger as it was when the builder was made.
#[derive(Debug)]
pub struct Builder<D> {
    disk: D,
    /// Taken by the build: until it is written out, each change of the ledger has to copy it.
    snapshot: Option<Snapshot<Arc<Ledger>>>,
}

impl<D: Disk> Builder<D> {
    async fn build(&mut self) -> Result<(Meta, Vec<u8>), DiskError> {
        let unwritable = |why: &str| self.disk.damaged("the snapshot to be written".into(), why.into());
        let snapshot = self.snapshot.take().ok_or_else(|| unwritable("it was written before"))?;
        let meta = snapshot.meta();
        let encoded = self.disk.aside(move || serde_json::to_vec(&snapshot)).await;
        let encoded = encoded.ok_or_else(|| unwritable("encoding it failed"))?;
        let stored = encoded.map_err(|e| unwritable(&e.to_string()))?;
        self.disk.write(vec![Change::Snapshot(stored.clone())]).await?;
        Ok((meta, stored))
    }
}

impl<C: Types, D: Disk> RaftSnapshotBuilder<C> for Builder<D> {
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<C>, StorageError<NodeId>> {
        let built = self.build().await;
        let (meta, stored) = built.map_err(|e| failed(ErrorSubject::Snapshot(None), ErrorVerb::Write, &e))?;
        Ok(openraft::Snapshot { meta, snapshot: Box::new(Cursor::new(stored)) })
    }
}
