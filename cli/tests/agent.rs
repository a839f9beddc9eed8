//! `covey agent` over several starts on one data directory, with real containers. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::Path,
    process::{Child, Output},
    thread::sleep,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use started::{command, kill};

/// Starts an agent on `dir/data` and waits until it says that it answers.
fn start(dir: &Path) -> Child {
    let data = dir.join("data");
    started::agent(&mut command(dir, &["agent", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]))
}

fn end(mut agent: Child, signal: Signal) {
    kill(&agent, signal);
    agent.wait().unwrap();
}

fn covey(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    started::json(&covey(dir, args))
}

#[test]
fn a_killed_agent_finds_its_containers_and_one_whose_ledger_is_gone_does_not_start() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let agent = start(dir);
    let job = dir.join("job.toml");
    fs::write(&job, "name = \"web\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n").unwrap();
    let run = covey(dir, &["run", job.to_str().unwrap(), "--wait"]);
    assert!(run.status.success(), "{run:?}");
    let before = json(dir, &["task", "web/0", "--json"]);
    end(agent, Signal::SIGKILL);

    let agent = start(dir);
    let after = json(dir, &["task", "web/0", "--json"]);
    assert_eq!((&before["pid"], &before["generation"]), (&after["pid"], &after["generation"]));
    assert_eq!(after["restarts"], 0);
    assert!(covey(dir, &["stop", "web"]).status.success());
    end(agent, Signal::SIGTERM);

    let ledger = dir.join("data/ledger.redb");
    fs::rename(&ledger, dir.join("copy.redb")).unwrap();
    let data = dir.join("data");
    let refused =
        covey(dir, &["agent", "--json", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&refused.stdout).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("the ledger of this node is gone"), "{message}");

    fs::rename(dir.join("copy.redb"), &ledger).unwrap();
    let agent = start(dir);
    let jobs = json(dir, &["jobs", "--json"]);
    assert_eq!(jobs["items"][0]["state"], "stopped");
    // Nothing may be left of this test: the stop may still be under way.
    while !json(dir, &["tasks", "--json"])["items"].as_array().unwrap().is_empty() {
        sleep(Duration::from_millis(10));
    }
    end(agent, Signal::SIGTERM);
}
