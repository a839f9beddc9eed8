//! A host that is a virtual machine, beside one that is not.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::bench::Bare;
use crate::ends::{PATIENCE, half_up, traces};

#[test]
fn it_is_a_host_like_others() {
    let lab = Bare::up("mixed", 1);
    lab.make_host("h2", true).unwrap();

    let kernel = lab.says("h2", "uname -r");
    assert!(kernel.contains("cloud") && kernel != lab.says("h1", "uname -r"), "a stock kernel: {kernel}");
    assert_eq!(
        lab.says("h2", "grep -c ' cgroup2\\? ' /proc/mounts; stat -f -c %T /sys/fs/cgroup"),
        "1\ncgroup2fs"
    );
    let controllers = lab.says("h2", "cat /sys/fs/cgroup/system.slice/covey.service/cgroup.controllers");
    for wanted in ["cpu", "io", "memory", "pids"] {
        assert!(controllers.split(' ').any(|there| there == wanted), "{wanted} in {controllers}");
    }
    assert_eq!(lab.says("h2", "hostname; getent hosts h1 | cut -d ' ' -f 1"), "h2\n10.77.0.1");
    assert_eq!(lab.says("h2", "ls /sys/class/net"), "eth0\nlo", "the cable to the lab is not seen");

    commands_are_passed_on(&lab);

    let reaches =
        |from: &str, to: &str| lab.sh(from, &format!("busybox ping -c 1 -W 3 {to}")).status.success();
    assert!(reaches("h1", "h2") && reaches("h2", "h1"));
    lab.cut(&["h1"], &["h2"], false).unwrap();
    assert!(!reaches("h1", "h2") && !reaches("h2", "h1"));
    lab.heal().unwrap();
    assert!(reaches("h1", "h2") && reaches("h2", "h1"));
    lab.loss("h2", 100.0).unwrap();
    assert!(!reaches("h1", "h2"));
    lab.loss("h2", 0.0).unwrap();
    lab.rate("h2", 1).unwrap();
    assert!(reaches("h1", "h2"));

    // The emulator's end is that of everything in it, but for the disk.
    let data = lab.dir("h2").join("data").display().to_string();
    lab.says("h2", &format!("echo kept > {data}/file; sync {data}/file; : > /run/file"));
    let running = lab.processes("h2").unwrap();
    assert!(running.len() >= 3, "{running:?}");
    lab.crash("h2").unwrap();
    assert!(lab.processes("h2").unwrap().is_empty());
    assert!(lab.command_lines("h2").unwrap().is_empty());
    assert!(!reaches("h1", "h2"));
    assert!(lab.exec("h2", "true").unwrap_err().to_string().contains("powered off"));
    lab.power("h2", Some("10.77.3.3".parse().unwrap())).unwrap();
    assert_eq!(lab.says("h2", &format!("cat {data}/file; ls /run")), "kept");
    assert!(reaches("h1", "h2") && reaches("h2", "h1"));

    let name = lab.name().to_owned();
    drop(lab);
    assert_eq!(traces(&name), BTreeSet::new());
}

/// Exit code, stdin, stdout, stderr, environment: each is the command's own.
fn commands_are_passed_on(lab: &Bare) {
    let run = |args: &[&str], stdin: &[u8]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey-lab"));
        command.args(["--name", lab.name(), "exec", "h2", "--"]).args(args).env("SAYS", "so");
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = run(&["sh", "-c", "cat; echo $SAYS >&2; exit 7"], b"said\n");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"said\n"[..], &b"so\n"[..]));
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"], b"").status.code(), Some(128 + libc::SIGTERM));
    let unknown = run(&["no-such-command"], b"");
    assert_eq!(unknown.status.code(), Some(125), "{unknown:?}");
    // More than fits any buffer, to a command that is in no hurry.
    let much = vec![b'x'; 3 << 20];
    assert_eq!(run(&["sh", "-c", "sleep 1; cat"], &much).stdout, much);
    // What stays in the background holds nobody up, though it keeps stdout open.
    let began = Instant::now();
    assert!(run(&["sh", "-c", "sleep 1000 & echo begun"], b"").status.success());
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn down_ends_the_emulators_of_a_killed_up() {
    // The emulators run, and the guests do not answer yet.
    half_up("half-vm", &["--vm", "--hosts", "2"], "h1/console.log");
}
