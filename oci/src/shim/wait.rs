//! The waiter: all that a running container needs beside it.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::pump::Pump;
use super::start::{Running, keep};
use crate::bundle::{Bundle, BundleConfig, ExitRecord, Stream, VERSION, now_ms};
use crate::pidfd;

/// Execute this program again, as a waiter. If that fails, wait as we are: it only costs memory.
pub(super) fn become_waiter(bundle: &Path, running: &Running) -> ExitCode {
    let init = running.started.state.init.pid;
    let output = [0, 1].map(|stream| running.started.output[stream].as_raw_fd());
    let lock = running.lock.as_raw_fd();
    let numbers = [init, output[0], output[1], lock];
    let args = ["covey", "shim", "--wait"].map(|arg| CString::new(arg).unwrap_or_default());
    let bundle_arg = CString::new(bundle.as_os_str().as_bytes()).unwrap_or_default();
    let numbers = numbers.map(|n| CString::new(n.to_string()).unwrap_or_default());
    let args: Vec<CString> = args.into_iter().chain([bundle_arg]).chain(numbers).collect();
    [output[0], output[1], lock].into_iter().for_each(keep);
    // The very file that runs now, even if its path has been replaced by another version.
    let _ = nix::unistd::execv(c"/proc/self/exe", &args);
    main(bundle, init, output, lock)
}

/// Wait for `init`, a child of ours; the other numbers are open descriptors.
pub(super) fn main(dir: &Path, init: i32, output: [i32; 2], lock: i32) -> ExitCode {
    // SAFETY: these were handed over by the process that this one was before.
    let [stdout, stderr, _lock] = [output[0], output[1], lock].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let _ = nix::sys::prctl::set_name(c"covey-shim");
    // A shim goes when its container does. What ends sessions and services is for the container to hear, not for it.
    for stop in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: ignoring installs no handler.
        let _ = unsafe { signal(stop, SigHandler::SigIgn) };
    }
    let bundle = Bundle::at(dir);
    let Ok(config) = bundle.config() else { return ExitCode::FAILURE };
    let mut pumps = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
        .map(|(stream, pipe)| Pump::new(stream, pipe, bundle.log(), config.log_cap_bytes));

    let end = wait(init, &mut pumps);
    // Its writers are dead: what is in the pipes is all there will be.
    for pump in &mut pumps {
        while pump.step() {}
    }
    finish(&bundle, &config, end, pumps.iter().map(Pump::lost).sum())
}

/// Move bytes until `init` has ended.
fn wait(init: i32, pumps: &mut [Pump; 2]) -> Option<WaitStatus> {
    let process = pidfd::open(init);
    loop {
        let mut fds: Vec<PollFd> =
            pumps.iter().filter_map(Pump::pipe).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = match &process {
            Ok(fd) => {
                fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
                PollTimeout::NONE
            }
            // Already gone, or a kernel before 5.3: look now and then.
            Err(_) => PollTimeout::from(50u16),
        };
        let polled = poll(&mut fds, timeout);
        drop(fds);
        if polled.is_err_and(|errno| errno != Errno::EINTR) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        for pump in pumps.iter_mut() {
            pump.step();
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(status) if status.pid() == Some(Pid::from_raw(init)) => return Some(status),
                Ok(_) => {}
                Err(Errno::ECHILD) => return None,
                Err(_) => break,
            }
        }
    }
}

/// The record first, and removal after it: whoever sees no cgroup can read how the run ended.
fn finish(bundle: &Bundle, config: &BundleConfig, end: Option<WaitStatus>, log_bytes_lost: u64) -> ExitCode {
    let (code, signal) = match end {
        Some(WaitStatus::Exited(_, code)) => (Some(code), None),
        Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
        _ => (None, Some(libc::SIGKILL)),
    };
    // The kernel may have killed a child long ago and the program have ended well: that is not an end by OOM. A shell
    // says 137 when its child was killed.
    let killed = signal == Some(libc::SIGKILL) || code == Some(128 + libc::SIGKILL);
    let record = ExitRecord {
        version: VERSION,
        code,
        signal,
        oom: killed && config.cgroup.oom_kills() > 0,
        finished_at_ms: now_ms(),
        error: None,
        log_bytes_lost,
    };
    let _ = config.cgroup.kill();
    let mut written = bundle.write_exit_record(&record);
    for _ in 0..100 {
        if written.is_ok() {
            break;
        }
        // Room was set aside; where that does not help (a disk that is gone), another second may.
        std::thread::sleep(std::time::Duration::from_millis(10));
        written = bundle.write_exit_record(&record);
    }
    let _ = config.cgroup.remove();
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
