//! What a task may use: limits as the kernel has them, changed while it runs, and what becomes of one that takes more.
//! Real containers. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use started::node::{Node, PATIENCE, get};

/// The cgroup of a process in the hierarchy of a v1 controller, or in the unified one.
fn cgroup(pid: u64, controller: &str) -> PathBuf {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let find = |wanted: &str| {
        lines.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    match find(controller) {
        Some(path) => Path::new("/sys/fs/cgroup").join(controller).join(path),
        None => {
            let unified = Path::new("/sys/fs/cgroup/unified");
            let root = if unified.exists() { unified } else { Path::new("/sys/fs/cgroup") };
            root.join(find("").unwrap())
        }
    }
}

fn is(dir: &Path, v1: &str, v2: &str) -> String {
    let text = fs::read_to_string(dir.join(v1)).or_else(|_| fs::read_to_string(dir.join(v2)));
    text.unwrap().trim().to_owned()
}

fn number(dir: &Path, v1: &str, v2: &str) -> u64 {
    is(dir, v1, v2).split(' ').next().unwrap().parse().unwrap()
}

/// CPU quota, memory, pids: as the kernel has them.
fn limits(pid: u64) -> [u64; 3] {
    [
        number(&cgroup(pid, "cpu"), "cpu.cfs_quota_us", "cpu.max"),
        number(&cgroup(pid, "memory"), "memory.limit_in_bytes", "memory.max"),
        number(&cgroup(pid, "pids"), "pids.max", "pids.max"),
    ]
}

fn web(keys: &str) -> String {
    format!("name = \"web\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n{keys}")
}

const MIB: u64 = 1 << 20;

/// REQUIREMENTS B35, D04, B20.
#[test]
fn limits_of_a_running_task_change_in_place() {
    let node = Node::start("cpu=2,memory=1GiB,disk=4GiB,gpu=2");
    node.runs(&web("cpu = \"250m\"\nmemory = \"64MiB\"\npids = 50\n"));
    let before = node.task("web/0");
    let pid = before["pid"].as_u64().unwrap();
    assert_eq!(limits(pid), [25_000, 64 * MIB, 50]);

    let began = Instant::now();
    let io = "io = { iops = 200, bandwidth = \"8MiB\" }\n";
    node.runs(&web(&format!(
        "cpu = \"500m\"\nmemory = \"32MiB\"\npids = 60\ndisk = \"1GiB\"\nresources = {{ gpu = 1 }}\n{io}"
    )));
    eprintln!("changed and settled in {:?}", began.elapsed());
    assert_eq!(limits(pid), [50_000, 32 * MIB, 60]);
    let after = node.task("web/0");
    assert_eq!(
        [&after["pid"], &after["generation"], &after["restarts"]],
        [&before["pid"], &before["generation"], &before["restarts"]]
    );
    assert_ne!(after["version"], before["version"]);
    assert_eq!(after["limit"]["gpu"], 1);
    let io = is(&cgroup(pid, "blkio"), "blkio.throttle.write_iops_device", "io.max");
    assert!(io.is_empty() || io.contains("200"), "{io}");
    let said = node.covey(&["events", "--job", "web"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("changed in place") && said.contains("cpu 250m → 500m"), "{said}");

    // Another variable needs another process.
    node.runs(&web("cpu = \"500m\"\nmemory = \"32MiB\"\nenv = { A = \"b\" }\n"));
    let other = node.task("web/0");
    assert_ne!(other["pid"], before["pid"]);
    assert_eq!(other["restarts"], 0);

    // Countable resources are counted.
    let greedy = "name = \"greedy\"\n[task]\nimage = \"hello:1\"\nresources = { gpu = 3 }\n";
    let file = node.dir.path().join("greedy.toml");
    fs::write(&file, greedy).unwrap();
    assert!(node.covey(&["run", file.to_str().unwrap()]).status.success());
    let why = node.covey(&["why", "greedy"]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("gpu: wants 3, 2 of 2 are free"), "{why}");
}

/// REQUIREMENTS B20: what no file system holds to its limit is found out.
#[test]
fn a_task_that_takes_too_much_disk_ends_and_says_so() {
    let node = Node::start("cpu=2,memory=1GiB,disk=4GiB");
    node.runs(&web("disk = \"8MiB\"\n"));
    let task = node.task("web/0");
    // Logs are of the task's disk too.
    get(&task, "/log?bytes=16000000");
    let ended = node.until("web/0", |task| task["exit"]["cause"] == "disk");
    assert_eq!(ended["exit"]["signal"], 9);
    let events = node.covey(&["events", "--job", "web"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("of disk and may use 8MiB"), "{events}");
    // It starts again, with nothing of that.
    node.until("web/0", |task| task["state"] == "running");
}

/// REQUIREMENTS M04: a task that reaches its own limit, and one that would be brought below what it uses.
#[test]
fn memory_ends_a_task_at_its_own_limit_and_never_by_a_change() {
    let node = Node::start("cpu=2,memory=1GiB");
    node.runs(&web("memory = \"96MiB\"\n"));
    let task = node.task("web/0");
    get(&task, "/alloc?mib=48");
    // In use: it is not taken away, a new run begins with less.
    let file = node.dir.path().join("job.toml");
    fs::write(&file, web("memory = \"32MiB\"\n")).unwrap();
    assert!(node.covey(&["run", file.to_str().unwrap()]).status.success());
    let other = node.until("web/0", |now| now["state"] == "running" && now["pid"] != task["pid"]);
    assert_eq!(other["exit"], Value::Null, "it was no end by itself");
    let events = node.covey(&["events", "--job", "web"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("memory cannot be lowered to 33554432 bytes while it uses"), "{events}");
    assert!(!events.contains("oom"), "{events}");

    get(&other, "/alloc?mib=64");
    node.until("web/0", |task| task["exit"]["cause"] == "oom.limit");
}

/// REQUIREMENTS M04: below its own limit, but there is no more for all of its band.
#[test]
fn a_task_that_the_machine_has_no_memory_for_is_told_from_one_at_its_limit() {
    let node = Node::start("cpu=2,memory=1GiB");
    node.runs(&web("memory = \"256MiB\"\n"));
    let task = node.task("web/0");
    let own = cgroup(task["pid"].as_u64().unwrap(), "memory");
    let most = ["memory.limit_in_bytes", "memory.max"].map(|file| own.with_file_name(file));
    fs::write(most.iter().find(|file| file.exists()).unwrap(), (64 * MIB).to_string()).unwrap();
    get(&task, "/alloc?mib=128");
    let ended = node.until("web/0", |task| !task["exit"].is_null());
    assert_eq!((&ended["exit"]["cause"], &ended["exit"]["signal"]), (&"oom.host".into(), &9.into()));
    let events = node.covey(&["events", "--job", "web"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("the machine was out of memory"), "{events}");
    node.until("web/0", |task| task["state"] == "running");
}

/// REQUIREMENTS B20: what cgroup v1 throttles for nobody is bounded all the same, and its owner is told.
#[test]
fn buffered_writes_are_held_to_the_limit_of_io() {
    if !Path::new("/sys/fs/cgroup/blkio").exists() || !Path::new("/sys/fs/cgroup/unified").exists() {
        eprintln!("on this machine the kernel does it, or nobody can");
        return;
    }
    let node = Node::start("cpu=2,memory=1GiB");
    // Short-lived processes, whose writes must not get lost. What is cut off before it is on the disk does not count.
    let writes = "while :; do /busybox dd if=/dev/zero bs=64k count=64 2>/dev/null >> /file; done";
    node.runs(&format!(
        "name = \"writer\"\n[task]\nimage = \"file:///bin/busybox\"\nmemory = \"64MiB\"\ncpu = \"1\"\n\
         grace = \"1s\"\ncommand = [\"/busybox\", \"sh\", \"-c\", \"{writes}\"]\nio = {{ bandwidth = \"16MiB\" }}\n"
    ));
    let held = node.until("writer/0", |task| task["reason"].as_str().is_some_and(|r| r.contains("IO limit")));
    let why = node.covey(&["why", "writer/0"]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("writes more than its IO limit"), "{why:?}");
    let events = node.covey(&["events", "--job", "writer"]);
    assert!(String::from_utf8_lossy(&events.stdout).contains("held"), "{events:?}");

    let dir = cgroup(held["pid"].as_u64().unwrap(), "unified");
    let written = || {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        let io = pids.lines().map(|pid| fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default());
        io.map(|text| field(&text, "write_bytes") - field(&text, "cancelled_write_bytes")).sum::<i64>()
    };
    let (began, before) = (Instant::now(), written());
    let most = 128 << 20;
    while written() - before < most {
        assert!(began.elapsed() < PATIENCE, "it does not go on");
        sleep(Duration::from_millis(5));
    }
    let took = began.elapsed().as_secs_f64();
    eprintln!("128 MiB at 16 MiB a second took {took:.1} s");
    // It may be ahead by a second, and by what it writes until it is looked at.
    assert!(took > 3.0, "{took}");
    node.until("writer/0", |task| task["state"] == "running");
    // Stopped for a moment or not, it can be ended.
    let began = Instant::now();
    assert!(node.covey(&["stop", "writer"]).status.success());
    while node.json(&["tasks", "--json"])["items"].as_array().is_some_and(|tasks| !tasks.is_empty()) {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(20));
    }
}

fn field(io: &str, name: &str) -> i64 {
    let value = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
