//! Paths inside a container's root file system, which no symbolic link can leave.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::{Component, Path};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

/// A mounted root file system.
pub(super) struct Inside(OwnedFd);

impl Inside {
    pub(super) fn open(root: &Path) -> io::Result<Inside> {
        Ok(Inside(File::open(root)?.into()))
    }

    pub(super) fn at(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // The kernel gives up where a path leads through `..` while anybody mounts or renames something: it is asked again.
        let mut tries = 0;
        let fd = loop {
            match openat2(self.0.as_raw_fd(), path, how) {
                Err(nix::Error::EAGAIN) if tries < 1000 => tries += 1,
                other => break other?,
            }
        };
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The text of a small regular file; `None` when it is missing, odd or too large to be meant.
    pub(super) fn read(&self, path: &Path) -> Option<String> {
        const MOST: u64 = 1 << 20;
        // Not blocked by a FIFO of that name.
        let file = File::from(self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).ok()?);
        if !file.metadata().ok().filter(|m| m.len() <= MOST)?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Take a symbolic link to nowhere out of the way of a file that is to be mounted there: images made on a host with
    /// systemd-resolved have such an `/etc/resolv.conf`.
    pub(super) fn clear_dangling(&self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let is_link = self.at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok();
        if !is_link || self.at(path, OFlag::O_PATH).is_ok() {
            return Ok(());
        }
        let parent = self.at(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(unlinkat(Some(parent.as_raw_fd()), name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Make the directory `path` and those above it, as far as they are missing.
    pub(super) fn make_dirs(&self, path: &Path, owner: u32) -> io::Result<()> {
        let mut parent = self.at(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let mut so_far = std::path::PathBuf::from("/");
        for part in path.components() {
            match part {
                Component::Normal(name) => {
                    so_far.push(name);
                    parent = match self.at(&so_far, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                        Ok(dir) => dir,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            mkdirat(Some(parent.as_raw_fd()), name, Mode::from_bits_truncate(0o755))?;
                            let dir = self.at(&so_far, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                            own(dir.as_fd(), owner)?;
                            dir
                        }
                        Err(error) => return Err(error),
                    };
                }
                Component::ParentDir => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Give an open file to the host's user and group `id`.
pub(super) fn own(fd: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    Ok(fchown(fd.as_raw_fd(), Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?)
}
