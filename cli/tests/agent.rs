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

use nix::sys::signal::{self, Signal};
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

#[test]
fn what_was_ready_is_ready_for_the_next_agent_from_the_beginning() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let agent = start(dir);
    let job = dir.join("job.toml");
    let check =
        |path: &str| format!("{{ http = \"{path}\", port = \"http\", interval = \"1h\", start = \"1h\" }}");
    let checks =
        format!("startup = {}\nhealth = {}\nready = {}\n", check("/"), check("/healthz"), check("/env"));
    let task = "[task]\nimage = \"hello:1\"\nports = [\"http\"]\n";
    fs::write(&job, format!("name = \"web\"\n{task}{checks}")).unwrap();
    let run = covey(dir, &["run", job.to_str().unwrap(), "--wait"]);
    assert!(run.status.success(), "{run:?}");
    let before = json(dir, &["task", "web/0", "--json"]);
    assert_eq!(before["healthy"], true);
    end(agent, Signal::SIGKILL);
    // Nobody hears it say so: what is shown after the start is what the agent before knew.
    let pid = before["pid"].as_i64().unwrap();
    let init = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    signal::kill(init, Signal::SIGSTOP).unwrap();

    let agent = start(dir);
    let after = json(dir, &["task", "web/0", "--json"]);
    signal::kill(init, Signal::SIGCONT).unwrap();
    assert_eq!((&after["healthy"], &after["pid"]), (&true.into(), &before["pid"]));
    let events = json(dir, &["events", "--job", "web", "--json"]);
    let events = events["items"].as_array().unwrap();
    for kind in ["started_up", "healthy", "ready"] {
        assert_eq!(events.iter().filter(|event| event["kind"] == kind).count(), 1, "{kind} in {events:?}");
    }
    assert!(covey(dir, &["stop", "web"]).status.success());
    while !json(dir, &["tasks", "--json"])["items"].as_array().unwrap().is_empty() {
        sleep(Duration::from_millis(10));
    }
    end(agent, Signal::SIGTERM);
}
