//! What each entry of a layer becomes on disk.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, mknodat};
use nix::unistd::{Gid, LinkatFlags, Uid, fchown, fchownat, linkat, symlinkat};

use super::Limits;
use super::archive::{Archive, Entry, Kind};
use super::fault::{Fault, shown};
use super::path;
use super::tree::{self, Tree};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The other names that AUFS kept for itself; nothing of the image.
const AUFS: &[u8] = b".wh..wh.";
/// How much memory the paths of directories may take until their times are set.
const DIRECTORY_PATHS: usize = 64 << 20;

pub(super) struct Applier<'l> {
    tree: Tree,
    limits: &'l Limits,
    buffer: Vec<u8>,
    /// Set at the end, since putting something into a directory changes its time.
    directory_times: Vec<(Vec<u8>, (i64, u32))>,
    directory_paths: usize,
}

impl<'l> Applier<'l> {
    pub(super) fn new(target: &Path, below: &[PathBuf], limits: &'l Limits) -> Result<Self, Fault> {
        let tree = Tree::new(target, below)?;
        Ok(Self { tree, limits, buffer: vec![0; 1 << 17], directory_times: Vec::new(), directory_paths: 0 })
    }

    pub(super) fn apply<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<'_, R>,
    ) -> Result<(), Fault> {
        if let Kind::Device { kind, major, minor } = entry.kind {
            return Err(Fault::Device { kind, major, minor });
        }
        let names = path::components(&entry.path, self.limits)?;
        let Some((name, parents)) = names.split_last() else {
            return match entry.kind {
                Kind::Directory => self.directory_entry(&self.tree.root(), &names, entry),
                _ => Err(Fault::Root),
            };
        };
        let parent = self.tree.directory(parents)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return match name.as_bytes() {
                OPAQUE => tree::set_opaque(&parent),
                reserved if reserved.starts_with(AUFS) => Ok(()),
                _ => self.whiteout(&parent, OsStr::from_bytes(hidden)),
            };
        }
        if matches!(entry.kind, Kind::Directory) {
            let dir = self.make_directory(&parent, name)?;
            return self.directory_entry(&dir, &names, entry);
        }
        if tree::stat(parent.as_raw_fd(), name).is_ok() {
            self.tree.remove(&parent, name)?;
        }
        match &entry.kind {
            Kind::File => return self.file(&parent, name, entry, archive),
            // A link has no attributes of its own.
            Kind::HardLink(target) => return self.hard_link(&parent, name, target),
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() > 4095 || target.contains(&0) {
                    return Err(Fault::SymlinkTarget);
                }
                let linked = symlinkat(target.as_slice(), Some(parent.as_raw_fd()), *name);
                linked.map_err(Fault::io("make the symbolic link"))?;
            }
            _ => {
                let mode = Mode::from_bits_truncate(0o600);
                let made = mknodat(Some(parent.as_raw_fd()), *name, SFlag::S_IFIFO, mode, 0);
                made.map_err(Fault::io("make the fifo"))?;
            }
        }
        let dir = Some(parent.as_raw_fd());
        let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        let owned = fchownat(dir, *name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW);
        owned.map_err(Fault::io("set the owner"))?;
        if matches!(entry.kind, Kind::Fifo) {
            // This call follows links, but the name is the fifo just made.
            let mode = Mode::from_bits_truncate(entry.mode);
            let set = fchmodat(dir, *name, mode, FchmodatFlags::FollowSymlink);
            set.map_err(Fault::io("set the mode"))?;
        }
        tree::set_time(parent.as_raw_fd(), name, entry.mtime)
    }

    /// Sets what can only be set when all entries are there.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        for (path, mtime) in std::mem::take(&mut self.directory_times) {
            let names = path::components(&path, self.limits)?;
            // A later entry may have replaced the directory by something else, which has its own time.
            if let Ok(dir) = self.tree.find(&names) {
                tree::set_time(dir.as_raw_fd(), OsStr::new(""), mtime)?;
            }
        }
        Ok(())
    }

    /// A whiteout hides what lower layers have. What this layer itself puts there stays, in either order; a
    /// directory then hides what lower layers have in it.
    fn whiteout(&mut self, parent: &OwnedFd, hidden: &OsStr) -> Result<(), Fault> {
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(Fault::Whiteout(hidden.to_string_lossy().into_owned()));
        }
        match tree::stat(parent.as_raw_fd(), hidden) {
            Err(Errno::ENOENT) => tree::make_whiteout(parent.as_raw_fd(), hidden),
            Err(error) => Err(Fault::io("look at what the whiteout hides")(error)),
            Ok(stat) if tree::kind(&stat) == SFlag::S_IFDIR => {
                let dir = tree::open_directory(parent.as_raw_fd(), hidden);
                tree::set_opaque(&dir.map_err(Fault::io("open the directory"))?)
            }
            Ok(_) => Ok(()),
        }
    }

    /// Makes or opens the directory `name`. A whiteout there turns into opacity; anything else is replaced.
    fn make_directory(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Fault> {
        let present = tree::stat(parent.as_raw_fd(), name).ok().map(|stat| tree::kind(&stat));
        if present != Some(SFlag::S_IFDIR) {
            if present.is_some() {
                self.tree.remove(parent, name)?;
            }
            tree::make_directory(parent.as_raw_fd(), name)?;
        }
        let dir = tree::open_directory(parent.as_raw_fd(), name).map_err(Fault::io("open the directory"))?;
        if present == Some(SFlag::S_IFCHR) {
            tree::set_opaque(&dir)?;
        }
        Ok(dir)
    }

    fn directory_entry(&mut self, dir: &OwnedFd, names: &[&OsStr], entry: &Entry) -> Result<(), Fault> {
        set_attributes(dir, entry)?;
        let path = path::join(names);
        self.directory_paths += path.len() + size_of::<(Vec<u8>, (i64, u32))>();
        if self.directory_paths > DIRECTORY_PATHS {
            return Err(Fault::ManyDirectories { limit: DIRECTORY_PATHS });
        }
        self.directory_times.push((path, entry.mtime));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        archive: &mut Archive<'_, R>,
    ) -> Result<(), Fault> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = tree::open(parent.as_raw_fd(), name, flags, Mode::from_bits_truncate(0o600));
        let mut file = std::fs::File::from(fd.map_err(Fault::io("make the file"))?);
        loop {
            let n = archive.read_content(&mut self.buffer)?;
            if n == 0 {
                break;
            }
            file.write_all(&self.buffer[..n]).map_err(Fault::io("write the file"))?;
        }
        set_attributes(&OwnedFd::from(file), entry)?;
        tree::set_time(parent.as_raw_fd(), name, entry.mtime)
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &OsStr, target: &[u8]) -> Result<(), Fault> {
        let refused = |fault| Fault::HardLinkPath { target: shown(target), source: Box::new(fault) };
        let missing = || Fault::HardLinkMissing { target: shown(target) };
        let names = path::components(target, self.limits).map_err(refused)?;
        let Some((target_name, target_parents)) = names.split_last() else {
            return Err(Fault::HardLinkKind { target: shown(target), kind: "a directory" });
        };
        let from = match self.tree.find(target_parents) {
            Ok(from) => from,
            Err(Errno::ENOENT) => return Err(missing()),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(self.tree.obstacle(target_parents).map_or_else(missing, refused));
            }
            Err(error) => return Err(Fault::io("open the directory of the hard link's target")(error)),
        };
        let stat = tree::stat(from.as_raw_fd(), target_name).map_err(|_| missing())?;
        match tree::kind(&stat) {
            SFlag::S_IFDIR => return Err(Fault::HardLinkKind { target: shown(target), kind: "a directory" }),
            SFlag::S_IFCHR => return Err(missing()),
            // A link to a symbolic link is another name of that link itself; nothing follows it.
            _ => {}
        }
        let flags = LinkatFlags::empty();
        let linked = linkat(Some(from.as_raw_fd()), *target_name, Some(parent.as_raw_fd()), name, flags);
        linked.map_err(Fault::io("make the hard link"))
    }
}

/// Owner first: changing it clears setuid bits and capabilities.
fn set_attributes(file: &OwnedFd, entry: &Entry) -> Result<(), Fault> {
    let owned = fchown(file.as_raw_fd(), Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    owned.map_err(Fault::io("set the owner"))?;
    let mode = Mode::from_bits_truncate(entry.mode);
    fchmod(file.as_raw_fd(), mode).map_err(Fault::io("set the mode"))?;
    for (name, value) in &entry.xattrs {
        let shown_name = OsString::from_vec(name.clone()).to_string_lossy().into_owned();
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            return Err(Fault::OverlayXattr(shown_name));
        }
        let needed = name == b"security.capability";
        // The rest (labels of another host's SELinux, what macOS adds) would mean nothing here.
        if !needed && !name.starts_with(b"user.") && !name.starts_with(b"system.posix_acl_") {
            continue;
        }
        match tree::set_xattr(file, name, value) {
            // Not every filesystem has notes and ACLs, and few images miss them; capabilities change what runs.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && !needed => {
                tracing::debug!("the filesystem of the unpacked layers has no {shown_name}");
            }
            set => set.map_err(|source| Fault::Xattr { name: shown_name, size: value.len(), source })?,
        }
    }
    Ok(())
}
