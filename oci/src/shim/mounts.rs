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
//! /sys/fs/cgroup   the unified tree, read-only, with /dev/null in place of the file through which processes join it:
//!                  so libcontainer leaves cgroups to us, and asks only once. Where there is no unified tree, empty:
//!                  it takes that for a v1 host without controllers, after looking for each
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use crate::rootfs::Part;

pub(super) const ROOTFS: &str = "/sys/rootfs";
pub(super) const SYSFS: &str = "/sys/host";
pub(super) const STATE: &str = "/sys/state";
pub(super) const ETC: &str = "/sys/etc";
pub(super) const BINDS: &str = "/sys/binds";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Which step failed, and how.
pub(super) type Failed = (&'static str, io::Error);

const NONE: Option<&str> = None;
const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// The host's mounts, and what was made of them ahead.
pub(super) struct Ahead {
    host: OwnedFd,
    ahead: OwnedFd,
    unified: bool,
    /// The host's `mountinfo`, which polls as exceptional once it may have changed, and what was in it.
    changes: File,
    known: String,
    stirred: bool,
}

impl Ahead {
    /// Make the namespace. The caller stays in its own, the host's.
    pub(super) fn make() -> Result<Ahead, Failed> {
        let open = || File::open("/proc/self/ns/mnt").map(OwnedFd::from);
        let opened = |e| ("open /proc/self/ns/mnt", e);
        let host = open().map_err(opened)?;
        let mut changes = File::open("/proc/self/mountinfo").map_err(|e| ("open /proc/self/mountinfo", e))?;
        let known = again(&mut changes).map_err(|e| ("read /proc/self/mountinfo", e))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
        let made = arrange().and_then(|unified| Ok((unified, open().map_err(opened)?)));
        setns(host.as_fd(), CloneFlags::CLONE_NEWNS).map_err(step("return to the host's mounts"))?;
        let (unified, ahead) = made?;
        Ok(Ahead { host, ahead, unified, changes, known, stirred: false })
    }

    /// Whether the host has mounted or unmounted something since: a container may need what is there now. Much of what
    /// happens to mounts leaves no trace, as when other runtimes start their containers.
    pub(super) fn is_outdated(&mut self) -> bool {
        let mut fds = [PollFd::new(self.changes.as_fd(), PollFlags::POLLPRI)];
        // Each change is told once.
        let stirred = poll(&mut fds, PollTimeout::ZERO) != Ok(0) || self.stirred;
        self.stirred = false;
        stirred && again(&mut self.changes).map_or(true, |now| now != self.known)
    }

    /// Wait until something happens to the host's mounts, or `other` can be read.
    pub(super) fn wait(&mut self, other: BorrowedFd<'_>) {
        let changes = PollFd::new(self.changes.as_fd(), PollFlags::POLLPRI);
        let mut fds = [changes, PollFd::new(other, PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        self.stirred |= fds[0].any() == Some(true);
    }

    /// Leave the host's mounts for a copy of the prepared ones. No other thread may share the caller's root directory.
    pub(super) fn enter(&self) -> Result<(), Failed> {
        setns(self.ahead.as_fd(), CloneFlags::CLONE_NEWNS).map_err(step("join the prepared mounts"))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("copy the prepared mounts"))?;
        mount(Some("covey"), STATE, Some("tmpfs"), QUIET, Some("mode=0700"))
            .map_err(step("mount a tmpfs on /sys/state"))
    }

    /// The cgroup that libcontainer shall join, in vain.
    pub(super) fn no_cgroup(&self) -> Option<PathBuf> {
        self.unified.then(|| "/".into())
    }

    /// Return to the host's mounts. What was opened before stays open.
    pub(super) fn back(&self) -> io::Result<()> {
        Ok(setns(self.host.as_fd(), CloneFlags::CLONE_NEWNS)?)
    }
}

fn again(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn step(what: &'static str) -> impl FnOnce(nix::Error) -> Failed {
    move |errno| (what, io::Error::from(errno))
}

/// Whether there is a unified tree.
fn arrange() -> Result<bool, Failed> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(step("make mounts private"))?;
    let unified = unified();
    umount2("/sys", MntFlags::MNT_DETACH).map_err(step("hide /sys"))?;
    // Containers get their own of these.
    for below in mounts_below(&["/dev/", "/proc/"]) {
        let _ = umount2(below.as_str(), MntFlags::MNT_DETACH);
    }
    mount(Some("covey"), "/sys", Some("tmpfs"), QUIET, Some("mode=0755"))
        .map_err(step("mount a tmpfs on /sys"))?;
    for dir in [ROOTFS, SYSFS, STATE, ETC, BINDS, CGROUPS] {
        fs::create_dir_all(dir).map_err(|e| ("make directories in a tmpfs on /sys", e))?;
    }
    let flags = QUIET | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), SYSFS, Some("sysfs"), flags, NONE).map_err(step("mount a new sysfs"))?;
    Ok(unified.is_some_and(|tree| tree.attach(Path::new(CGROUPS)).and_then(|()| close_door()).is_ok()))
}

/// The host's unified tree.
fn unified() -> Option<Part> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    Part::read_only(Path::new(line.split(' ').nth(4)?)).ok()
}

fn close_door() -> io::Result<()> {
    let door = Path::new(CGROUPS).join("cgroup.procs");
    let closed = mount(Some("/dev/null"), &door, NONE, MsFlags::MS_BIND, NONE);
    if closed.is_err() {
        // Better none than one that processes are moved to.
        umount2(CGROUPS, MntFlags::MNT_DETACH)?;
    }
    Ok(closed?)
}

/// The deepest and latest first.
fn mounts_below(dirs: &[&str]) -> Vec<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mountinfo.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| dirs.iter().any(|dir| point.starts_with(dir))).map(String::from).collect()
}
