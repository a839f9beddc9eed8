//! The state machine: what people ask of a job.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    sync::Arc,
    vec::Vec,
};
use serde_json::Value;

use super::{Answer, Expect, JobRecord, Later, Ledger, Refusal, VersionRecord, apply::At, refusal::shown};
use crate::{
    ids::{JobKey, Uid, Version},
    job::{
        Job,
        document::{MAX_COUNT, same_meaning, set_count},
    },
};

/// Versions of a job that are kept, the present one included.
const VERSIONS: usize = 20;

impl Ledger {
    /// Creates or changes a job. A change lets held indexes go and those that failed for good try again; successes
    /// stay. The document is kept as it came, unless it means what is there already.
    pub(super) fn submit(
        &mut self,
        at: &At<'_>,
        key: &JobKey,
        document: &Value,
        images: &BTreeMap<String, String>,
        expect: &Expect,
    ) -> Result<Answer, Refusal> {
        let images = check(key, document, images)?;
        agrees(expect, key, self.jobs.get(key).map(|r| &**r))?;
        match self.jobs.get_mut(key).map(Arc::make_mut).filter(|record| !record.is_ended()) {
            None => {
                let record = JobRecord::new(at, document.clone(), images);
                let answer = record.answer(true);
                self.jobs.insert(key.clone(), Arc::new(record));
                Ok(answer)
            }
            Some(record) if record.images == images && same_meaning(&record.document, document) => {
                Ok(record.answer(false))
            }
            Some(record) => {
                if kind(&record.document) != kind(document) {
                    let message =
                        format_args!("job {key} is of kind {}, which cannot change", kind(&record.document));
                    let hint = format!("`covey stop {}`, then run it again", key.name);
                    return Err(Refusal::conflict(message, &hint));
                }
                record.change(at, document.clone(), images);
                record.held.clear();
                for index in record.failed() {
                    record.restart(index, at.index);
                }
                Ok(record.answer(true))
            }
        }
    }

    /// Ends the job, or holds one index until it is restarted or the job changed. What has ended stays as it ended.
    pub(super) fn stop(&mut self, at: &At<'_>, key: &JobKey, index: Option<u32>) -> Result<Answer, Refusal> {
        let record = self.jobs.get_mut(key).map(Arc::make_mut).ok_or_else(|| Refusal::no_job(key))?;
        let changed = match index {
            _ if record.is_ended() => false,
            None => {
                record.stopped = true;
                true
            }
            Some(index) => {
                record.has(key, index)?;
                !record.finished.contains_key(&index) && record.held.insert(index)
            }
        };
        if changed {
            record.changed_ms = at.ms;
        }
        Ok(record.answer(changed))
    }

    /// Starts the index, or all of them, again. A held index is let go, one that failed for good runs again; a success
    /// is final (PROTOCOL 24): named alone it is refused, else passed over.
    pub(super) fn restart(
        &mut self,
        at: &At<'_>,
        key: &JobKey,
        index: Option<u32>,
    ) -> Result<Answer, Refusal> {
        let record = self.jobs.get_mut(key).map(Arc::make_mut).ok_or_else(|| Refusal::no_job(key))?;
        if record.stopped {
            let hint = "`covey run FILE` starts it again";
            return Err(Refusal::conflict(format_args!("job {key} is stopped"), hint));
        }
        if let Some(index) = index {
            record.has(key, index)?;
        }
        let hint = "`covey run FILE` runs the job anew once it has ended";
        let indexes: Vec<u32> = match index {
            Some(index) if record.has_succeeded(index) => {
                let message = format_args!("{key}/{index} has succeeded, which is final");
                return Err(Refusal::conflict(message, hint));
            }
            Some(index) => Vec::from([index]),
            None => (0..record.count()).filter(|index| !record.has_succeeded(*index)).collect(),
        };
        if indexes.is_empty() && record.count() > 0 {
            let message = format_args!("every index of {key} has succeeded, which is final");
            return Err(Refusal::conflict(message, hint));
        }
        for index in &indexes {
            record.restart(*index, at.index);
            record.changed_ms = at.ms;
        }
        Ok(record.answer(!indexes.is_empty()))
    }

    /// Changes the count in the job's document. A finished batch job may grow: what succeeded stays so.
    pub(super) fn scale(
        &mut self,
        at: &At<'_>,
        key: &JobKey,
        count: u32,
        expect: &Expect,
    ) -> Result<Answer, Refusal> {
        if count > MAX_COUNT {
            return Err(Refusal::invalid(format_args!("count must be from 0 to {MAX_COUNT}, not {count}")));
        }
        let record = self.jobs.get(key).map(|r| &**r);
        agrees(expect, key, record)?;
        let record = self.jobs.get_mut(key).map(Arc::make_mut).ok_or_else(|| Refusal::no_job(key))?;
        if record.stopped {
            let hint = "`covey run FILE --count N` starts it again";
            return Err(Refusal::conflict(format_args!("job {key} is stopped"), hint));
        }
        if record.count() == count {
            return Ok(record.answer(false));
        }
        let mut document = record.document.clone();
        set_count(&mut document, count);
        record.change(at, document, record.images.clone());
        // An index that comes back later comes back free.
        record.held.retain(|index| *index < count);
        Ok(record.answer(true))
    }
}

/// What a submission must be; gives the digests that it needs.
fn check(
    key: &JobKey,
    document: &Value,
    images: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let job = Job::from_document(document)?;
    if job.name != key.name {
        let message = format_args!("the document is of `{}`, not of `{}`", job.name, key.name);
        return Err(Refusal::invalid(message));
    }
    let resolved = |image: &str| match images.get(image) {
        Some(digest) => Ok((image.into(), digest.clone())),
        None => Err(Refusal::invalid(format_args!("the image `{image}` was not resolved to a digest"))),
    };
    job.images().into_iter().map(resolved).collect()
}

/// Compare-and-set: whether what the client read is still so.
fn agrees(expect: &Expect, key: &JobKey, record: Option<&JobRecord>) -> Result<(), Refusal> {
    let again = "look at it again (`covey job`), then repeat";
    match (expect, record) {
        (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(record)) if record.is_ended() => Ok(()),
        (Expect::Absent, Some(record)) => {
            let message = format_args!("job {key} exists, at version {}", record.version.number);
            Err(Refusal::conflict(message, "`covey run` without --create changes it"))
        }
        (Expect::Version { version, .. }, None) => {
            let message = format_args!("job {key} was read at version {}, but is no more", version.number);
            Err(Refusal::conflict(message, again))
        }
        (Expect::Version { uid, version }, Some(record)) if record.uid != *uid => {
            let message = format_args!(
                "job {key} was read at version {}; meanwhile it was created anew and is at version {}",
                shown(*version, record.version),
                shown(record.version, *version)
            );
            Err(Refusal::conflict(message, again))
        }
        (Expect::Version { version, .. }, Some(record)) if record.version != *version => {
            let (read, now) = (shown(*version, record.version), shown(record.version, *version));
            let message = format_args!("job {key} was read at version {read}, but is at version {now}");
            Err(Refusal::conflict(message, again))
        }
        (Expect::Version { .. }, Some(_)) => Ok(()),
    }
}

fn kind(document: &Value) -> &str {
    document.get("kind").and_then(Value::as_str).unwrap_or("service")
}

impl JobRecord {
    fn new(at: &At<'_>, document: Value, images: BTreeMap<String, String>) -> Self {
        let mut record = JobRecord {
            uid: Uid { cell: at.cell, index: at.index },
            version: Version::default(),
            document: Value::Null,
            images: BTreeMap::new(),
            versions: Vec::new(),
            stopped: false,
            held: BTreeSet::new(),
            restarts: BTreeMap::new(),
            finished: BTreeMap::new(),
            created_ms: at.ms,
            changed_ms: at.ms,
            later: Later::new(),
        };
        record.change(at, document, images);
        record
    }

    /// The next version (PROTOCOL 4).
    fn change(&mut self, at: &At<'_>, document: Value, images: BTreeMap<String, String>) {
        self.version = Version { cell: at.cell, number: self.version.number.saturating_add(1) };
        self.changed_ms = at.ms;
        self.versions.push(VersionRecord {
            version: self.version,
            at_ms: at.ms,
            by: at.by.cloned(),
            document: document.clone(),
            images: images.clone(),
            later: Later::new(),
        });
        let surplus = self.versions.len().saturating_sub(VERSIONS);
        self.versions.drain(..surplus);
        self.document = document;
        self.images = images;
    }

    fn answer(&self, changed: bool) -> Answer {
        Answer::Done { job: Some((self.uid, self.version)), access: None, changed }
    }

    fn has(&self, key: &JobKey, index: u32) -> Result<(), Refusal> {
        let count = self.count();
        if index < count {
            return Ok(());
        }
        let hint = "`covey tasks` lists what there is";
        Err(Refusal::new("not_found", format_args!("job {key} has {count} indexes, no {index}"), Some(hint)))
    }
}
