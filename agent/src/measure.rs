//! What tasks use, measured now and then from their cgroups.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oci::cgroup::{Band, Tree};
use placement::resources::Resources;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock,
    core::Core,
    daemon::inbox::NodeHandle,
    event::{Event, RunId},
    runner::{Ground, prepare::band},
};

/// Between two measurements.
const EVERY: Duration = Duration::from_secs(2);

/// CPU time used until then, microseconds; and when that was, milliseconds.
type Seen = BTreeMap<RunId, (u64, u64)>;

/// Measures until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::new();
    loop {
        ticks.tick().await;
        let look = |core: &Core| {
            let with_band = |run: RunId| Some((run, band(core.report(run.key)?.band)));
            core.all_running().filter_map(with_band).collect::<Vec<_>>()
        };
        let Some(running) = node.read(look).await else { return };
        if running.is_empty() {
            seen.clear();
            continue;
        }
        let ground = ground.clone();
        let measured = spawn_blocking(move || measure(&ground.tree, &running, seen)).await;
        let Ok((usage, now)) = measured else { return };
        seen = now;
        node.tell(Event::Measured(usage));
    }
}

fn measure(tree: &Tree, running: &[(RunId, Band)], seen: Seen) -> (BTreeMap<RunId, Resources>, Seen) {
    let mut usage = BTreeMap::new();
    let mut now = Seen::new();
    for (run, band) in running {
        let stats = tree.placement(*band, &run.to_string()).stats();
        let at_ms = clock::now().mono_ms;
        let cpu_milli = match seen.get(run) {
            Some((before_us, then_ms)) => {
                stats.cpu_usage_us.saturating_sub(*before_us) / at_ms.saturating_sub(*then_ms).max(1)
            }
            None => 0,
        };
        now.insert(*run, (stats.cpu_usage_us, at_ms));
        usage.insert(*run, Resources::new(cpu_milli, stats.memory_working_set));
    }
    (usage, now)
}
