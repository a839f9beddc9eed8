//! Limits that would fit, and, if that is wanted, the change to them.

use std::time::Duration;

use gossip::wire::{Call, JobName, ReadVersion};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    args::usage::Advise,
    failure::Failure,
    output::{self, Out},
    session::Session,
};

/// Running tasks get other limits within moments; who takes longer is left to it.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn advise(args: Advise, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let call = Call::Advise { job: args.job, risk: args.risk.0, enough_ms: args.history.millis() };
    let mut document = session.ask(call).await?;
    if !args.apply {
        return out.either(&document, output::advice);
    }
    let mut wrong = 0;
    let items = document.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten().filter(|item| changes(item)) {
        match apply(item, session).await {
            Ok(done) => item["applied"] = done,
            // One job's owner may be another: the others' are changed all the same.
            Err(why) => {
                item["applied"] = json!({"error": why.document()["error"]});
                wrong += 1;
            }
        }
        if !out.json() {
            out.text(&output::applied(item))?;
        }
    }
    let nothing = !document["items"].as_array().into_iter().flatten().any(changes);
    match out.json() {
        true => out.document(&document)?,
        false if nothing => {
            out.text(&(output::advice(&document) + &output::nothing_to_apply(&document)))?;
        }
        false => {}
    }
    if wrong > 0 { Err(Failure::NotAll { wrong }) } else { Ok(()) }
}

fn changes(item: &Value) -> bool {
    SET.iter().any(|(resource, _)| item[resource]["set"].is_string())
}

/// What is advised, and the key of the document that it is set with.
const SET: [(&str, &str); 2] = [("cpu", "cpu"), ("memory", "memory")];

/// The job as it is read now, with other limits: whoever changes it in between is not overwritten.
async fn apply(item: &Value, session: &Session) -> Result<Value, Failure> {
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let (owner, name) = (text("owner"), text("job"));
    let job = JobName { owner: Some(owner.clone()), name };
    let there = session.ask(Call::Job { job: job.clone() }).await?;
    let read: Option<ReadVersion> = serde_json::from_value(there["read"].clone()).ok();
    let mut document = there["document"].clone();
    if there["version"] != item["version"] || !document["task"].is_object() {
        return Err(Failure::Unsettled {
            message: format!("somebody has changed {owner}/{} meanwhile", job.name),
            hint: "covey advise says what fits it now".into(),
        });
    }
    let before = pids(&there);
    for (resource, key) in SET {
        if let Some(amount) = item[resource]["set"].as_str() {
            document["task"][key] = json!(amount);
        }
    }
    let call = Call::Run { document, owner: Some(owner), create: false, read, keep_images: true };
    let mut done = session.ask(call).await?;
    let (tasks, same) = settled(&job, &done["version"], &before, session).await?;
    done["tasks"] = json!(tasks);
    done["same_pid"] = json!(same);
    Ok(done)
}

/// Index and pid of those that run.
fn pids(job: &Value) -> Vec<(u64, u64)> {
    let tasks = job["tasks"].as_array().into_iter().flatten();
    tasks.filter_map(|task| Some((task["index"].as_u64()?, task["pid"].as_u64()?))).collect()
}

/// How many run at the new version, and how many of these as the process that they were.
async fn settled(
    job: &JobName,
    version: &Value,
    before: &[(u64, u64)],
    session: &Session,
) -> Result<(usize, usize), Failure> {
    let began = Instant::now();
    loop {
        let mut there = session.ask(Call::Job { job: job.clone() }).await?;
        if let Some(tasks) = there["tasks"].as_array_mut() {
            tasks.retain(|task| task["version"] == *version);
        }
        let now = pids(&there);
        if now.len() >= before.len() || began.elapsed() > PATIENCE {
            let same = now.iter().filter(|task| before.contains(task)).count();
            return Ok((now.len(), same));
        }
        sleep(LOOK_AGAIN).await;
    }
}
