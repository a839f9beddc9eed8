//! What goes wrong for a task or its node, on the real path: each time it is said what was tried, on what, why it failed
//! and what to do; and nothing is left over. Real containers. Needs root and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::{Value, json};
use started::{
    kill,
    node::{Node, PATIENCE, get},
};

const CAPACITY: &str = "cpu=2,memory=1GiB";
const WEB: &str = "name = \"web\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n";

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

fn refused(output: &Output, what: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(what.iter().all(|what| said.contains(what)), "{said}");
}

fn pid_of(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap())
}

#[test]
fn what_cannot_start_says_so_and_leaves_nothing() {
    let node = Node::start(CAPACITY);
    let fails = |keys: &str, why: &str, hint: &str| {
        let run = node.run(&format!("name = \"bad\"\nkind = \"batch\"\n[task]\n{keys}\n"));
        refused(&run, &[why]);
        let asked = said(&node.covey(&["why", "bad"]));
        assert!(asked.contains(why) && asked.contains(hint), "{asked}");
        node.ends("bad");
    };
    fails(
        "image = \"hello:1\"\ncommand = [\"/nope\"]",
        "run /nope: no such file /nope in the image",
        "check the job's command",
    );
    fails(
        "image = \"hello:1\"\nuser = \"nobody\"",
        "run as nobody: the image has no user nobody in /etc/passwd",
        "use a number",
    );
    // One that is for another machine is known before it is anybody's job.
    let mut elf = fs::read("/bin/busybox").unwrap();
    elf[18] = 183;
    let arm = node.dir.path().join("arm");
    fs::write(&arm, elf).unwrap();
    let run = node.run(&format!("name = \"arm\"\n[task]\nimage = \"file://{}\"\n", arm.display()));
    refused(&run, &["is for arm64, this machine is amd64", "build it for this machine"]);
    refused(&node.covey(&["job", "arm"]), &["there is no job root/arm"]);
}

#[test]
fn an_image_that_is_not_what_it_says_is_refused_whole() {
    let node = Node::start(CAPACITY);
    let root = node.dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), vec![7; 3 << 20]).unwrap();
    let layout = layout(&node, &root);
    let names = || node.json(&["image", "ls", "--json"])["items"].as_array().unwrap().len();
    let before = names();
    // A bit in the middle of the layer.
    let layer = largest(&layout.join("blobs/sha256"));
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let load = node.covey(&["image", "load", layout.to_str().unwrap(), "--name", "broken:1"]);
    refused(&load, &[layer.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(names(), before);
    for dir in ["partial", "tmp"] {
        let left = fs::read_dir(node.dir.path().join("data/content").join(dir)).unwrap().count();
        assert_eq!(left, 0, "{dir}");
    }
}

#[test]
fn a_check_that_is_never_answered_ends_the_task_and_names_itself() {
    let node = Node::start(CAPACITY);
    let check = "health = { http = \"/healthz\", port = \"http\", interval = \"200ms\", timeout = \"200ms\", failures = 2 }";
    node.runs(&format!("{WEB}{check}\n"));
    let before = node.task("web/0");
    get(&before, "/hang");
    let ended = node.until("web/0", |task| task["exit"]["cause"] == "unhealthy");
    assert!(
        ended["restarts"].as_u64() > before["restarts"].as_u64() || ended["state"] != "running",
        "{ended}"
    );
    let events = node.events("web");
    assert!(events.contains("/healthz did not answer within 200 ms"), "{events}");
    node.until("web/0", |task| task["healthy"] == true && task["pid"] != before["pid"]);
    node.ends("web");
}

#[test]
fn what_a_node_cannot_read_doctor_tells() {
    let node = Node::start(CAPACITY);
    let signal = "signal = { http = \"/nope\", port = \"http\", metric = \"x\", above = 1, for = \"1s\" }";
    node.runs(&format!("band = \"production\"\n{WEB}{signal}\n"));
    let about = |warning: &&Value| {
        warning["text"].as_str().is_some_and(|text| text.contains("the signal of root/web/0 cannot be read"))
    };
    let began = Instant::now();
    let doctor = loop {
        let doctor = node.json(&["doctor", "--json"]);
        if doctor["items"].as_array().unwrap().iter().any(|item| about(&item)) {
            break doctor;
        }
        assert!(began.elapsed() < PATIENCE, "{doctor}");
        sleep(Duration::from_millis(100));
    };
    let finding = doctor["items"].as_array().unwrap().iter().find(about).unwrap();
    assert_eq!((&finding["kind"], &finding["weight"]), (&"warning".into(), &"note".into()));
    assert!(
        doctor["nodes"][0]["warnings"].as_array().unwrap().iter().any(|warned| about(&warned)),
        "{doctor}"
    );
}

#[test]
fn a_command_into_a_task_that_just_died_says_that_it_does_not_run() {
    let node = Node::start(CAPACITY);
    node.runs(WEB);
    // At once, before anybody has heard of it, and when it waits to be started again.
    let pid = pid_of(&node.task("web/0")["pid"]);
    signal::kill(pid, Signal::SIGKILL).unwrap();
    let mut codes = Vec::new();
    let began = Instant::now();
    while node.task("web/0")["restarts"].as_u64() == Some(0) || codes.is_empty() {
        let exec = node.covey(&["exec", "web/0", "--", "/nope"]);
        let said = said(&exec);
        assert!(exec.status.code() == Some(125) && said.starts_with("covey: cannot"), "{exec:?}");
        assert!(said.contains("web/0"), "{said}");
        codes.push(said);
        assert!(began.elapsed() < PATIENCE, "{codes:?}");
    }
    node.until("web/0", |task| task["state"] == "running" && task["restarts"] == 1);
    node.ends("web");
}

#[test]
fn a_task_whose_shim_is_killed_ends_with_that_cause_and_starts_again() {
    let node = Node::start(CAPACITY);
    node.runs(WEB);
    let before = node.task("web/0");
    let bundle = fs::read_dir(node.dir.path().join("data/bundles")).unwrap().next().unwrap().unwrap().path();
    let state = fs::read_to_string(bundle.join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["init"]["pid"], before["pid"]);
    signal::kill(pid_of(&state["shim"]["pid"]), Signal::SIGKILL).unwrap();
    let ended = node.until("web/0", |task| !task["exit"].is_null());
    assert_eq!(ended["exit"]["cause"], "shim_lost");
    assert!(node.events("web").contains("its shim was lost"));
    node.until("web/0", |task| task["state"] == "running" && task["pid"] != before["pid"]);
    // Whoever inherits it may take a moment to bury it.
    let began = Instant::now();
    let start = |pid: &Value| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let is_it = |stat: String| stat.split(' ').nth(21) == Some(&state["init"]["start_time"].to_string());
    while start(&before["pid"]).is_some_and(is_it) {
        assert!(began.elapsed() < PATIENCE, "a zombie");
        sleep(Duration::from_millis(20));
    }
    node.ends("web");
}

#[test]
fn an_agent_that_is_stopped_for_a_while_loses_nothing() {
    let node = Node::start(CAPACITY);
    node.runs(&format!("{WEB}cpu = \"500m\"\n"));
    let task = node.task("web/0");
    let batch = "name = \"once\"\nkind = \"batch\"\n[task]\nimage = \"file:///bin/busybox\"\n\
                 command = [\"/busybox\", \"sh\", \"-c\", \"until [ -e /go ]; do /busybox sleep 0.1; done; echo done\"]\n";
    let file = node.dir.path().join("once.toml");
    fs::write(&file, batch).unwrap();
    assert!(node.covey(&["run", file.to_str().unwrap()]).status.success());
    let once = node.until("once/0", |task| task["state"] == "running");

    kill(&node.agent, Signal::SIGSTOP);
    // Both go on without it: one answers and logs, the other ends.
    get(&task, "/log?bytes=100000");
    fs::write(format!("/proc/{}/root/go", once["pid"]), "").unwrap();
    let began = Instant::now();
    while Path::new(&format!("/proc/{}", once["pid"])).exists() {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(20));
    }
    // Longer than an agent may be silent before others take it for dead.
    sleep(Duration::from_secs(8));
    kill(&node.agent, Signal::SIGCONT);

    let ended = node.until("once/0", |task| !task["exit"].is_null());
    assert_eq!((&ended["exit"]["code"], &ended["state"]), (&0.into(), &"succeeded".into()));
    assert_eq!(said(&node.covey(&["logs", "once/0"])), "done\n");
    let now = node.until("web/0", |task| task["state"] == "running" && task["stale"] == false);
    assert_eq!([&now["pid"], &now["restarts"]], [&task["pid"], &task["restarts"]]);
    let logs = node.covey(&["logs", "web/0"]).stdout;
    assert!(logs.len() >= 100_000, "{} bytes", logs.len());
    node.covey(&["stop", "once"]);
    node.ends("web");
}

/// A node whose data has a file system of its own.
struct Small {
    node: Option<Node>,
    data: PathBuf,
}

impl Small {
    fn start() -> Small {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        mount(Some("covey-test"), &data, Some("tmpfs"), MsFlags::empty(), Some("size=2g")).unwrap();
        Small { node: Some(Node::start_in(dir, CAPACITY)), data }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// Leave so much room and no more.
    fn leave(&self, bytes: u64) {
        let stat = nix::sys::statvfs::statvfs(&self.data).unwrap();
        let used = (stat.blocks() - stat.blocks_free()) * stat.fragment_size();
        let size = format!("size={}", used + bytes);
        mount(Some("covey-test"), &self.data, Some("tmpfs"), MsFlags::MS_REMOUNT, Some(size.as_str()))
            .unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = mount(Some("covey-test"), &self.data, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=2g"));
        // Its directory cannot go while something is mounted there.
        self.node.take();
        let _ = umount2(&self.data, MntFlags::MNT_DETACH);
        let _ = self.data.parent().map(fs::remove_dir_all);
    }
}

#[test]
fn a_disk_that_fills_while_an_image_is_unpacked_is_named() {
    let small = Small::start();
    let node = small.node();
    let root = node.dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("large"), vec![7; 24 << 20]).unwrap();
    let layout = layout(node, &root);
    // For the blob, but not for what is in it too.
    small.leave(36 << 20);
    let load = ["image", "load", layout.to_str().unwrap(), "--name", "large:1"];
    refused(
        &node.covey(&load),
        &["entry \"./large\": write the file", "No space left on device", "free some space"],
    );
    let names = node.json(&["image", "ls", "--json"]);
    assert!(!names.to_string().contains("large:1"), "{names}");
    small.leave(1 << 30);
    let load = node.covey(&load);
    assert!(load.status.success(), "{load:?}");
}

#[test]
fn a_disk_that_fills_while_a_task_logs_costs_log_lines_only() {
    let small = Small::start();
    let node = small.node();
    // Batch and free give way when the disk is short.
    node.runs(&format!("band = \"production\"\n{WEB}"));
    let before = node.task("web/0");
    small.leave(2 << 20);
    // The writer is not blocked: it has answered when it has written.
    get(&before, "/log?bytes=16000000");
    get(&before, "/healthz");
    let after = node.task("web/0");
    assert_eq!([&after["pid"], &after["state"]], [&before["pid"], &"running".into()], "{after}");
    small.leave(1 << 30);
    signal::kill(pid_of(&before["pid"]), Signal::SIGKILL).unwrap();
    node.until("web/0", |task| task["state"] == "running" && task["restarts"] == 1);
    let events = node.events("web");
    assert!(
        events.contains("bytes of its log are lost: the disk of the node's data directory was full"),
        "{events}"
    );
    node.ends("web");
}

/// An OCI layout of one layer with what is in `root`.
fn layout(node: &Node, root: &Path) -> PathBuf {
    let layout = node.dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let tar = layout.join("blob");
    let made = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&tar).arg(".").status().unwrap();
    assert!(made.success());
    let described = |kind: &str| {
        let said = Command::new("sha256sum").arg(&tar).output().unwrap();
        let hex = String::from_utf8(said.stdout).unwrap()[..64].to_owned();
        let size = tar.metadata().unwrap().len();
        fs::rename(&tar, layout.join("blobs/sha256").join(&hex)).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": size})
    };
    let layer = described("layer.v1.tar");
    let root = json!({"type": "layers", "diff_ids": [layer["digest"]]});
    let config =
        json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/none"]}, "rootfs": root});
    fs::write(&tar, config.to_string()).unwrap();
    let config = described("config.v1+json");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    fs::write(&tar, manifest.to_string()).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [described("manifest.v1+json")]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

fn largest(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}
