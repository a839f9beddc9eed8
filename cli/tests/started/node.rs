//! One node with real containers, and what a test wants to know of it.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{command, kill};

/// Much longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One node, gone when dropped.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) agent: Child,
}

impl Node {
    pub(crate) fn start(capacity: &str) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), capacity)
    }

    /// With its data in `dir/data`, on whatever is mounted there.
    pub(crate) fn start_in(dir: tempfile::TempDir, capacity: &str) -> Node {
        let data = dir.path().join("data");
        let args = ["agent", "--listen", "127.0.0.1:0", "--capacity", capacity, "--data"];
        let agent = super::agent(command(dir.path(), &args).arg(data));
        Node { dir, agent }
    }

    /// What is left of runs: bundles, mounts, cgroups, processes.
    pub(crate) fn left(&self) -> Vec<String> {
        let data = self.dir.path().join("data");
        let identity = fs::read_to_string(data.join("identity.json")).unwrap();
        let identity: Value = serde_json::from_str(&identity).unwrap();
        let tree = format!("covey-{}", identity["node"].as_str().unwrap());
        let bundles = fs::read_dir(data.join("bundles")).into_iter().flatten().flatten();
        let mut left: Vec<String> = bundles.map(|entry| entry.path().display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let bundles = data.join("bundles").display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&bundles)).map(String::from));
        for band in ["monitoring", "production", "spare/batch", "spare/free"] {
            for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
                let dir = hierarchy.path().join(&tree).join(band);
                let runs = fs::read_dir(dir).into_iter().flatten().flatten();
                left.extend(runs.filter(|e| e.path().is_dir()).map(|e| e.path().display().to_string()));
            }
            for process in fs::read_dir("/proc").unwrap().flatten() {
                let cgroups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
                if cgroups.contains(&format!("/{tree}/{band}/")) {
                    left.push(process.path().display().to_string());
                }
            }
        }
        left
    }

    /// Stops a job, and sees that nothing is left of it.
    pub(crate) fn ends(&self, job: &str) {
        let stop = self.covey(&["stop", job]);
        assert!(stop.status.success(), "{stop:?}");
        let began = Instant::now();
        while !self.left().is_empty() {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.left());
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn events(&self, job: &str) -> String {
        let events = self.covey(&["events", "--job", job]);
        String::from_utf8_lossy(&events.stdout).into_owned()
    }

    pub(crate) fn covey(&self, args: &[&str]) -> Output {
        command(self.dir.path(), args).output().unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        super::json(&self.covey(args))
    }

    pub(crate) fn run(&self, job: &str) -> Output {
        let file = self.dir.path().join("job.toml");
        fs::write(&file, job).unwrap();
        self.covey(&["run", file.to_str().unwrap(), "--wait", "--timeout", "60s"])
    }

    pub(crate) fn runs(&self, job: &str) {
        let run = self.run(job);
        assert!(run.status.success(), "{run:?}");
    }

    pub(crate) fn task(&self, task: &str) -> Value {
        self.json(&["task", task, "--json"])
    }

    /// What the task becomes, once it is so.
    pub(crate) fn until(&self, task: &str, so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let now = self.task(task);
            if so(&now) {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "{now}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that failed may have left it stopped.
        kill(&self.agent, Signal::SIGCONT);
        let jobs = self.json(&["jobs", "--json"]);
        for job in jobs["items"].as_array().into_iter().flatten() {
            self.covey(&["stop", job["name"].as_str().unwrap_or_default()]);
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE && !self.left().is_empty() {
            sleep(Duration::from_millis(20));
        }
        kill(&self.agent, Signal::SIGTERM);
        let _ = self.agent.wait();
    }
}

/// Asks `hello`, and does not mind if it dies of that.
pub(crate) fn get(task: &Value, path: &str) -> String {
    let port = u16::try_from(task["ports"]["http"].as_u64().unwrap()).unwrap();
    let began = Instant::now();
    // It runs before it listens.
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(why) => assert!(began.elapsed() < PATIENCE, "{why}"),
        }
        sleep(Duration::from_millis(20));
    };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
