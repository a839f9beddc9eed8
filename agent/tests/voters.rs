//! Ledgers of several nodes, on real files, that ask each other without a network.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::ledger::{Ask, CallError, LedgerHandle, MAX_CALL, StepError, Unreached};
use placement::{
    ids::{CellId, NodeId},
    ledger::{Command, Entry},
    voters::{Candidate, Patience, VoterStep, next_step},
};
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<BTreeMap<NodeId, LedgerHandle>>>);

impl Nodes {
    fn ask(&self) -> Ask {
        let nodes = self.clone();
        Arc::new(move |node, call| {
            let ledger = nodes.0.lock().unwrap().get(&node).cloned();
            Box::pin(async move {
                let unreached = |why: String| Unreached { node, why };
                let ledger = ledger.ok_or_else(|| unreached("it is off".into()))?;
                ledger.answer(&call).await.map_err(|e| unreached(e.to_string()))
            })
        })
    }

    async fn start(&self, dir: &TempDir, id: u64) -> LedgerHandle {
        let path = dir.path().join(format!("{id}.redb"));
        let ledger = LedgerHandle::open_among(&path, NodeId(id), self.ask()).await.unwrap();
        self.0.lock().unwrap().insert(NodeId(id), ledger.clone());
        ledger
    }
}

fn entry(command: Command) -> Entry {
    Entry { request: None, at_ms: 0, command }
}

fn admit(id: u64) -> Entry {
    entry(Command::Admit { node: NodeId(id), name: format!("n{id}") })
}

fn found() -> Entry {
    entry(Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 })
}

fn set(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

/// Follows `next_step` until so many vote; tells who leads then. On a busy machine that may change.
async fn follow(ledgers: &BTreeMap<u64, LedgerHandle>, wanted: usize) -> u64 {
    let node =
        |id| Candidate { rack: String::new(), alive: ledgers.contains_key(&id), drained: false, since_ms: 0 };
    let nodes = (1..=3).map(|id| (NodeId(id), node(id))).collect();
    loop {
        for (id, ledger) in ledgers {
            let Some(seats) = ledger.seats() else { continue };
            match next_step(&seats, &nodes, Patience::default(), 60_000) {
                // Refused at most because something happened meanwhile; then the next look tells.
                Some(step) => drop(ledger.step(step).await),
                None if seats.voters.len() == wanted && seats.learners.is_empty() => return *id,
                None => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Through whoever leads.
async fn insist(ledgers: &BTreeMap<u64, LedgerHandle>, entry: &Entry) {
    loop {
        for ledger in ledgers.values() {
            if ledger.propose(entry).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_grows_to_three_voters_and_shrinks_to_one() {
    let (dir, nodes) = (tempfile::tempdir().unwrap(), Nodes::default());
    let mut ledgers = BTreeMap::from([(1, nodes.start(&dir, 1).await)]);
    ledgers[&1].found(vec![found(), admit(1)]).await.unwrap();
    for id in [2, 3] {
        ledgers.insert(id, nodes.start(&dir, id).await);
    }
    let leader = follow(&ledgers, 3).await;
    assert_eq!(ledgers[&leader].voters(), set(1..=3));
    insist(&ledgers, &admit(2)).await;
    // The others have it, by copies of their own.
    for ledger in ledgers.values() {
        ledger.applied().wait_for(|index| *index >= 3).await.unwrap();
        assert_eq!(ledger.state().roster.len(), 2);
    }

    let gone = if leader == 3 { 2 } else { 3 };
    nodes.0.lock().unwrap().remove(&NodeId(gone));
    ledgers.remove(&gone).unwrap().shutdown().await;
    let leader = follow(&ledgers, 1).await;
    assert_eq!(ledgers[&leader].voters(), set([leader]));
    insist(&ledgers, &admit(3)).await;

    // It knows who votes when it is opened again.
    for ledger in ledgers.values() {
        ledger.shutdown().await;
    }
    let ledger = nodes.start(&dir, leader).await;
    assert!(ledger.role().borrow().is_leader());
    assert_eq!(ledger.voters(), set([leader]));
    assert_eq!(ledger.state().roster.len(), 3);
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_do_not_fit_are_refused() {
    let (dir, nodes) = (tempfile::tempdir().unwrap(), Nodes::default());
    let ledger = nodes.start(&dir, 1).await;
    let nobody = ledger.step(VoterStep::Learn(NodeId(2))).await;
    assert!(matches!(nobody, Err(StepError::NotLeader { leader: None })), "{nobody:?}");
    ledger.found(vec![found()]).await.unwrap();
    for step in [
        VoterStep::Finish,
        VoterStep::Learn(NodeId(1)),
        VoterStep::Promote(NodeId(2)),
        VoterStep::Demote(NodeId(1)),
        VoterStep::Demote(NodeId(2)),
        VoterStep::Forget(NodeId(2)),
    ] {
        let refused = ledger.step(step).await;
        assert!(matches!(refused, Err(StepError::Impossible { .. })), "{refused:?}");
    }
    // A node that never answers learns, but gets no vote.
    ledger.step(VoterStep::Learn(NodeId(2))).await.unwrap();
    let seats = loop {
        match ledger.seats() {
            Some(seats) => break seats,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(seats.learners, BTreeMap::from([(NodeId(2), false)]));
    let refused = ledger.step(VoterStep::Promote(NodeId(2))).await;
    assert!(matches!(refused, Err(StepError::Impossible { .. })), "{refused:?}");
    assert_eq!(ledger.voters(), set([1]));
    ledger.shutdown().await;
    let closed = ledger.step(VoterStep::Forget(NodeId(2))).await;
    assert!(matches!(closed, Err(StepError::Closed)), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_voters_say_has_named_fields_and_garbage_is_refused() {
    let (dir, nodes) = (tempfile::tempdir().unwrap(), Nodes::default());
    let ledger = nodes.start(&dir, 1).await;
    let call =
        json!({"vote": {"vote": {"term": 3, "node": "0000000000000002", "committed": false}, "last": null}});
    let answer = ledger.answer(call.to_string().as_bytes()).await.unwrap();
    let wanted = json!({"voted": {
        "vote": {"term": 3, "node": "0000000000000002", "committed": false}, "granted": true, "last": null,
    }});
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), wanted);

    let entry = json!({
        "at": {"index": 0, "term": 0, "leader": "0000000000000000"},
        "payload": {"members": {"voters": [["0000000000000002"]], "learners": ["0000000000000001"]}},
    });
    let call = json!({"append": {
        "vote": {"term": 3, "node": "0000000000000002", "committed": true},
        "prev": null, "entries": [entry],
        "committed": {"index": 0, "term": 0, "leader": "0000000000000000"},
        "of_a_later_version": 1,
    }});
    let answer = ledger.answer(call.to_string().as_bytes()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), json!("appended"));
    while ledger.voters() != set([2]) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    for garbage in [&b""[..], b"{}", b"\n\n", b"{\"append\":{}}", b"\xff\xfe", b"{\"install\":7}\nchunk"] {
        let refused = ledger.answer(garbage).await;
        assert!(matches!(refused, Err(CallError::Malformed { .. })), "{refused:?}");
    }
    let refused = ledger.answer(&vec![b' '; MAX_CALL + 1]).await;
    assert!(matches!(refused, Err(CallError::TooLarge { .. })), "{refused:?}");
    ledger.shutdown().await;
}
