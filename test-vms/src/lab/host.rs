//! One host: powered on, it has namespaces, cgroups, a mounted disk and a cable; powered off, only its disk is left.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::space::{Kind, Space};
use super::state::{Files, Limits};
use super::{Error, Result, emulator, wait};
use crate::cgroups::Cgroups;
use crate::error::output_of;

/// The cgroup of what is run with `exec`, below that of the host.
const EXEC: &str = "exec";
/// The same for the agent: what a unit's cgroup is under systemd, so the node's root.
pub(super) const AGENT: &str = "agent";
/// The verb of covey-lab that runs a command in a virtual machine.
const PASS_ON: &str = "pass-on";
/// The cgroups of a lab are below this name and its own.
const LABS: &str = "covey-lab";

/// The cgroup of a lab, from the top of a hierarchy.
pub(super) fn lab_cgroup(lab: &str) -> String {
    format!("{LABS}/{lab}")
}

/// The name under which all labs are, in each hierarchy.
pub(super) fn all_labs() -> &'static str {
    LABS
}

/// A host with power.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    /// Where the host's files are, on the machine and in the host.
    pub(super) dir: PathBuf,
    pub(super) space: Space,
    pub(super) cgroups: Cgroups,
    pub(super) is_vm: bool,
}

impl Machine {
    /// The running host of that name.
    pub(super) fn running(lab: &Cgroups, files: &Files, name: &str, is_vm: bool) -> Self {
        let cgroups = lab.below_named(name);
        let space = Space::held(Kind::Host, cgroups.clone());
        Self { name: name.to_owned(), dir: files.host(name), space, cgroups, is_vm }
    }

    /// Powers a host on, without a cable yet; a virtual one has what its emulator needs then. Its disk is made when it has
    /// none.
    pub(super) fn boot(
        lab: &Cgroups,
        files: &Files,
        name: &str,
        limits: Limits,
        is_vm: bool,
    ) -> Result<Self> {
        let dir = files.host(name);
        let mounts = || -> crate::Result<Self> {
            fs::create_dir_all(dir.join("data")).map_err(crate::Error::file("make", &dir))?;
            let disk = disk(&dir, limits.disk_bytes, is_vm)?;
            let cgroups = lab.child(name)?;
            let overhead = if is_vm { emulator::OVERHEAD } else { 0 };
            cgroups.limit(limits.cpu_milli, limits.memory_bytes + overhead)?;
            let space = Space::make(Kind::Host, cgroups.clone(), name)?;
            let machine = Self { name: name.to_owned(), dir: dir.clone(), space, cgroups, is_vm };
            if is_vm {
                return Ok(machine);
            }
            // An empty /run and the lab's names are the host's own; the disk is seen by nobody else.
            let script = r#"
                mount -t tmpfs -o mode=755,size=64m run /run
                mount --bind "$1" /etc/hosts
                mount -o loop "$2" "$3""#;
            let mut shell = machine.space.command("/bin/sh", None)?;
            shell.args(["-ec", script, "sh"]).arg(files.names()).arg(&disk).arg(dir.join("data"));
            output_of(&mut shell)?;
            Ok(machine)
        };
        mounts().map_err(Error::step(format!("power host `{name}` on")))
    }

    /// Ends all processes at one moment, and with them namespaces and cgroups; returns when the disk is let go.
    pub(super) fn end(&self) -> Result<()> {
        self.cgroups.end().map_err(Error::step(format!("power host `{}` off", self.name)))?;
        released(&self.dir)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Whether its disk holds a node of a cell.
    pub(super) fn has_cell(&self) -> bool {
        if self.is_vm {
            let mut test = match self.command("test") {
                Ok(test) => test,
                Err(_) => return false,
            };
            let file = self.data().join("identity.json");
            return test
                .arg("-e")
                .arg(file)
                .stdin(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        }
        // Seen through a process that sees the disk.
        let holder = self.space.holder().unwrap_or_default();
        Path::new(&format!("/proc/{holder}/root{}/identity.json", self.data().display())).exists()
    }

    /// The agent's log on the machine.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// Which binary `covey` is on this host.
    pub(super) fn install(&self, covey: &Path) -> Result<()> {
        let (bin, new) = (self.dir.join("bin"), self.dir.join("bin/covey.new"));
        let link = || {
            fs::create_dir_all(&bin)?;
            let _ = fs::remove_file(&new);
            std::os::unix::fs::symlink(covey, &new)?;
            fs::rename(&new, bin.join("covey"))
        };
        Ok(link().map_err(crate::Error::file("link covey in", &bin))?)
    }

    /// The agent's binary.
    pub(super) fn covey(&self) -> PathBuf {
        self.dir.join("bin/covey")
    }

    /// A command on this host, beside the agent.
    pub(super) fn command(&self, program: &str) -> Result<Command> {
        self.in_cgroup(program, Some(EXEC))
    }

    /// The same without a part in what the host may use: it is the caller's.
    pub(super) fn visit(&self, program: &str) -> Result<Command> {
        self.in_cgroup(program, None)
    }

    /// The same where the agent belongs.
    pub(super) fn service(&self, program: &Path) -> Result<Command> {
        self.in_cgroup(&program.display().to_string(), Some(AGENT))
    }

    fn in_cgroup(&self, program: &str, cgroup: Option<&str>) -> Result<Command> {
        // Into a virtual machine it is passed on by this program, which ends with its power too.
        let runs = if self.is_vm { self.dir.join("lab").into_os_string() } else { program.into() };
        let mut command =
            self.space.command(runs, cgroup).map_err(Error::step(format!("enter host `{}`", self.name)))?;
        if self.is_vm {
            command.args([PASS_ON, "--", program]);
        }
        let mut path = OsString::from(self.dir.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
        // Neither the machine's agent nor its saved contexts are the host's.
        command
            .env("PATH", path)
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env_remove("COVEY_SOCKET")
            .current_dir("/");
        Ok(command)
    }
}

/// A file system in a sparse file. That of a namespace is without a journal: the machine does not lose power, and a crashed
/// host's disk is unmounted in good order, so it would only cost.
fn disk(dir: &Path, bytes: u64, is_vm: bool) -> crate::Result<PathBuf> {
    let (disk, new) = (dir.join("disk"), dir.join("disk.new"));
    if !disk.exists() {
        let file = File::create(&new).map_err(crate::Error::file("make", &new))?;
        file.set_len(bytes).map_err(crate::Error::file("size", &new))?;
        if is_vm {
            emulator::disk(&new)?;
        } else {
            let mut mke2fs = Command::new("mke2fs");
            mke2fs.args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal"]);
            output_of(mke2fs.args(["-E", "lazy_itable_init=1,nodiscard"]).arg(&new))?;
        }
        fs::rename(&new, &disk).map_err(crate::Error::file("make", &disk))?;
    }
    Ok(disk)
}

/// Waits until no loop device has a file below `dir`: the last unmount of a namespace comes after its last process.
pub(super) fn released(dir: &Path) -> Result<()> {
    let held = || -> Vec<String> {
        let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let backed = devices.filter(|device| {
            let file = fs::read_to_string(device.path().join("loop/backing_file"));
            file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(dir))
        });
        backed.map(|device| device.file_name().to_string_lossy().into_owned()).collect()
    };
    wait::until(format!("the disk in {} is let go", dir.display()), wait::SHORT, wait::OFTEN, || {
        let held = held();
        Ok(if held.is_empty() { Ok(()) } else { Err(format!("it is in use by {}", held.join(", "))) })
    })
}
