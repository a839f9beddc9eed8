//! What it costs to know what tasks use and need: two nodes with as many tasks that all do a little each second, one of which
//! estimates. (The memory that estimates take is counted by the estimator's own tests.)

use std::thread::sleep;
use std::time::{Duration, Instant};

use test_vms::Result;
use test_vms::node::{Node, Plan};

use crate::figures::show_at_most;
use crate::usage::{cpu, rss_mib};

/// Of a core, for each hundred tasks.
const ESTIMATING: f64 = 0.2;
/// Of a core, for all that the agent does beside tasks that are looked at all the time.
const MEASURING: f64 = 1.0;
const SETTLES: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_secs(120);

pub(crate) fn run(count: usize) -> Result<bool> {
    let off = Plan { config: "[estimate]\npreset = \"off\"\n".to_owned(), ..Plan::default() };
    let nodes = [Node::start()?, Node::start_as(off)?];
    for node in &nodes {
        node.run("ticks", &ticking(count))?;
    }
    sleep(SETTLES);
    let used = || -> Result<[Duration; 2]> { Ok([cpu(nodes[0].agent_pid())?, cpu(nodes[1].agent_pid())?]) };
    let (begun, before) = (Instant::now(), used()?);
    sleep(QUIET);
    let (took, after) = (begun.elapsed().as_secs_f64(), used()?);
    let percent = |which: usize| after[which].saturating_sub(before[which]).as_secs_f64() * 100.0 / took;
    let hundreds = count.max(1) as f64 / 100.0;
    for (name, which) in [("estimating", 0), ("not estimating", 1)] {
        let (cpu, rss) = (percent(which), rss_mib(nodes[which].agent_pid())?);
        println!(
            "  {:28} {cpu:>7.3} %   of a core in {took:.0} s, VmRSS {rss:.1} MiB",
            format!("agent, {name}")
        );
    }
    let each = (percent(0) - percent(1)).max(0.0) / hundreds;
    Ok(show_at_most("estimation, each 100 tasks", each, ESTIMATING, "%")
        & show_at_most("all of it, each 100 tasks", percent(0) / hundreds, MEASURING, "%"))
}

/// A job of so many tasks, none of which is ever quite idle.
fn ticking(count: usize) -> String {
    format!(
        "name = \"ticks\"\ncount = {count}\n[task]\nimage = \"hello:1\"\ncpu = \"3m\"\nmemory = \"16MiB\"\n\
         ports = [\"http\"]\ncommand = [\"/hello\", \"--listen\", \":${{PORT_http}}\", \"--tick\", \"1000\"]\n"
    )
}
