//! What every machine needs and this machine may lack: an emulator and a stock kernel. Debian's packages are unpacked
//! into a cache beside the system, because installing the emulator may remove a newer one's tools, and a kernel that
//! is only tested is none of the boot loader's business. Fetched once.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::error::output_of;
use crate::{Error, Result};

/// Changes when the kit's content does, so that an older cache is not taken for it.
const VERSION: &str = "vm-kit-1";
const EMULATOR: &str = "qemu-system-x86";
const KERNEL: &str = "linux-image-cloud-amd64";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// An unpacked emulator and kernel.
#[derive(Debug)]
pub(super) struct Kit {
    root: PathBuf,
    /// The kernel's image.
    pub(super) kernel: PathBuf,
    /// The directory of its modules.
    pub(super) modules: PathBuf,
    /// This machine's static busybox.
    pub(super) busybox: PathBuf,
}

impl Kit {
    /// Takes the kit from the cache, or fetches it. Processes that want it at once wait for the first.
    pub(super) fn get() -> Result<Self> {
        let cache = cache();
        fs::create_dir_all(&cache).map_err(Error::file("make", &cache))?;
        let lock = cache.join(format!("{VERSION}.lock"));
        let file = File::create(&lock).map_err(Error::file("create", &lock))?;
        let _locked = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, why)| Error::file("lock", &lock)(why.into()))?;
        let root = cache.join(VERSION);
        if !root.exists() {
            fetch(&cache, &root)?;
        }
        Self::at(root)
    }

    fn at(root: PathBuf) -> Result<Self> {
        let kernel = only_entry(&root.join("boot"), "vmlinuz-")?;
        let modules = only_entry(&root.join("lib/modules"), "")?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or_else(|| Error::Missing("busybox is missing: apt-get install busybox-static".to_owned()))?;
        Ok(Self { root, kernel, modules, busybox })
    }

    /// The emulator with its own libraries and firmware, and no arguments of the machine yet.
    pub(super) fn qemu(&self) -> Command {
        let mut qemu = Command::new(self.root.join("usr/bin/qemu-system-x86_64"));
        qemu.env("LD_LIBRARY_PATH", self.root.join(LIBRARIES));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(self.root.join(firmware));
        }
        qemu
    }
}

/// `$COVEY_CACHE`, else the user's cache directory, else the checkout's target directory.
fn cache() -> PathBuf {
    if let Some(cache) = env::var_os("COVEY_CACHE") {
        return cache.into();
    }
    let home = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    match home {
        Some(home) => home.join("covey"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm-cache"),
    }
}

/// Downloads and unpacks into a directory beside `root`, which appears complete or not at all.
fn fetch(cache: &Path, root: &Path) -> Result<()> {
    let scratch = tempfile::tempdir_in(cache).map_err(Error::file("make a directory in", cache))?;
    let packages = packages().or_else(|_| {
        // A fresh image has no package lists.
        output_of(Command::new("apt-get").args(["-q", "update"]))?;
        packages()
    })?;
    download(scratch.path(), &packages).or_else(|_| {
        // The lists are older than the archive: what they name may be gone.
        output_of(Command::new("apt-get").args(["-q", "update"]))?;
        download(scratch.path(), &self::packages()?)
    })?;
    let unpacked = scratch.path().join("root");
    for entry in fs::read_dir(scratch.path()).map_err(Error::file("list", scratch.path()))? {
        let package = entry.map_err(Error::file("list", scratch.path()))?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            output_of(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        }
    }
    fs::rename(&unpacked, root).map_err(Error::file("move into place", root))
}

/// The emulator with those of its dependencies that this system lacks, and the kernel without any.
fn packages() -> Result<Vec<String>> {
    // It may say that it would remove something; nothing is installed, only unpacked.
    let simulated = output_of(Command::new("apt-get").args([
        "--simulate",
        "--no-install-recommends",
        "install",
        EMULATOR,
    ]))?;
    let mut packages: Vec<String> = simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect();
    // An emulator that is installed already is not in the list, and is needed all the same.
    if !packages.iter().any(|package| package == EMULATOR) {
        packages.push(EMULATOR.to_owned());
        packages.extend(["qemu-system-data".to_owned(), "seabios".to_owned()]);
    }
    let depends = output_of(Command::new("apt-cache").args(["depends", KERNEL]))?;
    let kernel = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .ok_or_else(|| Error::Missing(format!("apt-cache knows no kernel behind {KERNEL}")))?;
    packages.push(kernel.to_owned());
    Ok(packages)
}

fn download(into: &Path, packages: &[String]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.current_dir(into).args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages);
    output_of(&mut apt).map(drop)
}

/// The one entry of `directory` whose name starts with `prefix`.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    fs::read_dir(directory)
        .map_err(Error::file("list", directory))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .ok_or_else(|| {
            Error::Missing(format!(
                "nothing starts with {prefix:?} in {}; remove that cache",
                directory.display()
            ))
        })
}
