//! Create or change a job.

use gossip::wire::{Call, JobName, ReadVersion};
use serde_json::Value;

use super::wait;
use crate::{
    args,
    failure::Failure,
    jobfile::{self, Set},
    output::{self, Out},
    session::Session,
};

pub(super) async fn run(args: args::Run, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let mut sets = args.set;
    sets.extend(args.count.map(Set::count));
    let file = jobfile::read(&args.file, &sets)?;
    let name = JobName { owner: None, name: file.job.name.clone() };
    // What is read here is what the change is compared with: whoever changes the job in between is not overwritten.
    let read = if args.create { None } else { read_version(&name, session).await? };
    let call =
        Call::Run { document: file.document, owner: None, create: args.create, read, keep_images: false };
    let done = session.ask(call).await?;
    if !args.wait {
        return out.either(&done, |done| what_happened(&name.name, done));
    }
    if !out.json() {
        out.text(&what_happened(&name.name, &done))?;
    }
    let goal = wait::Goal::of(&file.job, name, done["version"].as_u64().unwrap_or(0));
    wait::until_settled(goal, args.timeout, session, out).await
}

/// The version of the job that is there; none if there is no such job, or a stopped one.
async fn read_version(job: &JobName, session: &Session) -> Result<Option<ReadVersion>, Failure> {
    match session.ask(Call::Job { job: job.clone() }).await {
        Ok(document) if document["state"] == "stopped" => Ok(None),
        Ok(document) => {
            // Without a version to compare with, the agent refuses to change what exists.
            Ok(serde_json::from_value(document["read"].clone()).ok())
        }
        Err(Failure::Refused(refusal)) if refusal.code == "not_found" => Ok(None),
        Err(why) => Err(why),
    }
}

fn what_happened(name: &str, done: &Value) -> String {
    let now = output::version(&done["version"]);
    match (&done["was"], done["changed"].as_bool()) {
        (_, Some(false)) => format!("{name} {now} is unchanged"),
        (Value::Null, _) => format!("created {name} {now}"),
        (was, _) => format!("changed {name} {} → {now}", output::version(was)),
    }
}
