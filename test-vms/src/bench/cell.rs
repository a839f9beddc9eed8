//! Figures of a cell on five hosts of a lab.

pub(crate) mod crash;
pub(crate) mod kills;
pub(crate) mod placer;
pub(crate) mod reclaimed;
pub(crate) mod submit;
pub(crate) mod up;

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_vms::lab::{Lab, Plan, Result, Times};
use test_vms::{Error, binary};

use crate::figures::Series;
use crate::peers::Swarm;

/// The lab's name, before the process's id.
pub(crate) const LAB: &str = "bench";
/// As many as all figures of a cell have.
pub(crate) const HOSTS: u32 = 5;
/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what nobody announces.
const LOOK: Duration = Duration::from_millis(50);

/// A lab with one cell on all of its hosts, gone when dropped.
pub(crate) struct Cell {
    lab: Lab,
    hosts: Vec<String>,
    files: TempDir,
}

impl Deref for Cell {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // Nobody could be told; `covey-lab down` ends what is left.
        let _ = Lab::down(self.lab.name());
    }
}

impl Cell {
    /// Five hosts, and a cell of them whose voters are settled.
    pub(crate) fn up() -> Result<(Self, Times)> {
        Self::of(plan()?, scratch()?)
    }

    /// The same with so many bytes of memory for each host, and a configuration file for all agents.
    pub(crate) fn up_with(memory: u64, config: &str) -> Result<Self> {
        let (mut plan, files) = (plan()?, scratch()?);
        let path = files.path().join("agent.toml");
        fs::write(&path, config).map_err(Error::file("write", &path))?;
        plan.limits.memory_bytes = memory;
        plan.config = Some(path);
        Ok(Self::of(plan, files)?.0)
    }

    fn of(plan: Plan, files: TempDir) -> Result<(Self, Times)> {
        let begun = Instant::now();
        let lab = Lab::raise(&plan)?;
        let hosts = begun.elapsed();
        let cell = Self { hosts: lab.hosts()?, lab, files };
        let times = cell.form()?;
        Ok((cell, Times { hosts, ..times }))
    }

    /// The names of all hosts but one.
    pub(crate) fn others(&self, but: &str) -> Vec<&str> {
        self.hosts.iter().map(String::as_str).filter(|host| *host != but).collect()
    }

    /// Waits until every host sees all others alive, a placer and all voters.
    pub(crate) fn whole(&self) -> Result<()> {
        self.all_alive(&self.hosts)?;
        self.settled(&self.hosts)
    }

    /// Who places, as a host sees it.
    pub(crate) fn placer(&self, seen_by: &str) -> Result<String> {
        wait(&format!("`{seen_by}` knows who places"), || {
            let nodes = self.nodes(seen_by).map_err(|why| why.to_string())?;
            let placer = nodes.iter().find(|node| node["placer"] == true && node["state"] == "alive");
            placer.and_then(|node| node["name"].as_str()).map(str::to_owned).ok_or(format!("{nodes:?}"))
        })
    }

    /// A file with a service of so many tasks, each with 0.1 CPUs and 128 MiB at most.
    pub(crate) fn job(&self, name: &str, tasks: usize) -> Result<PathBuf> {
        let text = format!(
            "name = \"{name}\"\ncount = {tasks}\n[task]\nimage = \"hello:1\"\n\
             ports = [\"http\"]\ncommand = [\"/hello\", \"--listen\", \":${{PORT_http}}\"]\n\
             health = {{ http = \"/healthz\", port = \"http\" }}\n"
        );
        let path = self.files.path().join(format!("{name}.toml"));
        fs::write(&path, text)
            .map_err(|why| Error::Missing(format!("cannot write {}: {why}", path.display())))?;
        Ok(path)
    }

    /// Submits a job through a host and waits until it is settled; how long the command took.
    pub(crate) fn run(&self, through: &str, name: &str, tasks: usize) -> Result<Duration> {
        let mut covey = self.exec(through, "covey")?;
        covey.arg("run").arg(self.job(name, tasks)?).args(["--wait", "--timeout", "60s"]);
        Ok(timed(&mut covey)?)
    }

    /// What a host lists of a job's tasks.
    pub(crate) fn tasks(&self, seen_by: &str, job: &str) -> Result<Vec<Value>> {
        Ok(items(self.json(seen_by, &["tasks", job])?))
    }

    /// Stops a job and waits until nothing of it runs.
    pub(crate) fn stop(&self, through: &str, job: &str) -> Result<()> {
        self.covey(through, &["stop", job])?;
        wait(&format!("nothing of {job} runs"), || {
            let left = self.tasks(through, job).map_err(|why| why.to_string())?;
            let live: Vec<_> = left
                .iter()
                .filter(|task| {
                    matches!(task["state"].as_str(), Some("starting" | "running" | "stopping" | "unknown"))
                })
                .collect();
            if live.is_empty() { Ok(()) } else { Err(format!("{live:?}")) }
        })
    }
}

fn plan() -> Result<Plan> {
    Ok(Plan::new(&format!("{LAB}-{}", std::process::id()), HOSTS, binary::covey()?))
}

fn scratch() -> Result<TempDir> {
    let made = tempfile::tempdir();
    Ok(made.map_err(|why| Error::Missing(format!("cannot make a temporary directory: {why}")))?)
}

/// Docker Swarm on as many hosts, where it can be had.
pub(crate) fn swarm() -> Option<Swarm> {
    Swarm::up(HOSTS).map_err(|why| println!("  docker swarm: not measured here ({why})")).ok()
}

/// For Swarm's samples, with a figure from elsewhere where there can be none.
pub(crate) fn swarm_series(swarm: Option<&Swarm>, known: Duration) -> Series {
    match swarm {
        Some(swarm) => Series::new(swarm.name.clone()),
        None => Series::given("docker swarm", known),
    }
}

/// The items of a list.
pub(crate) fn items(mut list: Value) -> Vec<Value> {
    match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// From the start of a command to its good end.
pub(crate) fn timed(command: &mut Command) -> test_vms::Result<Duration> {
    command.stdin(Stdio::null());
    let begun = Instant::now();
    let output = command.output().map_err(|why| Error::Missing(format!("cannot run {command:?}: {why}")))?;
    let took = begun.elapsed();
    if output.status.success() {
        return Ok(took);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Missing(format!("{:?} ended with {}: {}", command.get_args(), output.status, said.trim())))
}

/// Waits for what nobody announces; a `look` that says how it is instead goes on.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(there) => return Ok(there),
            Err(seen) if Instant::now() > until => {
                return Err(
                    Error::Missing(format!("{what}: not within {PATIENCE:?}; last seen: {seen}")).into()
                );
            }
            Err(_) => sleep(LOOK),
        }
    }
}
