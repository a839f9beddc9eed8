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
use crate::{
    clock, core::Core, daemon::inbox::NodeHandle, event::Event, event::RunId, runner::Ground,
    volumes::anonymous::Anonymous,
};

/// What nobody uses may take so long to go before somebody has to.
const COLLECT: Duration = Duration::from_secs(5);
const COLLECT_IN_HURRY: Duration = Duration::from_millis(500);
/// Between two collections, unless something has ended since.
const AGAIN: Duration = Duration::from_secs(10);
/// All walks together; the others count as last measured.
const WALKS: Duration = Duration::from_secs(1);
/// Who has written less gives nobody room.
const NOTHING: u64 = 1 << 20;

/// Whether the disk of that directory is shared by weight, if it is one that could be.
pub(crate) fn is_weighed(tree: &Tree, path: &Path) -> Option<bool> {
    Some(tree.weighs_io(oci::cgroup::Disk::of(path)?))
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
            guard.node.tell(Event::DiskShort(told.then(|| disk.kept())));
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
        let (bundles, anonymous) = (self.ground.bundles.clone(), self.ground.anonymous.clone());
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
            walk(&bundles, &anonymous, &mut tenants);
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

/// What they have written by now, and gives room once they are gone: what the image alone calls a volume too. The volumes
/// that the job names stay.
fn walk(bundles: &Path, anonymous: &Anonymous, tenants: &mut [Tenant]) {
    let until = Instant::now() + WALKS;
    for tenant in tenants {
        if Instant::now() < until {
            let bundle = Bundle::at(bundles.join(tenant.run.to_string()));
            tenant.used = oci::disk::used(&[&bundle.upper(), &bundle.log(), &anonymous.of(tenant.run)]);
        }
        if tenant.used < NOTHING {
            tenant.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use placement::job::Band;

    use super::*;

    #[test]
    fn what_goes_with_a_run_counts_and_what_stays_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (bundles, anonymous) = (dir.path().join("bundles"), Anonymous::new(dir.path().join("anonymous")));
        let writes = |at: &Path, mib: u64| {
            fs::create_dir_all(at).unwrap();
            fs::write(at.join("file"), vec![1; usize::try_from(mib << 20).unwrap()]).unwrap();
        };
        let runs: [RunId; 2] = ["1.7.0-1.2.3-4", "1.8.0-1.2.5-0"].map(|run| run.parse().unwrap());
        let bundle = Bundle::at(bundles.join(runs[0].to_string()));
        writes(&bundle.upper().join("var"), 2);
        writes(&bundle.log(), 1);
        writes(&anonymous.path(runs[0], Path::new("/var/lib/x")), 4);
        writes(&dir.path().join("volumes/ann/web/0/data"), 8);
        let tenant = |run: RunId| Tenant { run, band: Band::Batch, used: 9, reserved: 0, since_ms: 0 };
        let mut tenants = runs.map(tenant);
        walk(&bundles, &anonymous, &mut tenants);
        assert_eq!(tenants.map(|tenant| tenant.used >> 20), [7, 0]);
    }
}
