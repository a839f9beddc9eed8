//! The agent's resident memory, idle and with 50 tasks: when they have just started, and while they run.

use std::{thread::sleep, time::Duration};

use test_vms::Result;
use test_vms::node::Node;

use crate::figures::show_at_most;
use crate::peers::Docker;
use crate::usage::{Memory, rss_mib, shims};

const IDLE_MIB: f64 = 25.0;
const BUSY_MIB: f64 = 35.0;
const TASKS: usize = 50;
/// After this the agent has given back what only the starts have needed.
const SETTLED: Duration = Duration::from_secs(40);

pub(crate) fn run(_: usize) -> Result<bool> {
    let node = Node::start()?;
    let idle = rss_mib(node.agent_pid())?;
    node.run("many", &many(TASKS))?;
    let busy = rss_mib(node.agent_pid())?;
    sleep(SETTLED);
    let later = rss_mib(node.agent_pid())?;
    let met = show_at_most("covey agent, idle", idle, IDLE_MIB, "MiB")
        & show_at_most(&format!("covey agent, {TASKS} tasks"), later, BUSY_MIB, "MiB");
    println!("  {:28} {busy:>7.1} MiB", "just started");
    let Memory { pss_mib, .. } = shims(&node)?;
    println!("  {:28} {pss_mib:>7.1} MiB   PSS of all {TASKS}", "covey shims");
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
