//! From a bundle to a running container, or to a named failure with nothing left over.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use oci_spec::runtime::Spec;

use super::binds::Binds;
use super::report;
use super::{build, mounts};
use crate::bundle::{
    Announcement, Bundle, BundleConfig, ExitRecord, Failure, Process, State, VERSION, now_ms,
};
use crate::seccomp;

pub(super) fn main(dir: &Path) -> ExitCode {
    // Whatever the agent, or what started it, has left open is not for the container.
    // SAFETY: nothing in this process owns a descriptor beyond the standard three yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    let _ = nix::unistd::setsid();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let bundle = Bundle::at(dir);
    match start(&bundle) {
        Ok(running) => {
            report::announce(&Announcement::Started(running.started.state.clone()));
            super::wait::become_waiter(dir, &running)
        }
        Err(failure) => {
            report::announce(&Announcement::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// What the waiter goes on with.
pub(super) struct Running {
    pub(super) started: Started,
    /// Its POSIX lock lasts over `execve`.
    pub(super) lock: File,
}

pub(super) struct Started {
    pub(super) state: State,
    /// Reading ends of the container's stdout and stderr.
    pub(super) output: [OwnedFd; 2],
    /// See [`mounts::Host`].
    _host: mounts::Host,
}

pub(super) fn failed(what: impl Into<String>, why: impl ToString, hint: &str) -> Failure {
    Failure { what: what.into(), why: why.to_string(), hint: hint.into() }
}

fn start(bundle: &Bundle) -> Result<Running, Failure> {
    let shown = bundle.dir().display();
    let read = |e: crate::bundle::Error| failed(format!("read the bundle {shown}"), e, "");
    let (config, spec) = (bundle.config().map_err(read)?, bundle.spec().map_err(read)?);
    let lock =
        lock(bundle).map_err(|e| failed(format!("lock the bundle {shown}"), e, "another shim runs it"))?;
    let result = bundle
        .reserve_exit_record()
        .map_err(|e| {
            failed("set room aside for the exit record", e, "free some space on the data directory's disk")
        })
        .and_then(|()| attempt(bundle, &config, spec));
    // Under the lock: whoever finds it free finds the record, and nothing else left.
    let started = result.inspect_err(|failure| clean_up(bundle, &config, failure))?;
    Ok(Running { started, lock })
}

/// Held until the shim ends; the agent asks with `F_GETLK` who holds it.
fn lock(bundle: &Bundle) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).read(true).write(true).open(bundle.lock())?;
    // SAFETY: all zeroes is a valid flock: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    fcntl(file.as_raw_fd(), FcntlArg::F_SETLK(&lock))?;
    Ok(file)
}

fn attempt(bundle: &Bundle, config: &BundleConfig, mut spec: Spec) -> Result<Started, Failure> {
    seccomp::check(&spec)
        .map_err(|e| failed("filter system calls", e, "use a build with the feature `seccomp`"))?;
    let cgroup = |e: crate::cgroup::Error| failed("prepare the run's cgroups", e, "");
    // Built inside its cgroups, so that every process of it is in them from the start; limits come afterwards.
    config.cgroup.create().map_err(cgroup)?;
    let doors = config.cgroup.doors().map_err(cgroup)?;

    let binds = Binds::open(&config.binds)?;
    let host = mounts::enter().map_err(|(step, error)| failed(step, error, "the agent must run as root"))?;
    let built = build::build(bundle, config, &mut spec, doors, &binds);
    host.back().map_err(|e| failed("return to the host's mounts", e, ""))?;
    config.cgroup.join_shims().map_err(cgroup)?;
    let built = built?;

    config
        .cgroup
        .apply(&config.limits)
        .map_err(|e| failed("limit the container", e, "give the task more"))?;
    if let Some(score) = built.oom_score_adj {
        // Fails only for scores below ours without CAP_SYS_RESOURCE; spec::build asks for none then.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", built.init), score.to_string());
    }
    // Any connection is the word to go on; closing the socket's directory would do as well as any message.
    let go = format!("/proc/self/fd/{}/notify.sock", built.state.as_raw_fd());
    let go = UnixStream::connect(go).and_then(|mut socket| socket.write_all(b"start container"));
    go.map_err(|e| failed("start the container's init", e, ""))?;
    if let Some(failure) = report::read(built.report) {
        return Err(failure);
    }

    let this = std::process::id() as i32;
    let gone = || failed("find the container's first process", "it is gone", "");
    let state = State {
        version: VERSION,
        shim: Process::now(this).ok_or_else(gone)?,
        init: Process::now(built.init).ok_or_else(gone)?,
        started_at_ms: now_ms(),
    };
    bundle
        .write_state(&state)
        .map_err(|e| failed("record the start", e, "free some space on the data directory's disk"))?;
    Ok(Started { state, output: built.output, _host: host })
}

/// Keep a descriptor open over `execve`.
pub(super) fn keep(fd: RawFd) {
    let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()));
}

/// Take what has ended off the process table.
pub(super) fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}

/// After a failed start: kill, reap, record, and only then remove.
fn clean_up(bundle: &Bundle, config: &BundleConfig, failure: &Failure) {
    // Killing the cgroup must not reach the shim itself.
    let outside = config.cgroup.join_shims().is_ok();
    if outside {
        let _ = config.cgroup.kill();
    }
    reap();
    let record = ExitRecord {
        version: VERSION,
        code: None,
        signal: None,
        oom: false,
        finished_at_ms: now_ms(),
        error: Some(failure.clone()),
        log_bytes_lost: 0,
    };
    // The agent learns of it from the announcement as well.
    let _ = bundle.write_exit_record(&record);
    if outside {
        let _ = config.cgroup.remove();
    }
}
