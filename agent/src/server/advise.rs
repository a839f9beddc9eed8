//! `covey advise`: limits that would fit each job, from what all nodes remember of its tasks.

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::ask::{Question, Told};
use placement::{
    ids::JobKey,
    job::{
        Job,
        quantity::{format_bytes, format_cpu},
    },
    ledger::{JobRecord, Refusal},
    resources::{CPU, MEMORY},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Services, invalid, read::no_such_job};
use crate::{
    api, clock,
    core::Core,
    history::{
        JobHistory,
        advice::{Advice, Advised, Verdict, Wish, advise as advice},
    },
    server::look::PARTS,
};

/// For another node: what this one remembers of its jobs, or of one.
pub(super) async fn told(services: &Services, only: Option<JobKey>) -> Told {
    match own(services, only).await {
        Ok(jobs) => {
            let one = |(job, history): (JobKey, JobHistory)| (job.to_string(), json!(history));
            Told::History { jobs: jobs.into_iter().map(one).collect() }
        }
        Err(refusal) => Told::Refused(refusal),
    }
}

async fn own(services: &Services, only: Option<JobKey>) -> Result<BTreeMap<JobKey, JobHistory>, Refusal> {
    let of = move |core: &Core| match &only {
        None => core.history().clone(),
        Some(job) => core.history().get(job).map(|h| (job.clone(), h.clone())).into_iter().collect(),
    };
    services.node.read(of).await.ok_or_else(|| invalid("the agent is ending".to_string()))
}

/// For a client.
pub(super) async fn advise(services: &Services, only: Option<JobKey>, wish: Wish) -> Result<Value, Refusal> {
    let cell = &services.cell;
    let ledger = services.ledger.state();
    if let Some(job) = &only
        && !ledger.jobs.contains_key(job)
    {
        return Err(no_such_job(job));
    }
    let placer = cell.placer();
    let mut stale = placer != Some(cell.me());
    let mut missing: BTreeSet<String> = BTreeSet::new();
    let mut asked = JoinSet::new();
    for (node, member) in ledger.roster.iter().filter(|(node, _)| **node != cell.me()) {
        if !cell.peers.is_alive(*node) {
            missing.insert(member.name.clone());
            continue;
        }
        let (peers, node, name) = (cell.peers.clone(), *node, member.name.clone());
        let question = Question::History { job: only.clone() };
        let places = placer == Some(node);
        asked.spawn(async move { (name, places, peers.ask_within(node, &question, PARTS).await) });
    }
    let mut jobs = own(services, only.clone()).await?;
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((_, places, Ok(Told::History { jobs: more }))) => {
                stale &= !places;
                merge(&mut jobs, more);
            }
            Ok((name, ..)) => drop(missing.insert(name)),
            Err(_) => {}
        }
    }
    let now = clock::now();
    let stands = ledger.jobs.iter().filter(|(_, record)| !record.stopped);
    let items: Vec<Value> = stands
        .filter(|(job, _)| only.as_ref().is_none_or(|only| *job == only))
        .filter_map(|(job, record)| item(job, record, jobs.get(job), wish, now.wall_ms))
        .collect();
    let missing: Vec<String> = missing.into_iter().collect();
    let mut document = api::answer(now, stale, &missing, items);
    document["risk"] = json!(wish.risk);
    document["enough_s"] = json!(wish.enough_ms / 1000);
    Ok(document)
}

fn merge(jobs: &mut BTreeMap<JobKey, JobHistory>, more: BTreeMap<String, Value>) {
    for (name, history) in more {
        let Some((owner, job)) = name.split_once('/') else { continue };
        let Ok(history) = serde_json::from_value::<JobHistory>(history) else { continue };
        jobs.entry(JobKey { owner: owner.into(), name: job.into() }).or_default().merge(&history);
    }
}

/// None: a document that cannot be read, which a newer covey may have admitted.
fn item(
    key: &JobKey,
    record: &JobRecord,
    history: Option<&JobHistory>,
    wish: Wish,
    now_ms: u64,
) -> Option<Value> {
    let job = Job::from_document(&record.document).ok()?;
    let limit = &job.task.limit;
    let none = JobHistory::default();
    let found = advice(history.unwrap_or(&none), limit, wish, now_ms);
    // Indexes with limits of their own keep them.
    let same = |name: &str| {
        let all = (0..record.count()).filter(|index| !record.finished.contains_key(index));
        all.filter(|index| job.template(*index).limit.get(name) == limit.get(name)).count() as i64
    };
    let saved = |of: &Advised, name: &str| (of.limit as i64 - of.advised as i64) * same(name);
    Some(json!({
        "job": key.name,
        "owner": key.owner,
        "band": job.band,
        "version": record.version.number,
        "count": record.count(),
        "advice": word(&found),
        "watched_s": found.watched_ms / 1000,
        "confidence": found.confidence(),
        "kills": found.kills,
        "cpu": resource(&found.cpu, format_cpu),
        "memory": resource(&found.memory, format_bytes),
        "saved": {CPU: saved(&found.cpu, CPU), MEMORY: saved(&found.memory, MEMORY)},
    }))
}

fn word(advice: &Advice) -> &'static str {
    let both = [&advice.cpu, &advice.memory];
    match advice.verdict {
        Verdict::NotEnough => "not_enough_history",
        Verdict::Keep => "keep",
        Verdict::Change if both.iter().all(|of| of.advised <= of.limit) => "lower",
        Verdict::Change if both.iter().all(|of| of.advised >= of.limit) => "raise",
        Verdict::Change => "change",
    }
}

fn resource(of: &Advised, written: fn(u64) -> String) -> Value {
    json!({
        "limit": of.limit,
        "advised": of.advised,
        "used": of.used,
        "risk_now": of.risk_now,
        "risk": of.risk,
        "set": (of.advised != of.limit).then(|| written(of.advised)),
    })
}
