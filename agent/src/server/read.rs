//! Requests that change nothing: what the placer has seen, and what happened here.

use std::time::Duration;

use gossip::wire::{EventRecord, JobName, Reply};
use placement::{
    ids::{JobKey, TaskKey},
    ledger::{Refusal, RequestStamp},
    why,
};
use serde_json::{Value, json};
use tokio::{sync::broadcast::error::RecvError, time::timeout};

use super::{Out, Services, Stopped, change::key, invalid};
use crate::{
    api, clock,
    core::place::{Own, PlaceCore, Settled},
};

/// A reader waits no longer than this for the placer to have seen what the ledger has applied, and all nodes.
const CATCH_UP: Duration = Duration::from_millis(200);

/// What the placer's core shows now; while none acts, what this node knows by itself, and that it is stale. Who changed
/// something and then looks sees the change.
async fn look<T: Send + 'static>(
    services: &Services,
    look: impl FnOnce(&PlaceCore) -> T + Send + 'static,
) -> Result<(T, bool), Refusal> {
    let applied = services.ledger.state().applied;
    let _ = timeout(CATCH_UP, async {
        let mut changed = services.placer.changed();
        // Right after a start nobody acts yet, and then the nodes have not reported yet: that is a moment.
        let behind = move |core: &PlaceCore| {
            core.view().is_none_or(|(intent, view)| intent.applied < applied || !view.complete())
        };
        while services.placer.read(behind).await == Some(true) && changed.changed().await.is_ok() {}
    })
    .await;
    let ending = || invalid("the agent is ending".to_string());
    let seen = services.placer.read(|core| match core.activation() {
        Some(_) => Ok(look(core)),
        None => Err(look),
    });
    match seen.await.ok_or_else(ending)? {
        Ok(seen) => Ok((seen, false)),
        Err(look) => {
            let own = services.node.read(Own::of).await.ok_or_else(ending)?;
            Ok((look(&PlaceCore::alone(services.ledger.state(), own, clock::now())), true))
        }
    }
}

pub(super) async fn nodes(services: &Services) -> Result<Value, Refusal> {
    let (rows, stale) = look(services, PlaceCore::nodes).await?;
    let placer = services.ledger.state().placer;
    // One voter, and it leads or nobody does.
    let items =
        rows.iter().map(|row| api::node(row, !stale && placer == Some(row.id), placer == Some(row.id)));
    Ok(api::answer(clock::now(), stale, items.collect()))
}

pub(super) async fn jobs(services: &Services) -> Result<Value, Refusal> {
    let (rows, stale) = look(services, PlaceCore::jobs).await?;
    Ok(api::answer(clock::now(), stale, rows.iter().map(api::job).collect()))
}

pub(super) async fn job(services: &Services, stamp: &RequestStamp, job: &JobName) -> Result<Value, Refusal> {
    Ok(whole(services, &key(stamp, job)).await?.0)
}

/// A job's document, and whether it is settled.
async fn whole(services: &Services, job: &JobKey) -> Result<(Value, Option<Settled>), Refusal> {
    let name = job.clone();
    let see = move |core: &PlaceCore| (core.job(&name), core.tasks_of(&name), core.settled(&name));
    let ((row, tasks, settled), stale) = look(services, see).await?;
    // Only a placer knows how a job stands: one node may not have heard of what runs elsewhere.
    let settled = settled.filter(|_| !stale);
    let ledger = services.ledger.state();
    match (row, ledger.jobs.get(job)) {
        (Some(row), Some(record)) => Ok((api::whole_job(&row, record, &tasks, settled.as_ref()), settled)),
        (None, Some(_)) => Err(Refusal {
            code: "no_quorum".into(),
            message: format!("the job {job} is known, but no placer acts that could say how it stands"),
            hint: Some("try again in a moment; covey nodes shows who places".into()),
        }),
        (_, None) => Err(no_such_job(job)),
    }
}

pub(super) fn no_such_job(job: &JobKey) -> Refusal {
    Refusal {
        code: "not_found".into(),
        message: format!("there is no job {job}"),
        hint: Some("covey jobs shows those that there are; another owner's is OWNER/NAME".into()),
    }
}

pub(super) async fn tasks(
    services: &Services,
    stamp: &RequestStamp,
    job: Option<&JobName>,
) -> Result<Value, Refusal> {
    let only = job.map(|job| key(stamp, job));
    if let Some(job) = &only
        && !services.ledger.state().jobs.contains_key(job)
    {
        return Err(no_such_job(job));
    }
    let see = move |core: &PlaceCore| match &only {
        Some(job) => core.tasks_of(job),
        None => core.tasks(),
    };
    let (rows, stale) = look(services, see).await?;
    Ok(api::answer(clock::now(), stale, rows.iter().map(api::task).collect()))
}

pub(super) async fn task(
    services: &Services,
    stamp: &RequestStamp,
    job: &JobName,
    index: u32,
) -> Result<Value, Refusal> {
    let job = key(stamp, job);
    let name = job.clone();
    let (rows, _) = look(services, move |core| core.tasks_of(&name)).await?;
    if let Some(row) = rows.iter().find(|row| row.key.index == index) {
        return Ok(api::task(row));
    }
    match services.ledger.state().jobs.get(&job) {
        None => Err(no_such_job(&job)),
        Some(record) => Err(Refusal {
            code: "not_found".into(),
            message: match record.stopped {
                true => format!("{job} has no task {index}: the job is stopped"),
                false => format!("{job} has no task {index}: it wants {}, from index 0", record.count()),
            },
            hint: Some(format!("covey tasks {job} shows those that there are")),
        }),
    }
}

/// Why each of a job's tasks, or one of them, is not running; one document for one, a list for several.
pub(super) async fn why(
    services: &Services,
    stamp: &RequestStamp,
    job: &JobName,
    index: Option<u32>,
) -> Result<Value, Refusal> {
    let job = key(stamp, job);
    let (name, asker) = (job.clone(), stamp.principal.0.clone());
    let see = move |core: &PlaceCore| {
        let rows = core.tasks_of(&name);
        let asked = rows.into_iter().filter(|row| index.is_none_or(|i| i == row.key.index));
        let about =
            |index| core.view().map(|(intent, view)| why::why(intent, view, &name, Some(index), &asker));
        asked.map(|row| (about(row.key.index), row)).collect::<Vec<_>>()
    };
    let (found, stale) = look(services, see).await?;
    if found.is_empty() && !services.ledger.state().jobs.contains_key(&job) {
        return Err(no_such_job(&job));
    }
    let items: Vec<Value> = found.iter().map(|(why, row)| api::why(row, why.as_ref())).collect();
    match index {
        Some(_) => items.into_iter().next().ok_or_else(|| Refusal {
            code: "not_found".into(),
            message: format!("{job} has no task {}", index.unwrap_or_default()),
            hint: Some(format!("covey tasks {job} shows those that there are")),
        }),
        None => Ok(api::answer(clock::now(), stale, items)),
    }
}

/// The job's document at once and at each change, until it is settled or cannot be.
pub(super) async fn watch(
    services: &Services,
    stamp: &RequestStamp,
    job: &JobName,
    out: &mut Out,
) -> Result<(), Stopped> {
    let job = key(stamp, job);
    let mut changed = services.placer.changed();
    let mut last = Value::Null;
    loop {
        changed.mark_unchanged();
        let (document, settled) = whole(services, &job).await?;
        if document != last {
            out.item(document.clone()).await?;
            last = document;
        }
        if matches!(settled, Some(Settled::Yes | Settled::Never(_))) {
            return Ok(());
        }
        if changed.changed().await.is_err() {
            return Err(invalid("the agent is ending".to_string()).into());
        }
    }
}

/// Which events are asked for.
pub(super) struct EventFilter {
    pub(super) job: Option<JobName>,
    pub(super) node: Option<String>,
    pub(super) since_ms: Option<u64>,
}

impl EventFilter {
    fn takes(&self, event: &EventRecord) -> bool {
        let of_job = self.job.as_ref().is_none_or(|wanted| {
            event.job.as_ref() == Some(&wanted.name)
                && wanted.owner.as_ref().is_none_or(|o| event.owner.as_ref() == Some(o))
        });
        let since = self.since_ms.map(clock::rfc3339);
        of_job
            && self.node.as_ref().is_none_or(|node| *node == event.node)
            // Times of one form compare as text.
            && since.is_none_or(|since| event.time >= since)
    }
}

/// The events that there are as one list, or, followed, an item each for ever.
pub(super) async fn events(
    services: &Services,
    stamp: &RequestStamp,
    filter: &EventFilter,
    follow: bool,
    out: &mut Out,
) -> Result<(), Stopped> {
    let filter = EventFilter {
        job: filter.job.as_ref().map(|job| {
            let JobKey { owner, name } = key(stamp, job);
            JobName { owner: Some(owner), name }
        }),
        node: filter.node.clone(),
        since_ms: filter.since_ms,
    };
    let (past, mut live) = services.journal.read();
    let past = past.iter().filter(|event| filter.takes(event)).map(|event| json!(**event));
    if !follow {
        return out.item(api::list(clock::now(), past.collect())).await;
    }
    for event in past {
        out.item(event).await?;
    }
    loop {
        match live.recv().await {
            Ok(event) if filter.takes(&event) => out.send(&Reply::Item(json!(*event))).await?,
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                return Err(Refusal {
                    code: "invalid".into(),
                    message: format!("this reader is too slow: it has missed {missed} events"),
                    hint: Some("covey events -f --since TIME goes on from there".into()),
                }
                .into());
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// The key of an index that the ledger knows.
pub(super) fn task_key(services: &Services, job: &JobKey, index: u32) -> Result<TaskKey, Refusal> {
    match services.ledger.state().jobs.get(job) {
        Some(record) => Ok(TaskKey { uid: record.uid, index }),
        None => Err(no_such_job(job)),
    }
}
