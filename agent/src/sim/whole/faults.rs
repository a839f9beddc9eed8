//! What may go wrong, by chance; and its end.

use std::{collections::BTreeSet, time::Duration};

use placement::{
    ids::NodeId,
    ledger::{Command, Entry},
};

use super::{
    clients::ask,
    machine::Machine,
    rules::Rule,
    world::{Shared, Telling, World},
};
use crate::{
    event::Event,
    sim::{
        cell::{Cell, propose},
        runtime::{draw_from, happens, kill, now, sleep},
    },
};

/// The cell, its ledger apart: starting that takes time.
pub(super) struct Run {
    pub(super) cell: Cell,
    pub(super) world: Shared,
    /// Groups of machines are far from those of agents.
    machines: u64,
}

impl Run {
    /// Of so many nodes that all know each other; `late` more will join.
    pub(super) async fn begin(size: u64, late: u64, telling: Telling, without: Option<Rule>) -> Run {
        let cell = Cell::of(size + late, placement::voters::size(size as usize) as u64).await;
        let world = World::new(cell.net.clone(), telling, without);
        let mut run = Run { cell, world, machines: 1 << 40 };
        let found = Command::Found {
            cell: placement::ids::CellId("ab".repeat(32)),
            name: "sim".into(),
            generation: 1,
        };
        run.insist(found).await;
        for id in run.cell.ids().into_iter().take(size as usize) {
            run.insist(admit(id)).await;
            run.admitted(id);
        }
        for id in run.ids() {
            run.boot(id);
        }
        run
    }

    async fn insist(&mut self, command: Command) {
        let entry = Entry { request: None, at_ms: 0, command };
        loop {
            if let Some(raft) = self.cell.leader().and_then(|id| self.cell.raft(id))
                && propose(&raft, &entry).await.is_some()
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Those that have joined.
    fn ids(&self) -> Vec<NodeId> {
        self.world.lock().unwrap().ids()
    }

    /// The next one joins, if a majority is there for it.
    async fn join(&mut self) {
        let mut late =
            self.cell.ids().into_iter().filter(|id| !self.world.lock().unwrap().machines.contains_key(id));
        let Some(id) = late.next() else { return };
        let entry = Entry { request: None, at_ms: 0, command: admit(id) };
        if let Some(raft) = self.cell.leader().and_then(|leader| self.cell.raft(leader))
            && propose(&raft, &entry).await.is_some()
            && self.cell.leader().is_some_and(|leader| self.cell.ledger(leader).roster.contains_key(&id))
        {
            self.admitted(id);
            self.boot(id);
            self.world.lock().unwrap().reached("join");
        }
    }

    fn admitted(&mut self, id: NodeId) {
        let ledgers = self.cell.ids().into_iter().map(|id| self.cell.ledger(id));
        let admitted =
            ledgers.filter_map(|ledger| ledger.roster.get(&id).map(|member| member.admitted)).max();
        let mut machine = Machine::new(id);
        machine.admitted = admitted.unwrap();
        self.world.lock().unwrap().machines.insert(id, machine);
        self.power_on(id);
    }

    fn power_on(&mut self, id: NodeId) {
        self.machines += 1;
        self.world.lock().unwrap().machines.get_mut(&id).unwrap().switch_on(self.machines);
    }

    /// The agent beside a ledger that has started.
    fn boot(&mut self, id: NodeId) {
        if let (Some(group), Some(raft)) = (self.cell.group(id), self.cell.raft(id)) {
            self.world.lock().unwrap().boot(id, group, raft, self.cell.view(id), self.cell.heard(id));
        }
    }

    /// Starts what is off.
    pub(super) async fn start(&mut self, id: NodeId) {
        if self.cell.live().contains(&id) {
            return;
        }
        if self.world.lock().unwrap().machines[&id].power.is_none() {
            self.power_on(id);
        }
        self.cell.start(id).await;
        self.boot(id);
    }

    pub(super) async fn start_all(&mut self) {
        for id in self.ids() {
            self.start(id).await;
        }
    }

    /// The agent is killed; with the power its machine is off, too.
    fn crash(&mut self, id: NodeId, power: bool) {
        self.cell.crash(id);
        let mut world = self.world.lock().unwrap();
        world.agent_died(id);
        let machine = world.machines.get_mut(&id).unwrap();
        if power && let Some(group) = machine.power {
            machine.switch_off();
            kill(group);
            world.say(|_| format!("n{} its power fails", id.0));
        }
        world.look_at(id);
    }

    /// One thing happens; then some time passes.
    pub(super) async fn action(&mut self) {
        let ids = self.ids();
        let anyone = ids[draw_from(0..ids.len() as u64) as usize];
        let leader = self.cell.leader().unwrap_or(anyone);
        match draw_from(0..100) {
            0..7 => self.crash(anyone, false),
            7..12 => self.crash(anyone, true),
            12..15 => self.crash(leader, happens(500)),
            15..27 => self.start(anyone).await,
            27..30 => self.start_all().await,
            30..34 => self.split(&BTreeSet::from([leader]), true),
            34..39 => self.split(&ids.iter().filter(|_| happens(400)).copied().collect(), true),
            39..42 => self.split(&ids.iter().filter(|_| happens(300)).copied().collect(), false),
            42..52 => self.heal(),
            52..56 => self.lose(if happens(500) { draw_from(10..250) } else { 0 }),
            56..59 => self.world.lock().unwrap().break_one(),
            59 => self.join().await,
            60 => self.world.lock().unwrap().capacity(anyone, happens(500)),
            61..65 => self.world.lock().unwrap().evict(anyone),
            65..67 => self.world.lock().unwrap().dislike(anyone),
            _ => ask(&self.world, false),
        }
        // Mostly soon; at times there is time for an election, or for a verdict and its consequences.
        let millis = match draw_from(0..20) {
            0 => 5_000,
            1..=4 => 1_500,
            _ => 250,
        };
        self.pass(draw_from(1..millis)).await;
    }

    pub(super) async fn pass(&mut self, millis: u64) {
        sleep(Duration::from_millis(millis)).await;
        self.cell.check();
        // A ledger's core that stopped is started again, and here its agent with it.
        for id in self.cell.stopped() {
            if self.ids().contains(&id) {
                self.crash(id, false);
                self.start(id).await;
            }
        }
    }

    fn split(&mut self, one: &BTreeSet<NodeId>, both_ways: bool) {
        let what = if both_ways { "are cut off" } else { "are not heard any more" };
        self.world.lock().unwrap().say(|_| format!("{one:?} {what}"));
        self.cell.split(one, both_ways);
    }

    pub(super) fn heal(&mut self) {
        self.world.lock().unwrap().say(|_| "no cuts any more".into());
        self.cell.net.heal();
    }

    pub(super) fn lose(&mut self, per_mille: u64) {
        self.world.lock().unwrap().say(|_| format!("{per_mille} of 1000 messages are lost"));
        self.cell.net.set_loss(per_mille);
    }

    /// Nothing fails by itself any more.
    pub(super) fn calm(&mut self) {
        let mut world = self.world.lock().unwrap();
        world.say(|_| "calm".into());
        world.calm = true;
        for id in world.ids() {
            world.capacity(id, false);
            world.core(id, Event::Free { memory: 1 << 30 });
        }
    }

    /// All that were drained are in use again.
    pub(super) async fn undrain(&mut self) {
        for node in self.ids() {
            self.insist(Command::Drain { node, on: false }).await;
        }
    }

    /// What is wrong, if anything was.
    pub(super) fn verdict(&self) -> Result<(), String> {
        match self.world.lock().unwrap().checks.failed() {
            Some(text) => Err(text.clone()),
            None => Ok(()),
        }
    }

    /// Those that hear each other, make up majorities of all that may vote, and have nothing to do with anybody else: who
    /// is heard and hears nobody keeps calling elections, or goes on leading without an answer.
    pub(super) fn majority(&self) -> Option<BTreeSet<NodeId>> {
        let (live, net) = (self.cell.live(), &self.cell.net);
        let sides = live.iter().map(|one| -> BTreeSet<NodeId> {
            live.iter().filter(|other| !net.apart(*one, **other)).copied().collect()
        });
        let whole = |side: &BTreeSet<NodeId>| {
            let apart = |one: &NodeId, other: &NodeId| side.contains(other) && net.apart(*one, *other);
            side.iter().all(|one| live.iter().all(|other| !apart(one, other) && !net.half_cut(*one, *other)))
        };
        let electorates = self.cell.electorates();
        let votes = |side: &BTreeSet<NodeId>| {
            let majority = |set: &BTreeSet<NodeId>| set.intersection(side).count() * 2 > set.len();
            electorates.iter().all(majority)
        };
        sides.filter(|side| whole(side) && votes(side)).max_by_key(BTreeSet::len)
    }

    /// Waits for something; how long that took, in milliseconds.
    pub(super) async fn until(
        &mut self,
        at_most: u64,
        done: impl Fn(&Run) -> Result<(), String>,
    ) -> Result<u64, String> {
        let begun = now();
        loop {
            self.verdict()?;
            let missing = match done(self) {
                Ok(()) => return Ok((now() - begun) / 1_000_000),
                Err(missing) => missing,
            };
            if now() - begun > at_most * 1_000_000 {
                return Err(format!("after {at_most} ms {missing}"));
            }
            self.pass(50).await;
        }
    }
}

fn admit(id: NodeId) -> Command {
    Command::Admit { node: id, name: format!("n{}", id.0) }
}
