//! The shim's first moments: the bundle is locked, a builder is on its way, and it becomes a waiter.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use waiter::Waiter;

use super::serve::Ahead;
use super::{build, report};
use crate::bundle::{Announcement, Bundle, Failure};

/// Reading and writing end.
pub(super) type Pipe = (OwnedFd, OwnedFd);

/// What the shim and its builder share.
pub(super) struct Shared {
    /// Its POSIX lock is the shim's alone, and lasts over `execve`.
    lock: File,
    /// Tells the waiter of the container's first process: a [`waiter::Word`].
    pub(super) word: Pipe,
    /// The container's stdout and stderr.
    pub(super) output: [Pipe; 2],
}

pub(super) fn failed(what: impl Into<String>, why: impl ToString, hint: &str) -> Failure {
    Failure { what: what.into(), why: why.to_string(), hint: hint.into() }
}

pub(super) fn main(dir: &Path, channel: OwnedFd, ahead: &Ahead) -> ExitCode {
    let _ = nix::unistd::setsid();
    let bundle = Bundle::at(dir);
    let shared = match share(&bundle) {
        Ok(shared) => shared,
        Err(failure) => {
            report::announce(channel, &Announcement::Failed(failure));
            return ExitCode::FAILURE;
        }
    };
    let shim = std::process::id();
    // SAFETY: there is one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => build::main(&bundle, shared, channel, ahead, shim),
        Ok(ForkResult::Parent { child }) => {
            // Closed by the last who may write to it: the agent reads until then.
            drop(channel);
            become_waiter(dir, child, shared)
        }
        Err(errno) => {
            report::announce(channel, &Announcement::Failed(failed("fork the builder", errno, "")));
            ExitCode::FAILURE
        }
    }
}

fn share(bundle: &Bundle) -> Result<Shared, Failure> {
    let lock = lock(bundle)?;
    let made = || Ok(Shared { lock, word: pipe(0)?, output: [pipe(ROOM)?, pipe(ROOM)?] });
    made().map_err(|e: io::Error| failed("make pipes", e, ""))
}

/// For bursts of output.
const ROOM: libc::c_int = 256 * 1024;

/// Its reading end does not block.
fn pipe(room: libc::c_int) -> io::Result<Pipe> {
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
    let open = File::options().create(true).truncate(false).read(true).write(true).open(bundle.lock());
    let file = open.map_err(|e| failed(format!("open the bundle {shown}"), e, ""))?;
    // SAFETY: all zeroes is a valid flock: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    fcntl(file.as_raw_fd(), FcntlArg::F_SETLK(&lock))
        .map_err(|e| failed(format!("lock the bundle {shown}"), e, "another shim runs it"))?;
    Ok(file)
}

/// Execute this program again, as a waiter. If that fails, wait as we are: it only costs memory.
fn become_waiter(dir: &Path, builder: Pid, shared: Shared) -> ExitCode {
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

    let Ok(bundle) = CString::new(dir.as_os_str().as_bytes()) else { return ExitCode::FAILURE };
    let numbers = [builder.as_raw()].into_iter().chain(inherited);
    let numbers = numbers.map(|number| CString::new(number.to_string()).unwrap_or_default());
    let verb = [c"covey", waiter::VERB, waiter::FLAG, &bundle].map(CString::from);
    let args: Vec<CString> = verb.into_iter().chain(numbers).collect();
    // The very file that runs now, even if its path has been replaced by another version.
    let _ = nix::unistd::execve(c"/proc/self/exe", &args, &[] as &[CString]);

    let [word, stdout, stderr] = inherited;
    let waiter = Waiter { bundle: &bundle, builder: builder.as_raw(), word, output: [stdout, stderr] };
    ExitCode::from(waiter.run())
}

/// Keep a descriptor open over `execve`.
fn keep(fd: RawFd) {
    let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()));
}
