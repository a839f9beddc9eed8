//! What tasks use, measured now and then: CPU and memory by their cgroups, disk by a look at what they have written; and how
//! far their logs have got.
//!
//! A node may have hundreds of tasks, most of which do nothing most of the time. So one file tells whether a run has used
//! any CPU, and only of one that has, the rest is looked at.

mod disk;
mod figure;
pub(crate) mod guard;
pub(crate) mod learned;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use oci::{
    bundle::Bundle,
    cgroup::{Placement, Tree},
};
use placement::{
    job::Band,
    resources::{CPU, DISK, MEMORY, Resources},
    task::Strain,
};
use tokio::{task::spawn_blocking, time::sleep};

use self::{
    disk::Disks,
    figure::{Counted, Machine, Trouble},
};
use crate::{
    clock,
    core::Core,
    daemon::inbox::NodeHandle,
    event::{Event, RunId},
    journal::Journal,
    logs::marks::Marks,
    runner::{Ground, prepare::band},
};

/// Between two measurements.
const EVERY: Duration = Duration::from_secs(2);
/// Where disk is held to a limit, it is looked at more often: what is written until then is too much.
const DISK_EVERY: Duration = Duration::from_millis(500);
/// More for each task, so that many cost no more than a few percent of a core.
const EACH: Duration = Duration::from_millis(8);
/// The kernel may take memory from a run that does nothing.
const MEMORY_MS: u64 = 30_000;
/// How those fare that have done something is looked at so often.
const STRAIN_MS: u64 = 10_000;
const NO_PRESSURE: &str = "this kernel does not tell who waits for CPU, memory or IO (PSI): that is not shown, and want of \
                           memory is noticed later. It can with CONFIG_PSI and, where that is off at first, with psi=1 on its \
                           command line";

/// The last look at a run.
struct Seen {
    /// CPU time used until then, microseconds, if the host tells.
    cpu_us: Option<u64>,
    /// When that was: monotonic, as all times here.
    at_ms: u64,
    memory: Option<u64>,
    memory_at_ms: u64,
    /// When it was looked at how it fares, and what stood there.
    counted: Option<Counted>,
}

/// What is known from the looks before.
struct Known {
    runs: BTreeMap<RunId, Seen>,
    /// The last look at how bands fare.
    bands: BTreeMap<Band, Counted>,
    disks: Disks,
    marks: Marks,
    machine: Machine,
    /// What was said already.
    told: BTreeSet<Trouble>,
}

/// What one round of looks has found.
#[derive(Default)]
struct Round {
    usage: BTreeMap<RunId, Resources>,
    strain: BTreeMap<RunId, Strain>,
    /// Of bands, if it was time to look at them.
    bands: Option<BTreeMap<Band, Strain>>,
    troubles: Vec<Trouble>,
}

/// What this node cannot measure.
pub(crate) fn warnings() -> Option<String> {
    (!Path::new("/proc/pressure/cpu").exists()).then(|| NO_PRESSURE.to_string())
}

/// Measures until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle, journal: Journal) {
    let disks = Disks::new(&ground.bundles, ground.anonymous.clone());
    let (machine, told) = (Machine::this(), BTreeSet::new());
    let bands = BTreeMap::new();
    let mut known = Known { runs: BTreeMap::new(), bands, disks, marks: Marks::default(), machine, told };
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        let Some(running) = node.read(Core::to_measure).await else { return };
        let limited = running.iter().any(|(.., disk)| disk.is_some());
        pause = (if limited { DISK_EVERY } else { EVERY }).max(EACH * running.len() as u32);
        let ground = ground.clone();
        let measured = spawn_blocking(move || {
            let round = known.measure(&ground, &running);
            (round, known)
        });
        let Ok((round, now)) = measured.await else { return };
        known = now;
        for trouble in round.troubles {
            journal.warn(trouble.to_string());
        }
        if !round.strain.is_empty() {
            node.tell(Event::Strained(round.strain));
        }
        if let Some(bands) = round.bands {
            node.tell(Event::BandsStrained(bands));
        }
        if !round.usage.is_empty() {
            node.tell(Event::Measured(round.usage));
        }
    }
}

impl Known {
    fn measure(&mut self, ground: &Ground, running: &[(RunId, Band, Option<u64>)]) -> Round {
        let mut round = Round::default();
        let mut before = std::mem::take(&mut self.runs);
        self.disks.begin(running.iter().map(|(run, ..)| *run));
        self.marks.begin(running.iter().map(|(run, ..)| *run));
        for &(run, on, disk) in running {
            let cgroup = ground.tree.placement(band(on), &run.to_string());
            let last = before.remove(&run);
            let mut now = Seen::look(&cgroup, last.as_ref(), clock::now().mono_ms);
            let figures = self.machine.figures(last.as_ref().map(Seen::cpu), now.cpu(), now.memory);
            if figures.iter().any(Result::is_err) && !cgroup.is_there() {
                // It has ended meanwhile.
                continue;
            }
            let mut used = Resources::default();
            for (name, figure) in [CPU, MEMORY].into_iter().zip(figures) {
                match figure {
                    Ok(amount) => used.set(name, amount),
                    Err(trouble) if self.told.insert(trouble) => round.troubles.push(trouble),
                    Err(_) => {}
                }
            }
            used.set(DISK, self.disks.used(run, disk, now.cpu_us, now.at_ms));
            round.usage.insert(run, used);
            round.strain.extend(now.strain(&cgroup, last.as_ref()).map(|strain| (run, strain)));
            let bundle = Bundle::at(ground.bundles.join(run.to_string()));
            self.marks.look(run, &bundle.log(), now.cpu_us, clock::now());
            self.runs.insert(run, now);
        }
        let on: BTreeSet<Band> = running.iter().map(|(_, on, _)| *on).collect();
        round.bands = self.look_at_bands(&ground.tree, &on, clock::now().mono_ms);
        round
    }

    /// Those that have tasks, now and then, and at once when there are others than before.
    fn look_at_bands(
        &mut self,
        tree: &Tree,
        on: &BTreeSet<Band>,
        at_ms: u64,
    ) -> Option<BTreeMap<Band, Strain>> {
        let due = |last: &Counted| at_ms >= last.at_ms + STRAIN_MS;
        if self.bands.keys().eq(on) && !self.bands.values().any(due) {
            return None;
        }
        let before = std::mem::take(&mut self.bands);
        let mut strain = BTreeMap::new();
        for &on in on {
            let now = Counted { at_ms, cpu_us: None, busy: true, counters: tree.counters(band(on)) };
            strain.extend(before.get(&on).map(|before| (on, now.since(before))));
            self.bands.insert(on, now);
        }
        Some(strain)
    }
}

impl Seen {
    fn look(cgroup: &Placement, last: Option<&Seen>, at_ms: u64) -> Seen {
        let cpu_us = cgroup.cpu_us();
        let still =
            |last: &&Seen| cpu_us.is_some() && last.cpu_us == cpu_us && at_ms < last.memory_at_ms + MEMORY_MS;
        let (memory, memory_at_ms) = match last.filter(still) {
            Some(last) => (last.memory, last.memory_at_ms),
            None => (cgroup.memory(), at_ms),
        };
        Seen { cpu_us, at_ms, memory, memory_at_ms, counted: None }
    }

    fn cpu(&self) -> (Option<u64>, u64) {
        (self.cpu_us, self.at_ms)
    }

    /// How the run fares, now and then, and again when it has gone quiet.
    fn strain(&mut self, cgroup: &Placement, last: Option<&Seen>) -> Option<Strain> {
        let before = last.and_then(|last| last.counted);
        let due = |before: &Counted| {
            self.at_ms >= before.at_ms + STRAIN_MS && (before.cpu_us != self.cpu_us || before.busy)
        };
        self.counted = before;
        if before.as_ref().is_some_and(|before| !due(before)) {
            return None;
        }
        let busy = before.is_none_or(|before| before.cpu_us != self.cpu_us);
        let now = Counted { at_ms: self.at_ms, cpu_us: self.cpu_us, busy, counters: cgroup.counters() };
        self.counted = Some(now);
        Some(now.since(&before?))
    }
}
