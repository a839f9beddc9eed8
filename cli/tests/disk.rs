//! Disk that is taken back on a real node: what goes first, who goes next, what is said of it. Real containers on a small file
//! system of their own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use started::node::{Node, PATIENCE, get};

const MIB: u64 = 1 << 20;

fn does(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// A file system in a file.
struct Disk {
    at: PathBuf,
    /// The file that names its scheduler, and what that was: the device keeps it when this is gone.
    scheduler: Option<(PathBuf, String)>,
    _image: tempfile::TempDir,
}

impl Disk {
    fn mount(at: &Path, mib: u64) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(mib * MIB).unwrap();
        fs::create_dir_all(at).unwrap();
        let (image, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        does("mkfs.ext4", &["-q", "-m", "0", image]);
        does("mount", &["-o", "loop", image, place]);
        Disk { at: at.to_path_buf(), scheduler: None, _image: dir }
    }

    /// Free, and all of it.
    fn has(&self) -> (u64, u64) {
        let stat = nix::sys::statvfs::statvfs(&self.at).unwrap();
        let bytes = |blocks: u64| blocks * stat.fragment_size();
        (bytes(stat.blocks_available()), bytes(stat.blocks()))
    }

    /// Has the kernel share it by weight; whether it can.
    fn weigh(&mut self) -> bool {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounted = mounts.lines().filter_map(|line| line.split_once(' '));
        let at = format!("{} ", self.at.display());
        let (device, _) = mounted.find(|(_, rest)| rest.starts_with(&at)).unwrap();
        let name = Path::new(device).file_name().unwrap().to_str().unwrap();
        let file = PathBuf::from(format!("/sys/block/{name}/queue/scheduler"));
        let all = fs::read_to_string(&file).unwrap_or_default();
        let used = all.split(['[', ']']).nth(1).unwrap_or_default().to_owned();
        let weighs = fs::write(&file, "bfq").is_ok();
        self.scheduler = weighs.then_some((file, used));
        weighs
    }

    /// Somebody else's file takes all but so much.
    fn fill(&self, name: &str, left: u64) {
        let file = self.at.join(name);
        let length = self.has().0 - left;
        does("fallocate", &["-l", &length.to_string(), file.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((file, used)) = &self.scheduler {
            let _ = fs::write(file, used);
        }
        // Whoever has just ended may hold it for a moment.
        let began = Instant::now();
        let unmounted = || Command::new("umount").arg(&self.at).status().is_ok_and(|status| status.success());
        while !unmounted() && began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(100));
        }
        // The node's directory, which could not go as long as this was in it.
        for empty in self.at.ancestors().take(2) {
            let _ = fs::remove_dir(empty);
        }
    }
}

fn job(name: &str, band: &str) -> String {
    format!(
        "name = \"{name}\"\nband = \"{band}\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\ncpu = \"100m\"\nmemory = \"64MiB\"\n"
    )
}

fn writes(node: &Node, disk: &Disk, job: &str, mib: u64) -> Value {
    let task = node.task(&format!("{job}/0"));
    let before = disk.has().0;
    get(&task, &format!("/write?mib={mib}&seconds=1"));
    waits_for(|| disk.has().0 + (mib - 1) * MIB < before);
    task
}

/// REQUIREMENTS BX19: what nobody uses, then free, then batch; never production.
#[test]
fn disk_is_taken_back_from_what_nobody_uses_then_from_free_then_from_batch() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&dir.path().join("data"), 3 << 10);
    let node = Node::start_in(dir, "cpu=4,memory=1GiB");
    let bands =
        [("web", "production", 200), ("etl", "batch", 190), ("idle", "free", 30), ("hog", "free", 180)];
    for (name, band, _) in bands {
        node.runs(&job(name, band));
    }
    node.runs(&job("old", "production"));
    writes(&node, &disk, "old", 160);
    assert!(node.covey(&["stop", "old"]).status.success());
    let left = dir_of(&node).join("left");
    let is_left = || fs::read_dir(&left).map_or(0, Iterator::count);
    waits_for(|| is_left() == 1);
    let [web, etl, idle, hog] = bands.map(|(name, _, mib)| writes(&node, &disk, name, mib));
    let size = disk.has().1;
    let kept = size / 20;
    let same = |task: &Value| {
        let now = node.task(&format!("{}/0", task["job"].as_str().unwrap().split('/').next_back().unwrap()));
        assert_eq!(
            (&now["state"], &now["pid"], &now["restarts"]),
            (&"running".into(), &task["pid"], &0.into()),
            "{now}"
        );
    };

    // What an ended job left is worth nothing beside those who run.
    disk.fill("first", kept - 20 * MIB);
    waits_for(|| is_left() == 0);
    waits_for(|| disk.has().0 > kept);
    sleep(Duration::from_secs(1));
    [&web, &etl, &idle, &hog].into_iter().for_each(same);

    // Who has most of the free band is enough.
    disk.fill("second", kept - 20 * MIB);
    let began = Instant::now();
    let gone = node.until("hog/0", |task| task["exit"]["cause"] == "reclaimed");
    eprintln!("gone after {:?}: {}", began.elapsed(), gone["reason"]);
    waits_for(|| disk.has().0 > kept);
    let events = node.events("hog");
    assert!(events.contains("of disk are free, of ") && events.contains("in band free"), "{events}");
    assert_eq!(is_left(), 0, "that would be no room");
    [&web, &etl, &idle].into_iter().for_each(same);
    node.until("hog/0", |task| task["state"] == "running");

    // And it is not: then batch too. Never production, though it has most.
    disk.fill("third", kept - 60 * MIB);
    for task in ["idle/0", "etl/0"] {
        node.until(task, |task| task["exit"]["cause"] == "reclaimed");
    }
    waits_for(|| disk.has().0 > kept);
    same(&web);
    let usage = node.json(&["usage", "--json"]);
    let reclaimed = |whose: &str| usage[whose]["evicted"]["causes"]["reclaimed"]["day"].as_u64();
    assert_eq!((reclaimed("prod"), reclaimed("non_prod")), (None, Some(3)), "{usage}");
}

/// REQUIREMENTS BX19: who waits for the disk longer.
#[test]
fn a_disk_is_shared_by_weight_where_the_kernel_does_that() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::mount(&dir.path().join("data"), 2 << 10);
    let weighs = disk.weigh();
    let node = Node::start_in(dir, "cpu=4,memory=1GiB");
    let warned = node.covey(&["doctor"]);
    let warned = String::from_utf8_lossy(&warned.stdout).contains("could be better: the disk of ");
    assert_eq!(warned, !weighs, "doctor says what a node cannot do");
    if !weighs {
        return;
    }
    node.runs(&job("web", "production"));
    node.runs(&format!("{}class = \"batch\"\n", job("sum", "production")));
    node.runs(&job("rest", "free"));
    // The run's, and its band's.
    let weights = |name: &str| {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", node.task(&format!("{name}/0"))["pid"]));
        let groups = groups.unwrap();
        let of = |key: &str| groups.lines().find_map(|line| line.split_once(key)).map(|(_, path)| path);
        let (run, file) = match of(":blkio:") {
            Some(path) => (format!("/sys/fs/cgroup/blkio{path}"), "blkio.bfq.weight"),
            None => (format!("/sys/fs/cgroup{}", of("0::").unwrap()), "io.bfq.weight"),
        };
        let of = |dir: &Path| fs::read_to_string(dir.join(file)).unwrap().replace("default ", "");
        [Path::new(&run), Path::new(&run).parent().unwrap()].map(|dir| of(dir).trim().to_owned())
    };
    assert_eq!(weights("web"), ["100", "400"]);
    assert_eq!(weights("sum"), ["10", "400"]);
    assert_eq!(weights("rest"), ["100", "10"]);
}

fn dir_of(node: &Node) -> PathBuf {
    node.dir.path().join("data")
}

fn waits_for(so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(50));
    }
}
