//! Commands in a container that runs: what they are given, how they end, what is left.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use oci::bundle::Bundle;
use oci::container;
use oci::exec::{self, Ends, Error, Exec, Output, Running, Size, Status};

use crate::world::{World, read, shim};

fn sh(script: &str) -> Exec {
    Exec { args: ["sh", "-c", script].map(String::from).to_vec(), ..Exec::default() }
}

fn run(bundle: &Bundle, exec: &Exec) -> Output {
    exec::run(&shim(), bundle, exec, Duration::from_secs(60), 1 << 20).unwrap()
}

fn said(bundle: &Bundle, exec: &Exec) -> String {
    String::from_utf8(run(bundle, exec).text).unwrap()
}

fn status(code: i32) -> Option<Status> {
    Some(Status { code: Some(code), signal: None })
}

#[test]
fn a_command_is_where_its_task_is_and_as_who_it_is() {
    let world = World::new();
    let mut run_as_web = world.program("task", &["sleep", "1000"]);
    run_as_web.config.user = Some("web".into());
    let task = run_as_web.start();
    let bundle = &task.bundle;
    let look = "id; echo $GREETING $HOME $EXTRA; pwd; hostname; readlink /proc/self/ns/net; ps | head -n 2; \
                grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff):' /proc/self/status; ulimit -n";
    let exec = Exec { env: vec!["EXTRA=more".into()], cwd: Some("/etc".into()), ..sh(look) };
    let text = said(bundle, &exec);
    let init = task.state().init.pid;
    let of_init = |key: &str| {
        let status = read(format!("/proc/{init}/status"));
        status.lines().find(|line| line.starts_with(key)).unwrap().to_string()
    };
    let net = std::fs::read_link(format!("/proc/{init}/ns/net")).unwrap();
    let limits = read(format!("/proc/{init}/limits"));
    let files = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let files = files.split_whitespace().nth(3).unwrap();
    for wanted in [
        "uid=101(web) gid=102(web) groups=7(log)\nhi /srv more\n/etc\nbox\n",
        net.to_str().unwrap(),
        &of_init("NoNewPrivs"),
        &of_init("Seccomp:"),
        &of_init("CapBnd"),
        "CapEff:\t0000000000000000",
        &format!("\n{files}\n"),
    ] {
        assert!(text.contains(wanted), "{wanted:?} in {text}");
    }
    // The first process that it sees is the task's.
    let first = text.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap();
    assert!(first.ends_with("sleep 1000"), "{text}");
    assert_eq!(said(bundle, &Exec { user: Some("0".into()), ..sh("id -u; id -G") }), "0\n0\n");
    let mount = said(bundle, &Exec { user: Some("0".into()), ..sh("mount -t tmpfs x /tmp") });
    assert!(mount.contains("not permitted") || mount.contains("denied"), "{mount}");

    // In its cgroups: memory that a command takes is the task's.
    let cgroup = said(bundle, &sh("cat /proc/self/cgroup"));
    assert!(cgroup.lines().any(|line| line.ends_with("/exec-0") || line.contains("exec-")), "{cgroup}");
    container::remove(bundle).unwrap();
}

#[test]
fn how_it_ends_is_told() {
    let world = World::new();
    let task = world.program("task", &["sleep", "1000"]).start();
    assert_eq!(run(&task.bundle, &sh("exit 7")).status, status(7));
    let killed = run(&task.bundle, &sh("kill -9 $$")).status.unwrap();
    assert_eq!((killed, killed.shell_code()), (Status { code: None, signal: Some(9) }, 137));
    let refused = |exec: &Exec| exec::spawn(&shim(), &task.bundle, exec).unwrap_err().to_string();
    let none = Exec { args: vec!["nope".into()], ..Exec::default() };
    assert!(refused(&none).contains("there is no nope in the image's search path"), "{}", refused(&none));
    let nobody = Exec { user: Some("nobody".into()), ..sh("true") };
    assert!(refused(&nobody).contains("no user nobody"), "{}", refused(&nobody));
    let nowhere = Exec { cwd: Some("/no/such".into()), ..sh("true") };
    assert!(refused(&nowhere).contains("enter the directory /no/such"), "{}", refused(&nowhere));
    let long = Exec { args: vec!["echo".into(), "x".repeat(200_000)], ..Exec::default() };
    assert!(matches!(exec::spawn(&shim(), &task.bundle, &long), Err(Error::TooLong)));
    let late =
        exec::run(&shim(), &task.bundle, &sh("echo begun; sleep 1000"), Duration::from_millis(300), 100)
            .unwrap();
    assert_eq!((late.status, late.text), (None, b"begun\n".to_vec()));

    let placement = world.tree.placement(oci::cgroup::Band::Batch, "task");
    assert_eq!(placement.processes().len(), 1, "the task alone is left");
    for dir in placement.dirs() {
        let below = std::fs::read_dir(dir).unwrap().flatten().filter(|e| e.path().is_dir()).count();
        assert_eq!(below, 0, "no cgroup is left of a command");
    }
    container::remove(&task.bundle).unwrap();
    assert!(matches!(exec::spawn(&shim(), &task.bundle, &sh("true")), Err(Error::Gone(None))));
}

#[test]
fn a_task_that_has_ended_is_told_as_such() {
    let world = World::new();
    let task = world.run("task", "exit 3").start();
    task.wait();
    let gone = exec::spawn(&shim(), &task.bundle, &sh("true")).unwrap_err();
    assert_eq!(gone.to_string(), "the container does not run: it has exited with code 3");
}

#[test]
fn bytes_pass_unchanged_and_the_end_of_the_input_is_passed_on() {
    let world = World::new();
    let task = world.program("task", &["sleep", "1000"]).start();
    let exec = sh("cat; echo done >&2; cat /proc/self/fd/0 | wc -c >/dev/stdout");
    let Running { ends, end, .. } = exec::spawn(&shim(), &task.bundle, &exec).unwrap();
    let Ends::Pipes { stdin, stdout, stderr } = ends else { panic!() };
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let sending = std::thread::spawn({
        let sent = sent.clone();
        move || File::from(stdin).write_all(&sent).unwrap()
    });
    let mut got = Vec::new();
    File::from(stdout).read_to_end(&mut got).unwrap();
    sending.join().unwrap();
    assert!(got.starts_with(&sent) && got[sent.len()..] == *b"0\n");
    let mut err = String::new();
    File::from(stderr).read_to_string(&mut err).unwrap();
    assert_eq!(err, "done\n");
    assert_eq!(Some(end.wait().unwrap()), status(0));
    container::remove(&task.bundle).unwrap();
}

#[test]
fn a_terminal_has_a_size_echoes_and_sends_signals() {
    let world = World::new();
    let task = world.program("task", &["sleep", "1000"]).start();
    let size = Size { rows: 33, columns: 77 };
    let script = "trap 'echo caught; exit 5' INT; test -t 0 && test -t 1 && echo terminal; stat -c %t:%T /dev/pts/0 \
                  >/dev/null && stty size; echo $TERM; read line; echo got $line; while :; do sleep 0.1; done";
    std::os::unix::fs::symlink("busybox", world.layer.join("bin/stty")).unwrap();
    let exec = Exec { terminal: Some(size), ..sh(script) };
    let Running { ends, end, .. } = exec::spawn(&shim(), &task.bundle, &exec).unwrap();
    let Ends::Terminal(master) = ends else { panic!() };
    let mut seen = String::new();
    let mut terminal = File::from(master.try_clone().unwrap());
    let mut wait_for = |text: &str| {
        let mut buffer = [0; 1024];
        while !seen.contains(text) {
            let read = terminal.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    wait_for("terminal\r\n33 77\r\nxterm\r\n");
    exec::resize(&master, Size { rows: 10, columns: 20 }).unwrap();
    File::from(master.try_clone().unwrap()).write_all(b"hello\n").unwrap();
    wait_for("hello\r\ngot hello\r\n");
    // Ctrl-C.
    File::from(master).write_all(&[3]).unwrap();
    wait_for("caught");
    assert_eq!(Some(end.wait().unwrap()), status(5));
    container::remove(&task.bundle).unwrap();
}

#[test]
fn whoever_hangs_up_leaves_nothing_behind() {
    let world = World::new();
    let task = world.program("task", &["sleep", "1000"]).start();
    let placement = world.tree.placement(oci::cgroup::Band::Batch, "task");
    let all = || -> usize {
        let mut dirs: Vec<_> = placement.dirs().into_iter().collect();
        let below = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap().flatten());
        dirs.extend(below.filter(|e| e.path().is_dir()).map(|e| e.path()).collect::<Vec<_>>());
        let pids: std::collections::BTreeSet<String> = dirs
            .iter()
            .flat_map(|dir| read(dir.join("cgroup.procs")).lines().map(String::from).collect::<Vec<_>>())
            .collect();
        pids.len()
    };
    // One that listens to nobody, with children who have left its session.
    let script = "trap '' HUP TERM; (setsid sleep 1000 &) ; echo up; while :; do sleep 1; done";
    std::os::unix::fs::symlink("busybox", world.layer.join("bin/setsid")).unwrap();
    let Running { ends, end, .. } = exec::spawn(&shim(), &task.bundle, &sh(script)).unwrap();
    let Ends::Pipes { stdout, .. } = ends else { panic!() };
    let mut up = [0; 3];
    File::from(stdout).read_exact(&mut up).unwrap();
    assert!(all() > 2);
    end.signals().unwrap().hang_up();
    assert_eq!(end.wait().unwrap().signal, Some(libc::SIGKILL));
    assert_eq!(all(), 1, "the task's own");

    // The agent dies: as its descriptors are closed, so is everything.
    let Running { pid, ends, end } = exec::spawn(&shim(), &task.bundle, &sh("sleep 1000")).unwrap();
    let command = oci::pidfd::open(pid).unwrap();
    drop((ends, end));
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&command), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 10_000u16), Ok(1), "the command ends");
    container::remove(&task.bundle).unwrap();
}

#[test]
fn signals_reach_the_whole_group() {
    let world = World::new();
    let task = world.program("task", &["sleep", "1000"]).start();
    let exec = sh("trap 'echo stopped; exit 9' INT; echo up; sleep 1000 & wait");
    let Running { ends, end, .. } = exec::spawn(&shim(), &task.bundle, &exec).unwrap();
    let Ends::Pipes { stdout, .. } = ends else { panic!() };
    let mut stdout = File::from(stdout);
    let mut up = [0; 3];
    stdout.read_exact(&mut up).unwrap();
    end.signals().unwrap().send(libc::SIGINT);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), Some(end.wait().unwrap())), ("stopped\n", status(9)));
    container::remove(&task.bundle).unwrap();
}
