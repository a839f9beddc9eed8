//! Requests that change nothing and are answered by one document: what is asked, and how it is shown. Where it is looked
//! for is `look`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gossip::wire::Call;
use placement::{
    ids::{JobKey, NodeId, TaskKey},
    ledger::{Ledger, Refusal, RequestStamp},
    view::Standing,
    why::{self, Why},
};
use serde_json::Value;

use super::{
    cell::{cell, principals},
    change::key,
};
use crate::{
    api,
    core::place::{JobRow, NodeRow, PlaceCore, Settled, TaskRow},
    event::Now,
};

/// What is asked, names as their owner means them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Cell,
    Principals,
    Nodes,
    Jobs,
    Job(JobKey),
    Tasks(Option<JobKey>),
    Task(JobKey, u32),
    /// Why each of a job's tasks, or one of them, is not running. `asker` is whose jobs go by their bare names.
    Why {
        job: JobKey,
        index: Option<u32>,
        asker: String,
    },
}

/// What a core shows of it.
pub(super) struct Rows {
    what: What,
    /// Members of which it has heard nothing that counts.
    missing: Vec<String>,
}

enum What {
    /// Nothing: the ledger says it all.
    Ledger,
    Nodes(Vec<NodeRow>),
    Jobs(Vec<JobRow>),
    Job(Option<JobRow>, Vec<TaskRow>, Option<Settled>),
    Tasks(Vec<TaskRow>),
    Why(Vec<(Option<Why>, TaskRow)>),
}

/// By whose eyes it was seen.
pub(super) struct Seen {
    /// What the core that was looked at goes by.
    pub(super) ledger: Arc<Ledger>,
    /// No placer could be asked.
    pub(super) stale: bool,
    /// Who places, if that is known.
    pub(super) placer: Option<NodeId>,
    pub(super) voters: BTreeSet<NodeId>,
    /// Whom membership sees, and where.
    pub(super) alive: BTreeSet<NodeId>,
    pub(super) addresses: BTreeMap<NodeId, String>,
    pub(super) now: Now,
}

impl Read {
    /// None: it is not a question of this kind.
    pub(super) fn of(call: &Call, stamp: &RequestStamp) -> Option<Read> {
        Some(match call {
            Call::Cell => Read::Cell,
            Call::Principals => Read::Principals,
            Call::Nodes => Read::Nodes,
            Call::Jobs => Read::Jobs,
            Call::Job { job } => Read::Job(key(stamp, job)),
            Call::Tasks { job } => Read::Tasks(job.as_ref().map(|job| key(stamp, job))),
            Call::Task { job, index } => Read::Task(key(stamp, job), *index),
            Call::Why { job, index } => {
                Read::Why { job: key(stamp, job), index: *index, asker: stamp.principal.0.clone() }
            }
            _ => return None,
        })
    }

    pub(super) fn look(&self, core: &PlaceCore) -> Rows {
        let what = match self {
            Read::Cell | Read::Principals => What::Ledger,
            Read::Nodes => What::Nodes(core.nodes()),
            Read::Jobs => What::Jobs(core.jobs()),
            Read::Job(job) => What::Job(core.job(job), core.tasks_of(job), core.settled(job)),
            Read::Tasks(None) => What::Tasks(core.tasks()),
            Read::Tasks(Some(job)) | Read::Task(job, _) => What::Tasks(core.tasks_of(job)),
            Read::Why { job, index, asker } => {
                let asked =
                    core.tasks_of(job).into_iter().filter(|row| index.is_none_or(|i| i == row.key.index));
                let rows: Vec<TaskRow> = asked.collect();
                let indexes = rows.iter().map(|row| row.key.index);
                let whys = match core.view() {
                    Some((intent, view)) => {
                        why::why_each(intent, view, job, indexes, asker).into_iter().map(Some).collect()
                    }
                    None => vec![None; rows.len()],
                };
                What::Why(whys.into_iter().zip(rows).collect())
            }
        };
        let nodes = core.view().into_iter().flat_map(|(_, view)| view.nodes.values());
        let missing = nodes.filter(|n| n.standing != Standing::Live).map(|n| n.name.clone()).collect();
        Rows { what, missing }
    }

    /// The document of INTERFACES.
    ///
    /// # Errors
    /// There is no such job or task.
    pub(super) fn show(&self, rows: Rows, seen: &Seen) -> Result<Value, Refusal> {
        let record = |job| seen.ledger.jobs.get(job);
        let one = |document| api::one(document, seen.stale, &rows.missing);
        let list = |items| api::answer(seen.now, seen.stale, &rows.missing, items);
        match (self, rows.what) {
            (Read::Job(job), What::Job(row, tasks, settled)) => {
                // Only a placer knows how a job stands: who gathers may not have heard of what runs elsewhere.
                let settled = settled.filter(|_| !seen.stale);
                match (row, record(job)) {
                    (Some(row), Some(record)) => {
                        Ok(one(api::whole_job(&row, record, &tasks, settled.as_ref())))
                    }
                    (None, Some(_)) => Err(behind(job)),
                    (_, None) => Err(no_such_job(job)),
                }
            }
            (Read::Tasks(Some(job)), What::Tasks(_)) if record(job).is_none() => Err(no_such_job(job)),
            (Read::Task(job, index), What::Tasks(rows)) => {
                let row = rows.iter().find(|row| row.key.index == *index);
                row.map(|row| one(api::task(row))).ok_or_else(|| no_such_task(&seen.ledger, job, *index))
            }
            (Read::Why { job, .. }, What::Why(found)) if found.is_empty() && record(job).is_none() => {
                Err(no_such_job(job))
            }
            (Read::Why { job, index: Some(index), .. }, What::Why(found)) => {
                let found = found.first();
                found
                    .map(|(why, row)| one(api::why(row, why.as_ref())))
                    .ok_or_else(|| no_such_task(&seen.ledger, job, *index))
            }
            (Read::Principals, _) => Ok(list(principals(&seen.ledger))),
            (_, What::Ledger) => Ok(one(cell(&seen.ledger, &seen.voters))),
            (_, What::Nodes(rows)) => Ok(list(rows.iter().map(|row| node(row, seen)).collect())),
            (_, What::Jobs(rows)) => Ok(list(rows.iter().map(api::job).collect())),
            (_, What::Tasks(rows)) => Ok(list(rows.iter().map(api::task).collect())),
            (_, What::Why(found)) => {
                Ok(list(found.iter().map(|(why, row)| api::why(row, why.as_ref())).collect()))
            }
            (_, What::Job(..)) => Err(super::invalid("the answer is not what was asked for".to_string())),
        }
    }
}

fn node(row: &NodeRow, seen: &Seen) -> Value {
    let about = api::About {
        placer: seen.placer == Some(row.id),
        voter: seen.voters.contains(&row.id),
        alive: seen.alive.contains(&row.id),
        stale: seen.stale,
        draining: seen.ledger.roster.get(&row.id).is_some_and(|member| member.draining),
        addr: seen.addresses.get(&row.id).map(String::as_str),
    };
    api::node(row, &about)
}

pub(super) fn no_such_job(job: &JobKey) -> Refusal {
    Refusal {
        code: "not_found".into(),
        message: format!("there is no job {job}"),
        hint: Some("covey jobs shows those that there are; another owner's is OWNER/NAME".into()),
    }
}

fn no_such_task(ledger: &Ledger, job: &JobKey, index: u32) -> Refusal {
    let Some(record) = ledger.jobs.get(job) else { return no_such_job(job) };
    Refusal {
        code: "not_found".into(),
        message: match record.stopped {
            true => format!("{job} has no task {index}: the job is stopped"),
            false => format!("{job} has no task {index}: it wants {}, from index 0", record.count()),
        },
        hint: Some(format!("covey tasks {job} shows those that there are")),
    }
}

/// The ledger has the job, and the core that was looked at has not.
fn behind(job: &JobKey) -> Refusal {
    Refusal {
        code: "no_quorum".into(),
        message: format!("the job {job} is known, but no placer acts that could say how it stands"),
        hint: Some("try again in a moment; covey nodes shows who places".into()),
    }
}

/// The key of an index that the ledger knows.
pub(super) fn task_key(ledger: &Ledger, job: &JobKey, index: u32) -> Result<TaskKey, Refusal> {
    match ledger.jobs.get(job) {
        Some(record) => Ok(TaskKey { uid: record.uid, index }),
        None => Err(no_such_job(job)),
    }
}
