//! Containers, for the node's loop: each run is a task that makes a bundle, spawns a shim, and watches it to its end.

mod amend;
mod fetch;
mod ground;
mod network;
pub(crate) mod prepare;
mod surroundings;
mod watch;

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oci::{
    bundle::{Bundle, Process},
    container::{self, Live},
};
use placement::job::{Check, Health};
use tokio::{
    sync::oneshot,
    task::{AbortHandle, spawn_blocking},
    time::sleep,
};

pub use self::ground::Ground;
use self::watch::{Watched, ended};
use crate::{
    clock,
    daemon::inbox::NodeHandle,
    event::{Ended, Event, Found, RunEvent, RunId, Signal, StartRun},
    probe::{self, Target},
};

/// What runs here could not be found out. The agent does not start then: it would take running containers for lost.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("cannot list the bundles in {path}: {source}")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot find out whether {run} still runs: {source}")]
    Look { run: RunId, source: Box<container::Error> },
}

/// A handle for the node's loop. What it starts tells the loop by events.
pub struct Runner {
    ground: Arc<Ground>,
    node: NodeHandle,
    probes: BTreeMap<(RunId, Check), AbortHandle>,
    /// Starts that may still be called off.
    starts: BTreeMap<RunId, oneshot::Sender<()>>,
    /// The containers' first processes, to be signalled.
    inits: Arc<Mutex<BTreeMap<RunId, Process>>>,
}

/// Between two looks whether a program has come as far as to hear what it is told: doubled each time, up to the second.
const HEARS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];

fn tell(run: RunId, init: &Process, signal: i32) {
    if let Err(error) = container::signal(init, signal) {
        tracing::warn!("{run}: {error}");
    }
}

/// A program that was just started may not catch yet what asks it to end, and would be killed after its whole grace.
/// Whoever never hears is.
async fn tell_when_heard(run: RunId, init: Process, signal: i32) {
    let mut pause = HEARS[0];
    while !container::is_heard(&init, signal) {
        sleep(pause).await;
        pause = (pause * 2).min(HEARS[1]);
    }
    tell(run, &init, signal);
}

/// Before a removal is tried again.
const REMOVE_AGAIN: Duration = Duration::from_millis(200);

impl Runner {
    pub fn new(ground: Arc<Ground>, node: NodeHandle) -> Runner {
        let (probes, starts) = (BTreeMap::new(), BTreeMap::new());
        Runner { ground, node, probes, starts, inits: Arc::default() }
    }

    /// Every run that has a bundle or a cgroup, and what became of it. To be asked once, before the loop begins; those
    /// that live are watched from then on.
    pub fn scan(&self) -> Result<BTreeMap<RunId, Found>, ScanError> {
        let mut found = BTreeMap::new();
        let mut attached = Vec::new();
        let list = |source| ScanError::List { path: self.ground.bundles.clone(), source };
        for entry in fs::read_dir(&self.ground.bundles).map_err(list)? {
            let entry = entry.map_err(list)?;
            let Some(run) = entry.file_name().to_str().and_then(|n| n.parse::<RunId>().ok()) else {
                tracing::warn!("{} is not a run's bundle; it is left alone", entry.path().display());
                continue;
            };
            let bundle = Bundle::at(entry.path());
            let state = self.look(run, &bundle)?;
            // One whose config cannot be read was told of by `look`, or is on its way out.
            if let Some(attachment) = bundle.config().ok().and_then(|config| config.network) {
                let runs = matches!(state, Found::Running { .. } | Found::Starting);
                self.node.tell(Event::Run { run, what: RunEvent::Address(attachment.address) });
                attached.push((run.to_string(), attachment, runs));
            }
            found.insert(run, state);
        }
        if let Err(error) = self.ground.networks.adopt(attached) {
            tracing::warn!("private networks are not as they should be: {error}");
        }
        for (_, name) in self.ground.tree.list() {
            if let Ok(run) = name.parse::<RunId>() {
                // A cgroup whose bundle is gone: a run that nobody answers for.
                found.entry(run).or_insert_with(|| Found::Ended(Ended::lost(clock::now().wall_ms)));
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
                let ran_ms = clock::age_ms(state.init.start_time);
                Ok(Found::Running { pid, started_at_ms: state.started_at_ms, ran_ms })
            }
            // No shim ever held its lock: nothing was started.
            Ok(None) if !bundle.lock().exists() => Ok(Found::Unstarted),
            Ok(None) => Ok(Found::Ended(ended(bundle))),
            // A document that is damaged is one run's misfortune.
            Err(container::Error::Bundle(error)) => {
                tracing::warn!("the bundle of {run} cannot be read, it counts as lost: {error}");
                Ok(Found::Ended(Ended::lost(clock::now().wall_ms)))
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
        let (call_off, called_off) = oneshot::channel();
        // Those that have got too far to be called off have let go of the other end.
        self.starts.retain(|_, start| !start.is_closed());
        self.starts.insert(start.run, call_off);
        tokio::spawn(async move { watched.start(start, called_off).await });
    }

    /// Calls a start off that has not got as far as a shim.
    pub fn abandon(&mut self, run: RunId) {
        if let Some(call_off) = self.starts.remove(&run) {
            let _ = call_off.send(());
        }
    }

    /// To the container's init, never to a later process with its pid.
    pub fn signal(&self, run: RunId, signal: Signal) {
        let number = match signal {
            Signal::Term => prepare::stop_signal(&Bundle::at(self.ground.bundles.join(run.to_string()))),
            Signal::Kill => libc::SIGKILL,
        };
        let init = self.inits.lock().unwrap_or_else(PoisonError::into_inner).get(&run).copied();
        match init {
            Some(init) if container::is_heard(&init, number) => tell(run, &init, number),
            Some(init) => _ = tokio::spawn(tell_when_heard(run, init, number)),
            None => {}
        }
        if signal == Signal::Kill {
            // Whatever has left the init's care goes with it.
            let ground = self.ground.clone();
            spawn_blocking(move || {
                if let Err(error) = ground.tree.kill(&run.to_string()) {
                    tracing::warn!("{run}: {error}");
                }
            });
        }
    }

    /// Tries until it is done: while anything of the run is left, its resources are not free.
    pub fn remove(&mut self, run: RunId, own: bool) {
        self.unprobe(run);
        self.inits.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        let (ground, node) = (self.ground.clone(), self.node.clone());
        tokio::spawn(async move {
            loop {
                let ground = ground.clone();
                match spawn_blocking(move || ground.remove(run, own)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(why)) => tracing::warn!("cannot remove {run} yet: {why}"),
                    Err(_) => tracing::warn!("the removal of {run} broke off"),
                }
                sleep(REMOVE_AGAIN).await;
            }
            node.tell(Event::Run { run, what: RunEvent::Removed });
        });
    }

    pub fn probe(&mut self, run: RunId, check: Check, health: Health, port: Option<u16>, good: bool) {
        let node = self.node.clone();
        let of = match port {
            Some(port) => Target::Port(SocketAddr::from((self.ground.reach(run), port))),
            None => Target::Container {
                exe: self.ground.exe.clone(),
                bundle: Bundle::at(self.ground.bundles.join(run.to_string())),
            },
        };
        let task = tokio::spawn(probe::watch(check, health, of, good, move |ok, text| {
            node.tell(Event::Run { run, what: RunEvent::Health { check, ok, text } });
            true
        }));
        if let Some(old) = self.probes.insert((run, check), task.abort_handle()) {
            old.abort();
        }
    }

    pub fn unprobe(&mut self, run: RunId) {
        for check in Check::ALL {
            if let Some(task) = self.probes.remove(&(run, check)) {
                task.abort();
            }
        }
    }

    fn remember(&self, run: RunId, init: Process) {
        self.inits.lock().unwrap_or_else(PoisonError::into_inner).insert(run, init);
    }
}
