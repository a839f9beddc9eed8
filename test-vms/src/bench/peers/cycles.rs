//! Programs that start containers on request: one for covey, and this one again for each other runtime, so that no
//! figure holds more than the start of what it measures.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use test_vms::{Error, Result, binary};

use super::{output, quiet, runtime};

/// The flag by which `covey-bench` becomes a starter of a runtime's containers.
pub(crate) const FLAG: &str = "--peer";

/// A program that answers each line with one of numbers.
pub(crate) struct Starter {
    /// What it starts with, and its version.
    pub(crate) name: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Starter {
    /// covey's, which makes `DIR/peer` for the others.
    pub(crate) fn covey(dir: &Path) -> Result<Self> {
        let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join("examples/cycles")));
        let program = beside.filter(|path| path.exists()).ok_or_else(|| {
            Error::Missing(
                "oci's cycles are not built: cargo build --release -p oci --example cycles".to_owned(),
            )
        })?;
        let mut command = Command::new(program);
        command.arg(binary::covey()?).arg(dir);
        Self::start("covey".to_owned(), command)
    }

    /// Another runtime's.
    pub(crate) fn peer(program: &str, dir: &Path) -> Result<Self> {
        let said = output(Command::new(program).arg("--version"))?;
        let version = said.split_whitespace().nth(2).unwrap_or("?");
        let me = std::env::current_exe()
            .map_err(|why| Error::Missing(format!("cannot find this program: {why}")))?;
        let mut command = Command::new(me);
        command.args([FLAG, program]).arg(dir.join("peer"));
        Self::start(format!("{program} {version}"), command)
    }

    fn start(name: String, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|why| Error::Missing(format!("cannot run {command:?}: {why}")))?;
        let (requests, Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Missing(format!("no pipes to {command:?}")));
        };
        let mut starter = Self { name, child, requests, answers: BufReader::new(answers) };
        starter.answer()?;
        Ok(starter)
    }

    fn answer(&mut self) -> Result<Vec<u64>> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(length) if length > 0 => {
                Ok(line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            }
            _ => Err(Error::Missing(format!("{} ended instead of answering", self.name))),
        }
    }

    fn ask(&mut self, request: &str) -> Result<Vec<u64>> {
        let requests = self.requests.as_mut().ok_or_else(|| Error::Missing("it has ended".to_owned()))?;
        writeln!(requests, "{request}")
            .map_err(|why| Error::Missing(format!("{} does not listen: {why}", self.name)))?;
        self.answer()
    }

    /// One container from its start to its removal: how long that took, and CPU time.
    pub(crate) fn cycle(&mut self) -> Result<(Duration, Duration)> {
        match self.ask("cycle")?[..] {
            [wall, cpu] => Ok((Duration::from_micros(wall), Duration::from_micros(cpu))),
            _ => Err(self.nonsense()),
        }
    }

    /// So many that sleep, two at a time; PSS and page tables of all shims in KiB, if there are any.
    pub(crate) fn starts(&mut self, count: usize) -> Result<(Duration, u64, u64)> {
        match self.ask(&format!("starts {count}"))?[..] {
            [wall, pss, tables] => Ok((Duration::from_micros(wall), pss, tables)),
            _ => Err(self.nonsense()),
        }
    }

    fn nonsense(&self) -> Error {
        Error::Missing(format!("{} answers something else than numbers", self.name))
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.wait();
    }
}

/// Be a starter of `program`'s containers, with the bundles in `dir`.
pub(crate) fn serve(program: &str, dir: &Path) -> Result<()> {
    runtime::hide_unified(program)?;
    println!("ready");
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|why| Error::Missing(format!("cannot read a request: {why}")))?;
        let id = |more: &str| format!("covey-bench-{}-{number}{more}", std::process::id());
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["starts", count] => {
                let count: usize = count.parse().map_err(|_| Error::Missing(format!("what is {count}?")))?;
                let ids: Vec<_> = (0..count).map(|number| id(&format!("-{number}"))).collect();
                let begun = Instant::now();
                two_at_a_time(&ids, |id| {
                    quiet(
                        Command::new(program).args(["run", "-d", "--bundle"]).arg(dir.join("sleep")).arg(id),
                    )
                })?;
                println!("{} 0 0", begun.elapsed().as_micros());
                two_at_a_time(&ids, |id| output(Command::new(program).args(["delete", "-f", id])).map(drop))?;
            }
            _ => {
                let (begun, cpu) = (Instant::now(), of_children()?);
                quiet(Command::new(program).args(["run", "--bundle"]).arg(dir.join("true")).arg(id("")))?;
                println!("{} {}", begun.elapsed().as_micros(), of_children()? - cpu);
            }
        }
    }
    Ok(())
}

fn two_at_a_time(ids: &[String], each: impl Fn(&String) -> Result<()> + Sync) -> Result<()> {
    let half = |thread: usize| ids.iter().skip(thread).step_by(2).try_for_each(&each);
    std::thread::scope(|threads| {
        let other = threads.spawn(|| half(1));
        half(0).and(other.join().unwrap_or_else(|_| Err(Error::Missing("a thread panicked".to_owned()))))
    })
}

/// CPU time of all that has been waited for, by its parents too, in microseconds.
fn of_children() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|why| Error::Missing(format!("cannot ask for CPU time: {why}")))?;
    Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
}
