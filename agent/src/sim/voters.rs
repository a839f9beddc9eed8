//! A cell that grows from one node to seven, loses them one after another down to two, and gets them back, while its
//! voters follow `placement::voters`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use openraft::Raft;
use placement::{
    ids::{CellId, NodeId},
    ledger::{Command, Entry},
    voters::{Candidate, Patience, next_step, size},
};

use super::{
    cell::{Cell, propose},
    net::{Net, Sim},
    raft::{Clients, admit, client},
    runtime::{draw_from, happens, now, run, sleep, spawn_in},
    seeds::{play, seeds},
};
use crate::ledger::{Heard, StepError, seats, take};

const NODES: u64 = 7;
/// How often a leader looks whether something is to be done.
const LOOK: Duration = Duration::from_millis(100);
/// So many looks in a row have to say that somebody is dead, or back, before it is believed: membership, simplified.
const DEAD: u64 = 40;
const BACK: u64 = 10;
/// Within so many seconds after the last trouble all is settled: verdict, patience and an election, and then some.
const SETTLED: u64 = 15;

/// What a run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Outcome {
    acknowledged: usize,
    elections: usize,
    changes: usize,
    chunks: u64,
    crashes: usize,
    /// The longest that settling took, in milliseconds.
    slowest: u64,
    steps: Steps,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Steps {
    done: usize,
    finished: usize,
    late: usize,
    refused: usize,
}

/// The nodes that have joined, and the rack of each: known to all.
type Roster = Arc<Mutex<BTreeMap<NodeId, String>>>;

/// What of the daemon changes voters: looks around, and takes one step after the other while it leads.
async fn mind(
    raft: Raft<Sim>,
    id: NodeId,
    (net, heard): (Net, Heard),
    roster: Roster,
    steps: Arc<Mutex<Steps>>,
) {
    let mut known: BTreeMap<NodeId, Candidate> = BTreeMap::new();
    let mut doubts: BTreeMap<NodeId, u64> = BTreeMap::new();
    loop {
        sleep(LOOK).await;
        let now_ms = now() / 1_000_000;
        for (node, rack) in roster.lock().unwrap().clone() {
            let reached = node == id || net.reaches(id, node);
            let known = known.entry(node).or_insert(Candidate {
                rack,
                alive: reached,
                drained: false,
                since_ms: now_ms,
            });
            let doubt = doubts.entry(node).or_default();
            *doubt = if known.alive == reached { 0 } else { *doubt + 1 };
            let enough = if reached { BACK } else { DEAD };
            // A false verdict, now and then.
            if *doubt >= enough || (node != id && known.alive && happens(2)) {
                (known.alive, known.since_ms, *doubt) = (!known.alive, now_ms, 0);
            }
        }
        let seats = seats(&raft.metrics().borrow());
        let Some(seats) = seats else { continue };
        let found = |(node, known): (&NodeId, &Candidate)| {
            (*node, known.clone().unless_silent(heard.silence(*node, now_ms)))
        };
        let found = known.iter().map(found).collect();
        let Some(step) = next_step(&seats, &found, Patience::default(), now_ms) else { continue };
        let taken = take(&raft, step).await;
        let mut steps = steps.lock().unwrap();
        match taken {
            Ok(()) if step == placement::voters::VoterStep::Finish => steps.finished += 1,
            Ok(()) => steps.done += 1,
            Err(StepError::Late { .. }) => steps.late += 1,
            Err(_) => steps.refused += 1,
        }
    }
}

struct Story {
    cell: Cell,
    roster: Roster,
    steps: Arc<Mutex<Steps>>,
    clients: Arc<Clients>,
    /// The group of each node that is minded.
    minded: BTreeMap<NodeId, u64>,
    number: u64,
    slowest: u64,
}

impl Story {
    async fn begin() -> Story {
        let mut cell = Cell::new(1).await;
        let roster = Roster::default();
        roster.lock().unwrap().insert(NodeId(1), "rack1".into());
        // Of its own accord it leads.
        while cell.leader().is_none() {
            sleep(LOOK).await;
        }
        cell.check();
        let mut story = Story {
            cell,
            roster,
            steps: Arc::default(),
            clients: Arc::default(),
            minded: BTreeMap::new(),
            number: 0,
            slowest: 0,
        };
        let found = Command::Found { cell: CellId("ab".repeat(32)), name: "sim".into(), generation: 1 };
        story.insist(&Entry { request: None, at_ms: 0, command: found }, &BTreeSet::new()).await;
        story
    }

    /// Has each node that lives minded, once.
    fn mind(&mut self) {
        for id in self.cell.live() {
            let (Some(group), Some(raft)) = (self.cell.group(id), self.cell.raft(id)) else { continue };
            if self.minded.insert(id, group) != Some(group) {
                let (eyes, roster) = ((self.cell.net.clone(), self.cell.heard(id)), self.roster.clone());
                spawn_in(group, mind(raft, id, eyes, roster, self.steps.clone()));
            }
        }
    }

    fn look(&mut self) {
        self.mind();
        self.cell.reap();
        self.cell.check();
    }

    async fn join(&mut self, id: NodeId) {
        self.roster.lock().unwrap().insert(id, format!("rack{}", id.0 % 3));
        self.cell.add(id).await;
        self.look();
    }

    fn submit(&mut self) {
        for _ in 0..draw_from(1..4) {
            self.number += 1;
            client(&self.cell, self.number, &self.clients);
        }
    }

    /// Starts all but those that are to stay away.
    async fn start_but(&mut self, gone: &BTreeSet<NodeId>) {
        for id in self.cell.ids() {
            if !gone.contains(&id) && !self.cell.live().contains(&id) {
                self.cell.start(id).await;
            }
        }
        self.look();
    }

    async fn insist(&mut self, entry: &Entry, gone: &BTreeSet<NodeId>) {
        let limit = now() + SETTLED * 1_000_000_000;
        loop {
            if let Some(raft) = self.cell.leader().and_then(|id| self.cell.raft(id))
                && propose(&raft, entry).await.is_some()
            {
                return;
            }
            assert!(now() < limit, "nothing is committed though a majority is there");
            sleep(LOOK).await;
            self.start_but(gone).await;
        }
    }

    /// The leader's applied seats are what they should be for those that live.
    fn settled(&self) -> bool {
        let live = self.cell.live();
        let Some(leader) = self.cell.leader() else { return false };
        let Some(seats) = self.cell.raft(leader).and_then(|raft| seats(&raft.metrics().borrow())) else {
            return false;
        };
        let roster = self.roster.lock().unwrap();
        let racks = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| &roster[id]).collect::<BTreeSet<_>>().len();
        seats.voters.len() == size(live.len())
            && seats.voters.is_subset(&live)
            && seats.learners.is_empty()
            && racks(&seats.voters) == racks(&live).min(seats.voters.len())
    }

    /// Waits until the voters are settled; then an entry is committed.
    async fn settle(&mut self, gone: &BTreeSet<NodeId>) {
        let (start, limit) = (now(), now() + SETTLED * 1_000_000_000);
        while !self.settled() {
            if now() >= limit {
                let leader = self.cell.leader().and_then(|id| self.cell.raft(id));
                let shown = leader.map(|raft| raft.metrics().borrow().to_string());
                panic!("the voters do not settle; live: {:?}, leader: {shown:?}", self.cell.live());
            }
            sleep(LOOK).await;
            self.start_but(gone).await;
        }
        self.slowest = self.slowest.max((now() - start) / 1_000_000);
        self.number += 1;
        self.insist(&admit(self.number), gone).await;
    }

    /// Waits for a moment at which the voters are changing, and tells whose change it is.
    async fn midst(&self) -> Option<NodeId> {
        let limit = now() + 4_000_000_000;
        while now() < limit {
            if let Some(leader) = self.cell.leader()
                && let Some(raft) = self.cell.raft(leader)
            {
                let metrics = raft.metrics();
                // Leaders change less often.
                for _ in 0..50 {
                    let changing = {
                        let metrics = metrics.borrow();
                        let members = &metrics.membership_config;
                        let under_way = metrics.last_applied < *members.log_id();
                        under_way || members.membership().get_joint_config().len() > 1
                    };
                    if changing {
                        return Some(leader);
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            } else {
                sleep(LOOK).await;
            }
        }
        None
    }

    async fn trouble(&mut self) -> usize {
        let mut crashes = 0;
        let ids = self.cell.ids();
        let anyone = ids[draw_from(0..ids.len() as u64) as usize];
        let some = ids.iter().filter(|_| happens(400)).copied().collect();
        match draw_from(0..22) {
            0 => {
                if let Some(leader) = self.cell.leader() {
                    self.cell.crash(leader);
                    crashes += 1;
                }
            }
            1 | 2 => {
                self.cell.crash(anyone);
                crashes += 1;
            }
            3..=5 => self.start_but(&BTreeSet::new()).await,
            6 => self.cell.split(&some, true),
            7 => self.cell.split(&some, false),
            8..=10 => self.cell.net.heal(),
            11 => self.cell.net.set_loss(if happens(500) { draw_from(10..200) } else { 0 }),
            12 => self.cell.fill(anyone, true),
            // Somebody goes, and just as the voters change for it their leader does, or is alone, or the one who went is back.
            13..=16 => {
                self.cell.crash(anyone);
                crashes += 1;
                if let Some(leader) = self.midst().await {
                    match draw_from(0..4) {
                        0 => self.cell.split(&BTreeSet::from([leader]), happens(500)),
                        1 => self.start_but(&BTreeSet::new()).await,
                        _ => {
                            self.cell.crash(leader);
                            crashes += 1;
                        }
                    }
                }
            }
            17 => ids.iter().for_each(|id| self.cell.fill(*id, false)),
            _ => self.submit(),
        }
        // Mostly soon; at times there is time for an election, or for a verdict and its consequences.
        let millis = match draw_from(0..20) {
            0 => 9_000,
            1..=4 => 1_500,
            _ => 200,
        };
        sleep(Duration::from_millis(draw_from(1..millis))).await;
        self.look();
        crashes
    }

    fn heal(&mut self) {
        self.cell.net.heal();
        self.cell.net.set_loss(0);
        self.cell.ids().into_iter().for_each(|id| self.cell.fill(id, false));
    }
}

async fn story() -> Outcome {
    let mut story = Story::begin().await;
    let nobody = BTreeSet::new();
    let mut crashes = 0;
    for id in 2..=NODES {
        story.join(NodeId(id)).await;
        story.submit();
        if happens(300) {
            story.settle(&nobody).await;
        }
        sleep(Duration::from_millis(draw_from(1..1_000))).await;
    }
    story.settle(&nobody).await;
    for _ in 0..30 {
        crashes += story.trouble().await;
    }
    story.heal();
    story.start_but(&nobody).await;
    story.settle(&nobody).await;
    // Down to two, with no command.
    let mut gone = BTreeSet::new();
    while story.cell.live().len() > 2 {
        let live: Vec<_> = story.cell.live().into_iter().collect();
        let next = story.cell.leader().filter(|_| happens(300));
        let next = next.unwrap_or(live[draw_from(0..live.len() as u64) as usize]);
        gone.insert(next);
        story.cell.crash(next);
        crashes += 1;
        story.submit();
        story.settle(&gone).await;
    }
    story.start_but(&nobody).await;
    story.settle(&nobody).await;
    finish(story, crashes).await
}

/// Nothing that was acknowledged is missing, and the voters have it.
async fn finish(mut story: Story, crashes: usize) -> Outcome {
    let limit = now() + 20_000_000_000;
    loop {
        let leader = story.cell.leader().unwrap();
        let voters: Vec<_> =
            story.cell.raft(leader).unwrap().metrics().borrow().membership_config.voter_ids().collect();
        let ledger = story.cell.ledger(leader);
        let same = voters.iter().all(|id| story.cell.ledger(*id) == ledger);
        if same && story.clients.trying.load(Ordering::Relaxed) == 0 {
            break;
        }
        assert!(now() < limit, "a voter does not catch up though nothing is broken");
        sleep(LOOK).await;
        story.look();
    }
    let ledger = story.cell.ledger(story.cell.leader().unwrap());
    let acknowledged = story.clients.acknowledged.lock().unwrap().clone();
    for number in &acknowledged {
        assert!(ledger.roster.contains_key(&NodeId(1000 + number)), "acknowledged request {number} is lost");
    }
    let steps = story.steps.lock().unwrap().clone();
    Outcome {
        acknowledged: acknowledged.len(),
        elections: story.cell.elections(),
        changes: story.cell.changes(),
        chunks: story.cell.net.chunks(),
        crashes,
        slowest: story.slowest,
        steps,
    }
}

#[test]
fn voters_follow_the_nodes_and_nothing_is_lost() {
    let (seeds, all) = (seeds(100), Mutex::new(Outcome::default()));
    let count = seeds.clone().count();
    play(seeds, |seed| {
        let (outcome, _) = run(seed, story());
        let mut all = all.lock().unwrap();
        all.acknowledged += outcome.acknowledged;
        all.elections += outcome.elections;
        all.changes += outcome.changes;
        all.chunks += outcome.chunks;
        all.crashes += outcome.crashes;
        all.slowest = all.slowest.max(outcome.slowest);
        all.steps.done += outcome.steps.done;
        all.steps.finished += outcome.steps.finished;
        all.steps.late += outcome.steps.late;
        all.steps.refused += outcome.steps.refused;
        Ok(())
    });
    let all = all.into_inner().unwrap();
    println!("{count} seeds: {all:?}");
    if count >= 100 {
        // Otherwise the runs above show nothing.
        assert!(all.steps.done > 20 * count, "{all:?}");
        assert!(all.elections > 3 * count, "{all:?}");
        assert!(all.steps.finished > 0, "no change was left half done: {all:?}");
    }
}

#[test]
fn the_same_seed_changes_voters_in_the_same_way() {
    for seed in 0..5 {
        assert_eq!(run(seed, story()), run(seed, story()), "seed {seed}");
    }
}
