//! Requests that change something: each becomes one ledger entry, acknowledged when it is committed.

use std::{collections::BTreeMap, str::FromStr};

use gossip::wire::{JobName, ReadVersion};
use placement::{
    ids::JobKey,
    job::Job,
    ledger::{Answer, Command, Entry, Expect, Refusal, RequestStamp},
};
use serde_json::{Value, json};

use super::{Services, invalid};
use crate::clock;

/// `covey run`.
pub(super) async fn run(
    services: &Services,
    stamp: RequestStamp,
    document: Value,
    owner: Option<String>,
    create: bool,
    read: Option<ReadVersion>,
) -> Result<Value, Refusal> {
    let job = Job::from_document(&document)?;
    let key = JobKey { owner: owner.unwrap_or_else(|| stamp.principal.0.clone()), name: job.name.clone() };
    let images = resolve(services, &job)?;
    let expect = match read {
        Some(ReadVersion { uid, version }) if !create => Expect::Version { uid, version },
        _ => Expect::Absent,
    };
    let was = services.ledger.state().jobs.get(&key).filter(|r| !r.stopped).map(|r| (r.uid, r.version));
    let by = stamp.principal.0.clone();
    let command = Command::Submit { job: key.clone(), document, images, expect };
    let (done, changed) = propose(services, stamp, command).await?;
    let Some((uid, version)) = done else {
        return Err(invalid(format!("the ledger did not say which version of {key} counts now")));
    };
    let was =
        was.filter(|(old, _)| *old == uid).map(|(_, v)| v.number).filter(|n| !changed || *n < version.number);
    if changed {
        let text = match was {
            Some(was) => format!("{by} changed it from version {was} to {}", version.number),
            None => format!("{by} created it"),
        };
        services.journal.job("submitted", &key.owner, &key.name, text);
    }
    Ok(json!({
        "name": key.name, "owner": key.owner, "uid": uid, "version": version.number, "was": was, "changed": changed,
    }))
}

/// `covey stop JOB[/I]`.
pub(super) async fn stop(
    services: &Services,
    stamp: RequestStamp,
    job: &JobName,
    index: Option<u32>,
) -> Result<Value, Refusal> {
    let key = key(&stamp, job);
    change(
        services,
        stamp,
        Command::Stop { job: key.clone(), index },
        key,
        "stopped",
        &which("stopped", index),
    )
    .await
}

/// `covey restart JOB[/I]`.
pub(super) async fn restart(
    services: &Services,
    stamp: RequestStamp,
    job: &JobName,
    index: Option<u32>,
) -> Result<Value, Refusal> {
    let key = key(&stamp, job);
    let text = which("restarted", index);
    change(services, stamp, Command::Restart { job: key.clone(), index }, key, "restarted", &text).await
}

/// `covey scale JOB N`.
pub(super) async fn scale(
    services: &Services,
    stamp: RequestStamp,
    job: &JobName,
    count: u32,
) -> Result<Value, Refusal> {
    let key = key(&stamp, job);
    let command = Command::Scale { job: key.clone(), count, expect: Expect::Any };
    change(services, stamp, command, key, "scaled", &format!("scaled it to {count}")).await
}

/// A job's name as its owner means it.
pub(super) fn key(stamp: &RequestStamp, job: &JobName) -> JobKey {
    let owner = job.owner.clone().unwrap_or_else(|| stamp.principal.0.clone());
    JobKey { owner, name: job.name.clone() }
}

fn which(done: &str, index: Option<u32>) -> String {
    match index {
        Some(index) => format!("{done} index {index}"),
        None => format!("{done} it"),
    }
}

async fn change(
    services: &Services,
    stamp: RequestStamp,
    command: Command,
    key: JobKey,
    kind: &str,
    text: &str,
) -> Result<Value, Refusal> {
    let by = stamp.principal.0.clone();
    let (done, changed) = propose(services, stamp, command).await?;
    if changed {
        services.journal.job(kind, &key.owner, &key.name, format!("{by} {text}"));
    }
    let version = done.map(|(_, version)| version.number);
    Ok(json!({"name": key.name, "owner": key.owner, "version": version, "changed": changed}))
}

pub(super) type Done = (Option<(placement::ids::Uid, placement::ids::Version)>, bool);

pub(super) async fn propose(
    services: &Services,
    stamp: RequestStamp,
    command: Command,
) -> Result<Done, Refusal> {
    let entry = Entry { request: Some(stamp), at_ms: clock::now().wall_ms, command };
    match services.ledger.propose(&entry).await {
        Ok(Answer::Done { job, changed, .. }) => Ok((job, changed)),
        Ok(Answer::Refused(refusal)) => Err(refusal),
        Err(error) => Err(Refusal {
            code: "no_quorum".into(),
            message: format!("the ledger could not commit it: {error}"),
            hint: Some(
                "nothing was changed, or it will be done once: the same command may be given again".into(),
            ),
        }),
    }
}

/// Every image of the job as a digest, from what this node has.
fn resolve(services: &Services, job: &Job) -> Result<BTreeMap<String, String>, Refusal> {
    let mut images = BTreeMap::new();
    for name in job.images() {
        let reference = oci::reference::Reference::from_str(name)
            .map_err(|e| invalid(format!("image `{name}` of job {}: {e}", job.name)))?;
        let digest = services.images.resolve(&reference).map_err(|e| Refusal {
            code: "not_found".into(),
            message: format!("image `{name}` of job {}: {e}", job.name),
            hint: Some(format!("load it from an OCI layout: covey image load FILE --name {name}")),
        })?;
        images.insert(name.to_string(), digest.to_string());
    }
    Ok(images)
}
