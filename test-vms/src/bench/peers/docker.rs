//! Debian's Docker engine, unpacked beside the system and run on a directory of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use test_vms::debian::Unpacked;
use test_vms::{Error, Result, binary};

use super::{output, quiet};
use crate::usage;

/// Named as covey's.
pub(super) const IMAGE: &str = "hello:1";
/// What the image runs.
pub(super) const ENTRYPOINT: &str = r#"ENTRYPOINT ["/hello"]"#;
/// The name under which the packages are kept.
pub(super) const SET: &str = "docker-1";
pub(super) const PACKAGES: &[&str] = &["docker.io"];
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine with the image `hello:1`.
pub(crate) struct Docker {
    /// With its version.
    pub(crate) name: String,
    unpacked: Unpacked,
    daemon: Child,
    scratch: TempDir,
}

impl Docker {
    pub(crate) fn start() -> Result<Self> {
        let unpacked = Unpacked::get(SET, &[], PACKAGES)?;
        let scratch = tempfile::Builder::new().prefix("covey-docker-").tempdir();
        let scratch = scratch.map_err(|why| Error::Missing(format!("cannot make a directory: {why}")))?;
        let at = |name: &str| scratch.path().join(name);
        let log =
            fs::File::create(at("log")).map_err(|why| Error::Missing(format!("cannot make a log: {why}")))?;
        let daemon = unpacked
            .command("dockerd")
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("run"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(format!("unix://{}", at("sock").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|why| Error::Missing(format!("cannot start dockerd: {why}")))?;
        let mut docker = Self { name: String::new(), unpacked, daemon, scratch };
        docker.answers()?;
        let version = output(docker.client().args(["version", "--format", "{{.Server.Version}}"]))?;
        docker.name = format!("docker {}", version.trim());
        docker.load()?;
        Ok(docker)
    }

    fn answers(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(self.scratch.path().join("sock")).is_err() {
            if Instant::now() > until || self.daemon.try_wait().is_ok_and(|ended| ended.is_some()) {
                let log = fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it wrote nothing");
                return Err(Error::Missing(format!("dockerd does not start: {last}")));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn load(&self) -> Result<()> {
        let archive = archive(self.scratch.path())?;
        output(self.client().args(["import", "-c", ENTRYPOINT]).arg(&archive).arg(IMAGE)).map(drop)
    }

    fn client(&self) -> Command {
        let mut client = self.unpacked.command("docker");
        client.env("DOCKER_HOST", format!("unix://{}", self.scratch.path().join("sock").display()));
        client
    }

    /// Starts one container, with the limits that a covey task has by default.
    pub(crate) fn run(&self, name: &str) -> Command {
        let mut client = self.client();
        client.args(["run", "-d", "--network", "host", "--cpus", "0.1", "--memory", "128m", "--name", name]);
        client.args([IMAGE, "--listen", "127.0.0.1:0"]);
        client
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        output(self.client().args(["rm", "-f", name])).map(drop)
    }

    /// Starts so many containers, four at a time.
    pub(crate) fn run_many(&self, count: usize) -> Result<()> {
        let part = |thread: usize| {
            (thread..count).step_by(4).try_for_each(|number| quiet(&mut self.run(&format!("many-{number}"))))
        };
        std::thread::scope(|threads| {
            let all = [0, 1, 2, 3].map(|thread| threads.spawn(move || part(thread)));
            all.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::Missing("a thread panicked".to_owned())))
            })
        })
    }

    /// CPU time of dockerd, of containerd, and of its shims until now.
    pub(crate) fn cpu(&self) -> Result<[Duration; 3]> {
        let mut used = [Duration::ZERO; 3];
        for (sum, daemon) in used.iter_mut().zip(self.daemons()) {
            *sum = usage::cpu(daemon)?;
        }
        // A shim is known by the socket that it reports to.
        let mine = self.scratch.path().display().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if command.split('\0').next().is_some_and(|name| name.contains("containerd-shim"))
                && command.contains(&mine)
            {
                used[2] += usage::cpu(pid)?;
            }
        }
        Ok(used)
    }

    /// The engine's two daemons.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        let containerd: Option<u32> =
            fs::read_to_string(self.scratch.path().join("run/containerd/containerd.pid"))
                .ok()
                .and_then(|pid| pid.trim().parse().ok());
        std::iter::once(self.daemon.id()).chain(containerd).collect()
    }
}

/// The same single file that is covey's `hello:1`, as an archive in `scratch`.
pub(super) fn archive(scratch: &Path) -> Result<PathBuf> {
    let tree = scratch.join("image");
    let failed = |why| Error::Missing(format!("cannot make docker's image: {why}"));
    fs::create_dir(&tree).map_err(failed)?;
    fs::copy(binary::covey()?, tree.join("hello")).map_err(failed)?;
    let archive = scratch.join("image.tar");
    output(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).arg("hello"))?;
    Ok(archive)
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It ends its own daemons and containers when asked.
        let _ = kill(Pid::from_raw(self.daemon.id().cast_signed()), Signal::SIGTERM);
        let _ = self.daemon.wait();
        // This one mount it leaves over, and the directories of its cgroups.
        let _ = umount2(&self.scratch.path().join("run/netns/default"), MntFlags::MNT_DETACH);
        remove_cgroups();
    }
}

/// The directories of its cgroups that an engine leaves over.
pub(crate) fn remove_cgroups() {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut left: Vec<PathBuf> = hierarchies.map(|entry| entry.path().join("docker")).collect();
    left.push("/sys/fs/cgroup/docker".into());
    for directory in left {
        // Not empty: somebody else's engine.
        let _ = fs::remove_dir(directory);
    }
}
