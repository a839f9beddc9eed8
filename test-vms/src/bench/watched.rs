//! However a bench ends, nothing of it is left. The benches run in a process of their own, and this one waits: for its end,
//! or for a signal (Ctrl-C among them). Then it ends what is still there: processes, containers, labs, directories.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use test_vms::lab::{self, Lab, Result};
use test_vms::{Error, node};

use crate::{cell, peers};

/// Set for the process that runs the benches.
const RUNS: &str = "COVEY_BENCH_RUNS";
/// Engines and `covey dev` take with them what they have started when they are asked to end, but not for longer than this.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// How it ended, in the process that waits. None: this is the other one, which runs them.
pub(crate) fn ended() -> Option<ExitCode> {
    if env::var_os(RUNS).is_some() {
        // Whoever waits has blocked some of them, and what is started here wants them all.
        let _ = SigSet::empty().thread_set_mask();
        return None;
    }
    Some(watch().unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::FAILURE
    }))
}

fn watch() -> Result<ExitCode> {
    let signals: SigSet =
        [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|why| failed("block signals", why))?;
    let scratch = tempfile::Builder::new().prefix("covey-bench-").tempdir();
    let scratch = scratch.map_err(|why| failed("make a temporary directory", why))?;
    let own = env::current_exe().map_err(|why| failed("find this program", why))?;
    // What it makes in files is all below one directory. In a group of its own Ctrl-C does not reach it.
    let mut runs = Command::new(own)
        .args(env::args_os().skip(1))
        .env(RUNS, "1")
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|why| failed("run the benches", why))?;
    let group = Pid::from_raw(runs.id().cast_signed());
    let told = loop {
        match signals.wait().map_err(|why| failed("wait for signals", why))? {
            Signal::SIGCHLD => {
                if runs.try_wait().map_err(|why| failed("wait for the benches", why))?.is_some() {
                    break None;
                }
            }
            signal => break Some(signal),
        }
    };
    if let Some(signal) = told {
        eprintln!("\n{signal}: ending what was begun");
    }
    end_group(group);
    let status = runs.wait().map_err(|why| failed("wait for the benches", why))?;
    end_rest(group, scratch.path())?;
    scratch.close().map_err(|why| failed("remove the benches' directory", why))?;
    let code = told.map(|signal| 128 + signal as i32).or(status.code()).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1).into())
}

/// All that was started here and has not made itself independent.
fn end_group(group: Pid) {
    let _ = killpg(group, Signal::SIGTERM);
    let until = Instant::now() + PATIENCE;
    while is_alive(group) && Instant::now() < until {
        sleep(LOOK);
    }
    let _ = killpg(group, Signal::SIGKILL);
}

/// Whether a process of the group runs; those that have ended may wait for somebody to ask after them.
fn is_alive(group: Pid) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.any(|stat| {
        // PID (NAME) STATE PARENT GROUP …
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        matches!(fields[..], [state, _, of, ..] if state != "Z" && of == group.to_string())
    })
}

/// What runs on by itself: containers and their agents, labs, mounts.
fn end_rest(group: Pid, scratch: &Path) -> Result<()> {
    node::end_left(scratch)?;
    for kind in [cell::LAB, peers::LAB] {
        match Lab::down(&format!("{kind}-{group}")) {
            // Then nothing could be made, which has been said.
            Ok(_) | Err(lab::Error::NotRoot) => {}
            Err(why) => return Err(why),
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let ours: Vec<PathBuf> = places.filter(|place| place.starts_with(scratch)).collect();
    // The newest first.
    for place in ours.iter().rev() {
        let _ = umount2(place, MntFlags::MNT_DETACH);
    }
    peers::remove_cgroups();
    Ok(())
}

fn failed(what: &str, why: impl std::fmt::Display) -> lab::Error {
    Error::Missing(format!("cannot {what}: {why}")).into()
}
