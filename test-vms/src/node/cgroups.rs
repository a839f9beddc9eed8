//! A subtree of every cgroup hierarchy of this machine, v1 or v2. A node's root is the cgroup that its agent was started
//! in, so whatever the node makes and starts is below here, and can be counted and ended here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result};

/// Where the hierarchies are mounted.
const MOUNTS: &str = "/proc/self/mountinfo";
/// How long killed processes may take to leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// One directory in each hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    roots: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes `name` at the top of every hierarchy.
    pub(super) fn make(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string(MOUNTS).map_err(Error::file("read", MOUNTS))?;
        let mut made = Self { roots: Vec::new() };
        for mount in mounts.lines().filter_map(cgroup_mount) {
            let root = mount.join(name);
            fs::create_dir(&root).map_err(Error::file("make", &root))?;
            made.roots.push(root.clone());
            // systemd hands these down on v2; where there is none, nobody has. v1 has no such file.
            let _ = fs::write(mount.join("cgroup.subtree_control"), "+cpu +memory +pids");
            // A new v1 cpuset has no CPUs and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (mount.join(file), root.join(file));
                if from.exists() && fs::read_to_string(&to).is_ok_and(|now| now.trim().is_empty()) {
                    fs::copy(&from, &to).map_err(Error::file("copy", &from))?;
                }
            }
        }
        Ok(made)
    }

    /// A command that runs `program` in these cgroups.
    pub(super) fn enter(&self, program: &Path) -> Command {
        let mut shell = Command::new("/bin/sh");
        let script = r#"program=$1; shift
            while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done
            shift; exec "$program" "$@""#;
        shell.arg("-c").arg(script).arg("sh").arg(program).args(&self.roots).arg("--");
        shell
    }

    /// All cgroups below, without the roots themselves.
    pub fn below(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in &self.roots {
            walk(root, &mut found);
        }
        found.sort();
        found
    }

    /// All processes here and below.
    pub fn processes(&self) -> Vec<i32> {
        let mut directories = self.below();
        directories.extend(self.roots.iter().cloned());
        let mut pids: Vec<i32> = directories
            .iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            // 0 stands for a process outside of our pid namespace.
            .filter(|pid| *pid > 0)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills what is left and removes the directories.
    pub(super) fn end(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > until {
                break;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            sleep(Duration::from_millis(5));
        }
        // Children come after their parents in the order, and have to go first.
        for directory in self.below().iter().rev().chain(&self.roots) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The mount point of a cgroup file system that has processes in it (a line of mountinfo: proc(5)).
fn cgroup_mount(line: &str) -> Option<PathBuf> {
    let (place, kind) = line.split_once(" - ")?;
    matches!(kind.split(' ').next(), Some("cgroup" | "cgroup2")).then_some(())?;
    place.split(' ').nth(4).map(PathBuf::from)
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.push(entry.path());
        walk(&entry.path(), found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_hierarchies() {
        let v1 = "33 28 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
        let v2 = "42 28 0:36 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup_mount(v1), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(cgroup_mount(v2), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup_mount("28 1 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755"), None);
    }

    #[test]
    fn what_runs_in_them_is_seen_and_ended() {
        let name = format!("covey-test-{}", std::process::id());
        let cgroups = Cgroups::make(&name).unwrap();
        fs::create_dir(cgroups.roots[0].join("below")).unwrap();
        let mut child = cgroups.enter(Path::new("/bin/sleep")).arg("1000").spawn().unwrap();
        // The shell has become the sleeper only when it is in all of them.
        while fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n" {
            std::thread::yield_now();
        }
        assert_eq!(cgroups.processes(), [child.id().cast_signed()]);
        assert_eq!(cgroups.below().len(), 1);
        let waiter = std::thread::spawn(move || child.wait());
        cgroups.end();
        waiter.join().unwrap().unwrap();
        assert!(cgroups.roots.iter().all(|root| !root.exists()));
    }
}
