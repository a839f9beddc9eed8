//! A virtual machine for one script: a stock Debian kernel under software emulation, pure cgroup v2, a disk with
//! busybox and the files that the test brings. It boots in seconds, runs the script, and is gone.

pub(crate) mod disk;
pub(crate) mod kit;
mod modules;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::error::tail;
use crate::{Error, Result};
use kit::Kit;

/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 40;

/// A machine that has not been started yet.
#[derive(Debug)]
pub struct Vm {
    files: Vec<(PathBuf, String)>,
    script: String,
    memory_mib: u32,
    disk_mib: u32,
    more: Option<PathBuf>,
    cpus: u32,
    modules: Vec<&'static str>,
}

/// What a machine's script did.
#[derive(Debug)]
pub struct Output {
    /// The script's exit status.
    pub status: i32,
    /// The script's stdout and stderr, as one text.
    pub said: String,
    /// What the kernel and init wrote to the console.
    pub console: String,
    /// From power on to power off.
    pub took: Duration,
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

impl Vm {
    /// Two CPUs, 1 GiB of memory, a disk of 1 GiB, an empty script.
    pub fn new() -> Self {
        Self {
            files: Vec::new(),
            script: String::new(),
            memory_mib: 1024,
            disk_mib: 1024,
            more: None,
            cpus: 2,
            modules: vec!["virtio_pci", "virtio_blk", "overlay"],
        }
    }

    /// Copies a file of this machine to `inside` (an absolute path), with its mode.
    pub fn file(mut self, outside: impl Into<PathBuf>, inside: &str) -> Self {
        self.files.push((outside.into(), inside.to_owned()));
        self
    }

    /// What busybox's `sh` runs as root, with a pure cgroup v2 tree at `/sys/fs/cgroup`.
    pub fn script(mut self, script: &str) -> Self {
        script.clone_into(&mut self.script);
        self
    }

    /// One more disk, `/dev/vdb`: that file's content, changed in place.
    pub fn disk(mut self, image: impl Into<PathBuf>) -> Self {
        self.more = Some(image.into());
        self
    }

    /// Loads one more kernel module (and what it depends on) at boot.
    pub fn module(mut self, name: &'static str) -> Self {
        self.modules.push(name);
        self
    }

    /// Boots, runs the script, powers off. The emulator ends with the calling thread, whatever happens.
    ///
    /// # Errors
    /// When the machine cannot be made or booted, or is not done in `timeout`. A script that fails is no error: see
    /// [`Output::status`].
    pub fn run(self, timeout: Duration) -> Result<Output> {
        let kit = Kit::get()?;
        let scratch = tempfile::Builder::new()
            .prefix("covey-vm-")
            .tempdir()
            .map_err(Error::file("make a directory in", std::env::temp_dir()))?;
        let at = |name: &str| scratch.path().join(name);
        disk::initramfs(&kit, &self.modules, disk::INITRAMFS_INIT, &at("initramfs"))?;
        disk::root(&kit, &self.files, &self.script, self.disk_mib, &at("disk"))?;

        let begun = Instant::now();
        let mut qemu = kit.qemu();
        // With a thread for each emulated CPU the guest sometimes stands still for ever, both CPUs spinning in its kernel.
        qemu.args(["-M", "pc", "-accel", "tcg,thread=single", "-cpu", "max"])
            .args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&kit.kernel)
            .arg("-initrd")
            .arg(at("initramfs"))
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 tsc=reliable random.trust_cpu=on mitigations=off",
            ])
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,cache=unsafe", at("disk").display()))
            .args(self.more.iter().flat_map(|image| {
                let drive = format!("file={},format=raw,if=virtio,cache=unsafe", image.display());
                ["-drive".to_owned(), drive]
            }))
            .arg("-serial")
            .arg(format!("file:{}", at("console").display()))
            .arg("-serial")
            .arg(format!("file:{}", at("said").display()));
        wait(&mut qemu, timeout, &at("console"))?;
        let took = begun.elapsed();

        let console = read(&at("console"))?;
        let said = read(&at("said"))?;
        let Some((said, status)) = split_status(&said) else {
            return Err(Error::Stopped { console: tail(&format!("{console}\n{said}"), CONSOLE_LINES) });
        };
        Ok(Output { status, said: said.to_owned(), console, took })
    }
}

/// Separates the script's words from the status that init writes last.
fn split_status(said: &str) -> Option<(&str, i32)> {
    let (said, last) = said.rsplit_once(disk::SENTINEL)?;
    Some((said, last.trim().parse().ok()?))
}

/// Runs the emulator until it ends or `timeout` has passed.
fn wait(qemu: &mut Command, timeout: Duration, console: &Path) -> Result<()> {
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe {
        qemu.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut child = qemu.spawn().map_err(|why| Error::Run { program: "qemu".to_owned(), why, hint: "" })?;
    let done = when_closed(&mut child);
    let in_time = done.recv_timeout(timeout).is_ok();
    if !in_time {
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(Error::file("wait for", "qemu"))?;
    if !in_time {
        return Err(Error::Timeout { after: timeout, console: tail(&read(console)?, CONSOLE_LINES) });
    }
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        program: "qemu".to_owned(),
        status: output.status,
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Hears when the child has closed its stdout, that is, has ended.
fn when_closed(child: &mut Child) -> mpsc::Receiver<()> {
    let (tell, done) = mpsc::channel();
    if let Some(mut out) = child.stdout.take() {
        std::thread::spawn(move || {
            let _ = out.read_to_end(&mut Vec::new());
            let _ = tell.send(());
        });
    }
    done
}

fn read(path: &Path) -> Result<String> {
    let bytes = match File::open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(Error::file("read", path))?;
            bytes
        }
        Err(_) if fs::exists(path).is_ok_and(|there| !there) => Vec::new(),
        Err(why) => return Err(Error::file("read", path)(why)),
    };
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}
