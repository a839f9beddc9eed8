//! What every machine needs and this one may lack: an emulator and a stock kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{Unpacked, behind};
use crate::{Error, Result};

/// The number changes with the kit's content, so that an older cache is not taken for it.
const NAME: &str = "vm-kit-2";
const EMULATOR: &str = "qemu-system-x86";
/// Listed besides, in case that the system has them: the emulator looks for its firmware in one place only.
const FIRMWARE: [&str; 2] = ["qemu-system-data", "seabios"];
const KERNEL: &str = "linux-image-cloud-amd64";

/// An unpacked emulator and kernel.
#[derive(Debug)]
pub(crate) struct Kit {
    unpacked: Unpacked,
    /// The kernel's image.
    pub(crate) kernel: PathBuf,
    /// The directory of its modules.
    pub(crate) modules: PathBuf,
    /// This machine's static busybox.
    pub(crate) busybox: PathBuf,
}

impl Kit {
    /// Whether it need not be fetched.
    pub(crate) fn is_here() -> bool {
        Unpacked::cached(NAME).is_some()
    }

    /// Takes the kit from the cache, or fetches it.
    pub(crate) fn get() -> Result<Self> {
        let unpacked = match Unpacked::cached(NAME) {
            Some(unpacked) => unpacked,
            None => Unpacked::get(NAME, &[FIRMWARE[0], FIRMWARE[1], &behind(KERNEL)?], &[EMULATOR])?,
        };
        let kernel = only_entry(&unpacked.root.join("boot"), "vmlinuz-")?;
        let modules = only_entry(&unpacked.root.join("lib/modules"), "")?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or_else(|| Error::Missing("busybox is missing: apt-get install busybox-static".to_owned()))?;
        Ok(Self { unpacked, kernel, modules, busybox })
    }

    /// The emulator with its own libraries and firmware, and no arguments of the machine yet.
    pub(crate) fn qemu(&self) -> Command {
        let mut qemu = self.unpacked.command("qemu-system-x86_64");
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(self.unpacked.root.join(firmware));
        }
        qemu
    }

    /// Any other program of it.
    pub(crate) fn program(&self, path: &str) -> Command {
        self.unpacked.command(&self.unpacked.root.join(path).display().to_string())
    }
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
