//! A service whose limit fills its node and whose load does not, alone and beside batch work that wants as much again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::Result;
use test_vms::node::Node;

use crate::arrivals::Asked;
use crate::figures::{show_at_least, show_none_failed};
use crate::pairs::{Pairs, Window, order, quantile};
use crate::service::{Service, address, job, overcommitted, room_on_paper, running};
use crate::{band, cores};

/// Of the service's p99 alone.
const P99: f64 = 1.1;
/// Of the CPU time that the service leaves.
const PERCENT: f64 = 85.0;
/// Of batch work, whose limits together are a core.
const TASKS: usize = 10;
const WINDOW: Duration = Duration::from_secs(8);
/// Between two windows: what was stopped is gone from the run queue.
const SETTLES: Duration = Duration::from_millis(300);

/// How long a node has to see what the service leaves, and to fill it.
const FILLS: Duration = Duration::from_secs(150);

pub(crate) fn run(count: usize) -> Result<bool> {
    Ok(in_turns(count)? & as_predicted()?)
}

/// There is room on paper, so that all batch work runs from the beginning: what the bands do to each other.
fn in_turns(count: usize) -> Result<bool> {
    let node = Node::start_as(room_on_paper())?;
    cores::part(&node)?;
    let mut service = Service::start(&node, "64MiB")?;
    node.run("burn", &job("burn", "batch", TASKS, "100m", "16MiB"))?;
    let batch = running(&node, "burn")?;
    batch.iter().try_for_each(burn)?;
    cores::pin_tasks(&node)?;
    println!(
        "  {:.0} requests a second; {} batch tasks of 0.1 CPUs each, all on one core",
        service.a_second,
        batch.len()
    );
    let (mut p99, mut median) = (Pairs::default(), Pairs::default());
    let (mut shares, mut failed) = (Vec::new(), Vec::new());
    for round in 0..count {
        p99.begin();
        median.begin();
        for window in order(round) {
            band::go_on(&node, "batch", window == Window::Beside)?;
            std::thread::sleep(SETTLES);
            let before = (Instant::now(), band::cpu(&node, "production")?, band::cpu(&node, "batch")?);
            let answered = service.load(WINDOW)?;
            let (took, after) =
                (before.0.elapsed(), (band::cpu(&node, "production")?, band::cpu(&node, "batch")?));
            p99.note(window, answered.p99().as_secs_f64() * 1e3);
            median.note(window, answered.quantile(0.5).as_secs_f64() * 1e3);
            if window == Window::Beside {
                let left = took.saturating_sub(after.0 - before.1);
                shares.push((after.1 - before.2).as_secs_f64() * 100.0 / left.as_secs_f64());
            }
            failed.extend(answered.failed);
        }
    }
    shares.sort_by(f64::total_cmp);
    median.show("the service's median", "ms", "");
    Ok(p99.show_at_most("the service's p99", P99, "ms")
        & show_at_least("batch, of what is left", quantile(&shares, 0.5), PERCENT, "%")
        & show_none_failed(&failed))
}

/// The service's limit is all that there is: batch work runs as far as the node predicts that it may.
fn as_predicted() -> Result<bool> {
    let node = Node::start_as(overcommitted())?;
    cores::part(&node)?;
    let mut service = Service::start(&node, "64MiB")?;
    let file = node.job_file("burn", &job("burn", "batch", TASKS, "100m", "16MiB"))?;
    node.json(&["run", &file.display().to_string()])?;
    let (begun, mut burning) = (Instant::now(), BTreeSet::new());
    while begun.elapsed() < FILLS {
        service.load(WINDOW / 4)?;
        for task in running(&node, "burn")? {
            if burning.insert(task["pid"].as_u64()) {
                burn(&task)?;
                cores::pin_tasks(&node)?;
            }
        }
    }
    let before = (Instant::now(), band::cpu(&node, "production")?, band::cpu(&node, "batch")?);
    service.load(WINDOW)?;
    let left = before.0.elapsed().saturating_sub(band::cpu(&node, "production")? - before.1);
    let percent = (band::cpu(&node, "batch")? - before.2).as_secs_f64() * 100.0 / left.as_secs_f64();
    println!(
        "  {} of the {TASKS} tasks run after {} s on a node that has no room by limits",
        running(&node, "burn")?.len(),
        FILLS.as_secs()
    );
    Ok(show_at_least("batch as predicted, of that", percent, PERCENT, "%"))
}

fn burn(task: &Value) -> Result<()> {
    Asked { at: address(task)?, path: "/burn?cpu=1&seconds=86400".to_owned() }.once()
}
