//! Commands in a container that runs: in its namespaces, cgroups and filters, as its user, by a helper process of their
//! own (`covey shim --exec`, see `shim::exec`). A command, and all that it starts, ends with whoever asked for it.

pub(crate) mod message;

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, ExitRecord, Failure};
use crate::container::{self, Live};
use message::{Order, Said, Told, Work};

/// For the helper to say whether the command runs. A container that is frozen would make it wait for ever.
const PATIENCE_S: i64 = 20;

/// A command that could not be executed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container is not there (any more).
    #[error("the container does not run{}", ended(.0.as_ref()))]
    Gone(Option<ExitRecord>),
    /// The helper could not be executed.
    #[error("cannot execute the helper {exe}: {source}")]
    Spawn {
        /// This program.
        exe: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The command, its arguments and environment together.
    #[error("the command line is longer than {} KiB", message::MOST >> 10)]
    TooLong,
    /// The helper, or the way to it.
    #[error("the helper that enters the container broke off: {0}")]
    Helper(io::Error),
    /// Whether the container runs could not be seen.
    #[error(transparent)]
    Look(#[from] container::Error),
    /// The container runs, and the command does not: the helper says why.
    #[error(transparent)]
    Refused(Failure),
}

fn ended(record: Option<&ExitRecord>) -> String {
    match record {
        Some(ExitRecord { code: Some(code), .. }) => format!(": it has exited with code {code}"),
        Some(ExitRecord { signal: Some(signal), .. }) => format!(": signal {signal} has ended it"),
        Some(ExitRecord { error: Some(failure), .. }) => format!(": {failure}"),
        _ => String::new(),
    }
}

/// What is executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program, found in the task's `PATH`, and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, laid over the task's own environment.
    pub env: Vec<String>,
    /// The working directory; the task's own if none.
    pub cwd: Option<PathBuf>,
    /// `USER[:GROUP]`; the task's own if none.
    pub user: Option<String>,
    /// With a terminal of this size instead of pipes.
    pub terminal: Option<Size>,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Of a line.
    pub columns: u16,
}

/// A command on its way. Dropping `end` ends it.
#[derive(Debug)]
pub struct Running {
    /// Its first process, as the host sees it.
    pub pid: i32,
    /// Our ends, none of them non-blocking.
    pub ends: Ends,
    /// For its end, and for signals.
    pub end: End,
}

/// The other ends of what the command reads and writes.
#[derive(Debug)]
pub enum Ends {
    /// Of three pipes.
    Pipes {
        /// The writing end of its stdin; to be closed at the end of the input.
        stdin: OwnedFd,
        /// The reading end of its stdout.
        stdout: OwnedFd,
        /// The reading end of its stderr.
        stderr: OwnedFd,
    },
    /// The terminal's master: input and output both; reading fails with `EIO` after the end.
    Terminal(OwnedFd),
}

/// How a command ended: one of the two is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Of its `exit`.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

impl Status {
    /// As shells say it: the code, or 128 and the signal's number.
    pub fn shell_code(self) -> u8 {
        let signal = || self.signal.map_or(255, |signal| 128 + signal);
        u8::try_from(self.code.unwrap_or_else(signal)).unwrap_or(255)
    }
}

/// Execute a command in the container of `bundle`, with `exe` a covey binary. Returns when the program has been
/// executed. Blocking.
///
/// # Errors
/// The container does not run, or there is no such program, user or directory in it: nothing is left then.
pub fn spawn(exe: &Path, bundle: &Bundle, exec: &Exec) -> Result<Running, Error> {
    let order = Order {
        bundle: bundle.dir().to_path_buf(),
        work: Work::Program(exec.args.clone()),
        env: exec.env.clone(),
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        terminal: exec.terminal,
        ended: false,
    };
    begin(exe, bundle, &order)
}

/// As `spawn`, of whatever work.
pub(crate) fn begin(exe: &Path, bundle: &Bundle, order: &Order) -> Result<Running, Error> {
    if !order.ended && !matches!(Live::find(bundle)?, Some(Live { state: Some(_), .. })) {
        return Err(gone(bundle));
    }
    let pipes = match order.terminal {
        Some(_) => None,
        None => Some([pipe()?, pipe()?, pipe()?]),
    };
    let (ours, theirs) = message::pair().map_err(Error::Helper)?;
    let mut command = Command::new(exe);
    command.args(["shim", "--exec"]).env_clear().current_dir("/");
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|source| Error::Spawn { exe: exe.into(), source })?;
    drop(command);
    let mut end = End { control: ours, child: Some(child) };
    let fds: Vec<i32> = match &pipes {
        Some([(stdin, _), (_, stdout), (_, stderr)]) => {
            [stdin, stdout, stderr].iter().map(|fd| fd.as_raw_fd()).collect()
        }
        None => Vec::new(),
    };
    message::send(&end.control, order, &fds).map_err(|error| match error.raw_os_error() {
        Some(libc::E2BIG | libc::EMSGSIZE) => Error::TooLong,
        _ => Error::Helper(error),
    })?;
    let ends = pipes.map(|[(_, stdin), (stdout, _), (stderr, _)]| Ends::Pipes { stdin, stdout, stderr });
    let (pid, ends) = end.begun(bundle, order.ended, ends)?;
    Ok(Running { pid, ends, end })
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::Helper(errno.into()))
}

fn gone(bundle: &Bundle) -> Error {
    Error::Gone(bundle.exit_record().ok().flatten())
}

/// The command's end, and a way to hasten it. Dropped before it has come, it ends the command.
#[derive(Debug)]
pub struct End {
    control: OwnedFd,
    child: Option<Child>,
}

impl End {
    fn begun(&mut self, bundle: &Bundle, ended: bool, mut ends: Option<Ends>) -> Result<(i32, Ends), Error> {
        let patience = |seconds| {
            let time = TimeVal::seconds(seconds);
            setsockopt(&self.control, ReceiveTimeout, &time).map_err(|e| Error::Helper(e.into()))
        };
        patience(PATIENCE_S)?;
        loop {
            match message::receive(&self.control).map_err(Error::Helper)? {
                Some((Said::Terminal, fds)) => ends = fds.into_iter().next().map(Ends::Terminal),
                Some((Said::Started { pid }, _)) => {
                    patience(0)?;
                    let ends = ends.ok_or_else(|| Error::Helper(io::ErrorKind::InvalidData.into()))?;
                    return Ok((pid, ends));
                }
                Some((Said::Failed(failure), _)) if ended => return Err(Error::Refused(failure)),
                Some((Said::Failed(failure), _)) => {
                    // It may have ended under the helper's hands.
                    return Err(match Live::find(bundle)? {
                        Some(Live { state: Some(_), .. }) => Error::Refused(failure),
                        _ => gone(bundle),
                    });
                }
                Some((Said::Ended { .. }, _)) | None => {
                    return Err(Error::Helper(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }

    /// For signals, from elsewhere than where the end is waited for.
    pub fn signals(&self) -> io::Result<Signals> {
        Ok(Signals(self.control.try_clone()?))
    }

    /// Returns when the command has ended, and all that it had started. Blocking.
    pub fn wait(mut self) -> Result<Status, Error> {
        let said = message::receive(&self.control);
        if let Some(mut child) = self.child.take() {
            // A helper that has said this, or is gone, ends.
            let _ = child.wait();
        }
        match said.map_err(Error::Helper)? {
            Some((Said::Ended { code, signal }, _)) => Ok(Status { code, signal }),
            _ => Err(Error::Helper(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = shutdown(self.control.as_raw_fd(), Shutdown::Write);
        if let Some(mut child) = self.child.take() {
            // Reaped once it has ended the command, which may take a moment.
            std::thread::spawn(move || child.wait());
        }
    }
}

/// A way to a command that runs.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// To the command's process group, as from its terminal. Nothing happens if it has ended.
    pub fn send(&self, signal: i32) {
        let _ = message::send(&self.0, &Told::Signal(signal), &[]);
    }

    /// Nobody wants the command any more: it is ended, and `End::wait` returns.
    pub fn hang_up(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }
}

/// Change a terminal's size, by its master.
pub fn resize(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize.
    let set = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a short command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// `None`: it took too long, and was ended.
    pub status: Option<Status>,
    /// The beginning of what it wrote to stdout and stderr, in this order.
    pub text: Vec<u8>,
}

/// Execute a command without input, for at most `patience`. `most`: bytes of each stream that are kept. Blocking.
pub fn run(exe: &Path, bundle: &Bundle, exec: &Exec, patience: Duration, most: u64) -> Result<Output, Error> {
    let exec = Exec { terminal: None, ..exec.clone() };
    let Running { ends, end, .. } = spawn(exe, bundle, &exec)?;
    let Ends::Pipes { stdin, stdout, stderr } = ends else {
        return Err(Error::Helper(io::ErrorKind::InvalidData.into()));
    };
    drop(stdin);
    let signals = end.signals().map_err(Error::Helper)?;
    let (tell, told) = std::sync::mpsc::channel();
    let (out, err, status) = std::thread::scope(|scope| {
        let out = scope.spawn(|| beginning(stdout, most));
        let err = scope.spawn(|| beginning(stderr, most));
        let late = scope.spawn(move || {
            let late = told.recv_timeout(patience).is_err();
            if late {
                signals.hang_up();
            }
            late
        });
        let status = end.wait();
        let _ = tell.send(());
        let late = late.join().unwrap_or(false);
        (out.join(), err.join(), status.map(|status| Some(status).filter(|_| !late)))
    });
    let text = [out.unwrap_or_default(), err.unwrap_or_default()].concat();
    Ok(Output { status: status?, text })
}

/// Reads to the end, and keeps what came first.
fn beginning(pipe: OwnedFd, most: u64) -> Vec<u8> {
    let mut file = std::fs::File::from(pipe);
    let mut kept = Vec::new();
    let _ = file.by_ref().take(most).read_to_end(&mut kept);
    let _ = io::copy(&mut file, &mut io::sink());
    kept
}
