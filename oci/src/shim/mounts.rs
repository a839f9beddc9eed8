//! The private mount namespaces in which containers' root file systems are put together.
//!
//! The fork server has one made ahead, with few mounts (each is copied twice and read many times for every container);
//! whoever builds a container takes a copy of it. Whatever is mounted there goes away with the last process in it: nothing
//! is ever left mounted on the host, however a shim ends. In place of `/sys` there is a small tmpfs:
//!
//! ```text
//! /sys/rootfs      the overlay (any user may pass this path, whereas the bundle's parents may be closed to the user
//!                  namespace's root)
//! /sys/host        a fresh sysfs, which the container gets to see read-only
//! /sys/state       libcontainer's files, in a tmpfs of each copy's own
//! /sys/etc         the bundle's `etc`, which the container gets to see file by file
//! /sys/binds/N     volumes, files and devices of the host (`binds`)
//! /sys/fs/cgroup   empty, and no cgroup file system is mounted anywhere: libcontainer takes that for a v1 host
//!                  without controllers, and leaves cgroups to us
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

pub(super) const ROOTFS: &str = "/sys/rootfs";
pub(super) const SYSFS: &str = "/sys/host";
pub(super) const STATE: &str = "/sys/state";
pub(super) const ETC: &str = "/sys/etc";
pub(super) const BINDS: &str = "/sys/binds";

/// Which step failed, and how.
pub(super) type Failed = (&'static str, io::Error);

const NONE: Option<&str> = None;
const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// The host's mounts, and what was made of them ahead.
pub(super) struct Ahead {
    host: OwnedFd,
    ahead: OwnedFd,
    /// The host's `mountinfo`, which polls as exceptional once it has changed.
    changes: File,
}

impl Ahead {
    /// Make the namespace. The caller stays in its own, the host's.
    pub(super) fn make() -> Result<Ahead, Failed> {
        let open = || File::open("/proc/self/ns/mnt").map(OwnedFd::from);
        let opened = |e| ("open /proc/self/ns/mnt", e);
        let host = open().map_err(opened)?;
        let changes = File::open("/proc/self/mountinfo").map_err(|e| ("open /proc/self/mountinfo", e))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
        let made = arrange().and_then(|()| open().map_err(opened));
        setns(host.as_fd(), CloneFlags::CLONE_NEWNS).map_err(step("return to the host's mounts"))?;
        Ok(Ahead { host, ahead: made?, changes })
    }

    /// Whether the host has mounted or unmounted something since: a container may need what is there now.
    pub(super) fn is_outdated(&self) -> bool {
        let mut fds = [PollFd::new(self.changes.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::ZERO) != Ok(0)
    }

    /// Leave the host's mounts for a copy of the prepared ones. No other thread may share the caller's root directory.
    pub(super) fn enter(&self) -> Result<(), Failed> {
        setns(self.ahead.as_fd(), CloneFlags::CLONE_NEWNS).map_err(step("join the prepared mounts"))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("copy the prepared mounts"))?;
        mount(Some("covey"), STATE, Some("tmpfs"), QUIET, Some("mode=0700"))
            .map_err(step("mount a tmpfs on /sys/state"))
    }

    /// Return to the host's mounts. What was opened before stays open.
    pub(super) fn back(&self) -> io::Result<()> {
        Ok(setns(self.host.as_fd(), CloneFlags::CLONE_NEWNS)?)
    }
}

fn step(what: &'static str) -> impl FnOnce(nix::Error) -> Failed {
    move |errno| (what, io::Error::from(errno))
}

fn arrange() -> Result<(), Failed> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(step("make mounts private"))?;
    umount2("/sys", MntFlags::MNT_DETACH).map_err(step("hide /sys"))?;
    // Containers get their own of these.
    for below in mounts_below(&["/dev/", "/proc/"]) {
        let _ = umount2(below.as_str(), MntFlags::MNT_DETACH);
    }
    mount(Some("covey"), "/sys", Some("tmpfs"), QUIET, Some("mode=0755"))
        .map_err(step("mount a tmpfs on /sys"))?;
    for dir in [ROOTFS, SYSFS, STATE, ETC, BINDS, "/sys/fs/cgroup"] {
        fs::create_dir_all(dir).map_err(|e| ("make directories in a tmpfs on /sys", e))?;
    }
    let flags = QUIET | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), SYSFS, Some("sysfs"), flags, NONE).map_err(step("mount a new sysfs"))
}

/// The deepest and latest first.
fn mounts_below(dirs: &[&str]) -> Vec<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mountinfo.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| dirs.iter().any(|dir| point.starts_with(dir))).map(String::from).collect()
}
