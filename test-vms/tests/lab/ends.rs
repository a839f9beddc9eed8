//! A crash leaves no process, `down` leaves nothing, whatever state the lab was in.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use test_vms::lab::{self, Lab};

use crate::bench::Bare;

/// Much longer than an emulated machine takes for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Starts something on a host that ignores being asked to end, and returns when it runs.
fn stay(lab: &Bare, host: &str) {
    let script = "trap '' TERM HUP; : > /run/stays; while :; do sleep 1000; done";
    let mut command = lab.exec(host, "/usr/bin/setsid").unwrap();
    let null = || (Stdio::null(), Stdio::null());
    let (stdout, stderr) = null();
    command.args(["--fork", "/bin/sh", "-c", script]).stdout(stdout).stderr(stderr);
    assert!(command.status().unwrap().success());
    let until = Instant::now() + crate::bench::PATIENCE;
    while !lab.sh(host, "test -e /run/stays").status.success() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

#[test]
fn a_crash_ends_every_process_and_keeps_the_disk() {
    let lab = Bare::up("crash", 2);
    let data = lab.dir("h1").join("data");
    lab.says("h1", &format!("echo kept > {}/file", data.display()));
    stay(&lab, "h1");
    stay(&lab, "h2");
    let (gone, kept) = (lab.processes("h1").unwrap(), lab.processes("h2").unwrap());
    assert!(gone.len() >= 2, "{gone:?}");
    lab.crash("h1").unwrap();
    assert!(lab.processes("h1").unwrap().is_empty());
    let runs = |pid: &i32| runs(Path::new(&format!("/proc/{pid}")));
    assert!(!gone.iter().any(runs) && kept.iter().all(runs));
    let off = lab.exec("h1", "true").unwrap_err().to_string();
    assert!(off.contains("powered off"), "{off}");
    assert!(lab.crash("h1").is_err(), "it has no power to lose");

    lab.power("h1", Some("10.77.3.3".parse().unwrap())).unwrap();
    assert_eq!(lab.says("h1", &format!("cat {}/file", data.display())), "kept");
    assert_eq!(lab.says("h1", "ls /run | grep -v '^mount$' || true"), "");
    assert_eq!(lab.says("h2", "getent hosts h1 | cut -d ' ' -f 1"), "10.77.3.3");
    lab.reaches("h1", "h2");
    lab.reaches("h2", "h1");
    assert!(lab.power("h1", None).is_err(), "it has power already");
}

/// Whether a process of /proc is one: the dead that nobody has asked after yet run no more.
fn runs(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.contains("State:") && !status.contains("State:\tZ")
}

/// All on this machine that carries a lab's name, or could: mounts and loop devices, cgroups, processes, files.
pub(crate) fn traces(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        found.extend(file.contains(name).then(|| format!("loop {file}")));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let cgroups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let there = cgroups.contains(name) && runs(&entry.path());
        found.extend(there.then(|| format!("process {}", entry.path().display())));
    }
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let root = mount.split(' ').nth(4).unwrap();
        let cgroup = Path::new(root).join("covey-lab").join(name);
        found.extend(cgroup.exists().then(|| cgroup.display().to_string()));
    }
    let files = lab::directory(name);
    found.extend(files.exists().then(|| files.display().to_string()));
    found
}

#[test]
fn down_leaves_nothing() {
    let lab = Bare::up("down", 2);
    let name = lab.name().to_owned();
    stay(&lab, "h1");
    stay(&lab, "h2");
    lab.crash("h2").unwrap();
    lab.cut(&["h1"], &["h2"], false).unwrap();
    assert!(traces(&name).len() > 5, "{:?}", traces(&name));
    assert!(Lab::down(&name).unwrap());
    assert_eq!(traces(&name), BTreeSet::new());
    assert!(!Lab::down(&name).unwrap(), "there is nothing to end any more");
    let gone = Lab::open(&name).unwrap_err().to_string();
    assert!(gone.contains("there is no lab"), "{gone}");
}

#[test]
fn down_ends_what_a_killed_up_has_left() {
    // Some hosts are there, and others are not.
    half_up("half", &["--hosts", "40"], "h1/disk");
}

/// Kills an `up` as soon as the lab has the file `begun`: `down` ends all that it has made.
pub(crate) fn half_up(name: &str, hosts: &[&str], begun: &str) {
    let name = format!("{name}-{}", std::process::id());
    let mut up = Command::new(env!("CARGO_BIN_EXE_covey-lab"))
        .args(["--name", &name, "up", "--bare", "--binary", "/bin/true"])
        .args(hosts)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    while !lab::directory(&name).join(begun).exists() {
        assert!(up.try_wait().unwrap().is_none(), "killed before it is done");
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    up.kill().unwrap();
    up.wait().unwrap();
    assert!(!traces(&name).is_empty());
    assert!(Lab::down(&name).unwrap());
    assert_eq!(traces(&name), BTreeSet::new());
}

#[test]
fn a_name_is_taken_once() {
    let lab = Bare::up("taken", 1);
    let refused = Lab::raise(&Bare::plan("taken", 1)).unwrap_err().to_string();
    assert!(refused.contains("covey-lab down --name"), "{refused}");
    assert_eq!(lab.says("h1", "hostname"), "h1", "the first one goes on");
}
