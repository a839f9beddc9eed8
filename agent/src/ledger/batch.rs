//! What one Raft entry carries: as many of the ledger's entries as were waiting, since a flush costs the same for all.

use placement::ledger::Entry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Entries as text: a field, or a command, that this build does not know stays in the log as it came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Batch(Vec<Box<RawValue>>);

impl Batch {
    pub fn one(entry: &Entry) -> Result<Batch, serde_json::Error> {
        Ok(Batch(vec![serde_json::value::to_raw_value(entry)?]))
    }

    pub fn append(&mut self, mut other: Batch) {
        self.0.append(&mut other.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of text.
    pub fn size(&self) -> usize {
        self.0.iter().map(|entry| entry.get().len()).sum()
    }

    /// The entries as they stand here.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.get())
    }

    /// The entries; an error is an entry of a kind that this build does not know, or damage.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, serde_json::Error>> {
        self.0.iter().map(|entry| serde_json::from_str(entry.get()))
    }
}
