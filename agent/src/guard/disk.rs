//! Takes disk back, in time: before production, or the agent's own records, find it full. What nobody uses goes first; then
//! those of batch and free end that have written most. Nothing can be throttled here: who is over is over.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use oci::{bundle::Bundle, cgroup::Tree};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    room::{Disk, Room},
    who::{Chooser, Shortage, Tenant},
};
use crate::{clock, core::Core, daemon::inbox::NodeHandle, event::Event, event::RunId, runner::Ground};

const NOT_WEIGHED: &str = "the disk of the data directory is not shared by weight: batch and free are not held back where \
                           production waits for it (bfq as its scheduler does that, or io.cost on cgroup v2)";
/// What nobody uses may take so long to go before somebody has to.
const COLLECT: Duration = Duration::from_secs(5);
const COLLECT_IN_HURRY: Duration = Duration::from_millis(500);
/// Between two collections, unless something has ended since.
const AGAIN: Duration = Duration::from_secs(10);
/// All walks together; the others count as last measured.
const WALKS: Duration = Duration::from_secs(1);
/// Who has written less gives nobody room.
const NOTHING: u64 = 1 << 20;

/// What this node cannot do for production's IO.
pub(crate) fn warnings(tree: &Tree, data: &Path) -> Option<String> {
    let disk = oci::cgroup::Disk::of(data)?;
    (!tree.weighs_io(disk)).then(|| NOT_WEIGHED.to_string())
}

/// Whether the file system of that directory is short of room.
pub(crate) fn is_short(path: &Path) -> bool {
    look(path).is_some_and(|disk| disk.is_short())
}

fn look(path: &Path) -> Option<Disk> {
    Some(Disk { free: oci::disk::free(path)?, size: oci::disk::size(path)? })
}

/// Guards the disk until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle) {
    let mut room = Room::default();
    let mut guard =
        Guard { ground, node, chooser: Chooser::default(), going: BTreeMap::new(), collected: None };
    let mut told = false;
    let mut pause = Duration::from_millis(0);
    loop {
        sleep(pause).await;
        let bundles = guard.ground.bundles.clone();
        let Some(disk) = spawn_blocking(move || look(&bundles)).await.ok().flatten() else {
            // A file system that does not answer is no reason to end anybody.
            pause = AGAIN;
            continue;
        };
        let step = room.look(clock::now().mono_ms, disk);
        if step.short != told {
            told = step.short;
            guard.node.tell(Event::DiskShort(told));
        }
        if let Some(shortage) = &step.shortage
            && guard.relieve(shortage).await.is_none()
        {
            return;
        }
        pause = Duration::from_millis(step.pause_ms);
    }
}

struct Guard {
    ground: Arc<Ground>,
    node: NodeHandle,
    chooser: Chooser,
    /// Told to go; what they have written is there for as long as their bundles are.
    going: BTreeMap<RunId, Tenant>,
    collected: Option<Instant>,
}

impl Guard {
    /// `None` once the node's loop has ended.
    async fn relieve(&mut self, shortage: &Shortage) -> Option<()> {
        let bundles = self.ground.bundles.clone();
        let before = self.going.len();
        self.going.retain(|run, _| bundles.join(run.to_string()).exists());
        if self.going.len() < before {
            // Its log is kept, which is of no use to anybody who runs.
            self.collected = None;
        }
        if self.going.is_empty() && self.collected.is_none_or(|at| at.elapsed() >= AGAIN) {
            self.collected = Some(Instant::now());
            let patience = if shortage.hurry { COLLECT_IN_HURRY } else { COLLECT };
            let (ground, until) = (self.ground.clone(), self.ground.bundles.clone());
            // It goes on if it takes longer.
            let collecting = tokio::spawn(async move {
                ground.images.make_room(&ground.logs, &ground.left, move || !is_short(&until)).await;
            });
            let _ = tokio::time::timeout(patience, collecting).await;
            if !is_short(&bundles) {
                return Some(());
            }
        }
        let mut tenants = self.node.read(Core::writers).await?;
        let gone = |run: &RunId| !tenants.iter().any(|tenant| tenant.run == *run);
        let deleted: Vec<Tenant> = self.going.values().filter(|t| gone(&t.run)).cloned().collect();
        let walked = spawn_blocking(move || {
            walk(&bundles, &mut tenants);
            tenants
        });
        let mut tenants = walked.await.unwrap_or_default();
        tenants.extend(deleted);
        for eviction in self.chooser.choose(clock::now().mono_ms, shortage, &tenants) {
            if let Some(tenant) = tenants.iter().find(|tenant| tenant.run == eviction.run) {
                self.going.insert(eviction.run, tenant.clone());
            }
            self.node.tell(eviction.event());
        }
        Some(())
    }
}

/// What they have written by now, and gives room once they are gone. (What the image alone calls a volume stays the copy's.)
fn walk(bundles: &Path, tenants: &mut [Tenant]) {
    let until = Instant::now() + WALKS;
    for tenant in tenants {
        if Instant::now() < until {
            let bundle = Bundle::at(bundles.join(tenant.run.to_string()));
            tenant.used = oci::disk::used(&[&bundle.upper(), &bundle.log()]);
        }
        if tenant.used < NOTHING {
            tenant.used = 0;
        }
    }
}
