//! The agent replaced by another version of itself again and again, under tasks that are busy, and must not notice.

use std::time::Duration;

use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::agent_kills::{all_running, tasks, ticks};
use crate::figures::{millis, show_holds};
use crate::load::Load;

const A_SECOND: u32 = 500;
/// Of each kind: with the node's network, and with one of their own.
const TASKS: usize = 5;
const JOBS: [(&str, &str); 2] = [("host", "host"), ("own", "private")];
/// What clients manage on a machine that is busy with something else is not covey's matter.
const LEAST: f64 = 0.9;

pub(crate) fn run(count: usize) -> Result<bool> {
    let mut node = Node::start()?;
    node.upgrade(0)?;
    let mut ports = Vec::new();
    let mut before = Vec::new();
    for (name, network) in JOBS {
        node.run(name, &job(name, network))?;
        for task in node.items(&["tasks", name])? {
            let port = task["ports"]["http"].as_u64().and_then(|port| u16::try_from(port).ok());
            ports.push(port.ok_or_else(|| Error::Missing(format!("a task without a port: {task}")))?);
        }
        before.push((name, tasks(&node, name)?));
    }
    let load = Load::start(A_SECOND, &ports);
    let (mut away, mut longest, mut changed) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for version in 1..=count {
        let took = node.upgrade(version)?;
        longest = longest.max(took);
        away += took;
        for (name, before) in &before {
            let now = all_running(&node, name, before)?;
            let differs = |task: &&String| now.get(*task) != before.get(*task);
            changed.extend(before.keys().filter(differs).map(|task| format!("{name}/{task} at {version}")));
        }
    }
    let load = load.stop();
    let each = away / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    println!("  {count} upgrades; the agent is away for {}, {} at most", millis(each), millis(longest));
    println!(
        "  {} requests, {:.0} a second, to {} tasks, {} of them in networks of their own; the slowest took {}",
        load.requests,
        load.a_second,
        TASKS * JOBS.len(),
        TASKS,
        millis(load.slowest)
    );
    let (mut lines, mut gaps) = (0, Vec::new());
    for (name, _) in &before {
        for index in 0..TASKS {
            match ticks(&node, &format!("{name}/{index}"))? {
                Ok(number) => lines += number,
                Err(gap) => gaps.push(format!("{name}/{index}: {gap}")),
            }
        }
    }
    let failed = format!("{} {}", load.failed.len(), load.failed.first().map_or("", String::as_str));
    Ok(show_holds("no container restarted", changed.is_empty(), &changed.join(", "))
        & show_holds("no request failed", load.failed.is_empty(), &failed)
        & show_holds("there were requests enough", load.a_second >= f64::from(A_SECOND) * LEAST, "")
        & show_holds(
            "no log line lost or doubled",
            gaps.is_empty() && lines > 0,
            &format!("{lines} lines {}", gaps.join("; ")),
        ))
}

fn job(name: &str, network: &str) -> String {
    format!(
        "name = \"{name}\"\ncount = {TASKS}\n[task]\nimage = \"hello:1\"\ncpu = \"100m\"\nmemory = \"32MiB\"\n\
         network = \"{network}\"\nports = [\"http\"]\n\
         command = [\"/hello\", \"--listen\", \":${{PORT_http}}\", \"--tick\", \"20\"]\n"
    )
}
