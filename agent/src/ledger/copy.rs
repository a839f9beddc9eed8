//! `DIR/copy.redb`: the ledger as a node has it that does not vote. Pulled from others, entry by entry, and kept so that
//! any survivor can say what people asked for. It may lag; nothing is decided by it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use placement::ledger::{Entry, Ledger};
use redb::{Database, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde_json::Value;

use super::View;

/// `ledger`: the whole, as text.
const WHOLE: TableDefinition<&str, &[u8]> = TableDefinition::new("whole");
/// Index → an entry after it, as it stands in the log.
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
/// Entries behind the whole; then the whole is written anew.
const BEHIND: u64 = 5_000;
/// redb would otherwise take up to a gigabyte.
const CACHE_BYTES: usize = 1 << 20;

/// A copy that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: redb::DatabaseError },
    #[error("cannot keep the copy of the ledger in {path}: {source}")]
    Keep { path: PathBuf, source: redb::Error },
    #[error("what another node told of the ledger makes no sense: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("what another node told of the ledger begins at entry {first}, but this node has {has} entries")]
    Gap { first: u64, has: u64 },
    #[error("the copy's work broke off")]
    Broken,
}

/// The copy. Blocking.
pub struct Copy {
    db: Database,
    path: PathBuf,
    view: Arc<View>,
    /// The last entry that the file has.
    kept: u64,
}

impl Copy {
    /// Opens or makes it. What cannot be read any more is pulled again.
    pub(super) fn open(path: &Path, view: Arc<View>) -> Result<Copy, CopyError> {
        let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        let db = opened.map_err(|source| CopyError::Open { path: path.to_owned(), source })?;
        let keep = |source| CopyError::Keep { path: path.to_owned(), source };
        let ledger = read(&db).map_err(keep)?;
        let kept = ledger.applied;
        if kept > 0 {
            view.copied(Arc::new(ledger));
        }
        Ok(Copy { db, path: path.to_owned(), view, kept })
    }

    /// Takes up entries, the first of which has the index `first`.
    pub fn add(&mut self, first: u64, entries: &[Value]) -> Result<(), CopyError> {
        let mut ledger = self.view.ledger();
        let has = ledger.applied;
        if first > has + 1 {
            return Err(CopyError::Gap { first, has });
        }
        let mut new = Vec::new();
        for (index, text) in (first..).zip(entries) {
            if index > has {
                let entry: Entry = serde_json::from_value(text.clone())?;
                Arc::make_mut(&mut ledger).apply(index, &entry);
                new.push((index, serde_json::to_string(text)?));
            }
        }
        let whole = (self.kept != has).then_some(&*ledger);
        self.keep(whole, &new)?;
        for (index, text) in new {
            self.view.remember(index, &text);
        }
        self.view.copied(ledger);
        Ok(())
    }

    /// Takes the place of all that was there, if it is newer.
    pub fn replace(&mut self, text: &str) -> Result<(), CopyError> {
        let ledger: Ledger = serde_json::from_str(text)?;
        if ledger.applied > self.view.ledger().applied {
            self.keep(Some(&ledger), &[])?;
            self.view.copied(Arc::new(ledger));
        }
        Ok(())
    }

    fn keep(&mut self, whole: Option<&Ledger>, new: &[(u64, String)]) -> Result<(), CopyError> {
        let text = whole.map(serde_json::to_vec).transpose()?;
        let written = self.write(text.as_deref(), new);
        let rewrite = written.map_err(|source| CopyError::Keep { path: self.path.clone(), source })?;
        self.kept = whole.map_or(self.kept, |ledger| ledger.applied);
        self.kept = new.last().map_or(self.kept, |(index, _)| *index);
        if rewrite {
            // So that the next `add` writes the whole.
            self.kept = 0;
        }
        Ok(())
    }

    /// Whether the entries have grown too many.
    fn write(&self, whole: Option<&[u8]>, new: &[(u64, String)]) -> Result<bool, redb::Error> {
        let write = self.db.begin_write()?;
        let many = {
            let mut entries = write.open_table(ENTRIES)?;
            match whole {
                Some(text) => {
                    write.open_table(WHOLE)?.insert("ledger", text)?;
                    entries.retain(|_, _| false)?;
                }
                None => {
                    for (index, text) in new {
                        entries.insert(index, text.as_bytes())?;
                    }
                }
            }
            entries.len()? > BEHIND
        };
        write.commit()?;
        Ok(many)
    }
}

/// The ledger as the file adds up to; what does not fit is left out.
fn read(db: &Database) -> Result<Ledger, redb::Error> {
    let write = db.begin_write()?;
    let mut ledger = Ledger::default();
    {
        let whole = write.open_table(WHOLE)?;
        if let Some(text) = whole.get("ledger")? {
            ledger = serde_json::from_slice(text.value()).unwrap_or_default();
        }
        for row in write.open_table(ENTRIES)?.iter()? {
            let (index, text) = row?;
            if index.value() != ledger.applied + 1 {
                continue;
            }
            match serde_json::from_slice::<Entry>(text.value()) {
                Ok(entry) => drop(ledger.apply(index.value(), &entry)),
                Err(_) => break,
            }
        }
    }
    write.commit()?;
    Ok(ledger)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::{
        ids::{CellId, NodeId},
        ledger::Command,
    };

    use super::*;
    use crate::ledger::Since;

    fn entries(nodes: std::ops::Range<u64>) -> Vec<Value> {
        let found = Command::Found { cell: CellId("c".into()), name: "lab".into(), generation: 1 };
        let admit = |n| Command::Admit { node: NodeId(n), name: format!("n{n}") };
        let command = |n| if n == 0 { found.clone() } else { admit(n) };
        let entry = |n| Entry { request: None, at_ms: n, command: command(n) };
        nodes.map(|n| serde_json::to_value(entry(n)).unwrap()).collect()
    }

    #[test]
    fn a_copy_grows_by_entries_and_is_there_after_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("copy.redb");
        let view = Arc::<View>::default();
        let mut copy = Copy::open(&path, view.clone()).unwrap();
        copy.add(1, &entries(0..4)).unwrap();
        assert_eq!((view.ledger().applied, view.ledger().roster.len()), (4, 3));
        assert!(matches!(copy.add(7, &entries(6..7)), Err(CopyError::Gap { first: 7, has: 4 })));
        // What is there already is passed over.
        copy.add(4, &entries(3..6)).unwrap();
        assert_eq!((view.ledger().applied, view.ledger().roster.len()), (6, 5));
        assert_eq!(view.since(4), Since::Entries(entries(4..6)));
        assert_eq!(view.since(6), Since::Entries(vec![]));
        drop(copy);

        let again = Arc::<View>::default();
        let mut copy = Copy::open(&path, again.clone()).unwrap();
        assert_eq!(*again.ledger(), *view.ledger());
        assert!(matches!(again.since(2), Since::Whole(_)), "a restarted node has no entries at hand");
        copy.replace(&serde_json::to_string(&Ledger::default()).unwrap()).unwrap();
        assert_eq!(again.ledger().applied, 6, "an older one is not taken");
        copy.add(7, &entries(6..9)).unwrap();
        drop(copy);
        let last = Arc::<View>::default();
        let _copy = Copy::open(&path, last.clone()).unwrap();
        assert_eq!(last.ledger().roster.len(), 8);
    }

    #[test]
    fn a_copy_that_was_a_voter_goes_on_from_what_it_applied() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("copy.redb");
        let view = Arc::<View>::default();
        Copy::open(&path, view.clone()).unwrap().add(1, &entries(0..2)).unwrap();
        // Meanwhile it voted, and applied more.
        let voted = Arc::<View>::default();
        voted.copied({
            let mut ledger = Ledger::default();
            for (n, text) in (1..).zip(entries(0..5)) {
                ledger.apply(n, &serde_json::from_value(text).unwrap());
            }
            Arc::new(ledger)
        });
        let mut copy =
            Copy { db: Database::create(temp.path().join("x")).unwrap(), path, view: voted, kept: 2 };
        copy.add(6, &entries(5..7)).unwrap();
        assert_eq!(read(&copy.db).unwrap().applied, 7);
    }
}
