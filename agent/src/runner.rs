//! Containers, for the node's loop: each run is a task that makes a bundle, spawns a shim, and watches it to its end.

pub(crate) mod prepare;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci::{
    bundle::{Announcement, Bundle, ExitRecord, Process},
    cgroup::Tree,
    container::{self, Live},
    digest::Digest,
};
use placement::job::Health;
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::unix::pipe,
    task::{AbortHandle, spawn_blocking},
};

use crate::{
    daemon::node::NodeHandle,
    event::{Ended, Event, Found, RunEvent, RunId, Signal, StartRun},
    probe,
    store::Store,
};

/// What runs here could not be found out. The agent does not start then: it would take running containers for lost.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("cannot list the bundles in {path}: {source}")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot find out whether {run} still runs: {source}")]
    Look { run: RunId, source: Box<container::Error> },
}

/// What all runs on a node share.
pub struct Ground {
    /// The covey binary: what shims are made of.
    pub exe: PathBuf,
    pub bundles: PathBuf,
    /// Logs of runs that are over.
    pub logs: PathBuf,
    pub images: Arc<oci::content::Store>,
    pub tree: Tree,
    pub host: oci::spec::Host,
    pub store: Store,
    /// Whether this kernel can map layers into user namespaces.
    pub idmaps: bool,
}

/// A handle for the node's loop. What it starts tells the loop by events.
pub struct Runner {
    ground: Arc<Ground>,
    node: NodeHandle,
    probes: BTreeMap<RunId, AbortHandle>,
    /// The containers' first processes, to be signalled.
    inits: Arc<Mutex<BTreeMap<RunId, Process>>>,
}

/// Before a removal is tried again.
const REMOVE_AGAIN: Duration = Duration::from_millis(200);

impl Runner {
    pub fn new(ground: Arc<Ground>, node: NodeHandle) -> Runner {
        Runner { ground, node, probes: BTreeMap::new(), inits: Arc::default() }
    }

    /// Every run that has a bundle or a cgroup, and what became of it. To be asked once, before the loop begins; those
    /// that live are watched from then on.
    pub fn scan(&self) -> Result<BTreeMap<RunId, Found>, ScanError> {
        let mut found = BTreeMap::new();
        let list = |source| ScanError::List { path: self.ground.bundles.clone(), source };
        for entry in fs::read_dir(&self.ground.bundles).map_err(list)? {
            let entry = entry.map_err(list)?;
            let Some(run) = entry.file_name().to_str().and_then(|n| n.parse::<RunId>().ok()) else {
                tracing::warn!("{} is not a run's bundle; it is left alone", entry.path().display());
                continue;
            };
            found.insert(run, self.look(run, &Bundle::at(entry.path()))?);
        }
        for (_, name) in self.ground.tree.list() {
            if let Ok(run) = name.parse::<RunId>() {
                // A cgroup whose bundle is gone: a run that nobody answers for.
                found.entry(run).or_insert_with(|| Found::Ended(lost(crate::clock::now().wall_ms)));
            }
        }
        Ok(found)
    }

    fn look(&self, run: RunId, bundle: &Bundle) -> Result<Found, ScanError> {
        match Live::find(bundle) {
            Ok(Some(live)) => {
                let state = live.state.clone();
                self.watch(run, bundle.clone(), live.shim_pidfd, state.is_some());
                let Some(state) = state else { return Ok(Found::Starting) };
                self.remember(run, state.init);
                let pid = state.init.pid.unsigned_abs();
                Ok(Found::Running { pid, started_at_ms: state.started_at_ms })
            }
            // No shim ever held its lock: nothing was started.
            Ok(None) if !bundle.lock().exists() => Ok(Found::Unstarted),
            Ok(None) => Ok(Found::Ended(ended(bundle))),
            // A document that is damaged is one run's misfortune.
            Err(container::Error::Bundle(error)) => {
                tracing::warn!("the bundle of {run} cannot be read, it counts as lost: {error}");
                Ok(Found::Ended(lost(crate::clock::now().wall_ms)))
            }
            Err(source) => Err(ScanError::Look { run, source: Box::new(source) }),
        }
    }

    /// An earlier agent's shim: its announcement went to that agent, its end comes by pidfd.
    fn watch(&self, run: RunId, bundle: Bundle, shim: OwnedFd, started: bool) {
        let watched =
            Watched { ground: self.ground.clone(), node: self.node.clone(), inits: self.inits.clone(), run };
        tokio::spawn(async move { watched.adopted(bundle, shim, started).await });
    }

    pub fn start(&mut self, start: StartRun) {
        let watched = Watched {
            ground: self.ground.clone(),
            node: self.node.clone(),
            inits: self.inits.clone(),
            run: start.run,
        };
        tokio::spawn(async move { watched.start(start).await });
    }

    /// To the container's init, never to a later process with its pid.
    pub fn signal(&self, run: RunId, signal: Signal) {
        let number = match signal {
            Signal::Term => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
        };
        let init = self.inits.lock().unwrap_or_else(PoisonError::into_inner).get(&run).copied();
        let Some(init) = init else { return };
        if let Err(error) = container::signal(&init, number) {
            tracing::warn!("{run}: {error}");
        }
    }

    /// Tries until it is done: while anything of the run is left, its resources are not free.
    pub fn remove(&mut self, run: RunId) {
        self.unprobe(run);
        self.inits.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        let (ground, node) = (self.ground.clone(), self.node.clone());
        tokio::spawn(async move {
            loop {
                let ground = ground.clone();
                match spawn_blocking(move || ground.remove(run)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(why)) => tracing::warn!("cannot remove {run} yet: {why}"),
                    Err(_) => tracing::warn!("the removal of {run} broke off"),
                }
                tokio::time::sleep(REMOVE_AGAIN).await;
            }
            node.tell(Event::Run { run, what: RunEvent::Removed });
        });
    }

    pub fn probe(&mut self, run: RunId, health: Health, port: u16) {
        let node = self.node.clone();
        let task = tokio::spawn(probe::watch(health, port, move |ok, text| {
            node.tell(Event::Run { run, what: RunEvent::Health { ok, text } });
            true
        }));
        if let Some(old) = self.probes.insert(run, task.abort_handle()) {
            old.abort();
        }
    }

    pub fn unprobe(&mut self, run: RunId) {
        if let Some(task) = self.probes.remove(&run) {
            task.abort();
        }
    }

    fn remember(&self, run: RunId, init: Process) {
        self.inits.lock().unwrap_or_else(PoisonError::into_inner).insert(run, init);
    }
}

/// One run on its way.
struct Watched {
    ground: Arc<Ground>,
    node: NodeHandle,
    inits: Arc<Mutex<BTreeMap<RunId, Process>>>,
    run: RunId,
}

impl Watched {
    fn tell(&self, what: RunEvent) {
        self.node.tell(Event::Run { run: self.run, what });
    }

    async fn start(self, start: StartRun) {
        if let Some(port) = prepare::busy_port(start.ports.values().copied()) {
            return self.tell(RunEvent::PortBusy { port });
        }
        let unpacked = |digest: Digest| self.ground.images.is_unpacked(&digest);
        if start.digest.parse().is_ok_and(|digest| !unpacked(digest)) {
            self.tell(RunEvent::Phase(format!("unpacking {}", start.digest)));
        }
        let dir = self.ground.bundles.join(self.run.to_string());
        let (bundle, mut spawned) = match prepare::spawn(&self.ground, start, dir).await {
            Ok(made) => made,
            Err(failure) => return self.failed(failure).await,
        };
        let said = announcement(spawned.announcement.into()).await;
        let reap = move || spawned.child.wait();
        match container::parse_announcement(bundle.dir(), &said) {
            Ok(Announcement::Started(state)) => {
                let shim = Live::find(&bundle);
                self.started(state.init);
                if let Ok(Some(live)) = shim {
                    gone(live.shim_pidfd).await;
                }
                // It is our child: until it is waited for it stays a zombie.
                let _ = spawn_blocking(reap).await;
                self.tell(RunEvent::Exited(ended(&bundle)));
            }
            Ok(Announcement::Failed(failure)) => {
                let _ = spawn_blocking(reap).await;
                let why = match failure.hint.as_str() {
                    "" => failure.to_string(),
                    hint => format!("{failure} ({hint})"),
                };
                self.failed(prepare::Failure { why, transient: false }).await;
            }
            Err(error) => {
                let _ = spawn_blocking(reap).await;
                self.failed(prepare::Failure { why: error.to_string(), transient: true }).await;
            }
        }
    }

    fn started(&self, init: Process) {
        self.inits.lock().unwrap_or_else(PoisonError::into_inner).insert(self.run, init);
        self.tell(RunEvent::Started { pid: init.pid.unsigned_abs() });
    }

    /// Nothing is left of it when the core hears of it.
    async fn failed(&self, failure: prepare::Failure) {
        let (ground, run) = (self.ground.clone(), self.run);
        if let Ok(Err(error)) = spawn_blocking(move || ground.remove(run)).await {
            tracing::warn!("after a start that failed: {error}");
        }
        self.tell(RunEvent::StartFailed { why: failure.why, transient: failure.transient });
    }

    async fn adopted(self, bundle: Bundle, shim: OwnedFd, started: bool) {
        if started {
            gone(shim).await;
            return self.tell(RunEvent::Exited(ended(&bundle)));
        }
        // The shim was about to start it: its state appears, or it ends.
        let mut end = std::pin::pin!(gone(shim));
        loop {
            if let Ok(Some(state)) = bundle.state() {
                self.started(state.init);
                end.await;
                return self.tell(RunEvent::Exited(ended(&bundle)));
            }
            tokio::select! {
                () = &mut end => break,
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        match bundle.exit_record() {
            Ok(Some(ExitRecord { error: Some(failure), .. })) => {
                self.failed(prepare::Failure { why: failure.to_string(), transient: false }).await;
            }
            // It started and ended between two looks, or the shim was lost.
            _ => self.tell(RunEvent::Exited(ended(&bundle))),
        }
    }
}

impl Ground {
    /// Kills what is left, removes cgroup and bundle, and puts the logs aside.
    fn remove(&self, run: RunId) -> Result<(), String> {
        let bundle = Bundle::at(self.bundles.join(run.to_string()));
        let name = run.to_string();
        if bundle.dir().exists() {
            crate::logs::keep(&self.logs, run, &bundle.log()).map_err(|e| e.to_string())?;
            container::remove(&bundle).map_err(|e| e.to_string())
        } else {
            self.tree.kill(&name).and_then(|()| self.tree.remove(&name)).map_err(|e| e.to_string())
        }
    }
}

impl Ground {
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
            if let Err(error) = container::remove(bundle) {
                tracing::warn!("cannot remove {}: {error}", bundle.dir().display());
            }
        }
        if let Err(error) = self.tree.clear() {
            tracing::warn!("cannot remove the node's cgroups: {error}");
        }
    }
}

/// All that a shim says before it closes the pipe.
async fn announcement(pipe: OwnedFd) -> Vec<u8> {
    let mut said = Vec::new();
    if let Ok(pipe) = pipe::Receiver::from_owned_fd(pipe) {
        // What cannot be read says as little as an empty line, and is reported as that.
        let _ = pipe.take(64 << 10).read_to_end(&mut said).await;
    }
    said
}

/// Returns when the process of `pidfd` has ended, and never before: a container would be taken for lost.
async fn gone(pidfd: OwnedFd) {
    // SAFETY: the descriptor outlives the registration, which borrows it.
    let registered = unsafe { AsyncFd::register_with_interest(pidfd.as_fd(), Interest::READABLE) };
    while !has_ended(&pidfd) {
        match &registered {
            Ok(fd) => match fd.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is ending, and this task with it.
                Err(_) => std::future::pending().await,
            },
            // Without an event (the kernel has none left to give) it is looked at now and then.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn ended(bundle: &Bundle) -> Ended {
    match bundle.exit_record() {
        Ok(Some(record)) => Ended {
            code: record.code,
            signal: record.signal,
            oom: record.oom,
            shim_lost: false,
            at_ms: record.finished_at_ms,
        },
        _ => lost(crate::clock::now().wall_ms),
    }
}

fn lost(at_ms: u64) -> Ended {
    Ended { code: None, signal: None, oom: false, shim_lost: true, at_ms }
}
