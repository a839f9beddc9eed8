//! Other limits for a container that runs.

use oci::bundle::Bundle;
use placement::task::TaskSpec;
use tokio::task::spawn_blocking;

use super::{Runner, prepare};
use crate::event::{AmendRun, Event, RunEvent};

impl Runner {
    pub fn amend(&self, amend: AmendRun) {
        let (ground, node) = (self.ground.clone(), self.node.clone());
        let AmendRun { run, version, from, to } = amend;
        tokio::spawn(async move {
            let done = spawn_blocking(move || {
                let limits =
                    |spec: &TaskSpec| prepare::limits(&ground, spec.band, &spec.limit, &spec.container);
                let (mut from, mut to_limits) = (limits(&from), limits(&to));
                // What had a limit of IO, or gets one, is told of the disk even if the other has none.
                let disk = from.io.disk.or(to_limits.io.disk);
                (from.io.disk, to_limits.io.disk) = (disk, disk);
                let bundle = Bundle::at(ground.bundles.join(run.to_string()));
                let config = bundle.config().map_err(|e| e.to_string())?;
                let cgroup = ground.tree.with_io(config.cgroup, &to_limits);
                cgroup.change(&from, &to_limits).map_err(|e| e.to_string())?;
                // As at the start: where it cannot be held to a quota, its disk is measured, and the rest has changed.
                if let (Some(quotas), Some(project)) = (&ground.quotas, config.project)
                    && let Err(error) = quotas.limit(project, prepare::layer(&to.limit, &to.container))
                {
                    tracing::warn!("{run}: its quota cannot be changed: {error}");
                }
                if let Err(error) = bundle.change_limits(&cgroup, &to_limits) {
                    tracing::warn!("{run} has other limits, but that cannot be written down: {error}");
                }
                Ok(())
            });
            let result = done.await.unwrap_or_else(|_| Err("the change broke off".to_string()));
            node.tell(Event::Run { run, what: RunEvent::Amended { version, result } });
        });
    }
}
