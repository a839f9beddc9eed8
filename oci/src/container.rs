//! A container as the agent sees it: spawned, found again, signalled, its end read, its remains removed.
//!
//! Everything here is synchronous and cheap, except a shim's announcement ([`ForkServer::spawn`]), which comes when the
//! container runs or cannot, and [`remove`], which may wait for processes to die.

mod remains;
mod server;
mod stock;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};

use crate::bundle::{self, Announcement, Bundle, ExitRecord, Process, State};
use crate::{cgroup, pidfd};

pub use server::ForkServer;
pub use stock::Stock;

/// A run could not be spawned, signalled or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The fork server could not be executed, or is out of reach.
    #[error("cannot start a shim of {exe}: {source}")]
    Spawn {
        /// This program.
        exe: String,
        /// The cause.
        source: io::Error,
    },
    /// A shim said nothing, or nothing that is known.
    #[error("the shim of {bundle} ended without saying how the start went ({said:?})")]
    Silent {
        /// The bundle directory.
        bundle: String,
        /// What there was.
        said: String,
    },
    /// Whether a shim is there could not be seen.
    #[error("cannot see whether the shim of {bundle} lives: {source}")]
    Look {
        /// The bundle directory.
        bundle: String,
        /// The cause.
        source: io::Error,
    },
    /// Signalling failed for another reason than the process being gone.
    #[error("cannot signal process {pid}: {source}")]
    Signal {
        /// The process.
        pid: i32,
        /// The cause.
        source: io::Error,
    },
    /// The bundle's documents.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The run's cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The directory could not be deleted.
    #[error("cannot delete the bundle {bundle}: {source}")]
    Delete {
        /// The bundle directory.
        bundle: String,
        /// The cause.
        source: io::Error,
    },
}

/// Read what a shim has written to its announcement pipe.
pub fn parse_announcement(bundle: &Path, said: &[u8]) -> Result<Announcement, Error> {
    serde_json::from_slice(said).map_err(|_| Error::Silent {
        bundle: bundle.display().to_string(),
        said: String::from_utf8_lossy(said).chars().take(200).collect(),
    })
}

/// A run whose shim is there.
#[derive(Debug)]
pub struct Live {
    /// The shim's pid.
    pub shim: i32,
    /// Readable (poll) when the shim has ended; then the exit record is there, or the shim was lost.
    pub shim_pidfd: OwnedFd,
    /// What the shim has written; `None` while the container is still being started, and when the recorded processes
    /// are not those that run now.
    pub state: Option<State>,
}

impl Live {
    /// Find the live shim of a bundle: the holder of its lock, whatever has become of pids since.
    pub fn find(bundle: &Bundle) -> Result<Option<Live>, Error> {
        // What cannot be looked at is an error and never "gone": the caller would take a running container for lost.
        let failed = |source| Error::Look { bundle: bundle.dir().display().to_string(), source };
        let Some(shim) = lock_holder(bundle).map_err(failed)? else { return Ok(None) };
        let shim_pidfd = match pidfd::open(shim) {
            Ok(held) => held,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // Asked again now that the process is held: it is the holder, and not one that came after.
        if lock_holder(bundle).map_err(failed)? != Some(shim) {
            return Ok(None);
        }
        let state = bundle.state()?.filter(|state| state.shim.pid == shim && state.shim.is_there());
        Ok(Some(Live { shim, shim_pidfd, state }))
    }
}

/// Who holds the bundle's lock.
fn lock_holder(bundle: &Bundle) -> io::Result<Option<i32>> {
    let file = match File::options().read(true).write(true).open(bundle.lock()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // SAFETY: all zeroes is a valid flock: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    fcntl(file.as_raw_fd(), FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid > 0).then_some(lock.l_pid))
}

/// Delete a directory that containers have written to, however deep; nothing there is fine.
pub fn delete_tree(dir: &Path) -> io::Result<()> {
    remains::delete(dir)
}

/// Delete all that is in a directory, in the same way.
pub fn empty_tree(dir: &Path) -> io::Result<()> {
    remains::empty(dir)
}

/// Signal a process that was recorded earlier. False when it is gone; a later process with its pid is never hit.
pub fn signal(process: &Process, signal: i32) -> Result<bool, Error> {
    let failed = |source| Error::Signal { pid: process.pid, source };
    let Some(held) = process.hold().map_err(failed)? else { return Ok(false) };
    match pidfd::signal(&held, signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a signal from outside of its namespace would reach a process: the kernel drops what the first process of a pid
/// namespace, which a container's init is, neither catches nor blocks (pid_namespaces(7)). True when the process is gone.
pub fn is_heard(process: &Process, signal: i32) -> bool {
    // Those two cannot be caught, and reach it from outside.
    if signal == libc::SIGKILL || signal == libc::SIGSTOP || !process.is_there() {
        return true;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", process.pid)) else { return true };
    let is_in = |name: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
        u32::try_from(signal - 1).is_ok_and(|bit| set.checked_shr(bit).unwrap_or_default() & 1 == 1)
    };
    ["SigCgt", "SigBlk"].into_iter().any(is_in)
}

/// How a run ended; `None` while it has not, or when its shim was lost. To be asked before the run's removal, which takes
/// the cgroup along that knows of memory kills.
pub fn exit_record(bundle: &Bundle) -> Result<Option<ExitRecord>, Error> {
    let Some(mut record) = bundle.exit_record()? else { return Ok(None) };
    // The kernel may have killed a child long ago and the program have ended well: that is not an end by OOM. A shell
    // says 137 when its child was killed.
    if record.signal == Some(libc::SIGKILL) || record.code == Some(128 + libc::SIGKILL) {
        record.oom |= bundle.config()?.cgroup.oom_kills() > 0;
    }
    Ok(Some(record))
}

/// Remove all of a run: its shim and processes if any are left, its cgroups, its directory. Doing it again is fine.
pub fn remove(bundle: &Bundle) -> Result<(), Error> {
    end(bundle)?;
    let failed = |source| Error::Delete { bundle: bundle.dir().display().to_string(), source };
    remains::delete(bundle.dir()).map_err(failed)
}

/// The same, but that its directory may serve another run.
pub fn recycle(bundle: &Bundle, stock: &Stock) -> Result<(), Error> {
    end(bundle)?;
    stock.put(bundle)
}

/// Leave nothing of a run but its directory.
fn end(bundle: &Bundle) -> Result<(), Error> {
    if let Some(live) = Live::find(bundle)? {
        let _ = pidfd::signal(&live.shim_pidfd, libc::SIGKILL);
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(&live.shim_pidfd),
            nix::poll::PollFlags::POLLIN,
        )];
        let _ = nix::poll::poll(&mut fds, 5_000u16);
    }
    // A directory whose config is gone was being removed when something interrupted it: only files are left. So they are
    // where its config, which nobody syncs, was lost with the power, and where there can be no cgroups.
    let cgroup = match bundle.config() {
        Ok(config) => Some(config.cgroup),
        Err(bundle::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(bundle::Error::Parse { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(cgroup) = cgroup
        && !cgroup.remove_if_empty()
    {
        cgroup.kill()?;
        cgroup.remove()?;
    }
    Ok(())
}
