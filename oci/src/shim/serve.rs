//! The fork server: a single-threaded process that has done all that is slow the first time.
//!
//! A request is one message on its standard input, a socket: the path of a bundle, and with it the descriptor for the
//! announcement. When the other end is closed, the agent is gone and so is the server; its shims stay.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::dup2;
use oci_spec::runtime::LinuxSeccomp;

use super::start::{self, failed};
use super::vfork::Stack;
use super::{mounts, report};
use crate::bundle::{Announcement, Failure};
use crate::seccomp::{self, Filter};

/// Linux's own limit on paths.
pub(super) const LONGEST_PATH: usize = 4096;

/// What every start needs, made ahead.
pub(super) struct Ahead {
    pub(super) mounts: mounts::Ahead,
    /// The profile of containers without grants and what it compiles to.
    filter: Option<(LinuxSeccomp, Filter)>,
}

impl Ahead {
    fn make() -> Result<Ahead, Failure> {
        // A virtual machine is left for each question that a CPU is asked.
        #[cfg(target_arch = "x86_64")]
        let _ = std::is_x86_feature_detected!("avx2");
        let profile = seccomp::profile(&[]).ok();
        // SAFETY: there is one thread.
        let compile = |profile: &LinuxSeccomp| unsafe { Filter::compile_aside(profile) }.ok();
        let filter = profile.and_then(|profile| compile(&profile).map(|filter| (profile, filter)));
        let mounts = make_mounts()?;
        // Whatever is mapped here is copied for each container, three times.
        // SAFETY: it has no preconditions.
        unsafe { libc::malloc_trim(0) };
        Ok(Ahead { mounts, filter })
    }

    /// The compiled filter of a spec.
    pub(super) fn filter(&self, profile: &LinuxSeccomp) -> Result<Filter, Failure> {
        match &self.filter {
            Some((known, filter)) if known == profile => Ok(filter.clone()),
            _ => Filter::compile(profile)
                .map_err(|e| failed("filter system calls", e, "use a build with the feature `seccomp`")),
        }
    }
}

fn make_mounts() -> Result<mounts::Ahead, Failure> {
    mounts::Ahead::make().map_err(|(step, error)| failed(step, error, "the agent must run as root"))
}

/// `cgroups` are where the server, and so its shims, shall live.
pub(super) fn main(cgroups: &[PathBuf]) -> ExitCode {
    // Whatever the agent, or what started it, has left open is not for containers.
    // SAFETY: nothing in this process owns a descriptor beyond the standard three yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // What is typed at the agent's terminal, or sent to its group, is not for the server.
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    let _ = nix::sys::prctl::set_name(c"covey-shims");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Nobody waits for shims: the kernel takes them off the process table by itself.
    // SAFETY: ignoring installs no handler.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    for dir in cgroups {
        // A hierarchy that refuses leaves the shims in the agent's own cgroup there.
        let _ = fs::write(dir.join("cgroup.procs"), "0");
    }
    let mut ahead = Ahead::make();
    let Ok(stack) = Stack::new() else { return ExitCode::FAILURE };
    loop {
        // What nobody waits for.
        while !asked_within(QUIET_MS) {
            renew(&mut ahead);
            match &mut ahead {
                Ok(ahead) => ahead.mounts.wait(io::stdin().as_fd()),
                Err(_) => break,
            }
        }
        let (bundle, channel) = match request(libc::STDIN_FILENO) {
            Ok(Some(request)) => request,
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return ExitCode::FAILURE,
        };
        renew(&mut ahead);
        let ahead = match &ahead {
            Ok(ahead) => ahead,
            Err(failure) => {
                report::announce(channel, &Announcement::Failed(failure.clone()));
                continue;
            }
        };
        let number = channel.as_raw_fd();
        // SAFETY: there is one thread; the shim has descriptors of its own, and frees what it allocates.
        let forked = unsafe {
            stack.borrow(|| {
                become_child();
                start::main(&bundle, OwnedFd::from_raw_fd(number), ahead)
            })
        };
        if let Err(error) = forked {
            let failure = failed("make the shim", error, "the node may have too many processes");
            report::announce(channel, &Announcement::Failed(failure));
        }
    }
}

/// Bring it up to date, if it is not or could not be made.
fn renew(ahead: &mut Result<Ahead, Failure>) {
    match ahead {
        Err(_) => *ahead = Ahead::make(),
        Ok(ahead) => {
            // With the old ones if the new cannot be made: what they lack is named by the start that needs it.
            if ahead.mounts.is_outdated()
                && let Ok(mounts) = make_mounts()
            {
                ahead.mounts = mounts;
            }
        }
    }
}

/// Milliseconds without a request after which what was made ahead is looked after.
const QUIET_MS: u16 = 1000;

fn asked_within(ms: u16) -> bool {
    poll(&mut [PollFd::new(io::stdin().as_fd(), PollFlags::POLLIN)], ms) != Ok(0)
}

/// What is the server's alone.
fn become_child() {
    // SAFETY: no handler is installed.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    if let Ok(null) = File::open("/dev/null") {
        let _ = dup2(null.as_raw_fd(), libc::STDIN_FILENO);
    }
}

/// The next request; `None` when nobody is left to ask.
fn request(socket: RawFd) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    let mut path = [0; LONGEST_PATH];
    let mut space = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut path)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut channel = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: they are new, and nobody else's.
            channel = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next();
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    let channel = channel.ok_or(io::ErrorKind::InvalidData)?;
    let path = path.get(..length).unwrap_or_default();
    Ok(Some((Path::new(OsStr::from_bytes(path)).to_path_buf(), channel)))
}
