//! Raft's log and vote over a disk.

use std::{
    fmt::Debug,
    ops::{Bound, Range, RangeBounds},
};

use openraft::{
    AnyError, Entry, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader, StorageError,
    StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use placement::ids::NodeId;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Change, Disk, DiskError, Note, Types,
    record::{LogRecord, Mark, VoteRecord},
};

/// The log as openraft wants it.
#[derive(Debug, Clone)]
pub struct Log<D> {
    disk: D,
    /// Newest commit; written with the next append, since an fsync of its own would double the cost of a proposal.
    committed: Option<LogId<NodeId>>,
}

impl<D: Disk> Log<D> {
    pub fn new(disk: D) -> Log<D> {
        Log { disk, committed: None }
    }

    fn note<T: DeserializeOwned>(&self, note: Note) -> Result<Option<T>, DiskError> {
        self.disk.note(note)?.map(|text| decode(&self.disk, &text, note.name())).transpose()
    }

    fn entries<C: Types>(&self, range: Range<u64>) -> Result<Vec<Entry<C>>, DiskError> {
        let records = self.disk.log(range)?;
        records.iter().map(|text| Ok(decode::<LogRecord>(&self.disk, text, "a log entry")?.entry())).collect()
    }

    fn state<C: Types>(&self) -> Result<LogState<C>, DiskError> {
        let purged = self.note::<Mark>(Note::Purged)?.map(LogId::from);
        let last = self.disk.last()?;
        let last =
            last.map(|text| decode::<LogRecord>(&self.disk, &text, "the last log entry")).transpose()?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.map(|record| record.mark.into()).or(purged),
        })
    }

    async fn append_all<C: Types>(
        &mut self,
        entries: impl Iterator<Item = Entry<C>>,
    ) -> Result<(), DiskError> {
        let mut changes = Vec::new();
        for entry in entries {
            changes.push(Change::Append(entry.log_id.index, encode(&self.disk, &LogRecord::new(entry))?));
        }
        if let Some(committed) = self.committed.take() {
            changes.push(Change::Note(Note::Committed, encode(&self.disk, &Mark::from(committed))?));
        }
        self.disk.write(changes).await
    }
}

impl<C: Types, D: Disk> RaftLogReader<C> for Log<D> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<NodeId>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        self.entries(start..end).map_err(|e| failed(ErrorSubject::Logs, ErrorVerb::Read, &e))
    }

    /// To be sent to another voter. A leader that was deposed and then took a snapshot may still have a replication
    /// running whose range was purged meanwhile: openraft 0.9.25 would send what is left of it behind the old `prev`,
    /// and a voter that has not heard of the new leader would append it, with a hole. Nothing is sent instead.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<NodeId>> {
        let entries: Vec<Entry<C>> = self.try_get_log_entries(start..end).await?;
        let whole = entries.first().is_none_or(|first| first.log_id.index == start);
        Ok(if whole { entries } else { Vec::new() })
    }
}

impl<C: Types, D: Disk> RaftLogStorage<C> for Log<D> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<NodeId>> {
        self.state().map_err(|e| failed(ErrorSubject::Logs, ErrorVerb::Read, &e))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), StorageError<NodeId>> {
        let failed = |e| failed(ErrorSubject::Vote, ErrorVerb::Write, &e);
        let record = encode(&self.disk, &VoteRecord::from(*vote)).map_err(failed)?;
        self.disk.write(vec![Change::Note(Note::Vote, record)]).await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, StorageError<NodeId>> {
        let vote = self.note::<VoteRecord>(Note::Vote);
        Ok(vote.map_err(|e| failed(ErrorSubject::Vote, ErrorVerb::Read, &e))?.map(Into::into))
    }

    async fn save_committed(&mut self, committed: Option<LogId<NodeId>>) -> Result<(), StorageError<NodeId>> {
        self.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<NodeId>>, StorageError<NodeId>> {
        let committed = self.note::<Mark>(Note::Committed);
        Ok(committed.map_err(|e| failed(ErrorSubject::Logs, ErrorVerb::Read, &e))?.map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // openraft 0.9 waits for the callback before it does anything else: nothing is gained by returning earlier.
        let written = self.append_all(entries.into_iter()).await;
        written.map_err(|e| failed(ErrorSubject::Logs, ErrorVerb::Write, &e))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<NodeId>) -> Result<(), StorageError<NodeId>> {
        let written = self.disk.write(vec![Change::CutFrom(from.index)]).await;
        written.map_err(|e| failed(ErrorSubject::Log(from), ErrorVerb::Delete, &e))
    }

    async fn purge(&mut self, to: LogId<NodeId>) -> Result<(), StorageError<NodeId>> {
        let failed = |e| failed(ErrorSubject::Log(to), ErrorVerb::Delete, &e);
        let mark = encode(&self.disk, &Mark::from(to)).map_err(failed)?;
        self.disk
            .write(vec![Change::PurgeTo(to.index), Change::Note(Note::Purged, mark)])
            .await
            .map_err(failed)
    }
}

/// What openraft is told when the disk failed: it then stops for good, and `keeper` starts it anew.
pub(super) fn failed(
    subject: ErrorSubject<NodeId>,
    verb: ErrorVerb,
    error: &DiskError,
) -> StorageError<NodeId> {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}

pub(super) fn encode<T: Serialize>(disk: &impl Disk, value: &T) -> Result<Vec<u8>, DiskError> {
    serde_json::to_vec(value).map_err(|e| disk.damaged("a record to be written".into(), e.to_string()))
}

pub(super) fn decode<T: DeserializeOwned>(disk: &impl Disk, text: &[u8], what: &str) -> Result<T, DiskError> {
    serde_json::from_slice(text).map_err(|e| disk.damaged(what.to_owned(), e.to_string()))
}
