//! A bench that is told to end takes with it what it has made. Needs root and a built covey.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn waits_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(there) = look() {
            return there;
        }
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// The directory of the one node below.
fn node(temp: &Path) -> Option<PathBuf> {
    let inside = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut dirs = inside(temp.to_owned()).flat_map(inside);
    dirs.find(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("covey-node-")))
}

/// The cgroups and processes that carry a name.
fn traces(name: &str) -> Vec<String> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let cgroups = hierarchies.map(|hierarchy| hierarchy.path().join(name)).filter(|path| path.exists());
    let mut found: Vec<String> = cgroups.map(|path| path.display().to_string()).collect();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(process.path().join(file)).unwrap_or_default();
        if read("cgroup").contains(name) && !read("status").contains("State:\tZ") {
            found.push(read("comm"));
        }
    }
    found
}

#[test]
fn what_is_told_to_end_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let temp = tempfile::tempdir().unwrap();
        let mut bench = Command::new(env!("CARGO_BIN_EXE_covey-bench"))
            .args(["agent-kills", "--count", "1000000"])
            .env("TMPDIR", temp.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let node = waits_for("a node", || node(temp.path()));
        let name = node.file_name().unwrap().to_string_lossy().into_owned();
        // Containers run, and their agent is killed and started again and again.
        waits_for("containers", || {
            (traces(&name).iter().filter(|what| *what == "hello\n").count() > 5).then_some(())
        });
        kill(Pid::from_raw(bench.id().cast_signed()), signal).unwrap();
        let ended = bench.wait().unwrap();
        assert_eq!(ended.code(), Some(128 + signal as i32), "{ended}");
        assert_eq!(traces(&name), Vec::<String>::new());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "{temp:?}");
    }
}
