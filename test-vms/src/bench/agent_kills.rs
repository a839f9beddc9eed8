//! The agent killed again and again under running tasks, which must not notice.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::dice::Dice;
use crate::figures::{millis, show_holds};
use crate::memory::many;

const TASKS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What must stay as it is: by task, its pid and restarts.
pub(crate) type Tasks = BTreeMap<String, (u64, u64)>;

pub(crate) fn run(count: usize) -> Result<bool> {
    let mut node = Node::start()?;
    node.run("many", &many(TASKS))?;
    let before = tasks(&node, "many")?;
    let mut dice = Dice(0x5eed);
    let mut slowest = Duration::ZERO;
    let mut adopted = 0;
    for round in 0..count {
        node.kill_agent();
        let begun = Instant::now();
        node.spawn_agent()?;
        if round % 2 == 0 {
            // Every other time it is killed again somewhere in its start, re-adoption included.
            sleep(Duration::from_micros(dice.below(60_000)));
            continue;
        }
        node.answers()?;
        all_running(&node, "many", &before)?;
        adopted += 1;
        slowest = slowest.max(begun.elapsed());
    }
    node.kill_agent();
    node.start_agent()?;
    let after = all_running(&node, "many", &before)?;
    println!(
        "  {count} kills, {adopted} of them after full re-adoption; slowest start to all adopted {}",
        millis(slowest)
    );
    let changed: Vec<_> = before.iter().filter(|(task, was)| after.get(*task) != Some(was)).collect();
    let held = show_holds("no container restarted or lost", changed.is_empty(), &format!("{changed:?}"));
    for (task, _) in &changed {
        for event in node.items(&["events", "--job", "many"])? {
            if event["index"].as_u64() == task.parse().ok() && event["kind"] != "readopted" {
                println!("    {} {} {}", event["time"], event["kind"], event["text"]);
            }
        }
    }
    let mut lines = 0;
    let mut gaps = Vec::new();
    for index in 0..TASKS {
        match ticks(&node, &format!("many/{index}"))? {
            Ok(number) => lines += number,
            Err(gap) => gaps.push(format!("many/{index}: {gap}")),
        }
    }
    let whole = show_holds(
        "no log line lost",
        gaps.is_empty() && lines > 0,
        &format!("{lines} lines {}", gaps.join("; ")),
    );
    Ok(held & whole)
}

/// Those of a job that run.
pub(crate) fn tasks(node: &Node, job: &str) -> Result<Tasks> {
    let number = |task: &Value, field: &str| {
        task[field].as_u64().ok_or_else(|| Error::Missing(format!("a task without {field}: {task}")))
    };
    node.items(&["tasks", job])?
        .iter()
        .filter(|task| task["state"] == "running")
        .map(|task| {
            Ok((number(task, "index")?.to_string(), (number(task, "pid")?, number(task, "restarts")?)))
        })
        .collect()
}

/// Waits until as many tasks run as before, and returns them.
pub(crate) fn all_running(node: &Node, job: &str, before: &Tasks) -> Result<Tasks> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Right after its start an agent may still be without a placer, and say so.
        if let Ok(now) = tasks(node, job)
            && (now.len() >= before.len() || Instant::now() > until)
        {
            return Ok(now);
        }
        if Instant::now() > until {
            return Err(Error::Missing("the agent lists no tasks a minute after its start".to_owned()));
        }
        sleep(Duration::from_millis(2));
    }
}

/// The number of a task's ticks, or where one is missing.
pub(crate) fn ticks(node: &Node, task: &str) -> Result<std::result::Result<u64, String>> {
    let output = node
        .covey(&["logs", task])
        .output()
        .map_err(|why| Error::Missing(format!("cannot run covey logs: {why}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut last = 0;
    for number in text.lines().filter_map(|line| line.rsplit_once("tick ")?.1.parse::<u64>().ok()) {
        if number != last + 1 {
            return Ok(Err(format!("tick {number} comes after {last}")));
        }
        last = number;
    }
    Ok(if last == 0 { Err("no ticks at all".to_owned()) } else { Ok(last) })
}
