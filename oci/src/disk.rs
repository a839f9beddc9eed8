//! Disk that a run takes: its writable layer and its logs.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};

/// Directories below each other that are looked into; each holds a file descriptor.
const DEEPEST: usize = 512;

/// Bytes on disk of everything below these directories, a file with several names once. What changes or vanishes
/// meanwhile is counted as it is seen; a directory that is not there is empty. No link is followed: the container owns
/// what is walked here, and may be changing it.
pub fn used(dirs: &[&Path]) -> u64 {
    let mut seen = BTreeSet::new();
    dirs.iter().map(|dir| below(dir, &mut seen)).sum()
}

/// What the file system that holds `path` has free, in bytes: by it a change is seen without a walk.
pub fn free(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

/// What the file system that holds `path` has for users other than root, in bytes.
pub fn size(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let kept_back = stat.blocks_free().saturating_sub(stat.blocks_available());
    Some(stat.blocks().saturating_sub(kept_back) as u64 * stat.fragment_size() as u64)
}

const OPEN: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn below(root: &Path, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let mut bytes = 0;
    let Ok(root) = Dir::open(root, OPEN, Mode::empty()) else { return 0 };
    // Directories on the way, and the names of those in them that are still to be looked into.
    let mut way = vec![(root, Vec::<CString>::new())];
    if let Some((dir, below)) = way.last_mut() {
        bytes += list(dir, below, seen);
    }
    while let Some((dir, rest)) = way.last_mut() {
        let Some(name) = rest.pop() else {
            way.pop();
            continue;
        };
        let Ok(mut next) = Dir::openat(Some(dir.as_raw_fd()), name.as_c_str(), OPEN, Mode::empty()) else {
            continue;
        };
        let mut rest = Vec::new();
        bytes += list(&mut next, &mut rest, seen);
        if way.len() < DEEPEST {
            way.push((next, rest));
        }
    }
    bytes
}

/// What the entries of one directory take; the directories among them go to `below`.
fn list(dir: &mut Dir, below: &mut Vec<CString>, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let entries: Vec<(CString, Option<Type>)> = dir
        .iter()
        .flatten()
        .filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))
        .map(|entry| (entry.file_name().to_owned(), entry.file_type()))
        .collect();
    let mut bytes = 0;
    for (name, kind) in entries {
        let Ok(stat) = fstatat(Some(dir.as_raw_fd()), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue;
        };
        let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if directory && kind != Some(Type::File) {
            below.push(name);
        }
        if directory || stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn everything_below_is_counted_once_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, log) = (dir.path().join("upper"), dir.path().join("log"));
        fs::create_dir_all(upper.join("a/b/c")).unwrap();
        fs::create_dir_all(&log).unwrap();
        let empty = used(&[&upper, &log]);
        fs::write(upper.join("a/b/c/one"), vec![1; 300 << 10]).unwrap();
        fs::hard_link(upper.join("a/b/c/one"), upper.join("two")).unwrap();
        fs::write(log.join("stdout.0"), vec![1; 100 << 10]).unwrap();
        fs::write(dir.path().join("outside"), vec![1; 900 << 10]).unwrap();
        std::os::unix::fs::symlink(dir.path(), upper.join("a/out")).unwrap();
        // A hole takes nothing.
        fs::File::create(upper.join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(used(&[&upper, &log, Path::new("/nowhere")]) - empty, 400 << 10);
    }

    #[test]
    fn a_deep_tree_is_left_at_some_depth() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_path_buf();
        for _ in 0..1000 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        assert!(used(&[dir.path()]) > 0);
    }
}
