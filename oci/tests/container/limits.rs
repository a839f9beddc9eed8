//! Limits that are really in force, and figures that are really read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci::cgroup::{Band, Limits, OutOfMemory, Placement};
use oci::container;

use crate::world::{Running, World, read};

#[test]
fn a_memory_hog_is_killed_for_its_limit_and_the_record_says_so() {
    let world = World::new();
    let running = world.program("hog", &["probe", "memory", "1000"]).start();
    let end = running.wait();
    assert_eq!((end.signal, end.oom), (Some(libc::SIGKILL), true));
    // The same by way of a shell, whose child was killed.
    let (end, _) = world.run("shell", "probe memory 1000; exit $?").finish();
    assert_eq!((end.code, end.oom), (Some(137), true));
    // An end that has nothing to do with it.
    let (end, said) = world.run("survivor", "probe memory 1000; probe memory 8; exit 0").finish();
    assert_eq!((end.code, end.oom), (Some(0), false));
    assert!(said.contains("held 8\n"), "{said}");
}

#[test]
fn cpu_has_a_ceiling_and_a_weight() {
    let world = World::new();
    let mut run = world.program("spin", &["probe", "spin"]);
    run.config.limits.cpu_milli = Some(100);
    let placement = run.config.cgroup.clone();
    let running = run.start();
    let cpu = placement.trees["cpu"].join("batch/spin");
    assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "10000\n");
    assert_eq!(read(cpu.join("cpu.shares")), "102\n");
    let start = std::time::Instant::now();
    while placement.stats().throttled_us < 200_000 {
        assert!(start.elapsed().as_secs() < 60, "never held back");
        std::thread::yield_now();
    }
    let stats = placement.stats();
    let most = start.elapsed().as_micros() as u64 / 10 + 300_000;
    assert!(stats.cpu_usage_us > 0 && stats.cpu_usage_us < most, "{stats:?}");

    // A live change.
    placement
        .apply(&Limits { cpu_milli: Some(500), memory_bytes: Some(128 << 20), ..Limits::default() })
        .unwrap();
    assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "50000\n");
    assert_eq!(placement.stats().memory_limit, Some(128 << 20));
    placement.apply(&Limits { memory_bytes: Some(32 << 20), pids: Some(7), ..Limits::default() }).unwrap();
    assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "-1\n");
    assert_eq!(placement.stats().memory_limit, Some(32 << 20));
    assert_eq!(read(placement.trees["pids"].join("batch/spin/pids.max")), "7\n");
    container::remove(&running.bundle).unwrap();
}

#[test]
fn a_fork_bomb_stops_at_the_limit() {
    let world = World::new();
    let mut run = world.program("bomb", &["probe", "threads", "1000"]);
    run.config.limits.pids = Some(20);
    assert_eq!(run.finish().1, "made 19\n");
}

#[test]
fn an_rlimit_that_cannot_be_had_is_not_what_a_start_fails_for() {
    let world = World::new();
    let mut run = world.run("nofile", "ulimit -n; ulimit -Hn");
    run.host.sys_resource = true;
    let (end, said) = run.finish();
    assert_eq!(end.code, Some(0));
    let (soft, hard) = said.trim().split_once('\n').unwrap();
    assert_eq!(soft, hard);
    assert!((1024..=1_048_576).contains(&soft.parse::<u64>().unwrap()), "{said}");
}

#[test]
fn stats_tell_what_is_used() {
    let world = World::new();
    let run = world.run("use", "probe memory 20; probe memory 4; sleep 1000 & sleep 1000");
    let placement = run.config.cgroup.clone();
    let running = run.start();
    running.wait_for("held 4");
    let stats = placement.stats();
    assert!((20 << 20..64 << 20).contains(&stats.memory_peak), "{stats:?}");
    assert!(stats.memory_working_set < 16 << 20, "{stats:?}");
    assert_eq!(stats.memory_limit, Some(64 << 20));
    assert!((1..=4).contains(&stats.pids), "{stats:?}");
    assert!(stats.cpu_usage_us > 0 && stats.oom_kills == 0, "{stats:?}");
    container::remove(&running.bundle).unwrap();
    assert_eq!(placement.stats(), Default::default());
}

#[test]
fn the_tree_has_bands_with_weights_and_is_listed_killed_and_cleared() {
    let mut world = World::new();
    let running = world.run("one", "sleep 1000 & sleep 1000").start();
    let trees: BTreeSet<PathBuf> = world.tree.placement(Band::Batch, "one").trees.into_values().collect();
    let shares = |band: &str| -> u64 {
        let tree = world.tree.placement(Band::Production, "one").trees["cpu"].clone();
        read(tree.join(band).join("cpu.shares")).trim().parse().unwrap()
    };
    assert!(shares("monitoring") > shares("production"));
    assert!(shares("spare/batch") > shares("spare/free"));
    let all = shares("production") + shares("spare");
    assert!(shares("spare") * 100 >= all, "production would leave less than a percent");
    assert!(shares("spare") * 20 < all);
    assert_eq!(world.tree.list(), [(Band::Batch, "one".to_string())]);
    // A run without a record: killed by name. It has left its cgroup a moment before it has ended.
    let init = oci::pidfd::open(running.state().init.pid).unwrap();
    world.tree.kill("one").unwrap();
    let mut fds = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_000u16)), Ok(1), "it lives on");
    world.tree.kill("unheard-of").unwrap();
    drop(running);
    // It lives in the tree.
    world.server = None;
    world.tree.clear().unwrap();
    assert!(trees.iter().all(|tree| !tree.exists()));
}

#[test]
fn what_runs_where_an_earlier_covey_put_it_is_found_there() {
    let world = World::new();
    let name = world.tree.placement(Band::Production, "one").trees["cpu"].file_name().unwrap().to_owned();
    let node = name.to_str().unwrap().strip_prefix("covey-").unwrap();
    // All bands were beside each other.
    let mut before = world.tree.placement(Band::Production, "old");
    before.band = Band::Batch;
    before.create().unwrap();
    let mut sleep = Command::new("/bin/busybox");
    let inside = before.clone();
    // SAFETY: joining is a few writes to files.
    let mut sleep = unsafe { sleep.args(["sleep", "1000"]).pre_exec(move || join(&inside)) }.spawn().unwrap();

    let (tree, warnings) = oci::cgroup::Tree::open(node);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(tree.list(), [(Band::Batch, "old".to_string())]);
    assert_eq!(tree.placement(Band::Batch, "old"), before);
    assert_eq!(tree.placement(Band::Batch, "new"), world.tree.placement(Band::Batch, "new"));
    tree.kill("old").unwrap();
    assert!(!sleep.wait().unwrap().success());
    tree.remove("old").unwrap();
    let (tree, _) = oci::cgroup::Tree::open(node);
    assert_eq!(tree.placement(Band::Batch, "old").trees, tree.placement(Band::Batch, "new").trees);
    let left = before.dirs().into_iter().find(|dir| dir.parent().unwrap().exists());
    assert_eq!(left, None);
}

/// Move the calling process in.
fn join(cgroups: &Placement) -> std::io::Result<()> {
    cgroups.dirs().iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), "0"))
}

#[test]
fn capacity_is_the_least_of_machine_and_cgroups() {
    let world = World::new();
    let whole = world.tree.capacity();
    assert!(whole.cpu_milli >= 1000 && whole.memory_bytes > 64 << 20);
    // A tree inside a limited cgroup, as on a node that is itself a container.
    let parent = world.tree.placement(Band::Batch, "node");
    parent.create().unwrap();
    parent
        .apply(&Limits { cpu_milli: Some(700), memory_bytes: Some(48 << 20), ..Limits::default() })
        .unwrap();
    let inside = parent.clone();
    let mut child = Command::new(crate::world::shim());
    // SAFETY: joining is a few writes to files.
    unsafe { child.arg("capacity").pre_exec(move || join(&inside)) };
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, format!("700 {} 0\n", 48 << 20), "{:?}", output.stderr);
    parent.remove().unwrap();
}

#[test]
fn devices_are_denied_by_a_list_or_by_a_program() {
    let world = World::new();
    let disk = world.dir.path().join("disk");
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    // /dev/port, and the device that anyone may open.
    for (name, minor) in [("port", 4), ("null", 3)] {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::sys::stat::mknod(&disk.with_file_name(name), kind, mode, nix::sys::stat::makedev(1, minor))
            .unwrap();
    }
    // Both ways: hybrid hosts have the v1 controller, pure v2 ones only the program.
    let v1 = world.tree.placement(Band::Batch, "devices");
    assert!(v1.trees.contains_key("devices"));
    let mut v2 = v1.clone();
    v2.trees.retain(|key, _| key == "unified");
    for placement in [v1, v2] {
        placement.create().unwrap();
        let open = |name: &str| {
            let inside = placement.clone();
            let mut cat = Command::new("/bin/busybox");
            cat.args(["head", "-c", "1"]).arg(disk.with_file_name(name));
            // SAFETY: joining is a few writes to files.
            unsafe { cat.pre_exec(move || join(&inside)) };
            String::from_utf8_lossy(&cat.output().unwrap().stderr).into_owned()
        };
        assert_eq!(open("null"), "", "{placement:?}");
        assert!(open("port").contains("Operation not permitted"), "{placement:?}");
        placement.remove().unwrap();
    }
}

/// Two that stay below their own limits, and together go beyond what there is for all.
#[test]
fn a_kill_for_a_cgroup_above_is_told_from_one_for_the_own_limit() {
    let world = World::new();
    let band = world.tree.placement(Band::Batch, "all").trees["memory"].join("batch");
    fs::write(band.join("memory.limit_in_bytes"), (96 << 20).to_string()).unwrap();
    let big = |name: &str, script: &str| {
        let mut run = world.run(name, script);
        run.config.limits.memory_bytes = Some(80 << 20);
        run.start()
    };
    let whose = |running: &Running| running.bundle.config().unwrap().cgroup.out_of_memory();
    // Its page cache reaches its limit, which means nothing: that is taken back. (Of a hole, so that no disk is waited for.)
    File::create(world.layer.join("hole")).unwrap().set_len(100 << 20).unwrap();
    let cached = big(
        "cached",
        "cat /hole > /dev/null; echo cached
         until [ -e /tmp/go ]; do sleep 0.05; done; probe memory 60; exit $?",
    );
    cached.wait_for("cached\n");
    let peak: u64 = read(band.join("cached/memory.max_usage_in_bytes")).trim().parse().unwrap();
    assert!(peak > 72 << 20, "{peak}");
    let holder = big("holder", "dd if=/dev/zero of=/dev/shm/file bs=1M count=50; echo held; sleep 1000");
    holder.wait_for("held\n");
    for running in [big("clean", "probe memory 60; exit $?"), cached] {
        if running.bundle.dir().ends_with("cached") {
            fs::write(format!("/proc/{}/root/tmp/go", running.state().init.pid), "").unwrap();
        }
        let end = running.wait();
        assert_eq!((end.code, end.oom), (Some(137), true), "{}", running.output());
        assert_eq!(whose(&running), Some(OutOfMemory::Host), "{:?}", running.bundle.dir());
    }
    assert_eq!(whose(&holder), None);
    container::remove(&holder.bundle).unwrap();
    let alone = big("alone", "probe memory 90; exit $?");
    assert_eq!(alone.wait().code, Some(137));
    assert_eq!(whose(&alone), Some(OutOfMemory::Limit));
}

/// Swap on a loop device, off when dropped.
struct Swap(String);

impl Swap {
    /// None: this kernel, or whoever bounds this machine, lets nobody have it.
    fn on(dir: &Path) -> Option<Swap> {
        let file = dir.join("swap");
        File::create(&file).unwrap().set_len(64 << 20).unwrap();
        let file = file.to_str().unwrap();
        said("mkswap", &[file])?;
        let swap = Swap(said("losetup", &["--find", "--show", file])?);
        said("swapon", &[&swap.0]).map(|_| swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        said("swapoff", &[&self.0]);
        said("losetup", &["--detach", &self.0]);
    }
}

fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a task has stays in memory, where it is seen, also when all above it is short: then somebody has to give way.
#[test]
fn swap_hides_nothing() {
    let world = World::new();
    let Some(_swap) = Swap::on(world.dir.path()) else {
        eprintln!("no swap can be had here");
        return;
    };
    let mut run = world.program("keeper", &["probe", "hold", "40"]);
    run.config.limits.memory_bytes = Some(64 << 20);
    let placement = run.config.cgroup.clone();
    let keeper = run.start();
    keeper.wait_for("held 40");
    let above = placement.trees["memory"].join("batch/memory.limit_in_bytes");
    if above.exists() {
        let short = fs::write(&above, (20 << 20).to_string());
        fs::write(&above, "-1").unwrap();
        assert_eq!(short.unwrap_err().raw_os_error(), Some(libc::EBUSY));
    }
    let held = placement.memory().unwrap();
    assert!(held >= 40 << 20, "{held} bytes");
    container::remove(&keeper.bundle).unwrap();
}
