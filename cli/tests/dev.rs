//! `covey dev`, whole: a cell in a terminal, a job in real containers, and nothing left when it ends. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::Path,
    process::{Child, Output},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use started::{command, kill};

struct Cell {
    dir: tempfile::TempDir,
    dev: Child,
}

impl Cell {
    /// A `covey dev`, and what it says when it is ready.
    fn start() -> (Cell, Value) {
        let dir = tempfile::tempdir().unwrap();
        let (dev, ready) = started::dev(dir.path());
        (Cell { dir, dev }, ready)
    }

    fn covey(&self, args: &[&str]) -> Output {
        command(self.dir.path(), args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        started::json(&self.covey(args))
    }

    fn end(mut self, signal: Signal) -> tempfile::TempDir {
        kill(&self.dev, signal);
        assert!(self.dev.wait().unwrap().success());
        self.dir
    }
}

/// Live processes whose command line names `path`.
fn processes_of(path: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(path))
        .collect()
}

/// Directories below the cgroup mounts whose names hold `id`.
fn cgroups_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_path_buf()];
    while let Some(dir) = open.pop() {
        // Other tests' cgroups come and go.
        let inner = fs::read_dir(&dir).into_iter().flatten().flatten();
        for path in inner.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()) {
            if path.to_string_lossy().contains(id) {
                found.push(path.display().to_string());
            }
            open.push(path);
        }
    }
    found
}

#[test]
fn a_cell_of_one_node_runs_a_job_and_leaves_nothing_behind() {
    let (cell, ready) = Cell::start();
    let data = ready["data"].as_str().unwrap().to_owned();
    assert_eq!(ready["cell"], "dev");
    let node = cell.json(&["nodes", "--json"])["items"][0].clone();
    assert_eq!(node["name"], ready["node"]);

    let file = cell.dir.path().join("web.toml");
    let health = "health = { http = \"/healthz\", port = \"http\", interval = \"100ms\" }";
    let job =
        format!("name = \"web\"\ncount = 2\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n{health}\n");
    fs::write(&file, job).unwrap();
    let run = cell.json(&["run", file.to_str().unwrap(), "--wait", "--timeout", "60s", "--json"]);
    assert_eq!(run["settled"]["state"], "yes", "{run}");
    let tasks = cell.json(&["tasks", "web", "--json"]);
    let pids: Vec<u64> =
        tasks["items"].as_array().unwrap().iter().map(|task| task["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    let log = cell.covey(&["logs", "web/1"]);
    assert!(
        String::from_utf8_lossy(&log.stdout).starts_with("hello: started job=root/web index=1"),
        "{log:?}"
    );

    let dir = cell.end(Signal::SIGINT);
    assert!(!Path::new(&data).exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the job file is left");
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "container {pid} lives on");
    }
    assert_eq!(processes_of(&data), [""; 0]);
    assert_eq!(cgroups_of(node["id"].as_str().unwrap()), [""; 0]);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&data));
}

#[test]
fn a_closed_terminal_ends_the_cell_too() {
    let (cell, ready) = Cell::start();
    let data = ready["data"].as_str().unwrap().to_owned();
    let second =
        command(cell.dir.path(), &["dev", "--json"]).env("TMPDIR", cell.dir.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let why = serde_json::from_slice::<Value>(&second.stdout).unwrap();
    assert!(why["error"]["message"].as_str().unwrap().contains("another agent answers on"), "{why}");
    cell.end(Signal::SIGHUP);
    assert!(!Path::new(&data).exists());
}
