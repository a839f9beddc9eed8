//! One node on this machine: an agent with a directory, a socket and cgroups of its own, so that several may run side
//! by side and each can be looked at alone.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::cgroups::Cgroups;
use crate::error::{output_of, tail};
use crate::{Error, Result, binary};

/// How often a condition is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(2);
/// More than any machine has, in thousandths of a CPU.
const NO_LIMIT_MILLI: u64 = 1_000_000;
/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the directories of nodes are called, and their cgroups.
const PREFIX: &str = "covey-node-";

/// Ends all that is left of the nodes whose directories are in `dir`, and whose process is gone.
///
/// # Errors
/// When a process does not die or a cgroup cannot be removed.
pub fn end_left(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            Cgroups::find(&name)?.end()?;
        }
    }
    Ok(())
}

/// What a node shall be that is not as they usually are.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Memory for all of it, in bytes, as if the machine had no more.
    pub memory: Option<u64>,
    /// The agent's configuration file.
    pub config: String,
}

/// A running (or killed) agent and all that it has started; gone, containers and all, when dropped.
#[derive(Debug)]
pub struct Node {
    scratch: TempDir,
    covey: PathBuf,
    agent: Option<Child>,
    args: Vec<String>,
    /// The node's own subtree of every hierarchy.
    pub cgroups: Cgroups,
}

impl Node {
    /// Starts an agent that forms a cell of its own.
    ///
    /// # Errors
    /// When there is no binary, no right to make cgroups, or the agent does not answer.
    pub fn start() -> Result<Self> {
        Self::start_as(Plan::default())
    }

    /// The same with what a plan says.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_as(plan: Plan) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .map_err(Error::file("make a directory in", std::env::temp_dir()))?;
        let name = scratch.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let covey = binary::covey()?;
        let mut node = Self { covey, agent: None, args: Vec::new(), cgroups: Cgroups::make(&name)?, scratch };
        if let Some(bytes) = plan.memory {
            node.cgroups.limit(NO_LIMIT_MILLI, bytes)?;
        }
        if !plan.config.is_empty() {
            let path = node.scratch().join("agent.toml");
            fs::write(&path, plan.config).map_err(Error::file("write", &path))?;
            node.args.extend(["--config".to_owned(), path.display().to_string()]);
        }
        node.start_agent()?;
        Ok(node)
    }

    /// Starts the agent (again) on the same directory and returns when it answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time; the end of its log is in the error.
    pub fn start_agent(&mut self) -> Result<()> {
        self.spawn_agent()?;
        self.answers()
    }

    /// Starts the agent (again) on the same directory and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn spawn_agent(&mut self) -> Result<()> {
        let log = self.log_path();
        let file =
            fs::OpenOptions::new().create(true).append(true).open(&log).map_err(Error::file("open", &log))?;
        let also = file.try_clone().map_err(Error::file("open", &log))?;
        let mut agent = self.cgroups.enter(&self.covey);
        agent
            .args(["agent", "--cell", "test", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .arg("--socket")
            .arg(self.socket())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(also);
        let spawned = agent.spawn();
        self.agent =
            Some(spawned.map_err(|why| Error::Run { program: "covey agent".to_owned(), why, hint: "" })?);
        Ok(())
    }

    /// Waits until the agent's socket takes connections.
    ///
    /// # Errors
    /// When the agent ends before, or takes a minute.
    pub fn answers(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let ended = self.agent.as_mut().and_then(|agent| agent.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                let log = fs::read_to_string(self.log_path()).unwrap_or_default();
                return Err(Error::Missing(format!(
                    "the agent does not answer ({ended:?}); the end of its log:\n{}",
                    tail(&log, 30)
                )));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// SIGKILL for the agent and nothing else.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Puts another version of the binary in place of the agent's, tells the agent to end, and starts the new one; returns
    /// when that answers, and for how long none did. Versions differ in nothing but their number.
    ///
    /// # Errors
    /// When the binary cannot be replaced, or an agent does not end or start as it should.
    pub fn upgrade(&mut self, version: usize) -> Result<Duration> {
        let (path, new) = (self.scratch.path().join("covey"), self.scratch.path().join("covey.new"));
        fs::copy(&self.covey, &new).map_err(Error::file("copy", &self.covey))?;
        let file = fs::OpenOptions::new().append(true).open(&new);
        file.and_then(|mut file| write!(file, "{version}")).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("put in place", &path))?;
        self.covey = path;
        let begun = Instant::now();
        self.end_agent()?;
        self.start_agent()?;
        Ok(begun.elapsed())
    }

    /// SIGTERM for the agent; returns when it has ended.
    fn end_agent(&mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        let _ = kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM);
        let until = Instant::now() + PATIENCE;
        while !matches!(agent.try_wait(), Ok(Some(_))) {
            if Instant::now() > until {
                let _ = agent.kill();
                let _ = agent.wait();
                return Err(Error::Missing("the agent did not end in a minute after SIGTERM".to_owned()));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// The agent's process id; 0 while it is not running.
    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, Child::id)
    }

    /// The agent's directory.
    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// A place for files that go away with the node.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path().join("agent.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("agent.log")
    }

    /// A `covey` command that talks to this node.
    pub fn covey(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.covey);
        command.args(args).env("COVEY_SOCKET", self.socket()).stdin(Stdio::null());
        command
    }

    /// Runs a verb with `--json` and returns its document.
    ///
    /// # Errors
    /// When it fails, with what it wrote, or when that is no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.covey(args);
        let said = output_of(command.arg("--json"))?;
        serde_json::from_str(&said).map_err(|why| {
            Error::Missing(format!("covey {} printed no JSON ({why}): {said}", args.join(" ")))
        })
    }

    /// The items of a list verb.
    ///
    /// # Errors
    /// As [`Node::json`].
    pub fn items(&self, args: &[&str]) -> Result<Vec<Value>> {
        match self.json(args)?["items"].take() {
            Value::Array(items) => Ok(items),
            other => Err(Error::Missing(format!("covey {} printed no list: {other}", args.join(" ")))),
        }
    }

    /// Writes a job file and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn job_file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(format!("{name}.toml"));
        let mut file = fs::File::create(&path).map_err(Error::file("create", &path))?;
        file.write_all(text.as_bytes()).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Creates or changes a job and waits until it is settled.
    ///
    /// # Errors
    /// When it is refused or cannot be settled.
    pub fn run(&self, name: &str, text: &str) -> Result<()> {
        let path = self.job_file(name, text)?.display().to_string();
        output_of(&mut self.covey(&["run", &path, "--wait", "--timeout", "60s"])).map(drop)
    }

    /// Stops a job and waits until none of its containers is left.
    ///
    /// # Errors
    /// When it cannot be stopped, or something of it still runs after a minute.
    pub fn stop(&self, job: &str) -> Result<()> {
        output_of(&mut self.covey(&["stop", job]))?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.items(&["tasks", job])?;
            if !left.iter().any(is_live) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Error::Missing(format!("{job} is stopped, and yet there is {left:?}")));
            }
            sleep(LOOK);
        }
    }

    fn stop_everything(&self) -> Result<()> {
        for job in self.items(&["jobs"])? {
            if let Some(name) = job["name"].as_str() {
                self.stop(name)?;
            }
        }
        Ok(())
    }
}

/// Whether a task's container may exist.
fn is_live(task: &Value) -> bool {
    matches!(task["state"].as_str(), Some("starting" | "running" | "stopping" | "unknown"))
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.agent.is_some() {
            // Best effort: what does not stop when asked is ended below.
            let _ = self.stop_everything();
            self.kill_agent();
        }
        // Nobody could be told; what is left over is seen by whoever counts.
        let _ = self.cgroups.end();
    }
}
