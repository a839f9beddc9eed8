//! The namespaces of a host or of the lab's network: kept by one sleeping process, the *holder*, in a cgroup of the lab,
//! and by nothing else. So they end, mounts and links and all, when it is killed, and nothing of them is ever to be seen
//! on the machine itself.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, fork, sethostname, setsid, write};

use crate::cgroups::Cgroups;
use crate::{Error, Result};

/// The cgroup of a holder, below that of the host.
const HOLD: &str = "hold";

/// Which namespaces are own ones.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The network alone.
    Network,
    /// Network, host name and mounts.
    Host,
}

impl Kind {
    fn flags(self) -> CloneFlags {
        match self {
            Kind::Network => CloneFlags::CLONE_NEWNET,
            Kind::Host => CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS,
        }
    }
}

/// Namespaces that are held.
#[derive(Clone, Debug)]
pub(super) struct Space {
    kind: Kind,
    cgroups: Cgroups,
}

impl Space {
    /// Makes new namespaces, held in `cgroups`.
    pub(super) fn make(kind: Kind, cgroups: Cgroups, name: &str) -> Result<Self> {
        let doors = cgroups.child(HOLD)?.doors()?;
        let name = name.to_owned();
        let mut holder = Command::new("/bin/sleep");
        holder.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let prepare = move || {
            doors.iter().try_for_each(|door| write(door.as_fd(), b"0").map(drop))?;
            unshare(kind.flags())?;
            if let Kind::Host = kind {
                sethostname(&name)?;
                let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?;
            }
            detach()
        };
        // SAFETY: what runs between fork and exec are system calls; nothing is allocated and no lock taken.
        unsafe { holder.pre_exec(prepare) };
        run_detached(&mut holder)?;
        Ok(Self { kind, cgroups })
    }

    /// Those that are held in `cgroups` already.
    pub(super) fn held(kind: Kind, cgroups: Cgroups) -> Self {
        Self { kind, cgroups }
    }

    /// The holder's pid, if it lives.
    pub(super) fn holder(&self) -> Option<i32> {
        self.cgroups.below_named(HOLD).processes().first().copied()
    }

    /// A command in these namespaces; in the cgroup `below` that of the host, if one is named.
    pub(super) fn command(&self, program: impl AsRef<OsStr>, below: Option<&str>) -> Result<Command> {
        let holder = self.holder().ok_or_else(no_holder)?;
        let (holder, flags) = (pidfd(holder)?, self.kind.flags());
        let doors = match below {
            Some(name) => self.cgroups.child(name)?.doors()?,
            None => Vec::new(),
        };
        let mut command = Command::new(program);
        let enter = move || {
            doors.iter().try_for_each(|door| write(door.as_fd(), b"0").map(drop))?;
            Ok(setns(&holder, flags)?)
        };
        // SAFETY: as above.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }
}

impl Space {
    /// Does something in this network: a thread may enter it, and ends with it.
    pub(super) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let holder = pidfd(self.holder().ok_or_else(no_holder)?)?;
        let entered = move || -> Result<T> {
            let enter = setns(holder, CloneFlags::CLONE_NEWNET);
            enter.map_err(|why| Error::file("enter the network of", "the host")(why.into()))?;
            Ok(act())
        };
        thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

fn no_holder() -> Error {
    Error::Missing("the process that holds the namespaces is gone; `covey-lab down` cleans up".to_owned())
}

/// Lets `command` run on by itself: in a session of its own, as a child of init. Returns when its program has begun.
pub(super) fn spawn_detached(command: &mut Command) -> Result<()> {
    // SAFETY: only system calls.
    unsafe { command.pre_exec(detach) };
    run_detached(command)
}

/// The child that was made leaves at once; its own child goes on.
fn detach() -> io::Result<()> {
    setsid()?;
    // SAFETY: between fork and exec there is one thread, and the child only goes on to exec.
    match unsafe { fork() }? {
        // SAFETY: ends the process without running anything of the parent's.
        ForkResult::Parent { .. } => unsafe { libc::_exit(0) },
        ForkResult::Child => Ok(()),
    }
}

fn run_detached(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why| Error::Run { program, why, hint: "" };
    command.spawn().and_then(|mut child| child.wait()).map(drop).map_err(failed)
}

fn pidfd(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed; a result that is no error is a new descriptor of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(Error::file("open the process", format!("/proc/{pid}"))(io::Error::last_os_error()));
    }
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}
