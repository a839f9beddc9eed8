//! What tasks use, measured now and then: CPU and memory by their cgroups, disk by a look at what they have written; and how
//! far their logs have got.
//!
//! A node may have hundreds of tasks, most of which do nothing most of the time. So one file tells whether a run has used
//! any CPU, and only of one that has, the rest is looked at.

mod disk;
pub(crate) mod guard;
pub(crate) mod learned;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oci::{bundle::Bundle, cgroup::Placement};
use placement::{
    job::Band,
    resources::{DISK, Resources},
};
use tokio::{task::spawn_blocking, time::sleep};

use self::disk::Disks;
use crate::{
    clock,
    core::Core,
    daemon::inbox::NodeHandle,
    event::{Event, RunId},
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

/// The last look at a run.
struct Seen {
    /// CPU time used until then, microseconds, if the host tells.
    cpu_us: Option<u64>,
    /// When that was: monotonic, as all times here.
    at_ms: u64,
    memory: u64,
    memory_at_ms: u64,
}

/// What is known from the looks before.
struct Known {
    runs: BTreeMap<RunId, Seen>,
    disks: Disks,
    marks: Marks,
}

/// Measures until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle) {
    let disks = Disks::new(&ground.bundles, ground.anonymous.clone());
    let mut known = Known { runs: BTreeMap::new(), disks, marks: Marks::default() };
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        let Some(running) = node.read(Core::to_measure).await else { return };
        let limited = running.iter().any(|(.., disk)| disk.is_some());
        pause = (if limited { DISK_EVERY } else { EVERY }).max(EACH * running.len() as u32);
        let ground = ground.clone();
        let measured = spawn_blocking(move || {
            let usage = known.measure(&ground, &running);
            (usage, known)
        });
        let Ok((usage, now)) = measured.await else { return };
        known = now;
        if !usage.is_empty() {
            node.tell(Event::Measured(usage));
        }
    }
}

impl Known {
    fn measure(
        &mut self,
        ground: &Ground,
        running: &[(RunId, Band, Option<u64>)],
    ) -> BTreeMap<RunId, Resources> {
        let mut usage = BTreeMap::new();
        let mut before = std::mem::take(&mut self.runs);
        self.disks.begin(running.iter().map(|(run, ..)| *run));
        self.marks.begin(running.iter().map(|(run, ..)| *run));
        for &(run, on, disk) in running {
            let cgroup = ground.tree.placement(band(on), &run.to_string());
            let last = before.remove(&run);
            let now = Seen::look(&cgroup, last.as_ref(), clock::now().mono_ms);
            let mut used = Resources::new(now.cpu_milli_since(last.as_ref()), now.memory);
            used.set(DISK, self.disks.used(run, disk, now.cpu_us, now.at_ms));
            usage.insert(run, used);
            let bundle = Bundle::at(ground.bundles.join(run.to_string()));
            self.marks.look(run, &bundle.log(), now.cpu_us, clock::now());
            self.runs.insert(run, now);
        }
        usage
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
        Seen { cpu_us, at_ms, memory, memory_at_ms }
    }

    /// Thousandths of a CPU, since the last look.
    fn cpu_milli_since(&self, last: Option<&Seen>) -> u64 {
        let Some((last, (now, then))) = last.and_then(|last| Some((last, self.cpu_us.zip(last.cpu_us)?)))
        else {
            return 0;
        };
        now.saturating_sub(then) / self.at_ms.saturating_sub(last.at_ms).max(1)
    }
}
