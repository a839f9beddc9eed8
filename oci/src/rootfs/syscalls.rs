//! The mount calls that libc has no wrappers for: fsopen(2), open_tree(2), mount_setattr(2) and their kin.

use std::ffi::{CStr, CString, c_long};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// For calls that take a directory and are given a whole path.
// SAFETY: AT_FDCWD is no descriptor that could be closed; the calls know it.
pub(super) const CWD: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

// From linux/mount.h.
const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
pub(super) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(super) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(super) const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const OPEN_TREE_CLONE: u32 = 1;

/// A filesystem being configured.
pub(super) struct FsContext(OwnedFd);

impl FsContext {
    pub(super) fn open(kind: &str) -> io::Result<Self> {
        let kind = CString::new(kind)?;
        // SAFETY: the pointer is to a string that ends.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    pub(super) fn set_string(&self, key: &str, value: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(&CString::new(key)?), Some(&CString::new(value)?))
    }

    pub(super) fn set_flag(&self, key: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(&CString::new(key)?), None)
    }

    pub(super) fn create(&self) -> io::Result<()> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)
    }

    pub(super) fn mount_nodev(&self) -> io::Result<OwnedFd> {
        let fd = self.0.as_raw_fd();
        // SAFETY: plain numbers.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV as u32) })
    }

    /// What the kernel has to say about the last failure, as a suffix of a message.
    pub(super) fn log(&self) -> String {
        let Ok(fd) = self.0.try_clone() else { return String::new() };
        let mut file = File::from(fd);
        let mut lines = Vec::new();
        let mut buffer = [0; 512];
        // Each read gives one line, `e text`; none left is an error.
        while let Ok(n @ 1..) = file.read(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..n]);
            lines.push(line.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned());
        }
        if lines.is_empty() { String::new() } else { format!(" ({})", lines.join("; ")) }
    }

    fn configure(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        let (fd, key, value) = (self.0.as_raw_fd(), pointer(key), pointer(value));
        // SAFETY: the pointers are null or to strings that end.
        done(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) })
    }
}

/// Opens a directory for its path only.
pub(super) fn open_path(dir: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the pointer is to a string that ends.
    owned(c_long::from(unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags) }))
}

/// A detached copy of the mount that `path` is on, with `path` as its root.
pub(super) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    open_tree(path, 0)
}

/// The same with all mounts below it.
pub(super) fn clone_mounts(path: &Path) -> io::Result<OwnedFd> {
    open_tree(path, libc::AT_RECURSIVE)
}

fn open_tree(path: &Path, more: i32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | (libc::O_CLOEXEC | more) as u32;
    // SAFETY: the pointer is to a string that ends.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Maps the owners on a detached mount as `namespace` does.
pub(super) fn set_idmap(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, MOUNT_ATTR_IDMAP, namespace.as_raw_fd() as u64, 0)
}

/// Adds `MOUNT_ATTR_…` to a detached mount and all below it.
pub(super) fn restrict(mounts: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    set_attributes(mounts, attributes, 0, libc::AT_RECURSIVE)
}

fn set_attributes(mount: BorrowedFd<'_>, attr_set: u64, userns_fd: u64, more: i32) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd };
    let (fd, size, flags) = (mount.as_raw_fd(), size_of_val(&attr), libc::AT_EMPTY_PATH | more);
    // SAFETY: the pointers are to a string that ends and to a structure of the size given.
    done(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attr, size) })
}

/// Attaches a detached mount on `target`.
pub(super) fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let (fd, target) = (mount.as_raw_fd(), c_path(target)?);
    let (empty, flags) = (c"".as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: the pointers are to strings that end.
    done(unsafe { libc::syscall(libc::SYS_move_mount, fd, empty, libc::AT_FDCWD, target.as_ptr(), flags) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn owned(result: c_long) -> io::Result<OwnedFd> {
    done(result)?;
    // SAFETY: the call just returned the descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

fn done(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
