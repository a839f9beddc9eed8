//! What running tasks cost while nobody does anything: covey and Docker with as many each, in the same minute.

use std::thread::sleep;
use std::time::{Duration, Instant};

use test_vms::Result;
use test_vms::node::Node;

use crate::figures::show_at_most;
use crate::many::quiet;
use crate::peers::Docker;
use crate::usage::{own_cpu, rss_mib};

/// CPU time in a minute, shims included.
const SECONDS: f64 = 0.3;
const AGENT_MIB: f64 = 35.0;
const SETTLES: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_secs(60);

pub(crate) fn run(count: usize) -> Result<bool> {
    let node = Node::start()?;
    node.run("many", &quiet(count))?;
    let docker = Docker::start().and_then(|docker| {
        docker.run_many(count)?;
        Ok(docker)
    });
    sleep(SETTLES);
    let (begun, ours) = (Instant::now(), own_cpu(&node)?);
    let theirs = docker.as_ref().ok().map(Docker::cpu).transpose()?;
    sleep(QUIET);
    let [agent, shims] = own_cpu(&node)?;
    let now = docker.as_ref().ok().map(Docker::cpu).transpose()?;
    let a_minute = |used: Duration| used.as_secs_f64() * 60.0 / begun.elapsed().as_secs_f64();
    let [agent, shims] = [agent.saturating_sub(ours[0]), shims.saturating_sub(ours[1])].map(a_minute);
    let rss = rss_mib(node.agent_pid())?;
    println!("  {:28} {agent:>7.3} s a minute", "CPU of the agent");
    println!("  {:28} {shims:>7.3} s a minute", "CPU of all shims");
    let met = show_at_most("CPU of both", agent + shims, SECONDS, "s a minute")
        & show_at_most("VmRSS of the agent", rss, AGENT_MIB, "MiB");
    match (&docker, theirs, now) {
        (Ok(docker), Some(before), Some(now)) => {
            let names = ["dockerd", "containerd", "containerd's shims"];
            let used: Vec<f64> =
                before.iter().zip(now).map(|(before, now)| a_minute(now.saturating_sub(*before))).collect();
            let all: f64 = used.iter().sum();
            for (name, used) in names.iter().zip(&used) {
                println!("  {:28} {used:>7.3} s a minute", format!("{}: {name}", docker.name));
            }
            println!("  {:28} {all:>7.3} s a minute   covey/peer {:.2}", docker.name, (agent + shims) / all);
            let resident: Result<Vec<f64>> = docker.daemons().into_iter().map(rss_mib).collect();
            let resident: f64 = resident?.iter().sum();
            println!("  {:28} {resident:>7.1} MiB   covey/peer {:.2}", "both daemons", rss / resident);
        }
        (Err(why), ..) => println!("  docker: not measured here ({why})"),
        _ => {}
    }
    Ok(met)
}
