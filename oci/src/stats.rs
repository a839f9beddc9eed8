//! What a run uses now, from its cgroups.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::{Band, Placement, Tree, UNIFIED, keyed, number};

/// One look. A figure that the host cannot give is 0 (or `None` for a limit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used so far, in microseconds.
    pub cpu_usage_us: u64,
    /// Time for which the CPU limit held it back, in microseconds.
    pub throttled_us: u64,
    /// Memory that the kernel could not take back without harm: usage less inactive file pages, in bytes.
    pub memory_working_set: u64,
    /// The highest usage so far, file pages included, in bytes.
    pub memory_peak: u64,
    /// The memory limit in force, in bytes.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Processes that the kernel killed for the memory limit.
    pub oom_kills: u64,
}

/// What a run has gone through so far; `None` is what the host does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Held back by its CPU limit, in microseconds.
    pub throttled_us: Option<u64>,
    /// As in [`Stats::memory_peak`].
    pub memory_peak: Option<u64>,
    /// Read and written, past the page cache. On v1 only where block IO is limited.
    pub io_bytes: Option<u64>,
    /// Some process has waited for CPU, for memory, for IO: in microseconds.
    pub waited_us: [Option<u64>; 3],
}

impl Counters {
    /// Of the directory that there is in each hierarchy.
    fn read(dir: impl Fn(&str) -> Option<PathBuf>) -> Counters {
        let v2 = dir(UNIFIED);
        let throttled_us = match (dir("cpu"), &v2) {
            (Some(dir), _) => keyed(&dir.join("cpu.stat"), "throttled_time").map(|ns| ns / 1000),
            (None, Some(dir)) => keyed(&dir.join("cpu.stat"), "throttled_usec"),
            (None, None) => None,
        };
        let memory_peak = match (dir("memory"), &v2) {
            (Some(dir), _) => number(&dir.join("memory.max_usage_in_bytes")),
            (None, Some(dir)) => number(&dir.join("memory.peak")),
            (None, None) => None,
        };
        let io_bytes = match (dir("blkio"), &v2) {
            (Some(dir), _) => totals(&dir.join("blkio.throttle.io_service_bytes"), "Total"),
            (None, Some(dir)) => transferred(&dir.join("io.stat")),
            (None, None) => None,
        };
        let waited_us = ["cpu", "memory", "io"].map(|what| stalled(v2.as_deref()?, what));
        Counters { throttled_us, memory_peak, io_bytes, waited_us }
    }
}

impl Tree {
    /// What a band's tasks have gone through together, but for their own limits. The highest memory is that since the band's
    /// directory is there.
    pub fn counters(&self, band: Band) -> Counters {
        let read = Counters::read(|hierarchy| Some(band.dir(&self.tree_of(hierarchy)?)));
        Counters { throttled_us: None, ..read }
    }
}

/// In microseconds, by the kernel's own count (PSI).
fn stalled(dir: &Path, what: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(format!("{what}.pressure"))).ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.rsplit_once("total=")?.1.trim().parse().ok()
}

impl Placement {
    /// CPU time used so far, in microseconds: one file, for whoever looks all the time. `None` where the host does not
    /// tell, and once the run's cgroups are gone.
    pub fn cpu_us(&self) -> Option<u64> {
        match (self.trees.get("cpuacct"), self.trees.get(UNIFIED)) {
            (Some(tree), _) => number(&self.in_tree(tree).join("cpuacct.usage")).map(|ns| ns / 1000),
            // There without the controller too.
            (None, Some(tree)) => keyed(&self.in_tree(tree).join("cpu.stat"), "usage_usec"),
            (None, None) => None,
        }
    }

    /// As in [`Stats::memory_working_set`]: two files, one of which the kernel has to put together. What is hidden in
    /// memory's file systems counts; where only the second file is of no use, so do the pages of files. `None` as above.
    pub fn memory(&self) -> Option<u64> {
        let (tree, usage, inactive) = match (self.trees.get("memory"), self.trees.get(UNIFIED)) {
            (Some(tree), _) => (tree, "memory.usage_in_bytes", "total_inactive_file"),
            (None, tree) => (tree?, "memory.current", "inactive_file"),
        };
        let dir = self.in_tree(tree);
        let used = number(&dir.join(usage))?;
        let inactive = keyed(&dir.join("memory.stat"), inactive).unwrap_or(0);
        // The two are read one after the other; but more cache than memory is no figure.
        Some(if inactive > used.saturating_mul(2) { used } else { used.saturating_sub(inactive) })
    }

    /// Whether any of the run's cgroups is there.
    pub fn is_there(&self) -> bool {
        self.dirs().iter().any(|dir| dir.exists())
    }

    /// Figures beside CPU and memory: up to six files.
    pub fn counters(&self) -> Counters {
        Counters::read(|hierarchy| self.trees.get(hierarchy).map(|tree| self.in_tree(tree)))
    }

    /// For how long some process of the run has waited for CPU, memory or IO so far, in microseconds; `None` where the
    /// kernel does not tell.
    pub fn stalled(&self, what: &str) -> Option<u64> {
        stalled(&self.in_tree(self.trees.get(UNIFIED)?), what)
    }

    /// Read the run's figures; all zero once its cgroups are gone.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { oom_kills: self.oom_kills(), ..Stats::default() };
        let v1 = |controller: &str| self.trees.get(controller).map(|tree| self.in_tree(tree));
        let v2 = self.trees.get(UNIFIED).map(|tree| self.in_tree(tree));

        if let Some(dir) = v1("cpuacct") {
            stats.cpu_usage_us = number(&dir.join("cpuacct.usage")).unwrap_or(0) / 1000;
        } else if let Some(dir) = &v2 {
            // There without the controller too.
            stats.cpu_usage_us = keyed(&dir.join("cpu.stat"), "usage_usec").unwrap_or(0);
        }
        if let Some(dir) = v1("cpu") {
            stats.throttled_us = keyed(&dir.join("cpu.stat"), "throttled_time").unwrap_or(0) / 1000;
        } else if let Some(dir) = &v2 {
            stats.throttled_us = keyed(&dir.join("cpu.stat"), "throttled_usec").unwrap_or(0);
        }
        if let Some(dir) = v1("memory") {
            let usage = number(&dir.join("memory.usage_in_bytes")).unwrap_or(0);
            let inactive = keyed(&dir.join("memory.stat"), "total_inactive_file").unwrap_or(0);
            stats.memory_working_set = usage.saturating_sub(inactive);
            stats.memory_peak = number(&dir.join("memory.max_usage_in_bytes")).unwrap_or(0);
            stats.memory_limit =
                number(&dir.join("memory.limit_in_bytes")).filter(|&limit| limit < UNLIMITED);
        } else if let Some(dir) = &v2 {
            let usage = number(&dir.join("memory.current")).unwrap_or(0);
            let inactive = keyed(&dir.join("memory.stat"), "inactive_file").unwrap_or(0);
            stats.memory_working_set = usage.saturating_sub(inactive);
            // Since Linux 5.19.
            stats.memory_peak = number(&dir.join("memory.peak")).unwrap_or(usage);
            stats.memory_limit = number(&dir.join("memory.max"));
        }
        if let Some(dir) = v1("pids").or_else(|| v2.clone()) {
            stats.pids =
                number(&dir.join("pids.current")).unwrap_or_else(|| lines(&dir.join("cgroup.procs")));
        }
        stats
    }
}

/// v1 says "no limit" with the largest page-aligned number.
const UNLIMITED: u64 = 1 << 62;

/// Sum of the numbers at the ends of lines such as `8:0 Total 4096`: one for each device.
fn totals(path: &Path, what: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let of = |line: &str| line.split_once(' ')?.1.strip_prefix(what)?.trim().parse::<u64>().ok();
    Some(text.lines().filter_map(of).sum())
}

/// Sum over all devices of what was read and written.
fn transferred(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let of =
        |field: &str| field.strip_prefix("rbytes=").or(field.strip_prefix("wbytes="))?.parse::<u64>().ok();
    Some(text.split_whitespace().filter_map(of).sum())
}

fn lines(path: &Path) -> u64 {
    fs::read_to_string(path).map_or(0, |text| text.lines().count() as u64)
}
