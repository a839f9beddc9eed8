//! Deleting a directory that a container has written to.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Delete `dir` and all in it; nothing there is fine.
///
/// A container can nest directories without end, and deleting by recursion would end with the stack, or with the
/// descriptors, of the process that does it. Here a directory below the first few levels is moved up before it is
/// looked into, so that paths and stack stay short whatever is found.
pub(super) fn delete(dir: &Path) -> io::Result<()> {
    match empty(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => Ok(()),
        other => other.and_then(|()| fs::remove_dir(dir)),
    }
}

/// Delete all that is in `dir`, in the same way.
pub(super) fn empty(dir: &Path) -> io::Result<()> {
    let mut heap = Heap { path: dir.join(".deleted"), is_there: false, next: 0 };
    heap.empty(dir, SHALLOW)?;
    if heap.is_there {
        loop {
            let mut found = false;
            for entry in fs::read_dir(&heap.path)? {
                found = true;
                let path = entry?.path();
                heap.empty(&path, SHALLOW)?;
                fs::remove_dir(&path)?;
            }
            if !found {
                break;
            }
        }
        fs::remove_dir(&heap.path)?;
    }
    Ok(())
}

/// Levels that are deleted where they are: as many as the kernel leaves below an overlay's `work`.
const SHALLOW: usize = 4;
/// Directories of a level that are remembered.
const FEW: usize = 64;

/// Where directories wait that are not empty. Most containers leave none so deep, and do without.
struct Heap {
    path: PathBuf,
    is_there: bool,
    next: u64,
}

impl Heap {
    /// Unlink the files in `dir` and a few directories down to so many levels; move the others that are not empty to the heap.
    fn empty(&mut self, dir: &Path, levels: usize) -> io::Result<()> {
        // Looked into once `dir` is closed: no more than one is open at any time.
        let mut full = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if path == self.path {
                // Left by a deletion that was cut short.
                self.is_there = true;
                continue;
            }
            // The entry itself, never what a link points at.
            if !entry.file_type()?.is_dir() {
                fs::remove_file(&path)?;
            } else if fs::remove_dir(&path).is_err() {
                if levels > 0 && full.len() < FEW {
                    full.push(path);
                } else {
                    self.take(&path)?;
                }
            }
        }
        for path in full {
            self.empty(&path, levels - 1)?;
            fs::remove_dir(&path)?;
        }
        Ok(())
    }

    fn take(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_there {
            match fs::DirBuilder::new().mode(0o700).create(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.is_there = true,
            }
        }
        loop {
            let to = self.path.join(self.next.to_string());
            self.next += 1;
            // The deletion that was cut short may have left directories of that name; empty ones would be replaced.
            match fs::rename(path, to) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn depth_does_not_matter_and_links_are_not_followed() {
        let around = tempfile::tempdir().unwrap();
        let kept = around.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let dir = around.path().join("bundle");
        fs::create_dir_all(dir.join("upper/a/b")).unwrap();
        // Left by a deletion that was cut short.
        fs::create_dir_all(dir.join(".deleted/0/full")).unwrap();
        std::os::unix::fs::symlink(&kept, dir.join("upper/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("upper/a/dangling")).unwrap();
        // Beyond any path's length, and beyond the descriptors that recursion would hold.
        let mut at = fs::File::open(dir.join("upper")).unwrap();
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o700);
        for _ in 0..5_000 {
            nix::sys::stat::mkdirat(Some(at.as_raw_fd()), "d", mode).unwrap();
            let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_RDONLY;
            let fd =
                nix::fcntl::openat(Some(at.as_raw_fd()), "d", flags, nix::sys::stat::Mode::empty()).unwrap();
            // SAFETY: the descriptor is new and nobody else's.
            at = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
        }
        delete(&dir).unwrap();
        assert!(!dir.exists() && kept.join("file").exists());
        delete(&dir).unwrap();
    }
}
