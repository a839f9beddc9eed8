//! The words in which stories are told: a cell on hosts, jobs on it, and waiting for what is to come.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::lab::{self, Lab, Plan, voters_of};

/// Much longer than anything here takes, on a machine that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same for virtual machines, in which everything is slower by ten times and more.
const EMULATED: Duration = Duration::from_secs(240);
/// Between two looks at what nobody announces.
const LOOK: Duration = Duration::from_millis(50);
/// Stories that run in one process (`cargo test`) are told one after another: each wants the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// A cell on the hosts of a lab, gone when dropped. After a failure it first says how everything was.
pub(crate) struct Cell {
    lab: Lab,
    patience: Duration,
    _alone: MutexGuard<'static, ()>,
}

/// One task as `covey tasks` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) index: u64,
    pub(crate) node: String,
    pub(crate) state: String,
    pub(crate) generation: Vec<u64>,
    pub(crate) pid: i64,
    pub(crate) restarts: u64,
    pub(crate) port: u64,
}

impl Cell {
    /// Hosts h1, h2 … in three racks, one cell of all of them. With `COVEY_LAB_VM` they are virtual machines, whatever the
    /// story.
    pub(crate) fn of(story: &str, hosts: u32) -> Self {
        match std::env::var_os("COVEY_LAB_VM") {
            Some(_) => Self::of_vms(story, hosts),
            None => Self::on(Plan::new, story, hosts, PATIENCE),
        }
    }

    /// The same with so much memory for each host, in bytes.
    pub(crate) fn of_small(story: &str, hosts: u32, memory: u64) -> Self {
        let small = |name: &str, hosts, binary| {
            let mut plan = Plan::new(name, hosts, binary);
            plan.limits.memory_bytes = memory;
            plan
        };
        Self::on(small, story, hosts, PATIENCE)
    }

    /// The same on virtual machines.
    pub(crate) fn of_vms(story: &str, hosts: u32) -> Self {
        Self::on(Plan::of_vms, story, hosts, EMULATED)
    }

    fn on(kind: impl Fn(&str, u32, PathBuf) -> Plan, story: &str, hosts: u32, patience: Duration) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        take_down_left(story);
        let name = format!("{story}-{}", std::process::id());
        let mut plan = kind(&name, hosts, test_vms::binary::covey().unwrap());
        plan.racks = 3;
        plan.tool = env!("CARGO_BIN_EXE_covey-lab").into();
        plan.tell = |what| println!("{what}");
        let cell = Self { lab: Lab::raise(&plan).unwrap(), patience, _alone: alone };
        let times = cell.form().unwrap();
        println!("formed: {times:?}");
        cell
    }

    /// All hosts, but for those named.
    pub(crate) fn others(&self, but: &[&str]) -> Vec<String> {
        self.hosts().unwrap().into_iter().filter(|host| !but.contains(&host.as_str())).collect()
    }

    /// Who places, as a host sees it.
    pub(crate) fn placer(&self, host: &str) -> String {
        self.wait(&format!("{host} knows who places"), || {
            let nodes = self.nodes(host).map_err(|why| why.to_string())?;
            let placer = nodes.iter().find(|node| node["placer"] == true);
            placer.map(|node| node["name"].as_str().unwrap().to_owned()).ok_or(format!("{nodes:?}"))
        })
    }

    /// Waits until a host sees exactly these alive, a placer among them, and as many of them voting as there shall be.
    pub(crate) fn settles(&self, seen_by: &str, alive: &[String]) {
        self.wait(&format!("{seen_by} sees {alive:?} alive and their voters settled"), || {
            let nodes = self.nodes(seen_by).map_err(|why| why.to_string())?;
            let named = |what: &dyn Fn(&Value) -> bool| -> Vec<String> {
                let mut names: Vec<String> = nodes
                    .iter()
                    .filter(|node| what(node))
                    .map(|node| node["name"].as_str().unwrap().to_owned())
                    .collect();
                names.sort();
                names
            };
            let living = named(&|node| node["state"] == "alive");
            let voters = named(&|node| node["voter"] == true);
            let placers = named(&|node| node["placer"] == true);
            let right = living == alive
                && voters.len() == voters_of(alive.len())
                && voters.iter().chain(&placers).all(|name| living.contains(name))
                && placers.len() == 1;
            if right {
                Ok(())
            } else {
                Err(format!("alive {living:?}, voters {voters:?}, placer {placers:?}"))
            }
        });
    }

    /// Waits until a host lists exactly these nodes, all alive.
    pub(crate) fn all_alive_on(&self, host: &str, nodes: &[&str]) {
        self.nodes_are(host, format!("{host} sees {nodes:?}"), |seen| {
            let alive =
                |name: &&str| seen.iter().any(|node| node["name"] == **name && node["state"] == "alive");
            seen.len() == nodes.len() && nodes.iter().all(alive)
        })
        .unwrap();
    }

    /// A file beside the lab's, and where it is.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = lab::directory(self.name()).join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A job file for one web server of a band that ends within a second of being told to; `keys` are more of its task's.
    pub(crate) fn of_band(&self, name: &str, band: &str, keys: &str) -> String {
        let text = format!(
            r#"name = "{name}"
band = "{band}"
[task]
image = "hello:1"
command = ["/hello", "--listen", ":${{PORT_http}}"]
ports = ["http"]
grace = "1s"
{keys}
"#
        );
        self.file(&format!("{name}.toml"), &text)
    }

    /// A job file for so many web servers, and where it is.
    pub(crate) fn web(&self, name: &str, count: u32) -> String {
        let text = format!(
            r#"name = "{name}"
count = {count}
[task]
image = "hello:1"
command = ["/hello", "--listen", ":${{PORT_http}}"]
cpu = "50m"
memory = "16MiB"
ports = ["http"]
health = {{ http = "/healthz", port = "http", interval = "1s", timeout = "5s" }}
"#
        );
        self.file(&format!("{name}.toml"), &text)
    }

    /// A job file for so many web servers with networks of their own, all in one rack, and where it is. `http`: the port as
    /// the job names it; `listen`: the number inside.
    pub(crate) fn private(&self, name: &str, count: u32, rack: &str, http: &str, listen: &str) -> String {
        let text = format!(
            r#"name = "{name}"
count = {count}
require = ["rack={rack}"]
[task]
image = "hello:1"
command = ["/hello", "--listen", ":{listen}"]
cpu = "50m"
memory = "16MiB"
network = "private"
ports = ["{http}"]
health = {{ http = "/healthz", port = "http", interval = "1s", timeout = "5s" }}
"#
        );
        self.file(&format!("{name}.toml"), &text)
    }

    /// Creates or changes a job through a host, and waits until it is settled.
    pub(crate) fn run(&self, through: &str, file: &str) {
        let timeout = format!("{}s", self.patience.as_secs());
        self.covey(through, &["run", file, "--wait", "--timeout", &timeout]).unwrap();
    }

    /// Creates or changes a job through a host; returns when that is decided.
    pub(crate) fn submit(&self, through: &str, file: &str) {
        self.covey(through, &["run", file]).unwrap();
    }

    /// What a verb says that is refused.
    pub(crate) fn refused(&self, through: &str, args: &[&str]) -> String {
        let output = self.exec(through, "covey").unwrap().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "covey {args:?} on {through}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    }

    /// The tasks of a job as a host sees them.
    pub(crate) fn tasks(&self, host: &str, job: &str) -> Result<Vec<Task>, String> {
        let list = self.json(host, &["tasks", job]).map_err(|why| why.to_string())?;
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| {
                let number = |value: &Value| value.as_u64().unwrap_or_default();
                Ok(Task {
                    index: number(&task["index"]),
                    node: task["node"].as_str().unwrap_or_default().to_owned(),
                    state: task["state"].as_str().unwrap_or_default().to_owned(),
                    generation: task["generation"].as_array().into_iter().flatten().map(number).collect(),
                    pid: task["pid"].as_i64().unwrap_or_default(),
                    restarts: number(&task["restarts"]),
                    port: number(&task["ports"]["http"]),
                })
            })
            .collect()
    }

    /// Waits until a host sees a job's tasks as they shall be, and gives them by index.
    pub(crate) fn sees(
        &self,
        host: &str,
        job: &str,
        what: &str,
        right: impl Fn(&[Task]) -> bool,
    ) -> BTreeMap<u64, Task> {
        self.wait(&format!("{host} sees of {job}: {what}"), || {
            let tasks = self.tasks(host, job)?;
            if !right(&tasks) {
                return Err(format!("{tasks:#?}"));
            }
            Ok(tasks.into_iter().map(|task| (task.index, task)).collect())
        })
    }

    /// Waits until so many tasks run, all on these hosts.
    pub(crate) fn running(
        &self,
        seen_by: &str,
        job: &str,
        count: usize,
        on: &[String],
    ) -> BTreeMap<u64, Task> {
        self.sees(seen_by, job, &format!("{count} running on {on:?}"), |tasks| {
            let right = |task: &&Task| task.state == "running" && on.contains(&task.node);
            tasks.iter().filter(right).count() == count && tasks.len() == count
        })
    }

    /// The containers of web servers that really run on a host, by pid: what is true, whoever says what.
    pub(crate) fn containers(&self, host: &str) -> Vec<i64> {
        let serves = |process: &(i32, Vec<u8>)| process.1.starts_with(b"/hello\0");
        let processes = self.command_lines(host).unwrap().into_iter();
        let mut pids: Vec<i64> = processes.filter(serves).map(|(pid, _)| i64::from(pid)).collect();
        pids.sort_unstable();
        pids
    }

    /// Waits until exactly so many containers run on all hosts together, and every task is one of them.
    pub(crate) fn copies(&self, seen_by: &str, job: &str, count: usize) {
        self.wait(&format!("{count} containers on all hosts, each a task"), || {
            let mut real: Vec<i64> =
                self.hosts().unwrap().iter().flat_map(|host| self.containers(host)).collect();
            real.sort_unstable();
            let tasks = self.tasks(seen_by, job)?;
            let mut told: Vec<i64> = tasks.iter().filter(|t| t.state == "running").map(|t| t.pid).collect();
            told.sort_unstable();
            if real.len() == count && told == real {
                Ok(())
            } else {
                Err(format!("{told:?} are told of, {real:?} run"))
            }
        });
    }

    /// What a shell script prints on a host.
    pub(crate) fn says(&self, host: &str, script: &str) -> String {
        said(self.exec(host, "/bin/sh").unwrap().args(["-ec", script]))
    }

    /// Asks a task over HTTP, on its own host.
    pub(crate) fn asks(&self, task: &Task, path: &str) -> String {
        let script = r#"exec 3<>"/dev/tcp/127.0.0.1/$0"; printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3; cat <&3"#;
        let mut bash = self.exec(&task.node, "/bin/bash").unwrap();
        said(bash.args(["-c", script, &task.port.to_string(), path]))
    }

    /// Looks until it has come true.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        let until = Instant::now() + self.patience;
        loop {
            match look() {
                Ok(there) => return there,
                Err(seen) => {
                    assert!(
                        Instant::now() < until,
                        "{what}: not within {:?}; last seen: {seen}",
                        self.patience
                    )
                }
            }
            sleep(LOOK);
        }
    }
}

/// What a story has left whose process was killed: its lab carries the process's id.
fn take_down_left(story: &str) {
    let labs = lab::directory("");
    for entry in fs::read_dir(labs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(story).and_then(|rest| rest.strip_prefix('-')?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            println!("lab `{name}` is left over: {:?}", Lab::down(&name));
        }
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Deref for Cell {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if panicking() {
            let hosts = self.lab.hosts().unwrap_or_default();
            if let Some(events) = hosts.iter().find_map(|host| self.lab.covey(host, &["events"]).ok()) {
                eprintln!("--- events\n{events}");
            }
            for host in hosts {
                let log = fs::read_to_string(self.lab.dir(&host).join("agent.log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let nodes = self.lab.nodes(&host).map(|nodes| nodes.len()).map_err(|why| why.to_string());
                eprintln!("--- {host}: agent {:?}, nodes {nodes:?}", self.lab.agent_pid(&host));
                eprintln!("{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
        // What the kernel does last (writing a disk back) takes longer now and then, where others want the machine too.
        let down = Lab::down(self.lab.name()).or_else(|why| {
            eprintln!("once more: {why}");
            Lab::down(self.lab.name())
        });
        match down {
            Ok(_) => {}
            Err(why) if panicking() => eprintln!("{why}"),
            // Else nobody would hear of it.
            Err(why) => panic!("the lab is left over: {why}"),
        }
    }
}

/// Names, as lists of hosts are compared.
pub(crate) fn names(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}
