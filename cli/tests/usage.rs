//! Who uses what, as the nodes' cgroups have it; and limits that would fit, given to what runs. Real containers. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use started::{
    kill,
    node::{Node, PATIENCE, get},
};

/// The memory cgroup of a process: v1's, or the unified one.
fn cgroup(pid: u64) -> PathBuf {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |wanted: &str| {
        let mut parts = lines.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        parts.find(|(names, _)| *names == wanted).map(|(_, path)| path.trim_start_matches('/').to_owned())
    };
    match of("memory") {
        Some(path) => Path::new("/sys/fs/cgroup/memory").join(path),
        None => Path::new("/sys/fs/cgroup").join(of("").unwrap()),
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}

/// What the kernel could not take back.
fn memory(pid: u64) -> u64 {
    let dir = cgroup(pid);
    let read = |name: &str| fs::read_to_string(dir.join(name));
    let used = read("memory.usage_in_bytes").or_else(|_| read("memory.current")).unwrap();
    let stat = read("memory.stat").unwrap();
    let inactive = ["total_inactive_file ", "inactive_file "];
    let inactive = inactive.iter().find_map(|name| stat.lines().find_map(|line| line.strip_prefix(name)));
    number(&used).saturating_sub(inactive.map_or(0, number))
}

fn job(name: &str, band: &str, count: u32, keys: &str) -> String {
    format!(
        "name = \"{name}\"\nband = \"{band}\"\ncount = {count}\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n{keys}\n"
    )
}

/// The agent ends, and another takes up what it left.
fn agent_again(node: &mut Node, capacity: &str) {
    kill(&node.agent, Signal::SIGTERM);
    node.agent.wait().unwrap();
    let dir = node.dir.path();
    let args = ["agent", "--listen", "127.0.0.1:0", "--capacity", capacity, "--data"];
    node.agent = started::agent(started::command(dir, &args).arg(dir.join("data")));
}

fn usage(node: &Node, by: &str) -> Value {
    node.json(&["usage", "--by", by, "--json"])
}

#[test]
fn what_is_shown_by_band_is_what_the_cgroups_have() {
    let node = Node::start("cpu=2,memory=2GiB");
    node.runs(&job("web", "production", 2, "cpu = \"250m\"\nmemory = \"128MiB\""));
    node.runs(&job("etl", "free", 1, "cpu = 1\nmemory = \"256MiB\""));
    for task in ["web/0", "web/1", "etl/0"] {
        get(&node.task(task), "/alloc?mib=24");
    }
    let pids = |tasks: &[&str]| -> Vec<u64> {
        tasks.iter().map(|task| node.task(task)["pid"].as_u64().unwrap()).collect()
    };
    let (web, etl) = (pids(&["web/0", "web/1"]), pids(&["etl/0"]));
    let used = |pids: &[u64]| pids.iter().map(|pid| memory(*pid)).sum::<u64>();
    let near = |shown: &Value, real: u64| {
        let shown = shown["usage"]["memory_bytes"].as_u64().unwrap_or(0);
        shown.abs_diff(real) * 50 <= real
    };
    // A node looks now and then.
    let began = Instant::now();
    let seen = loop {
        let seen = usage(&node, "band");
        if near(&seen["prod"], used(&web)) && near(&seen["non_prod"], used(&etl)) {
            break seen;
        }
        assert!(began.elapsed() < PATIENCE, "{} {} {seen}", used(&web), used(&etl));
        sleep(Duration::from_millis(200));
    };
    let cpu = |of: &Value| of["limit"]["cpu_milli"].as_u64().unwrap();
    let bands: Vec<(&str, u64, u64)> = seen["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|band| (band["band"].as_str().unwrap(), band["tasks"].as_u64().unwrap(), cpu(band)))
        .collect();
    assert_eq!(bands, [("monitoring", 0, 0), ("production", 2, 500), ("batch", 0, 0), ("free", 1, 1000)]);
    assert_eq!((cpu(&seen["prod"]), cpu(&seen["non_prod"]), cpu(&seen["total"])), (500, 1000, 1500));
    let capacity = seen["capacity"]["cpu_milli"].as_u64().unwrap();
    assert_eq!(seen["room"]["prod"]["cpu_milli"], capacity - 500, "prod counts prod's limits alone: {seen}");
    assert_eq!((&seen["stale"], &seen["missing"]), (&false.into(), &json!([])));
    for by in ["owner", "job", "node", "task"] {
        assert_eq!(usage(&node, by)["total"]["limit"], seen["total"]["limit"], "{by}");
    }
    let top = node.json(&["top", "-n", "1", "--json"]);
    let rows = |name: &str| top[name].as_array().unwrap().len();
    assert_eq!((rows("nodes"), rows("bands"), rows("tasks")), (1, 4, 3));

    // More than it may have: it waits, and so does its band.
    get(&node.task("etl/0"), "/burn?cpu=4&seconds=300");
    let began = Instant::now();
    loop {
        let bands = usage(&node, "band")["items"].clone();
        let waits = |n: usize| bands[n]["strain"]["waits_for_cpu_permille"].as_u64();
        if waits(3).is_some_and(|permille| permille > 50) {
            assert!(bands[0]["strain"].is_null(), "nothing runs there: {bands}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{bands}");
        sleep(Duration::from_millis(200));
    }

    // Who is killed at its own limit counts, though not as evicted.
    get(&node.task("etl/0"), "/alloc?mib=400");
    node.until("etl/0", |task| task["exit"]["cause"] == "oom.limit");
    let evicted = usage(&node, "band")["non_prod"]["evicted"].clone();
    assert_eq!((&evicted["day"], &evicted["causes"]["oom.limit"]["hour"]), (&0.into(), &1.into()));
}

#[test]
fn what_fits_is_given_in_place_and_what_is_known_outlives_the_agent() {
    let mut node = Node::start("cpu=2,memory=2GiB");
    node.runs(&job("web", "batch", 2, "cpu = \"500m\"\nmemory = \"256MiB\""));
    let advice = |node: &Node| node.json(&["advise", "web", "--history", "5s", "--json"])["items"][0].clone();
    let early = node.json(&["advise", "--json"]);
    assert_eq!(early["items"][0]["advice"], "not_enough_history", "{early}");
    let began = Instant::now();
    while advice(&node)["advice"] != "lower" {
        assert!(began.elapsed() < PATIENCE, "{}", advice(&node));
        sleep(Duration::from_millis(200));
    }

    // A clean end keeps it, and the next agent goes on from there.
    let before = advice(&node)["watched_s"].as_u64().unwrap();
    agent_again(&mut node, "cpu=2,memory=2GiB");
    node.until("web/1", |task| task["state"] == "running");
    assert!(advice(&node)["watched_s"].as_u64().unwrap() >= before);

    let pids = |node: &Node| [0, 1].map(|n| node.task(&format!("web/{n}"))["pid"].as_u64().unwrap());
    let running = pids(&node);
    let applied = node.json(&["advise", "web", "--history", "5s", "--apply", "--json"])["items"][0].clone();
    assert_eq!((&applied["applied"]["tasks"], &applied["applied"]["same_pid"]), (&2.into(), &2.into()));
    assert_eq!(pids(&node), running);
    let advised = &applied["cpu"]["advised"];
    assert!(advised.as_u64().unwrap() < 500, "{applied}");
    for task in ["web/0", "web/1"] {
        assert_eq!(&node.task(task)["limit"]["cpu_milli"], advised);
    }
    assert_eq!(node.json(&["job", "web", "--json"])["document"]["task"]["cpu"], applied["cpu"]["set"]);
}

/// REQUIREMENTS B36: of those that covey ends, how many are told and have time for it.
#[test]
fn who_had_notice_is_counted_and_that_outlives_the_agent() {
    const CAPACITY: &str = "cpu=2,memory=2GiB";
    let mut node = Node::start(CAPACITY);
    node.runs(&job("web", "production", 2, "grace = \"1s\""));
    node.runs(&job("etl", "free", 1, ""));
    let pid = |task: &Value| task["pid"].clone();
    let (first, second, etl) = (node.task("web/0"), node.task("web/1"), node.task("etl/0"));
    // It ends after open requests: this one needs its whole grace, and then SIGKILL.
    let asks = std::thread::spawn({
        let first = first.clone();
        move || get(&first, "/sleep?seconds=60")
    });
    let began = Instant::now();
    while !get(&first, "/vars").contains("hello_requests_open 2") {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20));
    }
    assert!(node.covey(&["restart", "web"]).status.success());
    for (task, before) in [("web/0", &first), ("web/1", &second)] {
        node.until(task, |task| task["state"] == "running" && pid(task) != pid(before));
    }
    asks.join().unwrap();
    assert!(node.events("web").contains("did not end within its grace of 1s"));
    // Nobody told this one: somebody on the machine killed it.
    let victim = i32::try_from(pid(&etl).as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    node.until("etl/0", |task| task["state"] == "running" && pid(task) != pid(&etl));
    assert!(node.covey(&["stop", "etl"]).status.success());
    let began = Instant::now();
    while usage(&node, "band")["total"]["tasks"] != 2 {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20));
    }

    let all = |told: u64| {
        let causes = if told == 0 { json!({}) } else { json!({"stopped": {"told": told, "notified": told}}) };
        json!({"told": told, "notified": told, "causes": causes})
    };
    let seen = usage(&node, "band");
    assert_eq!((&seen["prod"]["notice"], &seen["non_prod"]["notice"]), (&all(2), &all(1)), "{seen}");
    assert_eq!((&seen["items"][1]["notice"], &seen["items"][2]["notice"]), (&all(2), &all(0)));
    assert_eq!(seen["total"]["evicted"], json!({"hour": 0, "day": 0, "causes": {}}));
    let shown = String::from_utf8(node.covey(&["usage"]).stdout).unwrap();
    assert!(shown.contains("notice: 3 of 3 that were told to end"), "{shown}");

    agent_again(&mut node, CAPACITY);
    assert_eq!(usage(&node, "band")["total"]["notice"], all(3));
}
