//! Docker Swarm on hosts of a lab, as covey's cell is: an engine on each, all of them managers.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_vms::debian::Unpacked;
use test_vms::lab::{Lab, Plan, Result};
use test_vms::{Error, binary};

use super::docker;
use super::output;

/// A loaded machine takes its time; `docker` itself gives up later.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);

/// The lab's name, before the process's id.
pub(crate) const LAB: &str = "swarm";

/// A swarm, gone when dropped.
pub(crate) struct Swarm {
    /// With its version.
    pub(crate) name: String,
    lab: Lab,
    hosts: Vec<String>,
    unpacked: Unpacked,
    engines: Vec<Child>,
    files: TempDir,
}

impl Swarm {
    pub(crate) fn up(hosts: u32) -> Result<Self> {
        let unpacked = Unpacked::get(docker::SET, &[], docker::PACKAGES)?;
        let files = tempfile::tempdir()
            .map_err(|why| Error::Missing(format!("cannot make a temporary directory: {why}")))?;
        let plan = Plan::new(&format!("{LAB}-{}", std::process::id()), hosts, binary::covey()?);
        let lab = Lab::raise(&plan)?;
        let mut swarm =
            Self { name: String::new(), hosts: lab.hosts()?, lab, unpacked, engines: Vec::new(), files };
        for host in swarm.hosts.clone() {
            swarm.start(&host)?;
        }
        let version = swarm.ask("h1", &["version", "--format", "{{.Server.Version}}"])?;
        swarm.name = format!("docker swarm {}", version.trim());
        swarm.form()?;
        Ok(swarm)
    }

    fn form(&self) -> Result<()> {
        let state = self.lab.state()?;
        let addr = |host: &str| state.hosts.get(host).map(|host| host.addr.to_string()).unwrap_or_default();
        let first = addr("h1");
        self.ask("h1", &["swarm", "init", "--advertise-addr", &first])?;
        let token = self.ask("h1", &["swarm", "join-token", "--quiet", "manager"])?;
        for host in &self.hosts[1..] {
            let own = addr(host);
            self.ask(host, &["swarm", "join", "--token", token.trim(), "--advertise-addr", &own, &first])?;
        }
        let archive = docker::archive(self.files.path())?.display().to_string();
        for host in &self.hosts {
            self.ask(host, &["import", "-c", docker::ENTRYPOINT, &archive, docker::IMAGE])?;
        }
        self.whole()
    }

    /// Starts the engine of a host and waits until it answers.
    fn start(&mut self, host: &str) -> Result<()> {
        let dir = self.lab.dir(host);
        let mut engine = self.program(host, "dockerd")?;
        let log = fs::File::options().create(true).append(true).open(dir.join("docker.log"));
        engine
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--exec-root", "/run/docker"])
            .args(["--pidfile", "/run/docker.pid", "--host", "unix:///run/docker.sock"])
            // Below the host's limits, and gone with it.
            .arg(format!("--cgroup-parent=/covey-lab/{}/{host}/docker", self.lab.name()))
            .arg("--data-root")
            .arg(dir.join("data/docker"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
        let engine = engine.spawn().map_err(|why| Error::Missing(format!("cannot start dockerd: {why}")))?;
        self.engines.push(engine);
        self.wait(&format!("the engine on {host} answers"), || {
            self.ask(host, &["version"]).map(drop).map_err(|why| why.to_string())
        })
    }

    /// A program of Docker's on a host.
    fn program(&self, host: &str, name: &str) -> Result<Command> {
        let unpacked = self.unpacked.command(name);
        let mut program = self.lab.exec(host, &unpacked.get_program().to_string_lossy())?;
        for (name, value) in unpacked.get_envs() {
            value.map(|value| program.env(name, value));
        }
        program.env("DOCKER_HOST", "unix:///run/docker.sock");
        Ok(program)
    }

    fn ask(&self, host: &str, args: &[&str]) -> Result<String> {
        Ok(output(self.program(host, "docker")?.args(args))?)
    }

    /// Submits a service of tasks like covey's; returns when it is accepted.
    pub(crate) fn create(&self, through: &str, name: &str, tasks: usize) -> Result<()> {
        let mut create = self.program(through, "docker")?;
        create.args(["service", "create", "--detach", "--no-resolve-image", "--network", "host"]);
        create.args(["--limit-cpu", "0.1", "--limit-memory", "128m", "--name", name]);
        create.arg("--replicas").arg(tasks.to_string());
        Ok(output(create.arg(docker::IMAGE).args(["--listen", "127.0.0.1:0"])).map(drop)?)
    }

    /// Submits a service and waits until all its tasks run; how long that took.
    pub(crate) fn run(&self, through: &str, name: &str, tasks: usize) -> Result<Duration> {
        let begun = Instant::now();
        self.create(through, name, tasks)?;
        self.wait(&format!("all of {name} run"), || match self.running(through, name, "")? {
            running if running == tasks => Ok(()),
            running => Err(format!("{running}")),
        })?;
        Ok(begun.elapsed())
    }

    /// How many tasks run elsewhere than on a host, as another sees it.
    fn running(&self, seen_by: &str, name: &str, not_on: &str) -> std::result::Result<usize, String> {
        let args = ["service", "ps", name, "--filter", "desired-state=running"];
        let said = self.ask(seen_by, &[&args[..], &["--format", "{{.Node}} {{.CurrentState}}"]].concat());
        let said = said.map_err(|why| why.to_string())?;
        let running = said.lines().filter_map(|line| line.split_once(' '));
        Ok(running.filter(|(node, state)| *node != not_on && state.starts_with("Running")).count())
    }

    /// Removes a service and waits until none of its processes is left.
    pub(crate) fn remove(&self, through: &str, name: &str) -> Result<()> {
        self.ask(through, &["service", "rm", name])?;
        self.wait(&format!("nothing of {name} is left"), || {
            let hello =
                |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| l.starts_with(b"/hello"));
            let pids = self.hosts.iter().map(|host| self.lab.processes(host));
            let left: usize =
                pids.map(|pids| pids.unwrap_or_default().iter().filter(|pid| hello(pid)).count()).sum();
            if left == 0 { Ok(()) } else { Err(format!("{left} processes")) }
        })
    }

    /// Who leads the managers.
    pub(crate) fn leader(&self) -> Result<String> {
        let said = self.ask("h1", &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])?;
        let leader = said.lines().find_map(|line| line.strip_suffix(" Leader"));
        Ok(leader.map(str::to_owned).ok_or_else(|| Error::Missing(format!("no leader: {said}")))?)
    }

    /// The names of all hosts but one.
    pub(crate) fn others(&self, but: &str) -> Vec<&str> {
        self.hosts.iter().map(String::as_str).filter(|host| *host != but).collect()
    }

    /// Powers a host off and waits until all tasks run elsewhere; how long that took from then on.
    pub(crate) fn lose(&self, victim: &str, leader: &str, name: &str, tasks: usize) -> Result<Duration> {
        let watch = self.others(victim).into_iter().find(|host| *host != leader).unwrap_or("h1").to_owned();
        self.lab.crash(victim)?;
        let begun = Instant::now();
        self.wait(&format!("all of {name} run on other hosts than {victim}"), || {
            match self.running(&watch, name, victim)? {
                running if running == tasks => Ok(()),
                running => Err(format!("{running}")),
            }
        })?;
        Ok(begun.elapsed())
    }

    /// Powers the leader off and submits through another host until that is accepted; how long that took from then on.
    pub(crate) fn lose_leader(&self, leader: &str, through: &str, name: &str) -> Result<Duration> {
        self.lab.crash(leader)?;
        let begun = Instant::now();
        self.wait("a submission is accepted", || {
            self.create(through, name, 1).map_err(|why| why.to_string())
        })?;
        Ok(begun.elapsed())
    }

    /// Powers a host on again and waits until it is a manager like the others.
    pub(crate) fn back(&mut self, host: &str) -> Result<()> {
        self.lab.power(host, None)?;
        self.start(host)?;
        self.whole()
    }

    fn whole(&self) -> Result<()> {
        self.wait("all engines are ready and manage", || {
            let said = self.ask("h1", &["node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}"]);
            let said = said.map_err(|why| why.to_string())?;
            let good =
                said.lines().filter(|line| matches!(*line, "Ready Leader" | "Ready Reachable")).count();
            if good == self.hosts.len() { Ok(()) } else { Err(said) }
        })
    }

    fn wait(&self, what: &str, mut look: impl FnMut() -> std::result::Result<(), String>) -> Result<()> {
        let begun = Instant::now();
        for looks in 1.. {
            match look() {
                Ok(()) => break,
                Err(seen) if begun.elapsed() > PATIENCE => {
                    let why = format!("{}: {what}: not within {PATIENCE:?}; last seen: {seen}", self.name);
                    return Err(Error::Missing(why).into());
                }
                Err(_) => sleep((LOOK * looks).saturating_sub(begun.elapsed()).min(LOOK)),
            }
        }
        Ok(())
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // Nobody could be told; `covey-lab down` ends what is left.
        let _ = Lab::down(self.lab.name());
        for engine in &mut self.engines {
            let _ = engine.wait();
        }
    }
}
