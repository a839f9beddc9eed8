//! What people want, read from the ledger: the placer's half of every comparison.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use crate::{
    change::{Change, between},
    ids::{JobKey, TaskKey, Uid, Version},
    job::{Job, Template},
    ledger::{JobRecord, Ledger, VersionRecord},
    task::TaskSpec,
};

/// The ledger's jobs, documents read. Reading one costs; `Intent::read` reads again only what changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Intent {
    /// The cell generation.
    pub cell: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    pub jobs: BTreeMap<JobKey, Arc<Wanted>>,
    by_uid: BTreeMap<Uid, JobKey>,
}

/// One job: its record and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub key: JobKey,
    /// Without its earlier versions.
    pub record: JobRecord,
    /// Or a sentence that says why the document cannot be read.
    pub job: Result<Job, String>,
    /// Earlier versions, and what has to become of a copy of one.
    earlier: BTreeMap<Version, Changed>,
}

#[derive(Debug, Clone, PartialEq)]
struct Changed {
    default: Change,
    /// Of indexes with an override, now or then.
    indexes: BTreeMap<u32, Change>,
}

/// Whether a copy should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wanted,
    /// No, and why: what the stop says.
    Unwanted(&'static str),
    /// Its end is recorded.
    Finished,
    /// Not for this placer to judge (PROTOCOL 18, 28; an unreadable document): left alone, its name is taken.
    Held(&'static str),
}

impl Intent {
    /// Reads the ledger. `before` lends what has not changed since.
    pub fn read(ledger: &Ledger, before: &Intent) -> Intent {
        let jobs: BTreeMap<_, _> = ledger
            .jobs
            .iter()
            .map(|(key, record)| {
                let wanted = match before.jobs.get(key) {
                    Some(wanted) if wanted.is_of(record) => wanted.clone(),
                    Some(wanted) if wanted.reads(record) => Arc::new(wanted.with(record)),
                    _ => Arc::new(Wanted::read(key, record)),
                };
                (key.clone(), wanted)
            })
            .collect();
        Intent::of(ledger.cell.as_ref().map_or(0, |c| c.generation), ledger.applied, jobs)
    }

    /// Of jobs that are read already.
    pub fn of(cell: u64, applied: u64, jobs: BTreeMap<JobKey, Arc<Wanted>>) -> Intent {
        let by_uid = jobs.values().map(|w| (w.record.uid, w.key.clone())).collect();
        Intent { cell, applied, jobs, by_uid }
    }

    /// The job as created once; None if the ledger knows only an older or newer one of that name, or none.
    pub fn by_uid(&self, uid: Uid) -> Option<&Wanted> {
        self.by_uid.get(&uid).and_then(|key| self.jobs.get(key)).map(|w| &**w)
    }

    /// Whether a copy of this key should be there.
    pub fn verdict(&self, key: TaskKey) -> Verdict {
        match self.by_uid(key.uid) {
            Some(wanted) => wanted.verdict(key.index),
            None if key.uid.cell != self.cell => {
                Verdict::Held("its job was created before this cell was recovered")
            }
            None if key.uid.index > self.applied => Verdict::Held("its job is newer than this ledger"),
            None => Verdict::Unwanted("its job is no more"),
        }
    }
}

impl Wanted {
    pub fn read(key: &JobKey, record: &JobRecord) -> Wanted {
        let job = Job::from_document(&record.document).map_err(|e| e.to_string());
        let mut wanted = Wanted { key: key.clone(), record: bare(record), job, earlier: BTreeMap::new() };
        for old in record.versions.iter().filter(|v| v.version != record.version) {
            if let Some(changed) = wanted.changed_since(old) {
                wanted.earlier.insert(old.version, changed);
            }
        }
        wanted
    }

    /// Whether the record has this very document, and the versions before it.
    fn reads(&self, record: &JobRecord) -> bool {
        (self.record.uid, self.record.version) == (record.uid, record.version)
    }

    fn is_of(&self, record: &JobRecord) -> bool {
        let mine = &self.record;
        self.reads(record)
            && (mine.stopped, &mine.held, &mine.restarts, &mine.finished)
                == (record.stopped, &record.held, &record.restarts, &record.finished)
    }

    /// The same document, and all else anew.
    fn with(&self, record: &JobRecord) -> Wanted {
        Wanted { record: bare(record), ..self.clone() }
    }

    pub fn uid(&self) -> Uid {
        self.record.uid
    }

    pub fn task(&self, index: u32) -> TaskKey {
        TaskKey { uid: self.record.uid, index }
    }

    /// The indexes that should run, or still have to end with success.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        let count = self.job.as_ref().map_or(0, |j| j.count);
        (0..count).filter(|i| self.verdict(*i) == Verdict::Wanted)
    }

    pub fn verdict(&self, index: u32) -> Verdict {
        let record = &self.record;
        if record.finished.contains_key(&index) {
            return Verdict::Finished;
        }
        if record.stopped {
            return Verdict::Unwanted("its job was stopped");
        }
        match &self.job {
            Err(_) => Verdict::Held("its job's document cannot be read"),
            Ok(job) if index >= job.count => Verdict::Unwanted("its job was scaled down"),
            Ok(_) if record.held.contains(&index) => Verdict::Unwanted("somebody stopped it"),
            Ok(_) => Verdict::Wanted,
        }
    }

    pub fn template(&self, index: u32) -> Option<&Template> {
        self.job.as_ref().ok().map(|job| job.template(index))
    }

    /// What a node is offered for this index.
    ///
    /// # Errors
    /// A sentence: an image without a digest, a document that cannot be read.
    pub fn spec(&self, index: u32) -> Result<TaskSpec, String> {
        let job = self.job.as_ref().map_err(Clone::clone)?;
        let restart_at = self.restart_at(index);
        job.task_spec(index, &self.key, &self.record.images, restart_at).map_err(|e| e.to_string())
    }

    /// The ledger index of the last restart that somebody asked for this index; 0: none.
    pub fn restart_at(&self, index: u32) -> u64 {
        self.record.restart_at(index)
    }

    /// What has to become of a copy of that version. One newer than the ledger's was acknowledged and lost with it: it
    /// stays (PROTOCOL 29).
    pub fn change(&self, version: Version, index: u32) -> Change {
        if version >= self.record.version || self.job.is_err() {
            return Change::None;
        }
        let changed = self.earlier.get(&version);
        changed.map_or(Change::Restart, |c| c.indexes.get(&index).copied().unwrap_or(c.default))
    }

    fn changed_since(&self, before: &VersionRecord) -> Option<Changed> {
        let (new, old) = (self.job.as_ref().ok()?, Job::from_document(&before.document).ok()?);
        let differs = |index: u32| {
            let old = old.task_spec(index, &self.key, &before.images, 0);
            let new = new.task_spec(index, &self.key, &self.record.images, 0);
            match (old, new) {
                (Ok(old), Ok(new)) => between(&old, &new),
                _ => Change::Restart,
            }
        };
        let named: BTreeSet<u32> = new.overrides.keys().chain(old.overrides.keys()).copied().collect();
        // Any index that no override names stands for all of those.
        let plain = (0..=u32::MAX).find(|i| !named.contains(i))?;
        Some(Changed {
            default: differs(plain),
            indexes: named.into_iter().map(|i| (i, differs(i))).collect(),
        })
    }
}

/// Earlier versions are long, and only told apart.
fn bare(record: &JobRecord) -> JobRecord {
    JobRecord { versions: Vec::new(), ..record.clone() }
}
