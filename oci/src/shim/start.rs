//! The shim's first moments: the bundle is locked, a builder is on its way, and it becomes a waiter.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, pipe2};

use super::build::{self, Born};
use super::serve::Ahead;
use super::{report, vfork};
use crate::bundle::{Announcement, BindKind, Bundle, BundleConfig, Failure};

/// Reading and writing end.
pub(super) type Pipe = (OwnedFd, OwnedFd);

/// What the shim and its builder share.
pub(super) struct Shared {
    /// Its POSIX lock is the shim's alone, and lasts over `execve`.
    pub(super) lock: File,
    /// Tells the waiter of the container's first process: a [`waiter::Word`].
    pub(super) word: Pipe,
    /// The container's stdout and stderr.
    pub(super) output: [Pipe; 2],
}

pub(super) fn failed(what: impl Into<String>, why: impl ToString, hint: &str) -> Failure {
    Failure { what: what.into(), why: why.to_string(), hint: hint.into() }
}

/// In the shim, which has the server's memory until it becomes a waiter: whatever is allocated is freed before. Returns
/// only when that cannot be.
pub(super) fn main(dir: &Path, channel: OwnedFd, ahead: &Ahead) -> c_int {
    let _ = nix::unistd::setsid();
    let bundle = Bundle::at(dir);
    let begun = share(&bundle).and_then(|shared| {
        let config =
            bundle.config().map_err(|e| failed(format!("read the bundle {}", dir.display()), e, ""))?;
        Ok((shared, config))
    });
    let (shared, config) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            report::announce(channel, &Announcement::Failed(failure));
            return 1;
        }
    };
    let shim = std::process::id();
    match fork_builder(&config) {
        Ok(Forked::Builder { born_inside }) => {
            let born = Born { shim, inside: born_inside };
            let code = build::main(&bundle, &config, shared, channel, ahead, born);
            // SAFETY: ending is always possible. What the C library would do at its end is the server's business.
            unsafe { libc::_exit(code) }
        }
        Ok(Forked::Shim { builder }) => {
            // The channel is closed by the last who may write to it: the agent reads until then.
            drop((channel, config, bundle));
            become_waiter(dir, builder, shared)
        }
        Err(error) => {
            let failure = failed("fork the builder", error, "the node may have too many processes");
            report::announce(channel, &Announcement::Failed(failure));
            1
        }
    }
}

enum Forked {
    Shim { builder: Pid },
    Builder { born_inside: bool },
}

fn fork_builder(config: &BundleConfig) -> io::Result<Forked> {
    // Not for a container that gets devices: making their nodes is not allowed in there.
    let outside = config.binds.iter().any(|bind| bind.kind == BindKind::Device);
    let birthplace = if outside { None } else { config.cgroup.birthplace() };
    for place in [birthplace.as_ref(), None] {
        // SAFETY: there is one thread.
        match unsafe { vfork::fork(place.map(|dir| dir.as_fd())) } {
            Ok(None) => return Ok(Forked::Builder { born_inside: place.is_some() }),
            Ok(Some(builder)) => return Ok(Forked::Shim { builder }),
            // Older kernels know no birthplaces.
            Err(_) if place.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

fn share(bundle: &Bundle) -> Result<Shared, Failure> {
    let lock = lock(bundle)?;
    let made = || Ok(Shared { lock, word: pipe(0)?, output: [pipe(ROOM)?, pipe(ROOM)?] });
    made().map_err(|e: io::Error| failed("make pipes", e, ""))
}

/// For bursts of output.
const ROOM: c_int = 256 * 1024;

/// Its reading end does not block.
fn pipe(room: c_int) -> io::Result<Pipe> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    if room > 0 {
        let _ = fcntl(read.as_raw_fd(), FcntlArg::F_SETPIPE_SZ(room));
    }
    fcntl(read.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Held until the shim ends; the agent asks with `F_GETLK` who holds it.
fn lock(bundle: &Bundle) -> Result<File, Failure> {
    let shown = bundle.dir().display();
    let mut options = File::options();
    let open = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(bundle.lock());
    let file = open.map_err(|e| failed(format!("open the bundle {shown}"), e, ""))?;
    // SAFETY: all zeroes is a valid flock: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    fcntl(file.as_raw_fd(), FcntlArg::F_SETLK(&lock))
        .map_err(|e| failed(format!("lock the bundle {shown}"), e, "another shim runs it"))?;
    Ok(file)
}

/// Execute this program again, as a waiter. Where that fails, the builder ends with us.
fn become_waiter(dir: &Path, builder: Pid, shared: Shared) -> c_int {
    // A shim goes when its container does. What ends sessions and services is for the container to hear, not for it; and
    // what is ignored stays so over execve.
    for stop in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: ignoring installs no handler.
        let _ = unsafe { signal(stop, SigHandler::SigIgn) };
    }
    let Shared { lock, word: (word, word_end), output: [(stdout, stdout_end), (stderr, stderr_end)] } =
        shared;
    drop((word_end, stdout_end, stderr_end));
    let inherited = [word.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
    inherited.into_iter().chain([lock.as_raw_fd()]).for_each(keep);

    // On the stack: nobody could free it.
    let mut texts = [0u8; LONGEST];
    let mut left = &mut texts[..];
    let numbers = [builder.as_raw()].into_iter().chain(inherited);
    let written = left.write_all(dir.as_os_str().as_bytes()).and_then(|()| left.write_all(b"\0"));
    let written = numbers.fold(written, |so_far, number| so_far.and_then(|()| write!(left, "{number}\0")));
    if written.is_err() {
        return 1;
    }
    let fixed = [c"covey", waiter::VERB, waiter::FLAG].map(CStr::as_ptr);
    let mut args = [std::ptr::null(); 9];
    let mut rest = &texts[..];
    for (index, arg) in args.iter_mut().take(8).enumerate() {
        *arg = fixed.get(index).copied().unwrap_or(rest.as_ptr().cast());
        if index >= fixed.len() {
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or_default();
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }
    let no_environment = [std::ptr::null()];
    // The very file that runs now, even if its path has been replaced by another version.
    // SAFETY: both lists end with a null pointer, and all strings with a zero.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), args.as_ptr(), no_environment.as_ptr()) };
    1
}

/// A path and some numbers.
const LONGEST: usize = super::serve::LONGEST_PATH + 64;

/// Keep a descriptor open over `execve`.
fn keep(fd: RawFd) {
    let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()));
}
