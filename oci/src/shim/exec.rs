//! `covey shim --exec`: a command in a container that runs. One helper process for each: it stays outside, its one child
//! goes in.
//!
//! The socket to the agent is its standard input. It says when the program has been executed and how it ended, takes
//! signals, and when the agent hangs up (or dies) it ends the command. Whatever the command has started is in a cgroup of
//! its own and ends with it.

mod ended;
mod enter;
mod terminal;

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use self::enter::Way;
use super::report::{self, Reporter};
use super::start::failed;
use crate::bundle::{Bundle, Failure};
use crate::cgroup::Nest;
use crate::container::Live;
use crate::exec::message::{self, Order, Said, Told, Work};
use crate::pidfd;

/// For a command to end by itself once nobody wants it any more, before it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// For killed processes to be gone.
const DYING: Duration = Duration::from_secs(5);

pub(super) fn main() -> ExitCode {
    // SAFETY: nothing in this process owns a descriptor beyond the standard three yet.
    let control = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        let moved = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3);
        if moved < 0 {
            return ExitCode::FAILURE;
        }
        OwnedFd::from_raw_fd(moved)
    };
    // The child is to have no descriptor of ours by accident, and nothing in the container may look into it.
    let _ = nix::unistd::dup2(1, 0);
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = nix::sys::prctl::set_name(c"covey-exec");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));

    let Ok(Some((order, fds))) = message::receive::<Order>(&control) else { return ExitCode::FAILURE };
    match begin(&order, fds, &control) {
        Ok(inside) => {
            let status = inside.attend(&control);
            let _ = message::send(&control, &status, &[]);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = message::send(&control, &Said::Failed(failure), &[]);
            ExitCode::FAILURE
        }
    }
}

/// A command under way.
struct Inside {
    child: Pid,
    /// What it starts is in cgroups of its own, if it is in a container.
    nest: Option<Nest>,
    /// Whether it ends by itself when its input breaks off, and tidies up then.
    tidies: bool,
}

fn begin(order: &Order, fds: Vec<OwnedFd>, control: &OwnedFd) -> Result<Inside, Failure> {
    if order.ended {
        return ended::begin(order, fds, control);
    }
    let bundle = Bundle::at(&order.bundle);
    let shown = bundle.dir().display().to_string();
    let read = |e: crate::bundle::Error| failed(format!("read the bundle {shown}"), e, "");
    let (config, spec) = (bundle.config().map_err(read)?, bundle.spec().map_err(read)?);
    let gone = || failed("enter the container", "it does not run", "");
    let live = Live::find(&bundle).map_err(|e| failed("find the container", e, ""))?;
    let init = live.and_then(|live| live.state).ok_or_else(gone)?.init;
    let way = Way::to(&init, &config, &spec, order)?;
    // Looked at again now that all is open: it is the container's, and not a later process's.
    if !init.is_there() {
        return Err(gone());
    }

    let name = format!("exec-{}", std::process::id());
    let cgroup = |e: crate::cgroup::Error| failed("enter the container's cgroups", e, "");
    let (nest, doors) = config.cgroup.nest(&name).map_err(cgroup)?;
    let pipes = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let started = pipes().map_err(|e| failed("make a pipe", e, "")).and_then(|(said, says)| {
        // For children only: this process stays where it is.
        if let Some(namespace) = way.pid_namespace() {
            setns(namespace, CloneFlags::CLONE_NEWPID)
                .map_err(|e| failed("enter the container's pid namespace", e, ""))?;
        }
        // SAFETY: this process has one thread, so that the child may do whatever it likes.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(said);
                way.take(order, doors, fds, control, Reporter::new(&says))
            }
            Ok(ForkResult::Parent { child }) => {
                drop((says, fds));
                Ok((child, said))
            }
            Err(errno) => Err(failed("make a process", errno, "")),
        }
    });
    let inside = started.map(|(child, said)| {
        let tidies = !matches!(order.work, Work::Program(_));
        (Inside { child, nest: Some(nest), tidies }, said)
    });
    let (inside, said) = inside?;
    // Closed by execve, or before work of ours begins.
    if let Some(failure) = report::read(said) {
        let _ = waitpid(inside.child, None);
        inside.kill();
        return Err(failure);
    }
    if message::send(control, &Said::Started { pid: inside.child.as_raw() }, &[]).is_err() {
        // The agent is gone already; `attend` sees it.
    }
    Ok(inside)
}

impl Inside {
    /// Until the command has ended, or nobody wants it any more.
    fn attend(self, control: &OwnedFd) -> Said {
        let process = pidfd::open(self.child.as_raw()).ok();
        let mut wanted = true;
        let status = loop {
            match waitpid(self.child, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                ended => break ended,
            }
            let mut fds = Vec::new();
            if wanted {
                fds.push(PollFd::new(control.as_fd(), PollFlags::POLLIN));
            }
            fds.extend(process.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            let patience = match (wanted, &process) {
                (true, Some(_)) => PollTimeout::NONE,
                (false, Some(_)) => PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO),
                // Already gone, or a kernel before 5.3: look now and then.
                (_, None) => PollTimeout::from(20u16),
            };
            let ready = poll(&mut fds, patience).unwrap_or(0);
            if !wanted && ready == 0 {
                let _ = nix::sys::signal::kill(self.child, Signal::SIGKILL);
                self.nest.iter().for_each(|nest| nest.kill(DYING));
                break waitpid(self.child, None);
            }
            let heard = wanted && fds.first().and_then(|fd| fd.any()).unwrap_or(false);
            drop(fds);
            if heard {
                wanted = self.hear(control);
                if !wanted && !self.tidies {
                    // As a terminal that goes away would, and for those who do not listen to that.
                    let _ = killpg(self.child, Signal::SIGHUP);
                    let _ = killpg(self.child, Signal::SIGTERM);
                }
            }
        };
        // What it had started ends with it.
        self.kill();
        let (code, signal) = match status {
            Ok(WaitStatus::Exited(_, code)) => (Some(code), None),
            Ok(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
            _ => (None, Some(libc::SIGKILL)),
        };
        Said::Ended { code, signal }
    }

    /// What it has started.
    fn kill(&self) {
        if let Some(nest) = &self.nest {
            nest.kill(DYING);
            let _ = nest.remove();
        }
    }

    /// False: the agent has hung up.
    fn hear(&self, control: &OwnedFd) -> bool {
        match message::receive::<Told>(control) {
            Ok(Some((Told::Signal(number), _))) => {
                // The number as it is: nix knows no real-time signals.
                // SAFETY: a plain system call; the child is not reaped yet, so that its number is nobody else's.
                unsafe { libc::kill(-self.child.as_raw(), number) };
                true
            }
            Ok(None) => false,
            // What cannot be understood is passed over.
            Err(error) => error.kind() == std::io::ErrorKind::InvalidData,
        }
    }
}

/// Give the standard streams to the child.
fn wear(fds: [&OwnedFd; 3]) -> nix::Result<()> {
    for (number, fd) in fds.into_iter().enumerate() {
        nix::unistd::dup2(fd.as_raw_fd(), number as i32)?;
    }
    Ok(())
}
