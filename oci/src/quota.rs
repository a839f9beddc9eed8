//! Project quotas: a run's writable layer held to its limit by the file system itself, where that is mounted so
//! (`prjquota`; ext4 with the features `quota` and `project`, XFS). See quotactl(2) and the kernel's `FS_IOC_FSSETXATTR`.
//!
//! All that is made in a directory with a project belongs to the project too. Who writes beyond its limit is told so
//! (`EDQUOT`), and may go on with less.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bundle::Bundle;

/// The quotas of one file system.
#[derive(Debug)]
pub struct Quotas {
    /// Some directory of it.
    on: File,
    next: AtomicU32,
}

/// Projects that we make are this and above: administrators count from below.
const FIRST: u32 = 1 << 30;
/// More starts a second than a node has, over years.
const IDS_A_SECOND: u64 = 8;

/// Of `quotactl`: commands, and that they are about projects.
const GET_STATE: u32 = 0x5805;
const SET: u32 = 0x0080_0008;
const PROJECTS: u32 = 2;
/// In the state's flags: limits of projects are in force.
const ENFORCED: u16 = 1 << 5;
/// The unit of limits, in bytes.
const BLOCK: u64 = 1024;
/// `FS_XFLAG_PROJINHERIT`: what is made below has the project too.
const INHERIT: u32 = 0x200;

/// The kernel's `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const SET_ATTRIBUTES: libc::Ioctl = 0x401c_5820;

/// The kernel's `struct fs_quota_stat`: what of it is of interest.
#[repr(C, align(8))]
struct State {
    version: i8,
    flags: u16,
    rest: [u8; 124],
}

impl Quotas {
    /// Of the file system of `dir`; `None` where it holds nobody to any.
    pub fn of(dir: &Path) -> Option<Quotas> {
        let on = File::open(dir).ok()?;
        let mut state = State { version: 1, flags: 0, rest: [0; 124] };
        control(&on, GET_STATE, 0, (&raw mut state).cast()).ok()?;
        // A number that nothing had of late, nor what is left of it: an earlier agent's were lower.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let next = AtomicU32::new((now * IDS_A_SECOND) as u32);
        (state.flags & ENFORCED != 0).then_some(Quotas { on, next })
    }

    /// A project that nothing belongs to.
    pub fn project(&self) -> u32 {
        FIRST | self.next.fetch_add(1, Ordering::Relaxed) & (FIRST - 1)
    }

    /// Hold a bundle's writable layer, in which nothing is yet, to so many bytes.
    pub fn hold(&self, bundle: &Bundle, project: u32, bytes: u64) -> io::Result<()> {
        self.limit(project, Some(bytes))?;
        // Overlay moves what it makes from the one to the other, which is not possible between projects.
        match fs::DirBuilder::new().mode(0o700).create(bundle.work()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        [bundle.upper(), bundle.work()].iter().try_for_each(|dir| belong(&File::open(dir)?, project))
    }

    /// Another limit for a project, or none any more.
    pub fn limit(&self, project: u32, bytes: Option<u64>) -> io::Result<()> {
        // SAFETY: all zeroes is a valid one.
        let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
        // 0 is no limit.
        limits.dqb_bhardlimit = bytes.map_or(0, |bytes| (bytes / BLOCK).max(1));
        limits.dqb_valid = libc::QIF_BLIMITS;
        control(&self.on, SET, project, (&raw mut limits).cast())
    }
}

fn belong(dir: &File, project: u32) -> io::Result<()> {
    let mut attributes = Attributes::default();
    // SAFETY: the structure is the kernel's, and outlives both calls.
    unsafe {
        ok(libc::ioctl(dir.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes).into())?;
        attributes.project = project;
        attributes.flags |= INHERIT;
        ok(libc::ioctl(dir.as_raw_fd(), SET_ATTRIBUTES, &raw const attributes).into())
    }
}

/// `quotactl_fd`, since Linux 5.14: it needs no device.
fn control(on: &File, command: u32, id: u32, about: *mut libc::c_void) -> io::Result<()> {
    let command = command << 8 | PROJECTS;
    // SAFETY: `about` is what the command takes.
    ok(unsafe { libc::syscall(libc::SYS_quotactl_fd, on.as_raw_fd(), command, id, about) })
}

fn ok(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn most_file_systems_hold_nobody_to_anything() {
        assert!(Quotas::of(Path::new("/proc")).is_none());
        assert!(Quotas::of(Path::new("/nowhere")).is_none());
        assert_eq!((size_of::<Attributes>(), size_of::<State>()), (28, 128));
    }

    #[test]
    fn projects_are_our_own_and_each_has_its_own() {
        let next = AtomicU32::new(u32::MAX - 1);
        let quotas = Quotas { on: File::open("/proc").unwrap(), next };
        let projects: Vec<u32> = (0..4).map(|_| quotas.project()).collect();
        assert!(projects.iter().all(|project| (FIRST..2 * FIRST).contains(project)), "{projects:?}");
        assert!(projects.windows(2).all(|two| two[0] != two[1]));
    }
}
