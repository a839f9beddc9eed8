//! A task of the free band that takes all memory that its node has left, beside a service that uses all of its limit, on a
//! node whose memory is bounded as a small machine's is.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::node::{Node, Plan};
use test_vms::{Error, Result};

use crate::agent_kills::tasks;
use crate::arrivals::Asked;
use crate::cores;
use crate::figures::{Series, millis, show_at_most, show_holds, show_none_failed};
use crate::oom::Kills;
use crate::service::{Service, address, job, room_on_paper, running};

const MIB: u64 = 1 << 20;
const NODE: u64 = 512;
/// What the service may have, and nearly all of which it keeps.
const SERVICE: u64 = 256;
const KEPT: u64 = 246;
/// What the other may have: with the service's and the agent's more than there is, and it stops below its own limit.
const HOG: u64 = 255;
const TAKEN: u64 = 246;
const GOAL: Duration = Duration::from_secs(2);
/// Who is not gone by then stays.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);

pub(crate) fn run(count: usize) -> Result<bool> {
    let node = Node::start_as(Plan { memory: Some(NODE * MIB), ..room_on_paper() })?;
    cores::part(&node)?;
    let mut service = Service::start(&node, &format!("{SERVICE}MiB"))?;
    Asked { at: service.at(), path: format!("/alloc?mib={KEPT}") }.once()?;
    let before = tasks(&node, "service")?;
    let alone = service.load(GOAL * 2)?;
    let (mut kills, mut gone, mut causes) =
        (Kills::of(&node)?, Series::new("antagonist gone".to_owned()), BTreeMap::new());
    let (mut stayed, mut failed, mut p99) =
        (0, Vec::new(), Series::new("service's p99 meanwhile".to_owned()));
    for _ in 0..count {
        node.run("hog", &job("hog", "free", 1, "500m", &format!("{HOG}MiB")))?;
        cores::pin_tasks(&node)?;
        let hog = running(&node, "hog")?.pop().ok_or_else(|| Error::Missing("no hog runs".to_owned()))?;
        let asked = Asked { at: address(&hog)?, path: format!("/alloc?mib={TAKEN}") };
        // It is not to be answered.
        thread::spawn(move || asked.once());
        let process = format!("/proc/{}", hog["pid"].as_u64().unwrap_or_default());
        let watch = thread::spawn(move || lasts(&process));
        let users = service.load(GOAL)?;
        p99.push(users.p99());
        failed.extend(users.failed);
        let task = match watch.join().unwrap_or_default() {
            Some(took) => {
                gone.push(took);
                node.items(&["tasks", "hog"])?.pop().unwrap_or_default()
            }
            None => {
                stayed += 1;
                Value::Null
            }
        };
        *causes.entry(task["exit"]["cause"].as_str().unwrap_or("none").to_owned()).or_insert(0) += 1;
        kills.look()?;
        node.stop("hog")?;
    }
    println!("  ended with the causes {causes:?}; {} killed by the kernel at their own limits", kills.own);
    println!(
        "  the service's p99 {} before, {} meanwhile (median), {} at worst",
        millis(alone.p99()),
        millis(p99.median()),
        millis(p99.worst())
    );
    println!("  antagonist gone after {} (median)", millis(gone.median()));
    let worst = if stayed > 0 { PATIENCE } else { gone.worst() };
    Ok(show_at_most("antagonist gone, at worst", worst.as_secs_f64(), GOAL.as_secs_f64(), "s")
        & show_holds("all of them are gone", stayed == 0, &format!("{stayed} of {count} stayed"))
        & show_holds("the service was not killed or restarted", tasks(&node, "service")? == before, "")
        & show_none_failed(&failed)
        & show_holds(
            "no kernel OOM beyond a task's own limit",
            kills.beyond.is_empty(),
            &format!("{} {}", kills.beyond.len(), kills.beyond.first().map_or("", String::as_str)),
        ))
}

/// Until a process is gone; none: it stays.
fn lasts(process: &str) -> Option<Duration> {
    let begun = Instant::now();
    while Path::new(process).exists() {
        if begun.elapsed() > PATIENCE {
            return None;
        }
        thread::sleep(LOOK);
    }
    Some(begun.elapsed())
}
