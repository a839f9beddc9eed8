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
use serde_json::Value;
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
        let shown = shown["usage"]["memory_bytes"].as_u64().unwrap();
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
    assert_eq!((&seen["stale"], &seen["missing"]), (&false.into(), &serde_json::json!([])));
    for by in ["owner", "job", "node", "task"] {
        assert_eq!(usage(&node, by)["total"]["limit"], seen["total"]["limit"], "{by}");
    }
    let top = node.json(&["top", "-n", "1", "--json"]);
    let rows = |name: &str| top[name].as_array().unwrap().len();
    assert_eq!((rows("nodes"), rows("bands"), rows("tasks")), (1, 4, 3));

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
    let dir = node.dir.path().to_owned();
    kill(&node.agent, Signal::SIGTERM);
    node.agent.wait().unwrap();
    let data = dir.join("data");
    let args = ["agent", "--listen", "127.0.0.1:0", "--capacity", "cpu=2,memory=2GiB", "--data"];
    node.agent = started::agent(started::command(&dir, &args).arg(data));
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
