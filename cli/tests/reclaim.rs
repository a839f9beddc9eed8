//! Room that is taken back on a real node: who goes, in which order, what is said of it. Real containers in real memory. Needs
//! root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use started::node::{Node, PATIENCE, get};

/// What the first of these files of the task's CPU cgroup says.
fn cpu(task: &Value, v1: &str, v2: &str) -> String {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", task["pid"])).unwrap();
    let of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let root = Path::new("/sys/fs/cgroup");
    let file = match of("cpu") {
        Some(path) => root.join("cpu").join(path).join(v1),
        None => root.join(of("").unwrap()).join(v2),
    };
    fs::read_to_string(file).unwrap().trim().to_owned()
}

/// Microseconds of CPU in each tenth of a second.
fn quota(task: &Value) -> u64 {
    cpu(task, "cpu.cfs_quota_us", "cpu.max").split(' ').next().unwrap().parse().unwrap()
}

fn waits_for(so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(50));
    }
}

fn job(name: &str, band: &str, memory: &str) -> String {
    format!(
        "name = \"{name}\"\nband = \"{band}\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\ncpu = \"500m\"\nmemory = \"{memory}\"\n"
    )
}

fn evicted(node: &Node, task: &str) -> Value {
    node.until(task, |task| task["exit"]["cause"] == "reclaimed")
}

/// REQUIREMENTS BX19: free before batch before nothing; never production.
#[test]
fn memory_is_taken_back_from_free_then_from_batch_and_never_from_production() {
    let node = Node::start("cpu=4,memory=512MiB");
    // Together they may use more than there is, less what is kept free. Production comes last: nobody is in its way.
    node.runs(&job("etl", "batch", "150MiB"));
    node.runs(&job("idle", "free", "16MiB"));
    node.runs(&job("hog", "free", "140MiB"));
    node.runs(&job("web", "production", "200MiB"));
    let [web, etl, hog] = ["web/0", "etl/0", "hog/0"].map(|task| node.task(task));

    get(&etl, "/alloc?mib=143");
    get(&hog, "/alloc?mib=134");
    // All that it may have: it is there when it asks.
    let began = Instant::now();
    get(&web, "/alloc?mib=193");
    eprintln!("production had its memory after {:?}", began.elapsed());

    let gone = evicted(&node, "hog/0");
    let reason = gone["reason"].as_str().unwrap_or_default();
    assert!(gone["state"] == "starting" && reason.contains("its room was taken back"), "{gone}");
    let events = node.events("hog");
    assert!(events.contains("reclaimed") && events.contains("in band free"), "{events}");
    // Batch goes on, and so does the small one of the free band: one was enough.
    for (task, before) in [("web/0", &web), ("etl/0", &etl)] {
        let now = node.task(task);
        assert_eq!(
            (&now["state"], &now["pid"], &now["restarts"]),
            (&"running".into(), &before["pid"], &0.into())
        );
    }
    assert_eq!(node.task("idle/0")["state"], "running");
}

/// An antagonist that takes all it can get is gone at once, and the kernel never chose.
#[test]
fn who_takes_all_memory_is_gone_within_two_seconds() {
    let node = Node::start("cpu=4,memory=368MiB");
    node.runs(&job("hog", "free", "300MiB"));
    node.runs(&job("web", "production", "64MiB"));
    let [web, hog] = ["web/0", "hog/0"].map(|task| node.task(task));
    get(&web, "/alloc?mib=58");
    let began = Instant::now();
    get(&hog, "/alloc?mib=295");
    let gone = evicted(&node, "hog/0");
    eprintln!("gone after {:?}: {}", began.elapsed(), gone["reason"]);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(gone["exit"]["signal"], 9);
    let now = node.task("web/0");
    assert_eq!((&now["pid"], &now["restarts"]), (&web["pid"], &0.into()));
}

/// A production task that says of itself that it suffers: free has less CPU, and then batch.
#[test]
fn a_signal_of_production_takes_cpu_from_free_and_then_from_batch() {
    let node = Node::start("cpu=4,memory=512MiB");
    let signal = "signal = { http = \"/vars\", port = \"http\", metric = \"hello_kept_bytes\", above = 1000000, for = \"1s\" }\n";
    let refused = node.run(&(job("etl", "batch", "32MiB") + signal));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("which is for production"), "{said}");

    node.runs(&(job("web", "production", "64MiB") + signal));
    node.runs(&job("etl", "batch", "32MiB"));
    node.runs(&job("idle", "free", "32MiB"));
    let [web, etl, idle] = ["web/0", "etl/0", "idle/0"].map(|task| node.task(task));
    assert_eq!([quota(&etl), quota(&idle)], [50_000; 2]);
    get(&web, "/alloc?mib=2");
    waits_for(|| quota(&idle) < 50_000);
    waits_for(|| quota(&etl) < 50_000);
    assert!(quota(&idle) <= 2_500, "batch gave way before free had");
    let events = node.covey(&["events"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(
        events.contains("web/0: hello_kept_bytes is 2097152, and should not be above 1000000"),
        "{events}"
    );

    // Nobody says so any more: all have all of theirs again.
    node.runs(&job("web", "production", "64MiB"));
    waits_for(|| [quota(&etl), quota(&idle)] == [50_000; 2]);
    assert_eq!(node.task("web/0")["pid"], web["pid"], "a signal changes in place");
}

/// Production that nobody waits for has what the others of its band leave, and that changes in place.
#[test]
fn a_class_is_the_kernels_and_changes_in_place() {
    let node = Node::start("cpu=4,memory=512MiB");
    let sum = job("sum", "production", "32MiB");
    node.runs(&format!("{sum}class = \"batch\"\n"));
    let task = node.task("sum/0");
    let idle = || cpu(&task, "cpu.idle", "cpu.idle");
    assert_eq!(idle(), "1");
    node.runs(&format!("{sum}class = \"latency\"\n"));
    assert_eq!((idle().as_str(), &node.task("sum/0")["pid"]), ("0", &task["pid"]));
    node.runs(&format!("{sum}class = \"batch\"\n"));
    assert_eq!(idle(), "1");
}
