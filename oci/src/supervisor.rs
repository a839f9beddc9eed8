//! The first process of a container in which several run: covey itself, bound into the container as [`PATH`].
//!
//! It runs the init processes one after the other, then the main one with the sides beside it, then the finals; reaps
//! whatever its namespace leaves behind; passes signals on to the main process and ends as that did. A container with
//! one process does without it: there that is the first.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use serde::{Deserialize, Serialize};

/// Where it is in a container, and its first argument.
pub const PATH: &str = "/.covey/init";
/// What it says of itself on stderr begins so; of a run that it has ended, the last line says why.
pub const SAYS: &str = "covey: ";

/// Pauses before a side process is started again double from the first to the last, and begin anew after a long run.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);

/// What it is to run: its second argument, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub main: Vec<String>,
    /// One after the other; each must succeed.
    pub init: Vec<Named>,
    /// Beside the main process, started again when they end.
    pub side: Vec<Named>,
    /// After it, one after the other.
    pub last: Vec<Named>,
    /// How long sides have to end, and how long each of `last` may take.
    pub grace_ms: u64,
}

/// A process beside the main one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub command: Vec<String>,
}

/// Run as [`PATH`], with the arguments after that. To be called before any thread exists.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let given = args.last().and_then(|arg| serde_json::from_str(arg.to_str()?).ok());
    let Some(processes) = given else {
        eprintln!("{SAYS}{PATH} is started by covey, with what it is to run");
        return ExitCode::from(2);
    };
    ExitCode::from(Supervisor::new().run(processes))
}

/// A side process: running, or due.
struct Side {
    of: Named,
    pid: Option<i32>,
    begun: Instant,
    due: Instant,
    pause: Duration,
}

/// What a wait ended with.
enum Woke {
    /// Children have ended.
    Ended(Vec<(i32, ExitStatus)>),
    Told(i32),
    Time,
}

struct Supervisor {
    /// All that can be waited for: blocked here, not in the children.
    signals: SigSet,
    /// Told to end.
    told: bool,
}

impl Supervisor {
    fn new() -> Supervisor {
        let mut signals = SigSet::all();
        for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
            signals.remove(fault);
        }
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None);
        Supervisor { signals, told: false }
    }

    fn run(&mut self, processes: Processes) -> u8 {
        let grace = Duration::from_millis(processes.grace_ms);
        for init in &processes.init {
            let ended = match self.spawn(&init.command) {
                Ok(pid) => self.finish(pid, None),
                Err(why) => return say(127, format!("its init process {} {why}", init.name)),
            };
            if self.told {
                return say(
                    128 + libc::SIGTERM as u8,
                    format!("told to end during its init process {}", init.name),
                );
            }
            if !ended.success() {
                return say(code(ended), format!("its init process {} {}", init.name, how(ended)));
            }
        }
        let main = match self.spawn(&processes.main) {
            Ok(main) => main,
            Err(why) => return say(127, format!("its main process {why}")),
        };
        let now = Instant::now();
        let side = |of| Side { of, pid: None, begun: now, due: now, pause: FIRST };
        let mut sides: Vec<Side> = processes.side.into_iter().map(side).collect();
        let ended = self.attend(main, &mut sides);

        let still: Vec<i32> = sides.iter().filter_map(|side| side.pid).collect();
        still.iter().for_each(|pid| signal(*pid, libc::SIGTERM));
        self.until_gone(still, Instant::now() + grace);
        // Whatever else is left in this namespace, of the main process too.
        signal(-1, libc::SIGKILL);
        // SAFETY: nothing is written. None are left when it fails.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
        for last in &processes.last {
            let ended = self.spawn(&last.command).map(|pid| how(self.finish(pid, Some(grace))));
            match ended {
                Ok(how) if how == SUCCESS => {}
                Ok(how) => drop(say(0, format!("the final process {} {how}", last.name))),
                Err(why) => drop(say(0, format!("the final process {} {why}", last.name))),
            }
        }
        code(ended)
    }

    /// Until the main process has ended.
    fn attend(&mut self, main: i32, sides: &mut [Side]) -> ExitStatus {
        loop {
            for side in sides.iter_mut().filter(|s| s.pid.is_none() && s.due <= Instant::now()) {
                side.begun = Instant::now();
                match self.spawn(&side.of.command) {
                    Ok(pid) => side.pid = Some(pid),
                    Err(why) => side.again(&why),
                }
            }
            let due = sides.iter().filter(|s| s.pid.is_none()).map(|s| s.due).min();
            match self.wait(due) {
                Woke::Time => {}
                Woke::Told(number) => signal(main, number),
                Woke::Ended(all) => {
                    for (pid, status) in &all {
                        if let Some(side) = sides.iter_mut().find(|s| s.pid == Some(*pid)) {
                            side.again(&how(*status));
                        }
                    }
                    if let Some((_, status)) = all.iter().find(|(pid, _)| *pid == main) {
                        return *status;
                    }
                }
            }
        }
    }

    /// Until one process has ended; it is killed when its time is over.
    fn finish(&mut self, pid: i32, most: Option<Duration>) -> ExitStatus {
        let mut until = most.map(|most| Instant::now() + most);
        loop {
            match self.wait(until) {
                Woke::Time => {
                    until = None;
                    signal(pid, libc::SIGKILL);
                }
                Woke::Told(number) => signal(pid, number),
                Woke::Ended(all) => {
                    if let Some((_, status)) = all.iter().find(|(ended, _)| *ended == pid) {
                        return *status;
                    }
                }
            }
        }
    }

    fn until_gone(&mut self, mut pids: Vec<i32>, until: Instant) {
        while !pids.is_empty() {
            match self.wait(Some(until)) {
                Woke::Time => return,
                Woke::Told(_) => {}
                Woke::Ended(all) => pids.retain(|pid| all.iter().all(|(ended, _)| ended != pid)),
            }
        }
    }

    fn wait(&mut self, until: Option<Instant>) -> Woke {
        loop {
            let all = reap();
            if !all.is_empty() {
                return Woke::Ended(all);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let time = left.map(|left| libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: left.subsec_nanos().into(),
            });
            let time = time.as_ref().map_or(std::ptr::null(), |time| time as *const _);
            // SAFETY: the set and the time, if there is one, outlive the call.
            match unsafe { libc::sigtimedwait(self.signals.as_ref(), std::ptr::null_mut(), time) } {
                libc::SIGCHLD => {}
                -1 if nix::errno::Errno::last() == nix::errno::Errno::EAGAIN => return Woke::Time,
                -1 => {}
                number => {
                    self.told |= number != libc::SIGWINCH && number != libc::SIGCONT;
                    return Woke::Told(number);
                }
            }
        }
    }

    /// In the caller's environment, with nothing blocked.
    fn spawn(&self, words: &[String]) -> Result<i32, String> {
        let Some((program, args)) = words.split_first() else { return Err("names no program".into()) };
        let mut command = Command::new(program);
        command.args(args);
        let open = || Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?);
        // SAFETY: one system call.
        let child = unsafe { command.pre_exec(open) }.spawn();
        child.map(|child| child.id() as i32).map_err(|why| format!("cannot be run: {program}: {why}"))
    }
}

impl Side {
    fn again(&mut self, how: &str) {
        let now = Instant::now();
        if now.duration_since(self.begun) > LONG {
            self.pause = FIRST;
        }
        (self.pid, self.due) = (None, now + self.pause);
        say(
            0,
            format!(
                "the side process {} {how}; starting again in {} s",
                self.of.name,
                self.pause.as_secs_f32()
            ),
        );
        self.pause = (self.pause * 2).min(LAST);
    }
}

fn say(code: u8, text: String) -> u8 {
    eprintln!("{SAYS}{text}");
    code
}

/// All children that have ended, also those that others left to this process.
fn reap() -> Vec<(i32, ExitStatus)> {
    let mut all = Vec::new();
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while let pid @ 1.. = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        all.push((pid, ExitStatus::from_raw(status)));
    }
    all
}

fn signal(pid: i32, number: i32) {
    // SAFETY: no memory is involved. What is gone cannot be told, which is as good.
    unsafe { libc::kill(pid, number) };
}

const SUCCESS: &str = "exited with code 0";

fn how(ended: ExitStatus) -> String {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (_, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// As shells tell it.
fn code(ended: ExitStatus) -> u8 {
    let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}
