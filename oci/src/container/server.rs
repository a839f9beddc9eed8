//! The agent's end of the fork server (see [`crate::shim`]).

use std::io::{self, IoSlice, PipeReader};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use super::Error;
use crate::cgroup::{Placement, Tree};

/// Starts shims, through a process that it has executed ahead. Dropped, it ends that process; shims stay.
#[derive(Debug)]
pub struct ForkServer {
    exe: PathBuf,
    cgroups: Vec<PathBuf>,
    /// Of v1, where containers are moved.
    door: Option<PathBuf>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Closed, it tells the server that nobody is left to serve.
    socket: Option<OwnedFd>,
}

impl ForkServer {
    /// Execute `exe`, a covey binary, so that it is ready when the first container is asked for. Its shims live in
    /// the cgroups that `tree` has for them.
    pub fn start(exe: &Path, tree: &Tree) -> Result<ForkServer, Error> {
        let server = ForkServer {
            exe: exe.into(),
            cgroups: tree.shims(),
            door: tree.door(),
            running: Mutex::default(),
        };
        server.look_after()?;
        Ok(server)
    }

    /// Execute it again if it has died. To be called now and then, so that the next start need not.
    pub fn look_after(&self) -> Result<(), Error> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &mut *running
            && matches!(server.child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        // The dead one is taken off the process table first.
        *running = None;
        *running = Some(self.execute()?);
        Ok(())
    }

    /// End it. The next shim would need a new one.
    pub fn stop(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Start a shim for the bundle in `dir`, and make its cgroups. What is returned is where it says how that went: one
    /// line comes, then the end (see [`super::parse_announcement`]). Blocking; a runtime may poll the descriptor.
    pub fn spawn(&self, dir: &Path, cgroup: &Placement) -> Result<PipeReader, Error> {
        // A builder is either made in the only one, or needs none before the container is built.
        if cgroup.is_unified() {
            cgroup.create()?;
        }
        let failed = |source| Error::Spawn { exe: self.exe.display().to_string(), source };
        let (announcement, channel) = io::pipe().map_err(failed)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Once with the server that is there, if it is, and once with a new one.
        let asked = running.as_ref().is_some_and(|server| server.ask(dir, channel.as_raw_fd()).is_ok());
        if !asked {
            // The old one goes first: it is waited for.
            *running = None;
            let server = running.insert(self.execute()?);
            server.ask(dir, channel.as_raw_fd()).map_err(failed)?;
        }
        let server = running.as_ref().map(|server| server.child.id());
        drop(running);
        // The builder will say what is wrong with them.
        if cgroup.is_unified() || cgroup.create().is_ok() {
            self.nudge(server);
        }
        Ok(announcement)
    }

    /// The first process that changes its cgroup after a quiet while waits ten milliseconds, in which every CPU passes
    /// through a quiet state. The container does so last; now the server does, without going anywhere, so that it is
    /// built meanwhile. Not earlier: cgroups cannot be made either until that is over.
    fn nudge(&self, server: Option<u32>) {
        if let (Some(server), Some(door)) = (server, &self.door) {
            let _ = std::fs::write(door, server.to_string());
        }
    }

    /// Its environment is empty, its standard output and error are `/dev/null`; it leaves the caller's session, working
    /// directory and cgroups by itself.
    fn execute(&self) -> Result<Running, Error> {
        let failed = |source| Error::Spawn { exe: self.exe.display().to_string(), source };
        let (family, flags) = (AddressFamily::Unix, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) =
            socketpair(family, SockType::SeqPacket, None, flags).map_err(|e| failed(e.into()))?;
        let mut command = Command::new(&self.exe);
        command.args(["shim", "--serve"]).args(&self.cgroups).env_clear();
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        Ok(Running { child, socket: Some(ours) })
    }
}

impl Running {
    fn ask(&self, bundle: &Path, channel: i32) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Err(Errno::EPIPE.into()) };
        let path = [IoSlice::new(bundle.as_os_str().as_bytes())];
        let fds = [channel];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &path, &control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}
