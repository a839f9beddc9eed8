//! What processes have used, as the kernel counts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use test_vms::node::Node;
use test_vms::{Error, Result};

/// Resident memory (proc_pid_status(5)).
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let text = read(&format!("/proc/{pid}/status"))?;
    kib(&text, "VmRSS:").map(|kib| kib / 1024.0).ok_or_else(|| Error::Missing(format!("{pid} has no VmRSS")))
}

/// Resident memory that no file is behind, the only kind in which something can be left over: what is mapped of the
/// program's file comes and goes.
pub(crate) fn own_mib(pid: u32) -> Result<f64> {
    let text = read(&format!("/proc/{pid}/status"))?;
    kib(&text, "RssAnon:")
        .map(|kib| kib / 1024.0)
        .ok_or_else(|| Error::Missing(format!("{pid} has no RssAnon")))
}

/// Memory of several processes.
#[derive(Default)]
pub(crate) struct Memory {
    /// How many they are.
    pub(crate) processes: usize,
    /// With shared pages divided among their users.
    pub(crate) pss_mib: f64,
    /// What the kernel keeps to find their pages.
    pub(crate) tables_mib: f64,
}

/// Of the processes that wait for a node's containers.
pub(crate) fn shims(node: &Node) -> Result<Memory> {
    let mut all = Memory::default();
    for pid in node.cgroups.processes() {
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "covey-shim") {
            all.processes += 1;
            let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
            all.pss_mib += kib(&rollup, "Pss:").unwrap_or(0.0) / 1024.0;
            let status = read(&format!("/proc/{pid}/status"))?;
            all.tables_mib += kib(&status, "VmPTE:").unwrap_or(0.0) / 1024.0;
        }
    }
    Ok(all)
}

/// CPU time of a node's agent, and of all its shims, until now. What shims have used is what their cgroup has counted.
pub(crate) fn own_cpu(node: &Node) -> Result<[Duration; 2]> {
    let dirs = node.cgroups.below();
    let shims = dirs.iter().filter(|dir| dir.ends_with("shims")).find_map(|dir| counted(dir));
    let missing = || Error::Missing("no cgroup of the shims counts CPU time".to_owned());
    Ok([cpu(node.agent_pid())?, shims.ok_or_else(missing)?])
}

/// By any hierarchy that counts it: all of them have the same processes.
pub(crate) fn counted(dir: &Path) -> Option<Duration> {
    let nanoseconds = || fs::read_to_string(dir.join("cpuacct.usage")).ok()?.trim().parse().ok();
    let microseconds = || {
        let text = fs::read_to_string(dir.join("cpu.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
    };
    nanoseconds().map(Duration::from_nanos).or_else(|| microseconds().map(Duration::from_micros))
}

/// CPU time of a process until now, of its threads that have ended too (proc_pid_stat(5)).
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    // The name is in parentheses, and may hold anything.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // SAFETY: sysconf has no preconditions.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1).unsigned_abs();
    Ok(Duration::from_millis(ticks * 1000 / a_second))
}

fn kib(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|why| Error::Missing(format!("cannot read {path}: {why}")))
}
