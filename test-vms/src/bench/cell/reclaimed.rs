//! Five nodes that are full on paper: services whose load comes and goes far below their limits, and batch work that would
//! like all of it. How much of the work ran in room that limits would have left empty, and what the services felt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::Error;
use test_vms::lab::Result;

use super::{Cell, HOSTS, items, wait};
use crate::arrivals::{Asked, poisson};
use crate::cores;
use crate::dice::Dice;
use crate::figures::{show_at_least, show_at_most, show_holds, show_none_failed};
use crate::pairs::quantile;

/// The argument by which `covey-bench` becomes the users of a service: its address, and for how many seconds.
pub(crate) const FLAG: &str = "--users-of";
const A_SECOND: f64 = 10.0;

/// Of each host: a fifth of the core that all tasks have ([`cores`]).
const CPU: u64 = 200;
const MEMORY: u64 = 1 << 30;
const CONFIG: &str =
    "capacity = { cpu = 0.2 }\nestimate = { preset = \"normal\", hold = \"10s\", horizon = \"600s\" }\n";
/// A service on each host, limited to nearly all of it.
const SERVICE: (&str, &str, u64) = ("170m", "800MiB", 160);
/// Its load: thousandths of a CPU between these, there and back in so many seconds.
const WAVE: &str = "/wave?low=0.013&high=0.053&period=100&seconds=86400";
/// Batch tasks: more than there can ever be room for.
const BATCH: (&str, &str, u64, usize) = ("20m", "96MiB", 80, 60);

const PERCENT: f64 = 30.0;
/// Of the services' p99 alone, as in the other figures of what stands beside them.
const P99: f64 = 1.5;
/// Seconds of users without batch work, before and after: one period of the services' load each.
const ALONE: u64 = 100;
const SAMPLE: Duration = Duration::from_secs(2);

/// `count`: minutes.
pub(crate) fn run(count: usize) -> Result<bool> {
    let cell = Cell::up_with(MEMORY, CONFIG)?;
    cell.production_first()?;
    cores::part_hosts(&cell)?;
    let through = "h1";
    submit(&cell, "web", "production", (SERVICE.0, SERVICE.1, HOSTS as usize))?;
    let web = wait("all services run", || running(&cell, "web", HOSTS as usize))?;
    let before = told(&web);
    for task in &web {
        ask(&cell, task, &format!("/alloc?mib={}", SERVICE.2))?;
        ask(&cell, task, WAVE)?;
    }
    let alone = users(&cell, &web, ALONE)?;
    submit(&cell, "crunch", "batch", (BATCH.0, BATCH.1, BATCH.3))?;
    let length = Duration::from_secs(60 * count as u64);
    let mut work = Work::default();
    let beside = thread::scope(|scope| {
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
    cell.stop(through, "crunch")?;
    let again = users(&cell, &web, ALONE)?;
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    println!(
        "  {} minutes; {} batch tasks at a time on the mean; reclaimed from {}",
        count,
        work.tasks / work.samples.max(1),
        of("reclaimed")
    );
    for (when, users) in [("alone", &alone), ("beside batch work", &beside), ("alone again", &again)] {
        println!(
            "  the services' p99 {:.2} ms {when} ({:.2} to {:.2}), the worst time {:.1} ms; p99 of what questions were late {:.2} ms",
            users.p99(),
            quantile(&users.p99, 0.0),
            quantile(&users.p99, 1.0),
            users.worst,
            users.late
        );
    }
    println!("  the services' p99, alone again to alone {:.2} ×", again.p99() / alone.p99());
    let failed = [&alone, &beside, &again].map(|users| users.failed.clone()).concat();
    Ok(show_at_least("CPU, in reclaimed room", work.share(0), PERCENT, "% of all work")
        & show_at_least("memory, in reclaimed room", work.share(1), PERCENT, "% of all work")
        & show_at_most("the services' p99, to alone", beside.p99() / alone.p99(), P99, "×")
        & show_none_failed(&failed)
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

/// What users beside each service saw.
#[derive(Debug, Default)]
struct Users {
    /// Of each service, in milliseconds, sorted.
    p99: Vec<f64>,
    /// The longest that anybody waited.
    worst: f64,
    /// The worst p99 of how late they asked.
    late: f64,
    failed: Vec<String>,
}

impl Users {
    /// Of the service in the middle.
    fn p99(&self) -> f64 {
        quantile(&self.p99, 0.5)
    }

    /// What those of one service said.
    fn add(&mut self, node: &str, said: &str) -> Option<()> {
        let (numbers, failed) = said.split_once('\n')?;
        let numbers: Vec<f64> =
            numbers.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
        let [p99, worst, late] = numbers[..] else { return None };
        self.p99.push(p99);
        self.p99.sort_by(f64::total_cmp);
        (self.worst, self.late) = (self.worst.max(worst), self.late.max(late));
        self.failed.extend(failed.lines().map(|why| format!("on {node} {why}")));
        Some(())
    }
}

/// Users beside each service, for so many seconds. They are not on the service's host but for the network: what they need is
/// none of its load.
fn users(cell: &Cell, web: &[Value], seconds: u64) -> Result<Users> {
    let me = std::env::current_exe().map_err(|why| Error::Missing(format!("what is this program? {why}")))?;
    let node = |task: &Value| task["node"].as_str().unwrap_or_default().to_owned();
    let start = |task: &Value| -> Result<std::process::Child> {
        let mut users: Command = cell.visit(&node(task), &me.display().to_string())?;
        users.args([FLAG, &format!("127.0.0.1:{}", port(task)), &seconds.to_string()]);
        let users = users.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(users.map_err(|why| Error::Missing(format!("cannot run {}: {why}", me.display())))?)
    };
    let started: Vec<_> = web.iter().map(start).collect::<Result<_>>()?;
    let mut all = Users::default();
    for (task, users) in web.iter().zip(started) {
        let said = users
            .wait_with_output()
            .map_err(|why| Error::Missing(format!("the users of a service: {why}")))?;
        let text = String::from_utf8_lossy(&said.stdout);
        all.add(&node(task), &text)
            .ok_or_else(|| Error::Missing(format!("the users of a service said {text:?}")))?;
    }
    Ok(all)
}

/// What the users are. Prints in milliseconds their p99, the longest time, and the p99 of how late they asked; then a line for
/// each request that failed.
pub(crate) fn ask_for(at: &str, seconds: &str) -> test_vms::Result<()> {
    let wrong = |what: &str| Error::Missing(format!("{what} makes no sense"));
    let at: SocketAddr = at.parse().map_err(|_| wrong(at))?;
    let length = Duration::from_secs(seconds.parse().map_err(|_| wrong(seconds))?);
    let asked = Asked { at, path: "/work?us=1000".to_owned() };
    // Those of different services do not ask at the same moments.
    let answered = poisson(&asked, A_SECOND, length, &mut Dice(0x5eed ^ u64::from(at.port())))?;
    let numbers = [answered.p99(), answered.quantile(1.0), answered.p99_late()];
    let numbers = numbers.map(|time| (time.as_secs_f64() * 1e3).to_string());
    println!("{}", numbers.join(" "));
    answered.failed.iter().for_each(|why| println!("{why}"));
    Ok(())
}
