//! `run --wait`: a job's document at each change, from one placer after another, until it is settled or cannot be.

use gossip::wire::{Reply, ask::Passed};
use placement::ids::{JobKey, NodeId};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Out, Services, Stopped, invalid,
    look::as_placer,
    pass::{PATIENCE, Passing, Tried, Unpassed, another, pass},
    read::Read,
};

/// Where the documents come from now.
enum Source {
    Here(Watching),
    There(Passing),
}

/// This node's own, while it places.
pub(super) struct Watching {
    job: JobKey,
    changed: watch::Receiver<u64>,
    last: Value,
}

impl Watching {
    pub(super) fn new(services: &Services, job: &JobKey) -> Watching {
        let mut changed = services.placer.changed();
        changed.mark_changed();
        Watching { job: job.clone(), changed, last: Value::Null }
    }

    /// The next document, when it differs from the last.
    pub(super) async fn next(&mut self, services: &Services) -> Result<Value, Unpassed> {
        loop {
            let ending = |_| Unpassed::Refused(invalid("the agent is ending".to_string()));
            self.changed.changed().await.map_err(ending)?;
            let document = as_placer(services, &Read::Job(self.job.clone())).await?;
            if document != self.last {
                self.last.clone_from(&document);
                return Ok(document);
            }
        }
    }
}

/// Whether there is nothing to wait for any more.
pub(super) fn settled(document: &Value) -> bool {
    matches!(document["settled"]["state"].as_str(), Some("yes" | "never"))
}

pub(super) async fn watch(
    services: &Services,
    passed: &Passed,
    job: &JobKey,
    out: &mut Out,
) -> Result<(), Stopped> {
    let cell = &services.cell;
    let mut tried = Tried::default();
    let mut last = Value::Null;
    let mut named = None;
    // Since when no placer answers: nobody waits for long without one.
    let mut without: Option<Instant> = None;
    loop {
        let known = cell.placer();
        let node = named.take().or(known);
        let give_up = *without.get_or_insert_with(Instant::now) + PATIENCE;
        let mut source = None;
        let failed = loop {
            // A step that is dropped half done takes its source with it.
            let step = async {
                if source.is_none() {
                    source = Some(begin(services, passed, job, node).await?);
                }
                match source.as_mut() {
                    Some(Source::Here(watching)) => watching.next(services).await.map(Some),
                    Some(Source::There(passing)) => passing.next().await.map(|reply| match reply {
                        Some(Reply::Item(document)) => Some(document),
                        _ => None,
                    }),
                    None => std::future::pending().await,
                }
            };
            let document = tokio::select! {
                document = step => match document {
                    Ok(Some(document)) => document,
                    Ok(None) if settled(&last) => return Ok(()),
                    Ok(None) => break Unpassed::Broken("it ended its answer too soon".into()),
                    Err(Unpassed::Refused(refusal)) => return Err(refusal.into()),
                    Err(failed) => break failed,
                },
                () = another(cell, known, node) => break Unpassed::Broken("another one places now".into()),
                () = sleep_until(give_up), if node.is_none() => return Err(tried.no_quorum().into()),
            };
            without = None;
            if document != last {
                out.item(document.clone()).await?;
                last = document;
            }
            if settled(&last) {
                return Ok(());
            }
        };
        if let Some(node) = node {
            tried.note(cell.name(node), &failed);
        }
        match failed {
            Unpassed::NotPlacer(Some(other)) if Some(other) != node => named = Some(other),
            _ => tokio::select! {
                () = another(cell, known, node) => {}
                () = tokio::time::sleep(super::pass::AGAIN) => {}
            },
        }
        if without.is_some_and(|since| since.elapsed() >= PATIENCE) {
            return Err(tried.no_quorum().into());
        }
    }
}

async fn begin(
    services: &Services,
    passed: &Passed,
    job: &JobKey,
    node: Option<NodeId>,
) -> Result<Source, Unpassed> {
    match node {
        Some(node) if node == services.cell.me() => Ok(Source::Here(Watching::new(services, job))),
        Some(node) => Ok(Source::There(pass(&services.cell, node, passed).await?)),
        None => std::future::pending().await,
    }
}
