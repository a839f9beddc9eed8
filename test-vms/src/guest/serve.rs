//! The guest's side: one thread for each request.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setsid, write};

use super::init::{AGENT, EXEC};
use super::terminal;
use super::wire::{self, Answer, Kind, Process, Request};

/// Between two looks whether the command has ended, in milliseconds.
const LOOK: u16 = 100;
/// So many looks later nobody waits for the output of what it has left in the background.
const LINGERS: u32 = 5;

/// Serves for ever.
pub(super) fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // Whoever does not read the answer does not want it.
            let _ = answer(stream);
        });
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let request = wire::read_word(&mut stream)?;
    let out = Arc::new(Mutex::new(stream.try_clone()?));
    let answer = match request {
        Request::Run { argv, env, dir, terminal } => {
            let dir = if dir.is_dir() { &dir } else { Path::new("/") };
            let running = command(&argv, env, EXEC)
                .and_then(|command| Running::start(command, dir, terminal).map_err(|why| why.to_string()));
            match running {
                Ok(running) => running.passed_on(stream, &out)?,
                Err(why) => Answer::No(why),
            }
        }
        Request::Start { argv, env, log } => {
            start(&argv, env, &log).map_or_else(Answer::No, |()| Answer::Yes)
        }
        Request::Processes => Answer::Processes(processes()),
        Request::Connects { socket } => match UnixStream::connect(socket) {
            Ok(_) => Answer::Yes,
            Err(why) => Answer::No(why.to_string()),
        },
    };
    wire::write_word(&mut *locked(&out), &answer)
}

fn locked(out: &Mutex<TcpStream>) -> MutexGuard<'_, TcpStream> {
    out.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command in a session and a cgroup of its own.
fn command(argv: &[OsString], env: Vec<(OsString, OsString)>, cgroup: &str) -> Result<Command, String> {
    let [program, args @ ..] = argv else { return Err("there is no command".to_owned()) };
    let door = Path::new(cgroup).join("cgroup.procs");
    let door = File::options().write(true).open(&door).map_err(|why| format!("{}: {why}", door.display()))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env);
    let enter = move || {
        write(door.as_fd(), b"0")?;
        Ok(setsid().map(drop)?)
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(enter) };
    Ok(command)
}

fn start(argv: &[OsString], env: Vec<(OsString, OsString)>, log: &Path) -> Result<(), String> {
    let mut command = command(argv, env, AGENT)?;
    let open = || -> io::Result<(File, File)> {
        let file = File::options().create(true).append(true).open(log)?;
        Ok((file.try_clone()?, file))
    };
    let (stdout, stderr) = open().map_err(|why| format!("{}: {why}", log.display()))?;
    let spawned = command.current_dir("/").stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
    let mut child = spawned.map_err(|why| why.to_string())?;
    thread::spawn(move || child.wait());
    Ok(())
}

/// A command that has been started, and the ends of its pipes or of its terminal that are ours.
struct Running {
    child: Child,
    stdin: File,
    stdout: File,
    stderr: Option<File>,
    is_terminal: bool,
}

impl Running {
    fn start(mut command: Command, dir: &Path, terminal: Option<(u16, u16)>) -> io::Result<Self> {
        command.current_dir(dir);
        let Some(size) = terminal else {
            let ((theirs_in, stdin), (stdout, theirs_out), (stderr, theirs_err)) =
                (pipe()?, pipe()?, pipe()?);
            let child = command.stdin(theirs_in).stdout(theirs_out).stderr(theirs_err).spawn()?;
            let file = |end: OwnedFd| File::from(end);
            let stderr = Some(file(stderr.into()));
            return Ok(Self {
                child,
                stdin: file(stdin.into()),
                stdout: file(stdout.into()),
                stderr,
                is_terminal: false,
            });
        };
        let (ours, theirs) = terminal::open(size)?;
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        // SAFETY: one system call, on the terminal that is stdin by then.
        unsafe {
            command.pre_exec(|| match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let child = command.spawn()?;
        Ok(Self { child, stdin: ours.try_clone()?, stdout: ours, stderr: None, is_terminal: true })
    }

    /// Passes on what it says and is told, until it has ended.
    fn passed_on(mut self, keys: TcpStream, out: &Arc<Mutex<TcpStream>>) -> io::Result<Answer> {
        let (ended, group) = (Arc::new(AtomicBool::new(false)), Pid::from_raw(self.child.id().cast_signed()));
        let told = Arc::clone(&ended);
        thread::spawn(move || {
            // The connection has ended: who asked for this is gone, and so shall it be.
            let _ = feed(keys, self.stdin, self.is_terminal);
            if !told.load(Ordering::SeqCst) {
                let _ = killpg(group, Signal::SIGKILL);
            }
        });
        let said = [(Some(self.stdout), Kind::Data), (self.stderr, Kind::Error)];
        let pumps: Vec<_> = said
            .into_iter()
            .filter_map(|(from, kind)| Some(pump(from?, kind, Arc::clone(out), Arc::clone(&ended))))
            .collect();
        let status = self.child.wait()?;
        ended.store(true, Ordering::SeqCst);
        pumps.into_iter().for_each(|pump| drop(pump.join()));
        Ok(Answer::Ended { code: status.code(), signal: status.signal() })
    }
}

/// Passes on stdin until the connection ends.
fn feed(mut from: TcpStream, stdin: File, is_terminal: bool) -> io::Result<()> {
    let mut stdin = Some(stdin);
    loop {
        match (wire::read(&mut from)?, &mut stdin) {
            // A command that does not read its input may do so.
            ((Kind::Data, bytes), Some(stdin)) => drop(stdin.write_all(&bytes)),
            ((Kind::Size, size), Some(stdin)) if is_terminal => {
                terminal::resize(stdin, serde_json::from_slice(&size)?);
            }
            ((Kind::End, _), _) => stdin = None,
            _ => {}
        }
    }
}

fn pump(mut from: File, kind: Kind, to: Arc<Mutex<TcpStream>>, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        let mut silent = 0;
        while silent < LINGERS {
            let look = poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], LOOK);
            if look == Ok(0) {
                silent += u32::from(ended.load(Ordering::SeqCst));
                continue;
            }
            // A terminal whose processes are gone gives an error instead of an end.
            let Ok(read @ 1..) = from.read(&mut bytes) else { break };
            if wire::write(&mut *locked(&to), kind, &bytes[..read]).is_err() {
                break;
            }
        }
    })
}

/// All processes but the kernel's own.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<Process> = pids
        .filter_map(|pid: i32| Some(Process { pid, line: fs::read(format!("/proc/{pid}/cmdline")).ok()? }))
        .filter(|process| !process.line.is_empty())
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}
