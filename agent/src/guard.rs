//! Takes memory back from what may be interrupted, in time: before production has to wait for it, and before the kernel has
//! to choose whom to kill. `decide` says when, `who` who; this is the loop round them, on a thread of its own. (`disk` is the
//! same for the disk, which fills more slowly.)

pub(crate) mod capacity;
pub(crate) mod decide;
pub(crate) mod disk;
mod ease;
pub(crate) mod room;
pub(crate) mod signals;
pub(crate) mod who;

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use oci::cgroup::{Alarm, Band, Ceiling, Floor, Gauge, Woken};
use placement::{
    job,
    resources::{MEMORY, Resources},
};

use self::{
    decide::{Decider, Node},
    who::{Chooser, Tenant},
};
use crate::{
    clock,
    core::Core,
    daemon::inbox::NodeHandle,
    event::{Event, RunId},
    journal::Journal,
    runner::{Ground, prepare::band},
};

/// Between two looks at what seldom changes: limits above, production's limits.
const SELDOM: Duration = Duration::from_secs(2);
/// How long the node's loop may take to say who is here.
const ANSWER: Duration = Duration::from_millis(200);
/// Before ordinary threads: it runs for microseconds. So does membership: an overloaded node must not look dead.
const NICE: i32 = -10;
/// A change of what is free that is worth telling: this share of the capacity.
const WORTH_TELLING: u64 = 20;

/// Who may use how much of the node.
pub(crate) struct Bounds {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// What the operator allows.
    pub(crate) most: Resources,
}

/// Guards the node until its loop ends.
pub(crate) fn start(ground: Arc<Ground>, node: NodeHandle, journal: Journal, bounds: Bounds) {
    let spawned = thread::Builder::new().name("guard".into()).spawn({
        let journal = journal.clone();
        move || {
            hasten(0);
            threads("members").for_each(hasten);
            let Some(mut guard) = Guard::new(ground, node, journal, bounds) else { return };
            while let Some(pause) = guard.look() {
                guard.rest(pause);
            }
        }
    });
    if let Err(error) = spawned {
        journal.node("warning", format!("nobody guards production's memory: no thread for it: {error}"));
    }
}

/// Not everybody may; it works without. 0 is the calling thread.
fn hasten(thread: u32) {
    // SAFETY: changes a number of a thread's.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, NICE) };
}

/// This process's threads of that name.
fn threads(name: &'static str) -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    all.filter(move |thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
    .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
}

struct Guard {
    ground: Arc<Ground>,
    node: NodeHandle,
    journal: Journal,
    bounds: Bounds,
    gauge: Gauge,
    ceiling: Option<Ceiling>,
    floor: Option<Floor>,
    alarm: Option<Alarm>,
    decider: Decider,
    chooser: Chooser,
    about: Node,
    capacity: Resources,
    looked_up: Option<Instant>,
    told_free: Option<u64>,
    /// What was complained of last: once.
    trouble: Option<String>,
}

impl Guard {
    fn new(ground: Arc<Ground>, node: NodeHandle, journal: Journal, bounds: Bounds) -> Option<Guard> {
        let Some(gauge) = ground.tree.gauge() else {
            let text =
                "there is no memory controller: nothing is taken back for production when memory is short";
            journal.node("warning", text.to_string());
            return None;
        };
        let ceiling = ground.tree.ceiling().unwrap_or_else(|error| {
            journal.node("warning", format!("batch and free have no ceiling of memory: {error}"));
            None
        });
        let (floor, alarm) = (ground.tree.floor(), ground.tree.alarm());
        Some(Guard {
            ground,
            node,
            journal,
            bounds,
            gauge,
            ceiling,
            floor,
            about: Node { alarmed: alarm.is_some(), ..Node::default() },
            alarm,
            decider: Decider::default(),
            chooser: Chooser::default(),
            capacity: Resources::default(),
            looked_up: None,
            told_free: None,
            trouble: None,
        })
    }

    /// One look, and how long to wait for the next; `None` once the node's loop has ended.
    fn look(&mut self) -> Option<Duration> {
        if self.looked_up.is_none_or(|at| at.elapsed() >= SELDOM) {
            self.look_up()?;
        }
        let Some(memory) = self.gauge.look(self.about.capacity) else {
            // Ceilings stay where they are: nobody gets more while nobody knows.
            self.complain(
                "the node's memory cannot be read from its cgroups: batch and free get no more of it",
            );
            return Some(SELDOM);
        };
        let now = clock::now().mono_ms;
        let step = self.decider.look(now, &memory, &self.about);
        if let Some(ceiling) = &mut self.ceiling
            && let Err(error) = ceiling.put(step.ceiling.0, step.ceiling.1)
        {
            self.complain(&format!("the ceiling of batch and free cannot be moved: {error}"));
        }
        if let Some(shortage) = &step.shortage {
            for eviction in self.chooser.choose(now, shortage, &self.tenants()) {
                self.node.tell(eviction.event());
            }
        }
        let worth = self.about.capacity / WORTH_TELLING;
        if self.told_free.is_none_or(|told| told.abs_diff(memory.free) > worth) {
            self.told_free = Some(memory.free);
            self.node.tell(Event::Free { memory: memory.free });
        }
        Some(Duration::from_millis(step.pause_ms))
    }

    /// Until the next look: where the kernel tells that somebody waits for memory, no longer than that.
    fn rest(&mut self, pause: Duration) {
        match self.alarm.as_ref().map(|alarm| alarm.wait(pause)) {
            None => thread::sleep(pause),
            Some(Woken::InTime) => {}
            Some(Woken::Alarmed) => self.gauge.forget(),
            Some(Woken::Broken) => (self.alarm, self.about.alarmed) = (None, false),
        }
    }

    /// What seldom changes. The core may be busy: then it is as before.
    fn look_up(&mut self) -> Option<()> {
        let first = self.looked_up.replace(Instant::now()).is_none();
        self.gauge.look_up(&self.ground.tree);
        let capacity = capacity::of(&self.ground.tree, &self.bounds.data, &self.bounds.most);
        let changed = std::mem::replace(&mut self.capacity, capacity.clone()) != capacity;
        self.about.capacity = capacity.get(MEMORY);
        if changed && !first {
            self.node.tell(Event::Capacity(capacity));
        }
        let floor = self.floor.is_some();
        let of_prod = move |core: &Core| {
            let bands = core.books().bands;
            let prod = bands.iter().filter(|(band, _)| band.is_prod());
            let limits = prod.map(|(_, book)| book.limit.get(MEMORY)).sum::<u64>();
            (limits, if floor { core.needs() } else { Vec::new() })
        };
        if let Some((limits, needs)) = self.node.read_within(ANSWER, of_prod).ok()? {
            self.about.prod_limits = limits;
            self.keep(&needs);
        }
        Some(())
    }

    /// What production needs stays with it.
    fn keep(&mut self, needs: &[(RunId, job::Band, u64)]) {
        let Some(floor) = &mut self.floor else { return };
        let of = |&(run, on, bytes): &(RunId, job::Band, u64)| (band(on), run.to_string(), bytes);
        let runs: Vec<(Band, String, u64)> = needs.iter().map(of).collect();
        if let Err(error) = floor.put(&runs, self.about.capacity) {
            self.complain(&format!("memory cannot be kept for production: {error}"));
        }
    }

    /// Those who may have to go, with what they use now.
    fn tenants(&self) -> Vec<Tenant> {
        let listed = self.node.read_within(ANSWER, Core::interruptible);
        let mut tenants = listed.ok().flatten().unwrap_or_default();
        for tenant in &mut tenants {
            // Who cannot be measured may use what it is believed to need.
            tenant.used = used(&self.ground, tenant).unwrap_or(tenant.reserved);
        }
        tenants
    }

    fn complain(&mut self, text: &str) {
        if self.trouble.as_deref() != Some(text) {
            self.trouble = Some(text.to_string());
            tracing::warn!("{text}");
            self.journal.node("warning", text.to_string());
        }
    }
}

/// Memory in use, in bytes.
fn used(ground: &Ground, tenant: &Tenant) -> Option<u64> {
    ground.tree.placement(band(tenant.band), &tenant.run.to_string()).memory()
}
