//! What all runs on a node share, and how what is left of one is removed.

use std::{
    fs,
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci::{
    bundle::Bundle,
    cgroup::{self, Tree},
    container::{self, ForkServer, Live, Stock},
    network::{Networks, Spares},
    quota::Quotas,
};
use tokio::{sync::Notify, task::spawn_blocking};

use crate::{
    event::RunId,
    guard::disk::is_short,
    images::Images,
    left::Left,
    store::Store,
    volumes::{Volumes, anonymous::Anonymous},
};

/// Between two looks at whether the fork server lives.
const LOOK: Duration = Duration::from_secs(2);

/// What all runs on a node share.
pub struct Ground {
    /// The covey binary, for commands in containers.
    pub exe: PathBuf,
    /// Where shims come from.
    pub server: ForkServer,
    pub bundles: PathBuf,
    pub stock: Stock,
    /// Where the file system holds writable layers to their limits.
    pub quotas: Option<Quotas>,
    /// Logs of runs that are over, and files.
    pub logs: PathBuf,
    pub left: Left,
    pub images: Images,
    pub tree: Tree,
    pub host: oci::spec::Host,
    pub networks: Networks,
    pub spares: Spares,
    pub store: Store,
    pub volumes: Volumes,
    pub anonymous: Anonymous,
    /// A container with a limit of block IO has been started.
    pub limited_starts: Notify,
    /// Whether this kernel can map layers into user namespaces.
    pub idmaps: bool,
}

impl Ground {
    /// Kills what is left, removes cgroup and bundle, and puts logs and files aside. `own`: removes what the copy alone has, too.
    pub(super) fn remove(&self, run: RunId, own: bool) -> Result<(), String> {
        if own {
            self.remove_own(run);
        }
        self.remove_run(run)?;
        self.anonymous.look();
        Ok(())
    }

    /// Before the bundle, with which the room of a run counts as given back. Nobody writes there any more.
    fn remove_own(&self, run: RunId) {
        let dir = self.anonymous.of(run);
        let removed =
            match dir.exists() {
                true => self.tree.kill(&run.to_string()).map_err(|e| e.to_string()).and_then(|()| {
                    container::delete_tree(&dir).map_err(|e| format!("{}: {e}", dir.display()))
                }),
                false => Ok(()),
            };
        if let Err(error) = removed {
            tracing::warn!("the data that {run} leaves cannot be removed: {error}");
        }
    }

    fn remove_run(&self, run: RunId) -> Result<(), String> {
        let bundle = Bundle::at(self.bundles.join(run.to_string()));
        let name = run.to_string();
        // Before the bundle, in which an agent that comes after finds it.
        self.networks.detach(&name).map_err(|e| e.to_string())?;
        if bundle.dir().exists() {
            crate::logs::keep(&self.logs, run, &bundle.log()).map_err(|e| e.to_string())?;
            let config = bundle.config().ok();
            if config.is_none() {
                // It does not say where its cgroups are; they have its name.
                self.tree.kill(&name).and_then(|()| self.tree.remove(&name)).map_err(|e| e.to_string())?;
            }
            // What cannot be kept goes: nothing waits for that. On a disk that is short, nothing is kept for comfort.
            if !is_short(&self.bundles)
                && let Err(error) = self.left.keep(run, &bundle)
            {
                tracing::warn!("{run}: {error}");
            }
            let Some(project) = config.and_then(|config| config.project) else {
                return container::recycle(&bundle, &self.stock).map_err(|e| e.to_string());
            };
            // What belongs to a project is of no use to a run of another.
            container::remove(&bundle).map_err(|e| e.to_string())?;
            if let Some(quotas) = &self.quotas
                && let Err(error) = quotas.limit(project, None)
            {
                tracing::warn!("{run}: its quota cannot be taken away: {error}");
            }
            Ok(())
        } else {
            self.tree.kill(&name).and_then(|()| self.tree.remove(&name)).map_err(|e| e.to_string())
        }
    }

    /// Ends every container here and removes all that is left of them: for a cell that is thrown away.
    pub fn end_all(&self, grace: Duration) {
        let runs: Vec<Bundle> = fs::read_dir(&self.bundles)
            .map(|entries| entries.flatten().map(|e| Bundle::at(e.path())).collect())
            .unwrap_or_default();
        let live: Vec<Live> = runs.iter().filter_map(|bundle| Live::find(bundle).ok().flatten()).collect();
        for init in live.iter().filter_map(|l| l.state.as_ref()).map(|state| state.init) {
            let _ = container::signal(&init, libc::SIGTERM);
        }
        let until = Instant::now() + grace;
        for shim in &live {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(shim.shim_pidfd.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        }
        for bundle in &runs {
            let run = bundle.dir().file_name().unwrap_or_default().to_string_lossy();
            if let Err(error) = self.networks.detach(&run) {
                tracing::warn!("{error}");
            }
            if let Err(error) = container::remove(bundle) {
                tracing::warn!("cannot remove {}: {error}", bundle.dir().display());
            }
        }
        if let Err(error) = self.clear() {
            tracing::warn!("cannot remove the node's cgroups: {error}");
        }
    }

    /// Takes the node's cgroups away, with all that runs in them.
    pub fn clear(&self) -> Result<(), cgroup::Error> {
        self.server.stop();
        self.tree.clear()
    }

    /// Sees to it that the fork server is there before it is needed.
    pub async fn keep_server(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let ground = self.clone();
            if let Ok(Err(error)) = spawn_blocking(move || ground.server.look_after()).await {
                tracing::warn!("{error}");
            }
        }
    }
}
