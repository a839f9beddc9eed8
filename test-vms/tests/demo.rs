//! `make demo` checks each of its steps itself; here it is interrupted, and what it leaves behind is looked for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_vms::{binary, lab};

fn demo() -> Child {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/three-nodes"))
        .env("COVEY", binary::covey().unwrap())
        .env("COVEY_LAB", env!("CARGO_BIN_EXE_covey-lab"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Of the lab of a demo that has ended: files, processes, mounts.
fn left_over(demo: &Child) -> Vec<String> {
    let name = format!("demo-{}", demo.id());
    let mut found = Vec::new();
    found.extend(lab::directory(&name).exists().then(|| name.clone()));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let of = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let dead = of("status").contains("State:\tZ");
        let there = !dead && of("cgroup").contains(&format!("/{name}/"));
        found.extend(there.then(|| format!("process {}", of("cmdline"))));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(&format!("/{name}/"))).map(str::to_owned));
    found
}

#[test]
fn a_demo_that_is_interrupted_cleans_up() {
    let mut demo = demo();
    let mut told = BufReader::new(demo.stdout.take().unwrap()).lines();
    // The hosts are there, and their agents; the cell is on its way.
    told.by_ref().map(Result::unwrap).find(|line| line.starts_with("3 hosts in")).unwrap();
    assert_ne!(left_over(&demo), [""; 0]);
    kill(Pid::from_raw(demo.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    // Its reader stays: how much more it says is its own matter.
    told.map(Result::unwrap).for_each(drop);
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(left_over(&demo), [""; 0]);
}
