//! Three voters through crashes, splits, loss and full disks.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use placement::{
    ids::{CellId, NodeId, Principal, RequestId},
    ledger::{Answer, Command, Entry, RequestStamp},
};

use super::{
    cell::{Cell, propose},
    runtime::{draw_from, happens, now, run, sleep, spawn},
    seeds::{play, seeds},
};

/// What a run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Outcome {
    acknowledged: usize,
    elections: usize,
    /// Chunks of snapshots sent.
    chunks: u64,
    crashes: usize,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn admit(number: u64) -> Entry {
    Entry {
        request: Some(RequestStamp {
            principal: Principal(format!("client{}", number % 4)),
            id: RequestId(number.to_string()),
        }),
        at_ms: number,
        command: Command::Admit { node: NodeId(1000 + number), name: format!("n{number}") },
    }
}

/// Proposes until it is acknowledged, through whoever leads.
pub(super) async fn insist(cell: &mut Cell, entry: &Entry) -> Answer {
    let limit = now() + 20_000_000_000;
    loop {
        if let Some(raft) = cell.leader().and_then(|id| cell.raft(id))
            && let Some(answer) = propose(&raft, entry).await
        {
            return answer;
        }
        assert!(now() < limit, "nothing is committed though nothing is broken");
        sleep(Duration::from_millis(50)).await;
        cell.reap();
        cell.start_all().await;
        cell.check();
    }
}

/// What clients share.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) acknowledged: Mutex<Vec<u64>>,
    pub(super) trying: AtomicUsize,
}

/// A client: the same request through one node after the other, until somebody acknowledges it or it gives up.
pub(super) fn client(cell: &Cell, number: u64, clients: &Arc<Clients>) {
    let rafts: Vec<_> = cell.ids().into_iter().filter_map(|id| cell.raft(id)).collect();
    let clients = clients.clone();
    clients.trying.fetch_add(1, Ordering::Relaxed);
    spawn(async move {
        let entry = admit(number);
        for _ in 0..6 {
            let Some(raft) = rafts.get(draw_from(0..rafts.len().max(1) as u64) as usize) else { break };
            if let Some(answer) = propose(raft, &entry).await {
                // Done now or by an earlier try, and remembered: never a second time.
                assert_eq!(
                    answer,
                    Answer::Done { job: None, access: None, changed: true },
                    "request {number}"
                );
                clients.acknowledged.lock().unwrap().push(number);
                break;
            }
            sleep(Duration::from_millis(draw_from(1..200))).await;
        }
        clients.trying.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn story() -> Outcome {
    let mut cell = Cell::new(3).await;
    let found = Command::Found { cell: CellId("ab".repeat(32)), name: "sim".into(), generation: 1 };
    insist(&mut cell, &Entry { request: None, at_ms: 0, command: found }).await;
    let clients = Arc::<Clients>::default();
    let mut outcome = Outcome::default();
    let mut number = 0;
    for _ in 0..40 {
        let ids = cell.ids();
        let anyone = ids[draw_from(0..ids.len() as u64) as usize];
        match draw_from(0..20) {
            0 => {
                if let Some(leader) = cell.leader() {
                    cell.crash(leader);
                    outcome.crashes += 1;
                }
            }
            1 => {
                cell.crash(anyone);
                outcome.crashes += 1;
            }
            2 | 3 => cell.start_all().await,
            4 => cell.split(&BTreeSet::from([anyone]), true),
            5 => cell.split(&BTreeSet::from([anyone]), false),
            6 | 7 => cell.net.heal(),
            8 => cell.net.set_loss(if happens(500) { draw_from(10..300) } else { 0 }),
            9 => cell.fill(anyone, true),
            10 => ids.iter().for_each(|id| cell.fill(*id, false)),
            _ => {
                for _ in 0..draw_from(1..4) {
                    number += 1;
                    client(&cell, number, &clients);
                }
            }
        }
        // Mostly the next thing follows at once; at times there is time for an election.
        let micros = if happens(150) { draw_from(500_000..1_500_000) } else { draw_from(0..100_000) };
        sleep(Duration::from_micros(micros)).await;
        cell.reap();
        cell.check();
    }

    // Everything works again: so must the ledger, and nothing that was acknowledged may be missing.
    cell.net.heal();
    cell.net.set_loss(0);
    cell.ids().into_iter().for_each(|id| cell.fill(id, false));
    cell.start_all().await;
    insist(&mut cell, &admit(number + 1)).await;
    let limit = now() + 20_000_000_000;
    while clients.trying.load(Ordering::Relaxed) > 0
        || cell.ids().iter().any(|id| cell.ledger(*id) != cell.ledger(NodeId(1)))
    {
        assert!(now() < limit, "a voter does not catch up though nothing is broken");
        sleep(Duration::from_millis(50)).await;
        cell.check();
    }
    let ledger = cell.ledger(NodeId(1));
    let acknowledged = clients.acknowledged.lock().unwrap().clone();
    for number in &acknowledged {
        assert!(ledger.roster.contains_key(&NodeId(1000 + number)), "acknowledged request {number} is lost");
    }
    outcome.acknowledged = acknowledged.len();
    outcome.elections = cell.elections();
    outcome.chunks = cell.net.chunks();
    outcome
}

#[test]
fn nothing_acknowledged_is_lost_and_the_ledger_comes_back() {
    let (seeds, all) = (seeds(200), Mutex::new(Outcome::default()));
    let count = seeds.clone().count();
    play(seeds, |seed| {
        let (outcome, _) = run(seed, story());
        let mut all = all.lock().unwrap();
        all.acknowledged += outcome.acknowledged;
        all.elections += outcome.elections;
        all.chunks += outcome.chunks;
        all.crashes += outcome.crashes;
        Ok(())
    });
    let all = all.into_inner().unwrap();
    println!("{count} seeds: {all:?}");
    if count > 100 {
        // Otherwise the runs above show nothing.
        assert!(all.acknowledged > 10 * count, "{all:?}");
        assert!(all.elections > 2 * count, "{all:?}");
        assert!(all.chunks as usize > count, "{all:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut hashes = BTreeSet::new();
    for seed in 0..10 {
        let (first, again) = (run(seed, story()), run(seed, story()));
        assert_eq!(first, again, "seed {seed}");
        hashes.insert(first.1);
    }
    assert_eq!(hashes.len(), 10, "different seeds are different runs");
}

#[test]
fn a_new_leader_stands_about_a_second_after_the_old_one_fell_silent() {
    for seed in 0..20 {
        let (took, _) = run(seed, async {
            let mut cell = Cell::new(3).await;
            let found = Command::Found { cell: CellId("ab".repeat(32)), name: "sim".into(), generation: 1 };
            insist(&mut cell, &Entry { request: None, at_ms: 0, command: found }).await;
            let start = now();
            let leader = cell.leader().unwrap();
            cell.crash(leader);
            while cell.leader().is_none() {
                sleep(Duration::from_millis(10)).await;
            }
            Duration::from_nanos(now() - start)
        });
        assert!(took < seconds(2), "seed {seed}: {took:?}");
    }
}
