//! One run from its start to its end, told to the node's loop as events.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci::{
    bundle::{Announcement, Bundle, ExitRecord, Process, Stream},
    cgroup::OutOfMemory,
    container, logs, supervisor,
};
use placement::task::Cause;
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::unix::pipe,
    sync::oneshot,
    task::spawn_blocking,
};

use super::{Ground, prepare};
use crate::{
    clock,
    daemon::inbox::NodeHandle,
    event::{Ended, Event, RunEvent, RunId, StartRun},
};

/// Bytes of a sentence that are shown.
const LINE: usize = 512;

/// One run on its way.
pub(super) struct Watched {
    pub(super) ground: Arc<Ground>,
    pub(super) node: NodeHandle,
    pub(super) inits: Arc<Mutex<BTreeMap<RunId, Process>>>,
    pub(super) run: RunId,
}

impl Watched {
    pub(super) fn tell(&self, what: RunEvent) {
        self.node.tell(Event::Run { run: self.run, what });
    }

    pub(super) async fn start(self, start: StartRun, called_off: oneshot::Receiver<()>) {
        let _held = match self.have_image(&start, called_off).await {
            Ok(held) => held,
            Err(failure) => return self.failed(failure).await,
        };
        if let Some(port) = prepare::busy_port(start.ports.values().copied()) {
            return self.tell(RunEvent::PortBusy { port });
        }
        let dir = self.ground.bundles.join(self.run.to_string());
        let limited = !start.container.io.is_free();
        let (bundle, channel, wired) = match prepare::spawn(&self.ground, start, dir).await {
            Ok(made) => made,
            Err(failure) => return self.failed(failure).await,
        };
        let said = announcement(channel.into()).await;
        if wired.namespace.is_some() {
            // The container holds it from now on.
            let (address, ground) = (wired.attachment.map(|a| a.address), self.ground.clone());
            drop(wired.namespace);
            if let Some(address) = address {
                self.tell(RunEvent::Address(address));
            }
            spawn_blocking(move || ground.wire_ahead());
        }
        match container::parse_announcement(bundle.dir(), &said) {
            Ok(Announcement::Started(state)) => {
                // Held before its end is asked for; one that has ended already need not be.
                let shim = state.shim.hold();
                self.started(state.init);
                if limited {
                    self.ground.limited_starts.notify_one();
                }
                match shim {
                    Ok(Some(shim)) => gone(shim).await,
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!("the shim of {} is looked at now and then: {error}", self.run);
                        while state.shim.is_there() {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                }
                self.tell(RunEvent::Exited(ended(&bundle)));
            }
            Ok(Announcement::Failed(failure)) => {
                let why = match failure.hint.as_str() {
                    "" => failure.to_string(),
                    hint => format!("{failure} ({hint})"),
                };
                self.failed(prepare::Failure { why, transient: false }).await;
            }
            Err(error) => {
                self.failed(prepare::Failure { why: error.to_string(), transient: true }).await;
            }
        }
    }

    fn started(&self, init: Process) {
        self.inits.lock().unwrap_or_else(PoisonError::into_inner).insert(self.run, init);
        self.ground.volumes.look();
        self.tell(RunEvent::Started { pid: init.pid.unsigned_abs() });
    }

    /// Nothing is left of it when the core hears of it.
    async fn failed(&self, failure: prepare::Failure) {
        let (ground, run) = (self.ground.clone(), self.run);
        if let Ok(Err(error)) = spawn_blocking(move || ground.remove(run, false)).await {
            tracing::warn!("after a start that failed: {error}");
        }
        self.tell(RunEvent::StartFailed { why: failure.why, transient: failure.transient });
    }

    pub(super) async fn adopted(self, bundle: Bundle, shim: OwnedFd, started: bool) {
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

pub(super) fn ended(bundle: &Bundle) -> Ended {
    match container::exit_record(bundle) {
        Ok(Some(record)) => Ended {
            code: record.code,
            signal: record.signal,
            log_bytes_lost: record.log_bytes_lost,
            oom: record.oom.then(|| whose_memory(bundle)),
            shim_lost: false,
            why: (record.code != Some(0)).then(|| said(bundle)).flatten(),
            at_ms: record.finished_at_ms,
        },
        _ => Ended::lost(clock::now().wall_ms),
    }
}

/// Of a run that the kernel killed for want of memory.
fn whose_memory(bundle: &Bundle) -> Cause {
    match bundle.config().ok().and_then(|config| config.cgroup.out_of_memory()) {
        Some(OutOfMemory::Host) => Cause::OomHost,
        Some(OutOfMemory::Limit) | None => Cause::OomLimit,
    }
}

/// What the supervisor of a task with several processes said last: why it ended.
fn said(bundle: &Bundle) -> Option<String> {
    let supervised = bundle.config().ok()?.binds.iter().any(|b| b.target == Path::new(supervisor::PATH));
    let last =
        supervised.then(|| logs::read(&bundle.log(), Stream::Stderr, logs::From::Tail(1), LINE))?.ok()?;
    let line = String::from_utf8_lossy(&last.bytes);
    line.trim_end().strip_prefix(supervisor::SAYS).map(str::to_string)
}
