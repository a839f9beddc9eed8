//! A container runtime alone, `crun` or `runc`, on a bundle like a covey task's.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use test_vms::{Error, Result, binary};

use super::{output, quiet};

/// The v2 tree of a hybrid host.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A runtime and the bundle that it is to run.
pub(crate) struct Runtime {
    /// With its version.
    pub(crate) name: String,
    program: &'static str,
    bundle: PathBuf,
}

impl Runtime {
    /// Makes a bundle below `scratch`.
    pub(crate) fn new(program: &'static str, scratch: &Path) -> Result<Self> {
        let said = output(Command::new(program).arg("--version"))?;
        let version = said.split_whitespace().nth(2).unwrap_or("?").to_owned();
        let bundle = scratch.join(format!("bundle-{program}"));
        let rootfs = bundle.join("rootfs");
        let failed = |why| Error::Missing(format!("cannot make a bundle for {program}: {why}"));
        fs::create_dir_all(&rootfs).map_err(failed)?;
        fs::copy(binary::covey()?, rootfs.join("hello")).map_err(failed)?;
        let runtime = Self { name: format!("{program} {version}"), program, bundle };
        // One that fails is found out before anything is measured.
        quiet(&mut runtime.run("probe")?)?;
        runtime.delete("probe")?;
        Ok(runtime)
    }

    /// Starts one container.
    pub(crate) fn run(&self, name: &str) -> Result<Command> {
        let path = self.bundle.join("config.json");
        fs::write(&path, spec(&self.id(name)).to_string())
            .map_err(|why| Error::Missing(format!("cannot write {}: {why}", path.display())))?;
        let mut command = self.command();
        command.args(["run", "-d", "--bundle"]).arg(&self.bundle).arg(self.id(name));
        Ok(command)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        output(self.command().args(["delete", "-f", &self.id(name)])).map(drop)
    }

    fn id(&self, name: &str) -> String {
        format!("covey-bench-{}-{name}", std::process::id())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        if self.program == "crun" && Path::new(UNIFIED).exists() {
            // Debian's crun takes no hybrid host: it gets a mount namespace without the v2 tree.
            // SAFETY: system calls on constants alone; nothing is allocated, nothing of the parent is touched.
            unsafe {
                command.pre_exec(|| Ok(without_unified()?));
            }
        }
        command
    }
}

/// For the whole of this process, if `program` needs that.
pub(super) fn hide_unified(program: &str) -> Result<()> {
    if program != "crun" || !Path::new(UNIFIED).exists() {
        return Ok(());
    }
    without_unified().map_err(|why| Error::Missing(format!("cannot hide {UNIFIED} from crun: {why}")))
}

fn without_unified() -> std::result::Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    umount2(UNIFIED, MntFlags::MNT_DETACH)
}

/// Host network, other namespaces of its own, the limits that a covey task has by default.
fn spec(id: &str) -> serde_json::Value {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "args": ["/hello", "--listen", "127.0.0.1:0"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
        },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
            "resources": {
                "memory": { "limit": 128 << 20 },
                "cpu": { "quota": 10_000, "period": 100_000 },
                "pids": { "limit": 1024 },
                "devices": [{ "allow": false, "access": "rwm" }],
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
