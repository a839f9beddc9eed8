//! `exec`, `cp` and `port-forward` into real containers of a `covey dev`. Needs root and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::Signal,
        termios::{LocalFlags, tcgetattr},
    },
};
use serde_json::Value;
use started::kill;

struct Cell {
    dir: tempfile::TempDir,
    dev: Child,
}

impl Cell {
    /// A cell of one node with the job `web`, whose container has a busybox.
    fn start() -> Cell {
        let dir = tempfile::tempdir().unwrap();
        let (dev, _) = started::dev(dir.path());
        let cell = Cell { dir, dev };
        let job =
            "name = \"web\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\nenv = { GREETING = \"hi\" }\n";
        cell.done(&["run", &cell.file("web.toml", job), "--wait"]);
        cell.done(&["cp", "/bin/busybox", "web/0:/busybox"]);
        cell
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.dir.path().join(name), text).unwrap();
        self.path(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        started::command(self.dir.path(), args)
    }

    fn covey(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn done(&self, args: &[&str]) -> String {
        let output = self.covey(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its exit code, and what it wrote.
    fn sh(&self, script: &str) -> (Option<i32>, String) {
        let output = self.covey(&["exec", "web/0", "--", "/busybox", "sh", "-c", script]);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    fn refused(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.covey(args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        kill(&self.dev, Signal::SIGTERM);
        self.dev.wait().unwrap();
    }
}

#[test]
fn a_command_is_executed_and_ends_as_it_ends() {
    let cell = Cell::start();
    assert_eq!(cell.sh("echo $GREETING; echo oh >&2; exit 7"), (Some(7), "hi\noh\n".into()));
    assert_eq!(cell.sh("kill -9 $$").0, Some(137));

    // Bytes in and out, and the end of the input.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    let input = File::open(cell.file("input", &sent)).unwrap();
    let output = cell.command(&["exec", "web/0", "--", "/busybox", "cat"]).stdin(input).output().unwrap();
    assert!(output.status.success() && output.stdout == sent, "{:?} {}", output.status, output.stdout.len());
    // A command that reads none of it ends all the same.
    let input = File::open(cell.path("input")).unwrap();
    let output = cell.command(&["exec", "web/0", "--", "/busybox", "true"]).stdin(input).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let user = ["exec", "--user", "12:34", "-w", "/tmp", "-e", "A=b", "web/0", "--", "/busybox", "sh", "-c"];
    cell.done(&["exec", "web/0", "--", "/busybox", "mkdir", "-p", "-m", "777", "/tmp"]);
    let id = cell.done(&[&user[..], &["/busybox id -u; /busybox id -g; pwd; echo $A"]].concat());
    assert_eq!(id, "12\n34\n/tmp\nb\n");

    let (code, why) = cell.refused(&["exec", "web/0", "--", "/no/such"]);
    assert!(code == Some(125) && why.contains("no such file /no/such in the image"), "{code:?} {why}");
    let (code, why) = cell.refused(&["exec", "web/7", "--", "/busybox"]);
    assert!(code == Some(125) && why.contains("has no task 7"), "{code:?} {why}");
    let (code, why) = cell.refused(&["exec", "nope/0", "--", "/busybox"]);
    assert!(code == Some(125) && why.contains("there is no job root/nope"), "{code:?} {why}");
    assert_eq!(cell.refused(&["exec", "web/0"]).0, Some(2));

    let events: Value = serde_json::from_str(&cell.done(&["events", "--job", "web", "--json"])).unwrap();
    let texts: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "exec")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert!(texts.contains(&"root executes: /busybox sh -c 'kill -9 $$'"), "{texts:?}");
    assert!(texts.iter().any(|text| text.starts_with("root executes as 12:34: ")), "{texts:?}");
}

#[test]
fn whoever_goes_away_leaves_nothing_behind() {
    let cell = Cell::start();
    let running = || cell.sh("/busybox ps | /busybox grep -c 'sleep 1000$'").1.trim().to_owned();
    let begin = |script: &str| {
        let mut client = cell
            .command(&["exec", "web/0", "--", "/busybox", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        client
    };
    let gone = || {
        while running() != "0" {
            thread::yield_now();
        }
    };

    let mut killed = begin("/busybox sleep 1000 & echo up; wait");
    assert_eq!(running(), "1");
    killed.kill().unwrap();
    killed.wait().unwrap();
    gone();

    // Ctrl-C is the command's to handle.
    let mut asked = begin("trap 'exit 3' INT; echo up; while :; do /busybox sleep 0.1; done");
    kill(&asked, Signal::SIGINT);
    assert_eq!(asked.wait().unwrap().code(), Some(3));
    // Who insists is obeyed.
    let mut deaf = begin("trap '' INT HUP TERM; /busybox sleep 1000 & echo up; while :; do wait; done");
    while deaf.try_wait().unwrap().is_none() {
        kill(&deaf, Signal::SIGINT);
        thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(deaf.wait().unwrap().code(), Some(130));
    gone();
}

#[test]
fn a_terminal_is_passed_through_and_put_back() {
    let cell = Cell::start();
    let size = Winsize { ws_row: 31, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap().local_flags;
    let slave = || Stdio::from(OwnedFd::try_clone(&pty.slave).unwrap());
    let script = "/busybox tty >/dev/null && /busybox stty size; echo $TERM; read line; echo got $line; \
                  trap 'echo caught; exit 4' INT; echo ready; while :; do /busybox sleep 0.1; done";
    let mut client = cell
        .command(&["exec", "-t", "web/0", "--", "/busybox", "sh", "-c", script])
        .env("TERM", "vt100")
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    let mut master = File::from(pty.master.try_clone().unwrap());
    let mut seen = String::new();
    let mut until = |text: &str| {
        let mut buffer = [0; 1024];
        while !seen.contains(text) {
            let read = master.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    until("31 91\r\nvt100\r\n");
    let raw = tcgetattr(&pty.slave).unwrap().local_flags;
    assert!(!raw.contains(LocalFlags::ICANON) && !raw.contains(LocalFlags::ECHO));
    File::from(pty.master.try_clone().unwrap()).write_all(b"hello\r").unwrap();
    until("hello\r\ngot hello\r\nready\r\n");
    File::from(pty.master.try_clone().unwrap()).write_all(&[3]).unwrap();
    until("caught");
    assert_eq!(client.wait().unwrap().code(), Some(4));
    assert_eq!(tcgetattr(&pty.slave).unwrap().local_flags, before);
}

#[test]
fn files_go_in_and_out_and_never_elsewhere() {
    let cell = Cell::start();
    let tree = cell.dir.path().join("tree");
    fs::create_dir_all(tree.join("deep")).unwrap();
    fs::write(tree.join("deep/data"), vec![9; 2_000_000]).unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
    let copied = cell.done(&["cp", "--json", tree.to_str().unwrap(), "web/0:/in"]);
    let copied: Value = serde_json::from_str(&copied).unwrap();
    assert_eq!((&copied["files"], &copied["bytes"]), (&2.into(), &2_000_000.into()));
    assert_eq!(
        cell.sh("/busybox readlink /in/link; /busybox stat -c %u:%s /in/deep/data").1,
        "/etc/passwd\n0:2000000\n"
    );
    let back = cell.path("back");
    assert_eq!(cell.done(&["cp", "web/0:/in", &back]), "2 files, 1.9 MiB\n");
    assert_eq!(fs::read(Path::new(&back).join("deep/data")).unwrap(), vec![9; 2_000_000]);
    assert_eq!(fs::read_link(Path::new(&back).join("link")).unwrap(), Path::new("/etc/passwd"));

    // Into a directory, under its own name; and out of it as an archive.
    let note = cell.file("note.txt", "one");
    cell.done(&["cp", &note, "web/0:/in/deep"]);
    assert_eq!(cell.sh("/busybox cat /in/deep/note.txt").1, "one");
    let archive = cell.covey(&["cp", "web/0:/in/deep/note.txt", "-"]).stdout;
    let mut tar =
        Command::new("tar").args(["tv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    let listed = String::from_utf8(tar.wait_with_output().unwrap().stdout).unwrap();
    assert!(listed.trim_end().ends_with("note.txt"), "{listed}");
    let archive = File::open(cell.file("archive.tar", &archive)).unwrap();
    let put = cell.command(&["cp", "-", "web/0:/in"]).stdin(archive).output().unwrap();
    assert!(put.status.success(), "{put:?}");
    assert_eq!(cell.sh("/busybox cat /in/note.txt").1, "one");

    // Links in the container lead into the container.
    cell.sh("/busybox ln -s / /root-link; /busybox ln -s ../../../../../../.. /up; /busybox mkdir -p /etc");
    cell.done(&["cp", &note, "web/0:/root-link/etc/covey-reach-test"]);
    cell.done(&["cp", &note, "web/0:/up/etc/covey-reach-test-2"]);
    assert_eq!(cell.sh("/busybox ls /etc | /busybox grep -c covey-reach").1, "2\n");
    assert!(!Path::new("/etc/covey-reach-test").exists() && !Path::new("/etc/covey-reach-test-2").exists());

    let (code, why) = cell.refused(&["cp", "web/0:/no/such", &back]);
    assert!(code == Some(1) && why.contains("/no/such") && why.contains("No such file"), "{why}");
    let (code, why) = cell.refused(&["cp", &note, "web/0:/no/such/dir/x"]);
    assert!(code == Some(1) && why.contains("/no/such/dir"), "{why}");
    let (_, why) = cell.refused(&["cp", "/no/such/here", "web/0:/"]);
    assert!(why.contains("/no/such/here"), "{why}");
    let (code, why) = cell.refused(&["cp", "a", "b"]);
    assert!(code == Some(2) && why.contains("JOB/INDEX:PATH"), "{why}");
    let left = cell.sh("/busybox find / -xdev -name '.covey-cp*'").1;
    assert_eq!(left, "", "nothing half is left");
}

#[test]
fn a_port_is_reached_from_here() {
    let cell = Cell::start();
    let mut forward = cell
        .command(&["port-forward", "--json", "web/0", "0:http"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(forward.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let shown: Value = serde_json::from_str(&line).unwrap();
    let address = shown["address"].as_str().unwrap();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert!(ask("/healthz").starts_with("HTTP/1.1 200"));
                assert!(ask("/env").contains("\"GREETING\":\"hi\""));
            });
        }
    });
    kill(&forward, Signal::SIGINT);
    assert!(forward.wait().unwrap().success());
    let (code, why) = cell.refused(&["port-forward", "web/0", "0:nope"]);
    assert!(code == Some(2) && why.contains("no port called `nope`: it has http"), "{why}");
}

#[test]
fn a_task_that_has_ended_is_said_to_have() {
    let cell = Cell::start();
    let job = "name = \"once\"\nkind = \"batch\"\n[task]\nimage = \"hello:1\"\ncommand = [\"/hello\", \"--version\"]\n";
    cell.covey(&["run", &cell.file("once.toml", job), "--wait"]);
    let (code, why) = cell.refused(&["exec", "once/0", "--", "/hello"]);
    assert_eq!(code, Some(125));
    assert!(why.contains("root/once/0 does not run: it is") && why.contains("since 20"), "{why}");
}

#[test]
fn what_a_task_has_left_is_copied_out_of_it() {
    let cell = Cell::start();
    let script = "/busybox mkdir -p /var/deep; echo dear > /var/deep/file; /busybox ln -s /etc/passwd /var/link; \
                  /busybox chown 1000:1000 /var/deep/file; /busybox rm /hello";
    assert_eq!(cell.sh(script), (Some(0), String::new()));
    cell.done(&["stop", "web"]);
    let tasks = || started::json(&cell.covey(&["tasks", "--json"]))["items"].clone();
    while tasks() != serde_json::json!([]) {
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let back = cell.path("back");
    cell.done(&["cp", "web/0:/var", &back]);
    assert_eq!(fs::read_to_string(Path::new(&back).join("deep/file")).unwrap(), "dear\n");
    assert_eq!(fs::read_link(Path::new(&back).join("link")).unwrap(), Path::new("/etc/passwd"));
    // As the container saw it: what it had deleted is not there, and links lead nowhere but into it.
    let (_, why) = cell.refused(&["cp", "web/0:/hello", &back]);
    assert!(why.contains("/hello") && why.contains("No such file"), "{why}");
    let (_, why) = cell.refused(&["cp", "web/0:/var/link", &cell.path("no")]);
    assert!(why.contains("/var/link") && why.contains("No such file"), "{why}");
    let owner = cell.command(&["cp", "web/0:/var/deep/file", "-"]).output().unwrap().stdout;
    // In the octal digits of the archive's first header.
    assert_eq!(&owner[108..116], b"0001750\0", "the owner, in the container's ids");

    let (code, why) = cell.refused(&["exec", "web/0", "--", "/busybox", "ls"]);
    assert!(code == Some(125) && why.contains("root/web has no task 0"), "{why}");
    let (_, why) = cell.refused(&["cp", &back, "web/0:/"]);
    assert!(why.contains("root/web has no task 0"), "{why}");
    let (code, why) = cell.refused(&["cp", "web/7:/var", &back]);
    assert!(
        code == Some(1) && why.contains("no files of it are left: a node keeps what the last run"),
        "{why}"
    );
}

#[test]
fn what_the_run_before_has_left_is_copied_while_another_runs() {
    let cell = Cell::start();
    let (back, none) = (cell.path("back"), cell.path("none"));
    let (code, why) = cell.refused(&["cp", "--previous", "web/0:/busybox", &back]);
    assert_eq!(code, Some(1));
    assert!(why.contains("there are no files that an earlier run of root/web/0 has left"), "{why}");
    let (code, why) = cell.refused(&["cp", "--previous", "/bin/true", "web/0:/x"]);
    assert!(code == Some(2) && why.contains("takes nothing more"), "{why}");

    assert_eq!(cell.sh("echo first > /mine").0, Some(0));
    let run = || started::json(&cell.covey(&["task", "web/0", "--json"]));
    cell.done(&["restart", "web/0"]);
    while (run()["restarts"].as_u64(), run()["state"].as_str()) != (Some(1), Some("running")) {
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = cell.covey(&["cp", "--previous", "web/0:/mine", &back]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(fs::read_to_string(&back).unwrap(), "first\n");
    // What runs now begins with its image.
    let (_, why) = cell.refused(&["cp", "web/0:/mine", &none]);
    assert!(why.contains("/mine") && why.contains("No such file"), "{why}");

    // Of an earlier job of that name too.
    cell.done(&["cp", "/bin/busybox", "web/0:/busybox"]);
    assert_eq!(cell.sh("echo second > /mine").0, Some(0));
    cell.done(&["stop", "web"]);
    cell.done(&["run", &cell.path("web.toml"), "--wait"]);
    cell.done(&["cp", "--previous", "web/0:/mine", &back]);
    assert_eq!(fs::read_to_string(&back).unwrap(), "second\n");
}
