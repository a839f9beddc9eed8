//! As many tasks as a node may ever have, and a minute in which nothing happens.

use std::thread::sleep;
use std::time::{Duration, Instant};

use test_vms::Result;
use test_vms::node::Node;

use crate::figures::show_at_most;
use crate::usage::{own_cpu, rss_mib, shims};

const AGENT_MIB: f64 = 60.0;
const SHIM_MIB: f64 = 0.05;
/// Of one core, of agent and shims together.
const PERCENT: f64 = 2.0;
/// What begins with the tasks (first looks at their disk, their reports) is over by then.
const SETTLES: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_secs(60);

pub(crate) fn run(count: usize) -> Result<bool> {
    let node = Node::start()?;
    let idle = rss_mib(node.agent_pid())?;
    let begun = Instant::now();
    node.run("many", &quiet(count))?;
    println!("  {count} tasks run after {:.1} s", begun.elapsed().as_secs_f64());
    sleep(SETTLES);
    let (begun, before) = (Instant::now(), own_cpu(&node)?);
    sleep(QUIET);
    let (took, after) = (begun.elapsed(), own_cpu(&node)?);
    let percent = |which: usize| {
        let used = after[which].saturating_sub(before[which]);
        used.as_secs_f64() * 100.0 / took.as_secs_f64()
    };
    let memory = shims(&node)?;
    let each = memory.pss_mib / memory.processes.max(1) as f64;
    println!("  {:28} {idle:>7.1} MiB", "VmRSS of the agent, idle");
    println!("  {:28} {:>7.1} MiB   of {}", "PSS of all shims", memory.pss_mib, memory.processes);
    println!("  {:28} {:>7.1} MiB", "page tables of all shims", memory.tables_mib);
    println!("  {:28} {:>7.2} %   of a core, in {:.0} s", "CPU of the agent", percent(0), took.as_secs_f64());
    println!("  {:28} {:>7.2} %", "CPU of all shims", percent(1));
    Ok(show_at_most("VmRSS of the agent", rss_mib(node.agent_pid())?, AGENT_MIB, "MiB")
        & show_at_most("PSS of each shim", each, SHIM_MIB, "MiB")
        & show_at_most("CPU of all of it", percent(0) + percent(1), PERCENT, "%"))
}

/// A job of so many servers that nobody asks for anything.
pub(crate) fn quiet(count: usize) -> String {
    format!(
        "name = \"many\"\ncount = {count}\n[task]\nimage = \"hello:1\"\ncpu = \"3m\"\nmemory = \"16MiB\"\n\
         ports = [\"http\"]\ncommand = [\"/hello\", \"--listen\", \":${{PORT_http}}\"]\n"
    )
}
