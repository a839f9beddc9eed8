//! Requests that change something: each becomes one ledger entry, acknowledged when it is committed.

use std::{collections::BTreeMap, time::Duration};

use gossip::wire::{Call, JobName, ReadVersion};
use placement::{
    ids::JobKey,
    job::Job,
    ledger::{Answer, Command, Entry, Expect, Refusal, RequestStamp},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Services, cell, invalid, member, pass::Unpassed};
use crate::{
    clock,
    images::FILE,
    ledger::{ProposeError, Role},
};

/// Decides about a change, if this node leads: it is committed when this returns.
pub(super) async fn decide(
    services: &Services,
    stamp: &RequestStamp,
    call: &Call,
    images: Option<&BTreeMap<String, String>>,
) -> Result<Value, Unpassed> {
    leads(services).await?;
    match call {
        Call::Run { document, owner, create, read, keep_images } => {
            let wish =
                Wish { owner: owner.as_ref(), create: *create, read: *read, keep_images: *keep_images };
            run(services, stamp, document, wish, images.cloned().unwrap_or_default()).await
        }
        Call::Stop { job, index } => {
            let job = key(stamp, job);
            let command = Command::Stop { job: job.clone(), index: *index };
            change(services, stamp, command, job, "stopped", &which("stopped", *index)).await
        }
        Call::Restart { job, index } => {
            let job = key(stamp, job);
            let command = Command::Restart { job: job.clone(), index: *index };
            change(services, stamp, command, job, "restarted", &which("restarted", *index)).await
        }
        Call::Scale { job, count } => {
            let job = key(stamp, job);
            let command = Command::Scale { job: job.clone(), count: *count, expect: Expect::Any };
            change(services, stamp, command, job, "scaled", &format!("scaled it to {count}")).await
        }
        Call::CellSet { lost_after_ms } => cell::set(services, stamp, *lost_after_ms).await,
        Call::Token { hash, role, name, uses, ttl_ms } => {
            let (hash, name) = (hash.clone(), name.clone());
            let wanted = cell::Wanted { hash, role: *role, name, uses: *uses, ttl_ms: *ttl_ms };
            cell::token(services, stamp, wanted).await
        }
        Call::Grant { principal, give, take } => cell::grant(services, stamp, principal, give, take).await,
        Call::Label { node, labels } => member::label(services, stamp, node, labels.clone()).await,
        Call::NodeRemove { node, leaves } => member::remove(services, stamp, node, *leaves).await,
        Call::Drain { node, on } => member::drain(services, stamp, node, *on).await,
        _ => Err(invalid("the placer does not decide about this".to_string()).into()),
    }
}

/// A leader that has not acted yet may not have applied all that its predecessors committed.
const BEGIN: Duration = Duration::from_secs(1);

/// Whoever does not lead does not know what there is, nor who may change it.
async fn leads(services: &Services) -> Result<(), Unpassed> {
    let me = services.cell.me();
    if let Role::Follower { leader } = *services.ledger.role().borrow() {
        return Err(Unpassed::NotPlacer(leader.filter(|node| *node != me)));
    }
    let mut acting = services.cell.acting();
    let acts = acting.wait_for(|acting| acting.is_some_and(|acting| acting.node == me));
    // Else the ledger tells why not.
    let _ = timeout(BEGIN, async { drop(acts.await) }).await;
    Ok(())
}

/// For a `Run`: what its images are, as the node that took it finds out.
pub(super) async fn images(
    services: &Services,
    call: &Call,
) -> Result<Option<BTreeMap<String, String>>, Refusal> {
    let Call::Run { document, keep_images: false, .. } = call else { return Ok(None) };
    resolve(services, &Job::from_document(document)?).await.map(Some)
}

/// Whether the job wants an image made of a file of some machine.
pub(super) fn names_a_file(document: &Value) -> bool {
    Job::from_document(document).is_ok_and(|job| job.images().iter().any(|image| image.starts_with(FILE)))
}

/// How a `Run` goes with what there is.
struct Wish<'a> {
    owner: Option<&'a String>,
    create: bool,
    read: Option<ReadVersion>,
    keep_images: bool,
}

async fn run(
    services: &Services,
    stamp: &RequestStamp,
    document: &Value,
    wish: Wish<'_>,
    images: BTreeMap<String, String>,
) -> Result<Value, Unpassed> {
    let job = Job::from_document(document).map_err(Refusal::from)?;
    let owner = wish.owner.unwrap_or(&stamp.principal.0).clone();
    let key = JobKey { owner, name: job.name.clone() };
    let expect = match wish.read {
        Some(ReadVersion { uid, version }) if !wish.create => Expect::Version { uid, version },
        _ => Expect::Absent,
    };
    let ledger = services.ledger.state();
    let there = ledger.jobs.get(&key).filter(|r| !r.stopped);
    let images = match there {
        Some(record) if wish.keep_images => record.images.clone(),
        _ => images,
    };
    let was = there.map(|r| (r.uid, r.version));
    let by = &stamp.principal.0;
    let command = Command::Submit { job: key.clone(), document: document.clone(), images, expect };
    let (done, changed) = propose(services, stamp, command).await?;
    let Some((uid, version)) = done else {
        return Err(invalid(format!("the ledger did not say which version of {key} counts now")).into());
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
    stamp: &RequestStamp,
    command: Command,
    key: JobKey,
    kind: &str,
    text: &str,
) -> Result<Value, Unpassed> {
    let by = &stamp.principal.0;
    let (done, changed) = propose(services, stamp, command).await?;
    if changed {
        services.journal.job(kind, &key.owner, &key.name, format!("{by} {text}"));
    }
    let version = done.map(|(_, version)| version.number);
    Ok(json!({"name": key.name, "owner": key.owner, "version": version, "changed": changed}))
}

pub(super) type Done = (Option<(placement::ids::Uid, placement::ids::Version)>, bool);

/// Commits it, if whoever asks may have it done.
pub(super) async fn propose(
    services: &Services,
    stamp: &RequestStamp,
    command: Command,
) -> Result<Done, Unpassed> {
    if let Err(refusal) = services.ledger.state().may(&stamp.principal, &command) {
        services.journal.node("denied", format!("{}: {refusal}", stamp.principal.0));
        return Err(refusal.into());
    }
    let entry = Entry { request: Some(stamp.clone()), at_ms: clock::now().wall_ms, command };
    match services.ledger.propose(&entry).await {
        Ok(Answer::Done { job, changed, .. }) => Ok((job, changed)),
        Ok(Answer::Refused(refusal)) => Err(refusal.into()),
        Err(ProposeError::NotLeader { leader }) => Err(Unpassed::NotPlacer(leader)),
        Err(error @ (ProposeError::TooLarge { .. } | ProposeError::Encode(_))) => {
            Err(invalid(error.to_string()).into())
        }
        // It may be in the ledger or not: the same request again does it once.
        Err(error) => Err(Unpassed::Broken(format!("its ledger could not commit it: {error}"))),
    }
}

/// Every image of the job as a digest: by this node's names, or the other nodes'.
async fn resolve(services: &Services, job: &Job) -> Result<BTreeMap<String, String>, Refusal> {
    let mut images = BTreeMap::new();
    for name in job.images() {
        let digest = services.images.resolve(name).await.map_err(|refusal| Refusal {
            message: format!("image `{name}` of job {}: {}", job.name, refusal.message),
            ..refusal
        })?;
        images.insert(name.to_string(), digest.to_string());
    }
    Ok(images)
}
