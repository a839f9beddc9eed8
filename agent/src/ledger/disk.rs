//! What the log and the state machine need of a disk, and how a disk fails.

use std::{future::Future, ops::Range, path::PathBuf, sync::Arc};

use placement::ids::NodeId;

/// Small things kept beside the log, one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Whom this node voted for last.
    Vote,
    /// Up to where the log was known to be committed; may be older than the truth.
    Committed,
    /// Up to where the log was cut off behind a snapshot.
    Purged,
}

impl Note {
    /// Its key on disk.
    pub fn name(self) -> &'static str {
        match self {
            Note::Vote => "vote",
            Note::Committed => "committed",
            Note::Purged => "purged",
        }
    }
}

/// One change to what is kept. Records are JSON (`record`).
#[derive(Debug, Clone)]
pub enum Change {
    /// A log entry at its index.
    Append(u64, Vec<u8>),
    /// Drops the log from this index on.
    CutFrom(u64),
    /// Drops the log up to and with this index.
    PurgeTo(u64),
    Note(Note, Vec<u8>),
    /// Takes the place of the snapshot before.
    Snapshot(Vec<u8>),
}

/// Where log, vote and snapshot are kept. Reading is quick and may be done anywhere; writing waits for the medium.
pub trait Disk: Clone + Send + Sync + 'static {
    /// Durable, all of it or nothing, when the future ends well. Writes take effect in the order in which they were
    /// called.
    fn write(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), DiskError>> + Send;

    /// Log entries of these indexes, in order; those that are not there are left out.
    fn log(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, DiskError>;

    /// The newest log entry.
    fn last(&self) -> Result<Option<Vec<u8>>, DiskError>;

    fn note(&self, note: Note) -> Result<Option<Vec<u8>>, DiskError>;

    fn snapshot(&self) -> Result<Option<Vec<u8>>, DiskError>;

    /// The error for a record that is there and cannot be understood.
    fn damaged(&self, what: String, why: String) -> DiskError;

    /// Does a long computation where it keeps nobody waiting; `None` if it died.
    fn aside<T, F>(&self, job: F) -> impl Future<Output = Option<T>> + Send
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static;
}

/// Why the ledger's disk could not do it. Each names the file, and what to do where something can be done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    #[error("cannot open the ledger {}: {source}", path.display())]
    Open { path: PathBuf, source: Arc<redb::Error> },

    #[error("the ledger {} is in use by another process; stop the other agent first", path.display())]
    InUse { path: PathBuf },

    #[error(
        "{} is not a ledger of covey ({why}); move it away and put the right one back from a backup, or start with an \
         empty data directory and join the cell again", path.display()
    )]
    Foreign { path: PathBuf, why: String },

    #[error(
        "the ledger {} belongs to node {owner}, this node is {node}; a data directory can be moved, but not shared or \
         mixed: put identity.json and ledger.redb of the same node together again", path.display()
    )]
    OtherNode { path: PathBuf, owner: NodeId, node: NodeId },

    #[error(
        "the ledger {} was written by {written_by} in format {format}, this build reads formats up to {known}; install \
         {written_by} or newer", path.display()
    )]
    Newer { path: PathBuf, format: u64, known: u64, written_by: String },

    #[error(
        "the ledger {} is damaged, or newer than this build: {what} cannot be read: {why}; install the newest version \
         that ran here; if that does not help, put the file back from a backup, or start with an empty data directory \
         and join the cell again", path.display()
    )]
    Damaged { path: PathBuf, what: String, why: String },

    #[error("no space left for the ledger {}; free some, writing then goes on by itself", path.display())]
    Full { path: PathBuf },

    #[error("cannot write the ledger {}: {source}", path.display())]
    Write { path: PathBuf, source: Arc<redb::Error> },

    #[error("cannot read the ledger {}: {source}", path.display())]
    Read { path: PathBuf, source: Arc<redb::Error> },

    #[error("the ledger {} is closed", path.display())]
    Closed { path: PathBuf },
}
