//! The shim's private mount namespace, in which the container's root file system is put together.
//!
//! Whatever is mounted here goes away with the last process in it: nothing is ever left mounted on the host, however a
//! shim ends. In place of `/sys` there is a small tmpfs:
//!
//! ```text
//! /sys/rootfs      the overlay (any user may pass this path, whereas the bundle's parents may be closed to the user
//!                  namespace's root)
//! /sys/host        a fresh sysfs, which the container gets to see read-only
//! /sys/state       libcontainer's files
//! /sys/etc         the bundle's `etc`, which the container gets to see file by file
//! /sys/binds/N     volumes, files and devices of the host (`binds`)
//! /sys/fs/cgroup   empty, and no cgroup file system is mounted anywhere: libcontainer takes that for a v1 host
//!                  without controllers, and leaves cgroups to us
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

pub(super) const ROOTFS: &str = "/sys/rootfs";
pub(super) const SYSFS: &str = "/sys/host";
pub(super) const STATE: &str = "/sys/state";
pub(super) const ETC: &str = "/sys/etc";
pub(super) const BINDS: &str = "/sys/binds";

/// The way back to the host's mounts.
pub(super) struct Host {
    namespace: OwnedFd,
    /// Keeps the private namespace until the shim executes itself: taking it apart need not be waited for.
    _private: Option<OwnedFd>,
}

/// Which step failed, and how.
pub(super) type Failed = (&'static str, io::Error);

/// Leave the host's mount namespace for one with the layout above. The overlay is not mounted yet.
pub(super) fn enter() -> Result<Host, Failed> {
    let open = || File::open("/proc/self/ns/mnt").map(OwnedFd::from);
    let namespace = open().map_err(|e| ("open /proc/self/ns/mnt", e))?;
    let step = |what| move |errno: nix::Error| (what, io::Error::from(errno));
    const NONE: Option<&str> = None;

    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
    let host = Host { namespace, _private: open().ok() };
    let prepare = || {
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
            .map_err(step("make mounts private"))?;
        umount2("/sys", MntFlags::MNT_DETACH).map_err(step("hide /sys"))?;
        let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("covey"), "/sys", Some("tmpfs"), quiet, Some("mode=0755"))
            .map_err(step("mount a tmpfs on /sys"))?;
        for dir in [ROOTFS, SYSFS, STATE, ETC, "/sys/fs/cgroup"] {
            fs::create_dir_all(dir).map_err(|e| ("make directories in a tmpfs on /sys", e))?;
        }
        let flags = quiet | MsFlags::MS_RDONLY;
        mount(Some("sysfs"), SYSFS, Some("sysfs"), flags, NONE).map_err(step("mount a new sysfs"))
    };
    match prepare() {
        Ok(()) => Ok(host),
        Err(failed) => {
            host.back().map_err(|e| ("return to the host's mounts", e))?;
            Err(failed)
        }
    }
}

impl Host {
    /// Return to the host's mounts. What was opened before stays open.
    pub(super) fn back(&self) -> io::Result<()> {
        Ok(setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNS)?)
    }
}
