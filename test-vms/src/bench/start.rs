//! From the agent's start to its first task running: what somebody who tries covey waits for.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_vms::{Error, Result, binary};

use crate::figures::{Series, show};

const GOAL: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
const JOB: &str = "name = \"first\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n\
                   command = [\"/hello\", \"--listen\", \":${PORT_http}\"]\n";

pub(crate) fn run(count: usize) -> Result<bool> {
    let covey = binary::covey()?;
    let mut series = Series::new("covey dev, covey run --wait".to_owned());
    for _ in 0..count {
        series.push(once(&covey)?);
    }
    println!("  (the peers' daemons are installed and started once, and have no counterpart)");
    Ok(show(&[series], GOAL))
}

fn once(covey: &Path) -> Result<Duration> {
    let scratch = tempfile::tempdir().map_err(failed("make a temporary directory"))?;
    let socket = scratch.path().join("agent.sock");
    let file = scratch.path().join("job.toml");
    fs::write(&file, JOB).map_err(failed("write a job file"))?;

    let begun = Instant::now();
    let mut dev = Command::new(covey)
        .arg("dev")
        .env("COVEY_SOCKET", &socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed("start covey dev"))?;
    let ran = first_task(covey, &socket, &file, begun + PATIENCE);
    let took = begun.elapsed();
    let ended = end(&mut dev);
    ran?;
    ended?;
    Ok(took)
}

fn first_task(covey: &Path, socket: &Path, file: &Path, until: Instant) -> Result<()> {
    while UnixStream::connect(socket).is_err() {
        if Instant::now() > until {
            return Err(Error::Missing(format!("covey dev does not answer on {}", socket.display())));
        }
        sleep(Duration::from_millis(1));
    }
    let output = Command::new(covey)
        .args(["run", "--wait", "--timeout", "30s"])
        .arg(file)
        .env("COVEY_SOCKET", socket)
        .stdin(Stdio::null())
        .output()
        .map_err(failed("start covey run"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Missing(format!("covey run: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}

/// `covey dev` takes everything with it when it is asked to end.
fn end(dev: &mut Child) -> Result<()> {
    let _ = kill(Pid::from_raw(dev.id().cast_signed()), Signal::SIGTERM);
    let until = Instant::now() + PATIENCE;
    loop {
        match dev.try_wait().map_err(failed("wait for covey dev"))? {
            Some(_) => return Ok(()),
            None if Instant::now() > until => {
                let _ = dev.kill();
                let _ = dev.wait();
                return Err(Error::Missing("covey dev did not end in 30 s after SIGTERM".to_owned()));
            }
            None => sleep(Duration::from_millis(1)),
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |why| Error::Missing(format!("cannot {what}: {why}"))
}
