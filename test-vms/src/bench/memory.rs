//! The agent's resident memory, idle and with 50 tasks.

use std::fs;

use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::figures::show_at_most;
use crate::peers::Docker;

const IDLE_MIB: f64 = 25.0;
const BUSY_MIB: f64 = 40.0;
const TASKS: usize = 50;

pub(crate) fn run(_: usize) -> Result<bool> {
    let node = Node::start()?;
    let idle = rss_mib(node.agent_pid())?;
    node.run("many", &many(TASKS))?;
    let busy = rss_mib(node.agent_pid())?;
    let met = show_at_most("covey agent, idle", idle, IDLE_MIB, "MiB")
        & show_at_most(&format!("covey agent, {TASKS} tasks"), busy, BUSY_MIB, "MiB");
    let shims: f64 = node
        .cgroups
        .processes()
        .into_iter()
        .filter(|pid| is_covey_but_no_task(*pid, node.agent_pid()))
        .filter_map(|pid| pss_kib(pid).ok())
        .sum();
    println!("  {:28} {:>7.1} MiB   PSS of all {TASKS}", "covey shims", shims / 1024.0);
    match Docker::start() {
        Ok(docker) => {
            let resident: Result<Vec<f64>> = docker.daemons().into_iter().map(rss_mib).collect();
            let resident = resident?;
            let sum: f64 = resident.iter().sum();
            println!(
                "  {:28} {sum:>7.1} MiB   covey/peer {:.2}",
                format!("{}, idle", docker.name),
                idle / sum
            );
        }
        Err(why) => println!("  docker: not measured here ({why})"),
    }
    Ok(met)
}

/// A job of many small tasks.
pub(crate) fn many(count: usize) -> String {
    format!(
        "name = \"many\"\ncount = {count}\n[task]\nimage = \"hello:1\"\ncpu = \"20m\"\nmemory = \"16MiB\"\n\
         ports = [\"http\"]\ncommand = [\"/hello\", \"--listen\", \":${{PORT_http}}\", \"--tick\", \"50\"]\n"
    )
}

/// Resident memory (proc_pid_status(5)).
fn rss_mib(pid: u32) -> Result<f64> {
    let text = read(&format!("/proc/{pid}/status"))?;
    kib(&text, "VmRSS:").map(|kib| kib / 1024.0).ok_or_else(|| Error::Missing(format!("{pid} has no VmRSS")))
}

/// Memory with shared pages divided among their users.
fn pss_kib(pid: i32) -> Result<f64> {
    let text = read(&format!("/proc/{pid}/smaps_rollup"))?;
    kib(&text, "Pss:").ok_or_else(|| Error::Missing(format!("{pid} has no Pss")))
}

fn kib(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|why| Error::Missing(format!("cannot read {path}: {why}")))
}

fn is_covey_but_no_task(pid: i32, agent: u32) -> bool {
    let name = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pid.cast_unsigned() != agent && !name.starts_with(b"/hello")
}
