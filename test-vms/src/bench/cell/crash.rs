//! A host loses power. How long until its tasks run on others?

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::Error;
use test_vms::lab::Result;

use super::{Cell, HOSTS, LOOK, PATIENCE, swarm, swarm_series};
use crate::figures::{Series, show};

const GOAL: Duration = Duration::from_secs(4);
const SWARM_TAKES: Duration = Duration::from_millis(12_100);
const TASKS: usize = 50;

pub(crate) fn run(count: usize) -> Result<bool> {
    let (cell, _) = Cell::up()?;
    let mut swarm = swarm();
    let mut all = ["not the placer", "the placer"]
        .map(|which| [Series::new(format!("covey, {which}")), swarm_series(swarm.as_ref(), SWARM_TAKES)]);
    for round in 0..count {
        for (which, [covey, docker]) in all.iter_mut().enumerate() {
            let pick = |leader: &str, others: &[&str]| match which {
                0 => others[round % others.len()].to_owned(),
                _ => leader.to_owned(),
            };
            cell.run("h1", "web", TASKS)?;
            let placer = cell.placer("h1")?;
            let victim = pick(&placer, &cell.others(&placer));
            covey.push(once(&cell, &victim, &placer)?);
            cell.boot(&victim, None)?;
            cell.whole()?;
            cell.stop("h1", "web")?;

            if let Some(swarm) = &mut swarm {
                swarm.run("h1", "web", TASKS)?;
                let leader = swarm.leader()?;
                let victim = pick(&leader, &swarm.others(&leader));
                docker.push(swarm.lose(&victim, &leader, "web", TASKS)?);
                swarm.back(&victim)?;
                swarm.remove("h1", "web")?;
            }
        }
    }
    println!(
        "  (power off has returned → all {TASKS} run on the other hosts, polled every {} ms)",
        LOOK.as_millis()
    );
    Ok(all.iter().fold(true, |met, series| met & show(series, GOAL)))
}

fn once(cell: &Cell, victim: &str, placer: &str) -> Result<Duration> {
    let watch = cell.others(victim).into_iter().find(|host| *host != placer).unwrap_or("h1");
    let there = cell.tasks(watch, "web")?.iter().filter(|task| task["node"] == victim).count();
    if there != TASKS / HOSTS as usize {
        println!("  ({victim} has {there} tasks, not {})", TASKS / HOSTS as usize);
    }
    cell.crash(victim)?;
    let begun = Instant::now();
    let mut seen = String::new();
    for look in 1.. {
        match cell.tasks(watch, "web") {
            Ok(tasks) if elsewhere(&tasks, victim) == TASKS => return Ok(begun.elapsed()),
            Ok(tasks) => seen = summary(&tasks),
            Err(why) => seen = why.to_string(),
        }
        if begun.elapsed() > PATIENCE {
            break;
        }
        sleep((LOOK * look).saturating_sub(begun.elapsed()));
    }
    Err(Error::Missing(format!("{victim} is off, and a minute later {watch} sees: {seen}")).into())
}

/// How many tasks run on other hosts.
fn elsewhere(tasks: &[Value], victim: &str) -> usize {
    let running = tasks.iter().filter(|task| task["state"] == "running" && task["node"] != victim);
    running.filter_map(|task| task["index"].as_u64()).collect::<BTreeSet<_>>().len()
}

/// What does not run, task by task.
fn summary(tasks: &[Value]) -> String {
    let not_running = tasks.iter().filter(|task| task["state"] != "running");
    let one = |task: &Value| {
        format!("{} {} on {} ({})", task["index"], task["state"], task["node"], task["reason"])
    };
    not_running.map(one).collect::<Vec<_>>().join("; ")
}
