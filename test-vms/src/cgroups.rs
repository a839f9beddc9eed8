//! A subtree of every cgroup hierarchy of this machine, v1 or v2. A node's root is the cgroup that its agent was started
//! in, so whatever the node makes and starts is below here, and can be limited, counted and ended here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result};

/// Where the hierarchies are mounted.
const MOUNTS: &str = "/proc/self/mountinfo";
/// How long killed processes may take to leave, on a machine that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(30);
/// The kernel's default period for CPU quotas, in microseconds.
const PERIOD_US: u64 = 100_000;

/// One directory in each hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroups {
    roots: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes `name` at the top of every hierarchy, or takes what is there.
    pub(crate) fn make(name: &str) -> Result<Self> {
        Self { roots: mounts()? }.child(name)
    }

    /// `name` at the top of every hierarchy that has it.
    pub(crate) fn find(name: &str) -> Result<Self> {
        let mut roots = mounts()?;
        roots.iter_mut().for_each(|root| root.push(name));
        roots.retain(|root| root.is_dir());
        Ok(Self { roots })
    }

    /// Makes `name` below this one in every hierarchy, or takes what is there.
    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        let mut made = Self { roots: Vec::new() };
        for parent in &self.roots {
            // systemd hands these down on v2; where there is none, nobody has. v1 has no such file.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+cpu +memory +pids");
            let root = parent.join(name);
            match fs::create_dir(&root) {
                Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::file("make", &root)(why));
                }
                _ => made.roots.push(root.clone()),
            }
            // A new v1 cpuset has no CPUs and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (parent.join(file), root.join(file));
                if from.exists() && fs::read_to_string(&to).is_ok_and(|now| now.trim().is_empty()) {
                    fs::copy(&from, &to).map_err(Error::file("copy", &from))?;
                }
            }
        }
        Ok(made)
    }

    /// `name` below this one, where it is.
    pub(crate) fn below_named(&self, name: &str) -> Self {
        Self { roots: self.roots.iter().map(|root| root.join(name)).filter(|root| root.is_dir()).collect() }
    }

    /// The one in which CPU time is shared out and memory is not, as on v1.
    pub(crate) fn of_cpu(&self) -> Result<PathBuf> {
        let mut alone = self.roots.iter().filter(|root| root.join("cpu.idle").exists());
        let alone = alone.find(|root| root.join("cpu.shares").exists());
        alone.cloned().ok_or_else(|| Error::Missing("there is no v1 hierarchy with `cpu.idle`".to_owned()))
    }

    /// Whether any hierarchy has it.
    pub(crate) fn exist(&self) -> bool {
        !self.roots.is_empty()
    }

    /// Removes those in which nothing is.
    pub(crate) fn remove_if_empty(&self) {
        self.roots.iter().for_each(|root| drop(fs::remove_dir(root)));
    }

    /// Bounds what all processes here and below may use together: thousandths of a CPU, and bytes of memory without swap.
    ///
    /// # Errors
    /// When the kernel refuses, or has no such controller.
    pub fn limit(&self, cpu_milli: u64, memory_bytes: u64) -> Result<()> {
        let quota = cpu_milli * PERIOD_US / 1000;
        let (mut cpu, mut memory) = (false, false);
        for root in &self.roots {
            cpu |= write_if_there(&root.join("cpu.cfs_quota_us"), &quota.to_string())?;
            cpu |= write_if_there(&root.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
            for file in ["memory.limit_in_bytes", "memory.max"] {
                memory |= write_if_there(&root.join(file), &memory_bytes.to_string())?;
            }
            write_if_there(&root.join("memory.memsw.limit_in_bytes"), &memory_bytes.to_string())?;
            write_if_there(&root.join("memory.swap.max"), "0")?;
        }
        match (cpu, memory) {
            (true, true) => Ok(()),
            (false, _) => Err(no_controller("cpu")),
            (true, false) => Err(no_controller("memory")),
        }
    }

    /// Gives all processes here and below together the share of so many beside them, when there are not CPUs enough.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn weigh(&self, processes: u64) -> Result<()> {
        for root in &self.roots {
            // What one process has, which is also what a group of any size has.
            write_if_there(&root.join("cpu.shares"), &(1024 * processes).to_string())?;
            write_if_there(&root.join("cpu.weight"), &(100 * processes).to_string())?;
        }
        Ok(())
    }

    /// The doors into all of them, for a process that is yet to be.
    pub(crate) fn doors(&self) -> Result<Vec<File>> {
        let open = |root: &PathBuf| {
            let procs = root.join("cgroup.procs");
            File::options().write(true).open(&procs).map_err(Error::file("open", &procs))
        };
        self.roots.iter().map(open).collect()
    }

    /// A command that runs `program` in these cgroups.
    pub(crate) fn enter(&self, program: &Path) -> Command {
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

    /// Kills all processes here and below: at one moment where the kernel can (v2's `cgroup.kill`, else v1's freezer), so
    /// that none sees another's end; and returns when they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let at_once = self.roots.iter().any(|root| fs::write(root.join("cgroup.kill"), "1").is_ok());
        let freezers: Vec<PathBuf> = self
            .roots
            .iter()
            .map(|root| root.join("freezer.state"))
            .filter(|file| !at_once && file.exists())
            .collect();
        let until = Instant::now() + PATIENCE;
        for state in &freezers {
            fs::write(state, "FROZEN").map_err(Error::file("write", state))?;
            while !fs::read_to_string(state).is_ok_and(|now| now.trim() == "FROZEN") && Instant::now() < until
            {
                sleep(Duration::from_millis(1));
            }
        }
        let mut left = self.processes();
        while !left.is_empty() {
            if Instant::now() > until {
                return Err(Error::Missing(format!(
                    "killed processes do not end: {left:?}; they hang in the kernel (see /proc/PID/stack)"
                )));
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // The frozen die when thawed.
            for state in &freezers {
                fs::write(state, "THAWED").map_err(Error::file("write", state))?;
            }
            sleep(Duration::from_millis(1));
            left = self.processes();
        }
        Ok(())
    }

    /// Kills what is left and removes the directories.
    ///
    /// # Errors
    /// When a process does not die or a directory cannot be removed.
    pub(crate) fn end(&self) -> Result<()> {
        self.kill()?;
        let until = Instant::now() + PATIENCE;
        // Children come after their parents in the order, and have to go first.
        for directory in self.below().iter().rev().chain(&self.roots) {
            // A process that has ended leaves a moment after it has vanished from the list.
            while let Err(why) = fs::remove_dir(directory) {
                if why.kind() == io::ErrorKind::NotFound {
                    break;
                }
                if why.raw_os_error() != Some(libc::EBUSY) || Instant::now() > until {
                    return Err(Error::file("remove", directory)(why));
                }
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

fn mounts() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string(MOUNTS).map_err(Error::file("read", MOUNTS))?;
    Ok(mounts.lines().filter_map(cgroup_mount).collect())
}

/// The mount point of a cgroup file system that has processes in it (a line of mountinfo: proc(5)).
fn cgroup_mount(line: &str) -> Option<PathBuf> {
    let (place, kind) = line.split_once(" - ")?;
    matches!(kind.split(' ').next(), Some("cgroup" | "cgroup2")).then_some(())?;
    place.split(' ').nth(4).map(PathBuf::from)
}

/// Whether the file is there, and now says so.
fn write_if_there(file: &Path, text: &str) -> Result<bool> {
    if !file.exists() {
        return Ok(false);
    }
    fs::write(file, text).map_err(Error::file("write", file)).map(|()| true)
}

fn no_controller(name: &str) -> Error {
    Error::Missing(format!(
        "there is no usable {name} cgroup controller: mount it, or boot without cgroup_disable"
    ))
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
        cgroups.end().unwrap();
        waiter.join().unwrap().unwrap();
        assert!(cgroups.roots.iter().all(|root| !root.exists()));
    }
}
