//! `covey events`: what happened on all nodes, merged by time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gossip::wire::{
    EventRecord, JobName, Reply,
    ask::{Passed, To},
};
use placement::{
    ids::{JobKey, NodeId},
    ledger::{Refusal, RequestStamp},
};
use serde_json::{Value, json};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Out, Services, Stopped,
    change::key,
    member::find,
    pass::{Unpassed, pass},
};
use crate::{api, clock, journal::Journal};

/// A node that has not told its past by then is missing; to a follower it may tell it later.
const PAST: Duration = Duration::from_millis(500);
/// Before a follower asks a node again that broke off and is alive.
const AGAIN: Duration = Duration::from_millis(250);
/// Events that a follower's reader has not taken yet.
const BACKLOG: usize = 256;

/// Which events are asked for.
#[derive(Debug, Clone)]
pub(super) struct EventFilter {
    pub(super) job: Option<JobName>,
    pub(super) node: Option<String>,
    pub(super) since_ms: Option<u64>,
}

impl EventFilter {
    /// With the job's name as its asker means it.
    pub(super) fn of(stamp: &RequestStamp, filter: EventFilter) -> EventFilter {
        let whole = |job: JobName| {
            let JobKey { owner, name } = key(stamp, &job);
            JobName { owner: Some(owner), name }
        };
        EventFilter { job: filter.job.map(whole), ..filter }
    }

    /// Of one node's events.
    fn takes(&self, event: &EventRecord) -> bool {
        let of_job = self.job.as_ref().is_none_or(|wanted| {
            event.job.as_ref() == Some(&wanted.name)
                && wanted.owner.as_ref().is_none_or(|o| event.owner.as_ref() == Some(o))
        });
        let since = self.since_ms.map(clock::rfc3339);
        // Times of one form compare as text.
        of_job && since.is_none_or(|since| event.time >= since)
    }
}

/// This node's own, as lists and then one by one.
struct Own {
    journal: Journal,
    filter: EventFilter,
}

impl Own {
    fn past(&self) -> (Vec<EventRecord>, tokio::sync::broadcast::Receiver<Arc<EventRecord>>) {
        let (past, live) = self.journal.read();
        (past.iter().filter(|event| self.filter.takes(event)).map(|e| EventRecord::clone(e)).collect(), live)
    }
}

/// The next one that the filter takes; none when the agent ends.
async fn next(
    live: &mut tokio::sync::broadcast::Receiver<Arc<EventRecord>>,
    filter: &EventFilter,
) -> Result<Option<Arc<EventRecord>>, Refusal> {
    loop {
        match live.recv().await {
            Ok(event) if filter.takes(&event) => return Ok(Some(event)),
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                return Err(Refusal {
                    code: "invalid".into(),
                    message: format!("this reader is too slow: it has missed {missed} events"),
                    hint: Some("covey events -f --since TIME goes on from there".into()),
                });
            }
            Err(RecvError::Closed) => return Ok(None),
        }
    }
}

/// For another node: one list, and then, followed, an item each.
pub(super) async fn here(
    services: &Services,
    filter: EventFilter,
    follow: bool,
    out: &mut Out,
) -> Result<(), Stopped> {
    let own = Own { journal: services.journal.clone(), filter };
    let (past, mut live) = own.past();
    out.item(json!(past)).await?;
    while follow && let Some(event) = next(&mut live, &own.filter).await? {
        out.item(json!(*event)).await?;
    }
    Ok(())
}

/// The events that there are as one list, or, followed, an item each for ever.
pub(super) async fn all(
    services: &Services,
    passed: &Passed,
    filter: EventFilter,
    follow: bool,
    out: &mut Out,
) -> Result<(), Stopped> {
    let only = match &filter.node {
        Some(name) => Some(find(&services.ledger.state(), name)?),
        None => None,
    };
    let passed = Passed { to: To::Node, ..passed.clone() };
    match follow {
        true => Following::new(services, passed, filter, only).run(out).await,
        false => out.item(past(services, &passed, filter, only).await).await,
    }
}

async fn past(services: &Services, passed: &Passed, filter: EventFilter, only: Option<NodeId>) -> Value {
    let (cell, me) = (&services.cell, services.cell.me());
    let ledger = services.ledger.state();
    let wanted: Vec<NodeId> = match only {
        Some(node) => vec![node],
        None => ledger.roster.keys().copied().collect(),
    };
    let mut missing: BTreeMap<NodeId, String> = wanted.iter().map(|node| (*node, cell.name(*node))).collect();
    let mut events = Vec::new();
    let mut asked = JoinSet::new();
    for node in wanted {
        if node == me {
            events.extend(Own { journal: services.journal.clone(), filter: filter.clone() }.past().0);
            missing.remove(&me);
        } else if cell.peers.is_alive(node) {
            let (cell, passed) = (cell.clone(), passed.clone());
            asked.spawn(async move {
                let list = async { pass(&cell, node, &passed).await?.document().await };
                (node, timeout(PAST, list).await)
            });
        }
    }
    while let Some(answer) = asked.join_next().await {
        let Ok((node, Ok(Ok(list)))) = answer else { continue };
        match serde_json::from_value::<Vec<EventRecord>>(list) {
            Ok(list) => {
                events.extend(list);
                missing.remove(&node);
            }
            Err(error) => tracing::warn!("the events of {} make no sense: {error}", cell.name(node)),
        }
    }
    sort(&mut events);
    let missing: Vec<String> = missing.into_values().collect();
    api::answer(clock::now(), false, &missing, events.iter().map(|event| json!(event)).collect())
}

/// By time; what one node wrote at one time, in its order.
fn sort(events: &mut [EventRecord]) {
    events.sort_by(|a, b| (&a.time, &a.node, a.seq).cmp(&(&b.time, &b.node, b.seq)));
}

/// What the task of one node tells.
enum Heard {
    /// At the beginning, and again each time the node could be asked again.
    Past(Vec<EventRecord>),
    Live(Box<EventRecord>),
    /// It broke off, or cannot be reached.
    Over,
    /// The reader is too slow, or may not.
    Refused(Refusal),
}

struct Following<'a> {
    services: &'a Services,
    passed: Passed,
    filter: EventFilter,
    only: Option<NodeId>,
    tell: mpsc::Sender<(NodeId, Heard)>,
    heard: mpsc::Receiver<(NodeId, Heard)>,
    /// Those that are asked now.
    nodes: BTreeMap<NodeId, AbortHandle>,
    passed_on: PassedOn,
}

/// The last event of each node that was passed on: a node that broke off tells its past again.
#[derive(Debug, Default)]
struct PassedOn(BTreeMap<NodeId, u64>);

impl PassedOn {
    fn is_news(&mut self, node: NodeId, event: &EventRecord) -> bool {
        let news = self.0.get(&node).is_none_or(|last| event.seq > *last);
        if news {
            self.0.insert(node, event.seq);
        }
        news
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.nodes.values().for_each(AbortHandle::abort);
    }
}

impl<'a> Following<'a> {
    fn new(
        services: &'a Services,
        passed: Passed,
        filter: EventFilter,
        only: Option<NodeId>,
    ) -> Following<'a> {
        let (tell, heard) = mpsc::channel(BACKLOG);
        let (nodes, passed_on) = (BTreeMap::new(), PassedOn::default());
        Following { services, passed, filter, only, tell, heard, nodes, passed_on }
    }

    async fn run(mut self, out: &mut Out) -> Result<(), Stopped> {
        self.begin(out).await?;
        let mut members = self.services.cell.peers.watch();
        let mut again = Instant::now() + AGAIN;
        loop {
            tokio::select! {
                heard = self.heard.recv() => match heard {
                    Some((node, heard)) => {
                        let events = self.take(node, heard)?;
                        self.pass_on(node, events, out).await?;
                    }
                    None => return Ok(()),
                },
                // Nodes that came, or came back.
                Ok(()) = members.changed() => self.ask(),
                () = sleep_until(again) => {
                    again = Instant::now() + AGAIN;
                    self.ask();
                }
            }
        }
    }

    /// The past of all that answer soon, merged.
    async fn begin(&mut self, out: &mut Out) -> Result<(), Stopped> {
        self.ask();
        let until = Instant::now() + PAST;
        let mut waiting: Vec<NodeId> = self.nodes.keys().copied().collect();
        let mut all: Vec<(NodeId, EventRecord)> = Vec::new();
        while !waiting.is_empty() {
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                () = sleep_until(until) => break,
            };
            let Some((node, heard)) = heard else { break };
            waiting.retain(|waiting| *waiting != node);
            all.extend(self.take(node, heard)?.into_iter().map(|event| (node, event)));
        }
        all.sort_by(|(_, a), (_, b)| (&a.time, &a.node, a.seq).cmp(&(&b.time, &b.node, b.seq)));
        for (node, event) in all {
            self.pass_on(node, vec![event], out).await?;
        }
        Ok(())
    }

    fn take(&mut self, node: NodeId, heard: Heard) -> Result<Vec<EventRecord>, Refusal> {
        match heard {
            Heard::Past(mut events) => {
                sort(&mut events);
                Ok(events)
            }
            Heard::Live(event) => Ok(vec![*event]),
            Heard::Over => {
                self.nodes.remove(&node);
                Ok(Vec::new())
            }
            Heard::Refused(refusal) => Err(refusal),
        }
    }

    async fn pass_on(
        &mut self,
        node: NodeId,
        events: Vec<EventRecord>,
        out: &mut Out,
    ) -> Result<(), Stopped> {
        for event in events {
            if self.passed_on.is_news(node, &event) {
                out.item(json!(event)).await?;
            }
        }
        Ok(())
    }

    /// Asks all that are here and are not being asked.
    fn ask(&mut self) {
        let cell = &self.services.cell;
        for node in cell.peers.alive().into_iter().filter(|node| self.only.is_none_or(|only| only == *node)) {
            if self.nodes.contains_key(&node) {
                continue;
            }
            let tell = self.tell.clone();
            let task = if node == cell.me() {
                let own = Own { journal: self.services.journal.clone(), filter: self.filter.clone() };
                tokio::spawn(follow_own(own, node, tell))
            } else {
                tokio::spawn(follow_other(cell.clone(), node, self.passed.clone(), tell))
            };
            self.nodes.insert(node, task.abort_handle());
        }
    }
}

async fn follow_own(own: Own, node: NodeId, tell: mpsc::Sender<(NodeId, Heard)>) {
    let (past, mut live) = own.past();
    let mut heard = Heard::Past(past);
    // Nobody listens any more: the reader went away.
    while tell.send((node, heard)).await.is_ok() {
        heard = match next(&mut live, &own.filter).await {
            Ok(Some(event)) => Heard::Live(Box::new(EventRecord::clone(&event))),
            Ok(None) => return,
            Err(refusal) => Heard::Refused(refusal),
        };
    }
}

async fn follow_other(
    cell: crate::cell::Cell,
    node: NodeId,
    passed: Passed,
    tell: mpsc::Sender<(NodeId, Heard)>,
) {
    let followed = async {
        let mut answer = pass(&cell, node, &passed).await?;
        let mut first = true;
        while let Some(reply) = answer.next().await? {
            let Reply::Item(item) = reply else { continue };
            let garbled = |error: serde_json::Error| Unpassed::Broken(error.to_string());
            let heard = match std::mem::take(&mut first) {
                true => Heard::Past(serde_json::from_value(item).map_err(garbled)?),
                false => Heard::Live(Box::new(serde_json::from_value(item).map_err(garbled)?)),
            };
            if tell.send((node, heard)).await.is_err() {
                break;
            }
        }
        Ok::<_, Unpassed>(())
    };
    let last = match followed.await {
        Err(Unpassed::Refused(refusal)) => Heard::Refused(refusal),
        _ => Heard::Over,
    };
    let _ = tell.send((node, last)).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(time: &str, node: &str, seq: u64) -> EventRecord {
        let event = json!({"time": time, "node": node, "seq": seq, "kind": "started", "text": "", "job": "web",
            "owner": "ann"});
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn events_go_by_time_then_node_then_number() {
        let mut events = vec![event("2", "b", 1), event("1", "b", 9), event("2", "a", 7), event("2", "a", 5)];
        sort(&mut events);
        let order: Vec<_> = events.iter().map(|e| (e.node.as_str(), e.seq)).collect();
        assert_eq!(order, [("b", 9), ("a", 5), ("a", 7), ("b", 1)]);
    }

    #[test]
    fn what_a_node_tells_again_is_no_news() {
        let mut passed_on = PassedOn::default();
        let mut news = |node, seq| passed_on.is_news(NodeId(node), &event("1", "a", seq));
        assert!(news(1, 0) && news(1, 5) && news(2, 0));
        // It broke off, and begins again with its past.
        assert!(!news(1, 0) && !news(1, 5) && news(1, 6));
    }

    #[test]
    fn a_filter_takes_a_job_of_its_owner_since_a_time() {
        let job = |owner: &str, name: &str| JobName { owner: Some(owner.into()), name: name.into() };
        let filter = |job, since_ms| EventFilter { job, node: None, since_ms };
        let event = event("1970-01-01T00:00:05.000Z", "a", 1);
        assert!(filter(None, None).takes(&event));
        assert!(filter(Some(job("ann", "web")), Some(5_000)).takes(&event));
        assert!(!filter(Some(job("bob", "web")), None).takes(&event));
        assert!(!filter(Some(job("ann", "db")), None).takes(&event));
        assert!(!filter(None, Some(6_000)).takes(&event));
    }
}
