//! What tasks use, measured now and then: CPU and memory by their cgroups, disk by a look at what they have written.

mod disk;
pub(crate) mod guard;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oci::cgroup::Band;
use placement::resources::{DISK, Resources};
use tokio::{task::spawn_blocking, time::sleep};

use self::disk::Disks;
use crate::{
    clock,
    core::Core,
    daemon::inbox::NodeHandle,
    event::{Event, RunId},
    runner::{Ground, prepare::band},
};

/// Between two measurements.
const EVERY: Duration = Duration::from_secs(2);
/// Where disk is held to a limit, it is looked at more often: what is written until then is too much.
const DISK_EVERY: Duration = Duration::from_millis(500);
/// More for each task, so that many cost no more than a few percent of a core.
const EACH: Duration = Duration::from_millis(8);

/// A run to be measured.
struct Running {
    run: RunId,
    band: Band,
    /// The most of disk, if that is limited.
    disk: Option<u64>,
}

/// CPU time used until then, microseconds; and when that was, milliseconds.
type Seen = BTreeMap<RunId, (u64, u64)>;

/// Measures until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle) {
    let mut known = (Seen::new(), Disks::new(&ground.bundles, ground.anonymous.clone()));
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        let look = |core: &Core| {
            let running = |run: RunId| {
                let report = core.report(run.key)?;
                let disk = Some(report.limit.get(DISK)).filter(|most| *most > 0);
                Some(Running { run, band: band(report.band), disk })
            };
            core.all_running().filter_map(running).collect::<Vec<_>>()
        };
        let Some(running) = node.read(look).await else { return };
        let limited = running.iter().any(|run| run.disk.is_some());
        pause = (if limited { DISK_EVERY } else { EVERY }).max(EACH * running.len() as u32);
        let ground = ground.clone();
        let measured = spawn_blocking(move || {
            let (mut seen, mut disks) = known;
            let usage = measure(&ground, &running, &mut seen, &mut disks);
            (usage, (seen, disks))
        });
        let Ok((usage, now)) = measured.await else { return };
        known = now;
        if !usage.is_empty() {
            node.tell(Event::Measured(usage));
        }
    }
}

fn measure(
    ground: &Ground,
    running: &[Running],
    seen: &mut Seen,
    disks: &mut Disks,
) -> BTreeMap<RunId, Resources> {
    let mut usage = BTreeMap::new();
    let before = std::mem::take(seen);
    disks.begin(running.iter().map(|run| run.run));
    for Running { run, band, disk } in running {
        let now = ground.tree.placement(*band, &run.to_string()).usage();
        let at_ms = clock::now().mono_ms;
        let cpu_milli = match before.get(run) {
            Some((before_us, then_ms)) => {
                now.cpu_us.saturating_sub(*before_us) / at_ms.saturating_sub(*then_ms).max(1)
            }
            None => 0,
        };
        seen.insert(*run, (now.cpu_us, at_ms));
        let mut used = Resources::new(cpu_milli, now.memory);
        used.set(DISK, disks.used(*run, *disk, now.cpu_us, at_ms));
        usage.insert(*run, used);
    }
    usage
}
