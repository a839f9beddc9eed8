//! Five nodes that are full on paper: services whose load comes and goes far below their limits, and batch work that would
//! like all of it. How much of the work ran in room that limits would have left empty, and what the services felt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::Error;
use test_vms::lab::Result;

use super::{Cell, HOSTS, items, wait};
use crate::arrivals::{Asked, poisson};
use crate::dice::Dice;
use crate::figures::{show_at_least, show_at_most, show_holds};
use crate::pairs::quantile;

/// The argument by which `covey-bench` becomes the users of a service: its address, and for how many seconds.
pub(crate) const FLAG: &str = "--users-of";
const A_SECOND: f64 = 15.0;

/// Of each host: the agents are told of less CPU than there is, so that five of them do not want more than two real ones.
const CPU: u64 = 300;
const MEMORY: u64 = 1 << 30;
const CONFIG: &str =
    "capacity = { cpu = 0.3 }\nestimate = { preset = \"normal\", hold = \"10s\", horizon = \"600s\" }\n";
/// A service on each host, limited to nearly all of it.
const SERVICE: (&str, &str, u64) = ("250m", "800MiB", 160);
/// Its load: thousandths of a CPU between these, there and back in so many seconds.
const WAVE: &str = "/wave?low=0.02&high=0.08&period=100&seconds=86400";
/// Batch tasks: more than there can ever be room for.
const BATCH: (&str, &str, u64, usize) = ("30m", "96MiB", 80, 60);

const PERCENT: f64 = 30.0;
/// Of the services' p99 alone, as in the other figures of what stands beside them.
const P99: f64 = 1.5;
const ALONE: u64 = 30;
const SAMPLE: Duration = Duration::from_secs(2);

/// `count`: minutes.
pub(crate) fn run(count: usize) -> Result<bool> {
    let cell = Cell::up_with(MEMORY, CONFIG)?;
    let through = "h1";
    submit(&cell, "web", "production", (SERVICE.0, SERVICE.1, HOSTS as usize))?;
    let web = wait("all services run", || running(&cell, "web", HOSTS as usize))?;
    let before = told(&web);
    for task in &web {
        ask(&cell, task, &format!("/alloc?mib={}", SERVICE.2))?;
        ask(&cell, task, WAVE)?;
    }
    let (alone, _) = users(&cell, &web, ALONE)?;
    submit(&cell, "crunch", "batch", (BATCH.0, BATCH.1, BATCH.3))?;
    let length = Duration::from_secs(60 * count as u64);
    let mut work = Work::default();
    let (beside, failed) = thread::scope(|scope| {
        let users = scope.spawn(|| users(&cell, &web, length.as_secs()));
        let (begun, mut asked) = (Instant::now(), BTreeSet::new());
        while begun.elapsed() < length {
            let tasks = items(cell.json(through, &["tasks"])?);
            for task in tasks.iter().filter(|task| task["job"] == "crunch" && task["state"] == "running") {
                // Each run of a container is asked once.
                let run = (task["node"].to_string(), task["pid"].as_u64());
                if asked.insert(run) {
                    let (cell, task) = (&cell, task.clone());
                    // It may be gone already, which is no fault.
                    scope.spawn(move || {
                        ask(cell, &task, &format!("/alloc?mib={}", BATCH.2))?;
                        ask(cell, &task, "/burn?cpu=1&seconds=86400")
                    });
                }
            }
            work.add(&tasks);
            sleep(SAMPLE);
        }
        users.join().unwrap_or_else(|_| Err(Error::Missing("the users panicked".to_owned()).into()))
    })?;
    let after = told(&wait("all services run", || running(&cell, "web", HOSTS as usize))?);
    let events = items(cell.json(through, &["events"])?);
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    println!(
        "  {} minutes; {} batch tasks at a time on the mean; reclaimed from {}",
        count,
        work.tasks / work.samples.max(1),
        of("reclaimed")
    );
    Ok(show_at_least("CPU, in reclaimed room", work.share(0), PERCENT, "% of all work")
        & show_at_least("memory, in reclaimed room", work.share(1), PERCENT, "% of all work")
        & show_at_most(
            "the services' p99, to alone",
            quantile(&beside, 0.5) / quantile(&alone, 0.5),
            P99,
            "×",
        )
        & show_holds("no request failed", failed == 0, &failed.to_string())
        & show_holds("no service was moved or restarted", before == after, &format!("{before:?} {after:?}")))
}

/// CPU and memory over time, in thousandths of a CPU and bytes, times samples.
#[derive(Default)]
struct Work {
    all: [f64; 2],
    reclaimed: [f64; 2],
    samples: usize,
    tasks: usize,
}

impl Work {
    /// What batch tasks use counts as done in reclaimed room as far as their limits are beyond what those of the services
    /// leave.
    fn add(&mut self, tasks: &[Value]) {
        let mut nodes: BTreeMap<&str, [[[f64; 2]; 2]; 2]> = BTreeMap::new();
        for task in tasks.iter().filter(|task| task["state"] == "running") {
            let batch = usize::from(task["job"] == "crunch");
            let sums = &mut nodes.entry(task["node"].as_str().unwrap_or_default()).or_default()[batch];
            for (place, name) in ["cpu_milli", "memory_bytes"].iter().enumerate() {
                sums[0][place] += task["limit"][name].as_f64().unwrap_or_default();
                sums[1][place] += task["usage"][name].as_f64().unwrap_or_default();
            }
            self.tasks += batch;
        }
        for [[prod, served], [limits, done]] in nodes.into_values() {
            for (place, capacity) in [CPU as f64, MEMORY as f64].into_iter().enumerate() {
                self.all[place] += served[place] + done[place];
                let beyond = (limits[place] - (capacity - prod[place]).max(0.0)).max(0.0);
                if limits[place] > 0.0 {
                    self.reclaimed[place] += done[place] * beyond / limits[place];
                }
            }
        }
        self.samples += 1;
    }

    /// In percent.
    fn share(&self, place: usize) -> f64 {
        self.reclaimed[place] * 100.0 / self.all[place]
    }
}

fn submit(cell: &Cell, name: &str, band: &str, (cpu, memory, count): (&str, &str, usize)) -> Result<()> {
    let path = cell.files.path().join(format!("{name}.toml"));
    let text = crate::service::job(name, band, count, cpu, memory);
    fs::write(&path, text).map_err(Error::file("write", &path))?;
    cell.covey("h1", &["run", &path.display().to_string()]).map(drop)
}

fn running(cell: &Cell, job: &str, count: usize) -> std::result::Result<Vec<Value>, String> {
    let mut tasks = cell.tasks("h1", job).map_err(|why| why.to_string())?;
    tasks.retain(|task| task["state"] == "running");
    if tasks.len() == count { Ok(tasks) } else { Err(format!("{} of {job} run", tasks.len())) }
}

/// What must stay as it is.
fn told(tasks: &[Value]) -> Vec<String> {
    tasks.iter().map(|task| format!("{} {} {}", task["index"], task["pid"], task["restarts"])).collect()
}

fn port(task: &Value) -> u64 {
    task["ports"]["http"].as_u64().unwrap_or_default()
}

fn ask(cell: &Cell, task: &Value, path: &str) -> Result<()> {
    let node = task["node"].as_str().unwrap_or_default();
    let url = format!("http://127.0.0.1:{}{path}", port(task));
    let mut curl = cell.exec(node, "curl")?;
    let done = curl
        .args(["-sS", "--max-time", "10", "--retry", "20", "--retry-delay", "1", "--retry-connrefused", &url])
        .stdin(Stdio::null())
        .output();
    let done = done.map_err(|why| Error::Missing(format!("cannot run curl: {why}")))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(Error::Missing(format!("{url}: {}", String::from_utf8_lossy(&done.stderr))).into()),
    }
}

/// The services' p99 in milliseconds, sorted, as users beside each see it for so many seconds; and how many requests failed.
fn users(cell: &Cell, web: &[Value], seconds: u64) -> Result<(Vec<f64>, u64)> {
    let me = std::env::current_exe().map_err(|why| Error::Missing(format!("what is this program? {why}")))?;
    let start = |task: &Value| -> Result<std::process::Child> {
        let mut users: Command =
            cell.exec(task["node"].as_str().unwrap_or_default(), &me.display().to_string())?;
        users.args([FLAG, &format!("127.0.0.1:{}", port(task)), &seconds.to_string()]);
        let users = users.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(users.map_err(|why| Error::Missing(format!("cannot run {}: {why}", me.display())))?)
    };
    let started: Vec<_> = web.iter().map(start).collect::<Result<_>>()?;
    let (mut all, mut failed) = (Vec::new(), 0);
    for users in started {
        let said = users
            .wait_with_output()
            .map_err(|why| Error::Missing(format!("the users of a service: {why}")))?;
        let text = String::from_utf8_lossy(&said.stdout);
        let numbers = text.trim().split_once(' ');
        let numbers =
            numbers.and_then(|(p99, failed)| Some((p99.parse().ok()?, failed.parse::<u64>().ok()?)));
        let (p99, without) =
            numbers.ok_or_else(|| Error::Missing(format!("the users of a service said {text:?}")))?;
        all.push(p99);
        failed += without;
    }
    all.sort_by(f64::total_cmp);
    Ok((all, failed))
}

/// What the users are: prints their p99 in milliseconds, and how many requests failed.
pub(crate) fn ask_for(at: &str, seconds: &str) -> test_vms::Result<()> {
    let wrong = |what: &str| Error::Missing(format!("{what} makes no sense"));
    let at = at.parse().map_err(|_| wrong(at))?;
    let length = Duration::from_secs(seconds.parse().map_err(|_| wrong(seconds))?);
    let asked = Asked { at, path: "/work?us=1000".to_owned() };
    let answered = poisson(&asked, A_SECOND, length, &mut Dice(0x5eed))?;
    println!("{} {}", answered.p99().as_secs_f64() * 1e3, answered.failed);
    Ok(())
}
