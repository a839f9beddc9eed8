//! Whose want of memory the kernel killed for: the run's own limit, or that of a cgroup above it or of the whole machine.
//!
//! v2 counts both kinds in `memory.events` (`oom`: this cgroup or one below it was out of memory; `oom_kill`: something
//! in it was killed, for whatever cgroup's sake). v1 has the second count alone (`failcnt` rises with every page of cache that
//! does not fit, and not at all where memory with swap is limited, on Linux 6.15 and later); there the kernel's log tells,
//! or else whether the run ever came near its limit.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Home, Placement, SPARE, keyed, number};

/// Why the kernel killed for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutOfMemory {
    /// The run reached its own limit.
    Limit,
    /// The machine, or a cgroup above the run's, had no more.
    Host,
}

impl Placement {
    /// How often the kernel has killed in this run's cgroup for want of memory.
    pub fn oom_kills(&self) -> u64 {
        match self.home("memory") {
            Some(Home::V1(dir)) => keyed(&dir.join("memory.oom_control"), "oom_kill"),
            Some(Home::V2(dir)) => keyed(&dir.join("memory.events"), "oom_kill"),
            None => None,
        }
        .unwrap_or(0)
    }

    /// Whether the kernel has killed in this run's cgroup for want of memory, and whose.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        if self.oom_kills() == 0 {
            return None;
        }
        let own = match self.home("memory")? {
            Home::V1(dir) => log().and_then(|log| blamed(&log, &dir)).unwrap_or_else(|| came_near(&dir)),
            Home::V2(dir) => keyed(&dir.join("memory.events"), "oom").is_none_or(|times| times > 0),
        };
        Some(if own { OutOfMemory::Limit } else { OutOfMemory::Host })
    }
}

/// Whether usage was ever so near the limit that the next page may have been too much: folios are up to 4 MiB large.
fn came_near(dir: &Path) -> bool {
    let read = |file: &str| number(&dir.join(file));
    let (Some(peak), Some(limit)) = (read("memory.max_usage_in_bytes"), read("memory.limit_in_bytes")) else {
        return true;
    };
    peak + (limit / 16).min(4 << 20) >= limit
}

/// Whether the last kill in `dir`'s cgroup was for its own limit, by the kernel's log; `None` when it does not tell (it
/// keeps only so much, and leaves out some of many kills at once).
fn blamed(log: &str, dir: &Path) -> Option<bool> {
    // The kernel writes paths from the hierarchy's root, which need not be what is mounted here. The last names
    // (node, band and run) are this run's and no other's.
    let own = if dir.iter().rev().nth(2).is_some_and(|name| name == SPARE) { 4 } else { 3 };
    let names: Vec<_> = dir.iter().rev().take(own).collect();
    let own: std::path::PathBuf = names.into_iter().rev().collect();
    let within = |cgroup: &str| {
        let mut above = Path::new(cgroup).ancestors();
        above.any(|path| path.ends_with(&own))
    };
    let field = |line: &str, name: &str| {
        line.split(',').find_map(|part| Some(part.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let kills = log.lines().filter(|line| line.contains("oom-kill:constraint="));
    let mut ours = kills.filter(|line| field(line, "task_memcg").is_some_and(|cgroup| within(&cgroup)));
    // Without `oom_memcg` it was the machine's.
    ours.next_back().map(|line| field(line, "oom_memcg").is_some_and(|cgroup| within(&cgroup)))
}

/// What the kernel's log holds; `None` where it may not be read.
fn log() -> Option<String> {
    let mut kmsg = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok()?;
    let mut text = Vec::new();
    // One record a read, and none is larger.
    let mut record = [0; 8192];
    loop {
        match kmsg.read(&mut record) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&record[..length]),
            // Overwritten before it was read: the next read goes on with what is left.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn without_the_log_the_peak_tells() {
        let dir = tempfile::tempdir().unwrap();
        let near = |peak: u64, limit: u64| {
            std::fs::write(dir.path().join("memory.max_usage_in_bytes"), peak.to_string()).unwrap();
            std::fs::write(dir.path().join("memory.limit_in_bytes"), limit.to_string()).unwrap();
            came_near(dir.path())
        };
        assert!(near(64 << 20, 64 << 20) && near(61 << 20, 64 << 20));
        assert!(!near(48 << 20, 64 << 20) && !near(1 << 30, i64::MAX as u64));
    }

    #[test]
    fn the_log_tells_whose_memory_it_was() {
        let dir = Path::new("/sys/fs/cgroup/memory/agents/covey-1f/spare/batch/1.7.0-1.2.5-0");
        let kill = |whose: &str, task: &str| {
            format!(
                "6,37,339,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,{whose}\
                 task_memcg=/host/agents/{task},task=hello,pid=26871,uid=0\n"
            )
        };
        let run = "covey-1f/spare/batch/1.7.0-1.2.5-0";
        let own = kill(&format!("oom_memcg=/host/agents/{run},"), run);
        let above = kill("oom_memcg=/host,", run);
        let machine = kill("global_oom,", run);
        let nested = kill(&format!("oom_memcg=/host/agents/{run},"), &format!("{run}/exec-1"));
        let other = kill("oom_memcg=/host,", "covey-1f/spare/batch/1.7.0-1.2.5-01");
        assert_eq!(blamed(&own, dir), Some(true));
        assert_eq!(blamed(&above, dir), Some(false));
        assert_eq!(blamed(&machine, dir), Some(false));
        assert_eq!(blamed(&nested, dir), Some(true));
        // The last one counts, and others' do not.
        assert_eq!(blamed(&format!("{own}{above}{other}"), dir), Some(false));
        assert_eq!(blamed(&other, dir), None);
    }
}
