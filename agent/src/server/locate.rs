//! Which copy of a task a client means, as the cell shows it now.

use gossip::wire::{
    Call, JobName,
    ask::{Passed, To},
};
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    ledger::Refusal,
};
use serde_json::Value;

use super::{Services, invalid, look::look, member::find, read::Read};

/// What is known of one index of a job.
pub(super) struct Located {
    pub(super) task: TaskKey,
    /// As `covey task` shows it; none: the job has no such index.
    pub(super) row: Option<Value>,
    /// Where it is or was last, if that is known.
    pub(super) node: Option<NodeId>,
}

/// Asks as the client of `passed`: what it changed a moment ago is seen.
pub(super) async fn locate(
    services: &Services,
    passed: &Passed,
    job: &JobKey,
    index: u32,
) -> Result<Located, Refusal> {
    let name = JobName { owner: Some(job.owner.clone()), name: job.name.clone() };
    let mut question = passed.clone();
    (question.to, question.request.call) = (To::Placer, Call::Job { job: name });
    let mut document = look(services, &question, &Read::Job(job.clone())).await?;
    let uid = serde_json::from_value(document["uid"].take());
    let uid = uid.map_err(|error| invalid(format!("the job's uid cannot be read: {error}")))?;
    let rows = document["tasks"].as_array_mut().map(std::mem::take);
    let row = rows.into_iter().flatten().find(|row| row["index"] == index);
    let name = row.as_ref().and_then(|row| row["node"].as_str());
    let node = name.and_then(|name| find(&services.ledger.state(), name).ok());
    Ok(Located { task: TaskKey { uid, index }, row, node })
}
