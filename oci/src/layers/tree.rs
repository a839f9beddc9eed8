//! The directory that a layer is unpacked into, reached by descriptors only.
//!
//! Every step starts at the root's descriptor and follows no link (`openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`), so that no order of entries, replaced directories included, leads out.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::fault::{Fault, shown};
use super::path;

/// The attribute that hides a directory's content in the layers below.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// Topmost first.
    below: Vec<OwnedFd>,
    /// The directory that was opened last: archives go through directories in order.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

impl Tree {
    /// Makes `target`, which must not exist.
    pub(super) fn new(target: &Path, below: &[PathBuf]) -> Result<Self, Fault> {
        fs::create_dir(target).map_err(Fault::io("make the layer's directory"))?;
        let open = |dir: &Path| File::open(dir).map(OwnedFd::from);
        let root = open(target).map_err(Fault::io("open the layer's directory"))?;
        // What the umask says is no property of an image.
        fchmod(root.as_raw_fd(), Mode::from_bits_truncate(0o755)).map_err(Fault::io("set the mode"))?;
        let below = below.iter().map(|dir| open(dir)).collect::<Result<_, _>>();
        let below = below.map_err(Fault::io("open the layer below"))?;
        Ok(Self { root: Rc::new(root), below, last: None })
    }

    pub(super) fn root(&self) -> Rc<OwnedFd> {
        self.root.clone()
    }

    /// Opens the directory `names`, without making or changing anything.
    pub(super) fn find(&self, names: &[&OsStr]) -> Result<OwnedFd, Errno> {
        beneath(self.root.as_raw_fd(), &path::join(names), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    /// Why [`Tree::find`] does not find `names`, if something is in the way.
    pub(super) fn obstacle(&self, names: &[&OsStr]) -> Option<Fault> {
        let mut dir = self.root();
        for depth in 1..=names.len() {
            match open_directory(dir.as_raw_fd(), names[depth - 1]) {
                Ok(next) => dir = Rc::new(next),
                Err(Errno::ENOTDIR) => return Some(in_the_way(&dir, &names[..depth])),
                Err(_) => return None,
            }
        }
        None
    }

    /// Opens the directory `names`; what is missing of it is made.
    pub(super) fn directory(&mut self, names: &[&OsStr]) -> Result<Rc<OwnedFd>, Fault> {
        if names.is_empty() {
            return Ok(self.root());
        }
        let path = path::join(names);
        if let Some((last, fd)) = &self.last
            && *last == path
        {
            return Ok(fd.clone());
        }
        let fd = match self.find(names) {
            Ok(fd) => Rc::new(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => self.make_directories(names)?,
            Err(error) => return Err(Fault::io("open the directory of the entry")(error)),
        };
        self.last = Some((path, fd.clone()));
        Ok(fd)
    }

    /// Goes one name at a time, to make what is missing and to say what is in the way.
    fn make_directories(&mut self, names: &[&OsStr]) -> Result<Rc<OwnedFd>, Fault> {
        let mut dir = self.root();
        for depth in 1..=names.len() {
            let name = names[depth - 1];
            let next = match open_directory(dir.as_raw_fd(), name) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => self.imply(&dir, &names[..depth])?,
                // The layer removes what was there and then puts something below: both hold.
                Err(Errno::ENOTDIR) if is_whiteout(&dir, name) => {
                    self.remove(&dir, name)?;
                    let fd = self.imply(&dir, &names[..depth])?;
                    set_opaque(&fd)?;
                    fd
                }
                Err(Errno::ENOTDIR) => return Err(in_the_way(&dir, &names[..depth])),
                Err(error) => return Err(Fault::io("open the directory of the entry")(error)),
            };
            dir = Rc::new(next);
        }
        Ok(dir)
    }

    /// Makes a directory that the archive has no entry for (yet), like the one in the layers below.
    fn imply(&self, parent: &OwnedFd, names: &[&OsStr]) -> Result<OwnedFd, Fault> {
        let like = self.directory_below(names)?;
        let name = names[names.len() - 1];
        make_directory(parent.as_raw_fd(), name)?;
        let fd = open_directory(parent.as_raw_fd(), name).map_err(Fault::io("open the directory"))?;
        if let Some(like) = like {
            let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
            fchown(fd.as_raw_fd(), Some(uid), Some(gid)).map_err(Fault::io("set the owner"))?;
            let mode = Mode::from_bits_truncate(like.st_mode & 0o7777);
            fchmod(fd.as_raw_fd(), mode).map_err(Fault::io("set the mode"))?;
        }
        Ok(fd)
    }

    /// The directory `names` as the layers below show it, if they do.
    fn directory_below(&self, names: &[&OsStr]) -> Result<Option<FileStat>, Fault> {
        let (name, parents) = match names.split_last() {
            Some(split) => split,
            None => return Ok(None),
        };
        'layers: for layer in &self.below {
            let mut dir = openat_dup(layer)?;
            let mut hides = is_opaque(&dir);
            for parent in parents {
                match open_directory(dir.as_raw_fd(), parent) {
                    Ok(fd) => dir = fd,
                    Err(Errno::ENOENT) if !hides => continue 'layers,
                    // Something else is there, or nothing: what lies below cannot be seen.
                    Err(_) => return Ok(None),
                }
                hides |= is_opaque(&dir);
            }
            match stat(dir.as_raw_fd(), name) {
                Ok(stat) => match kind(&stat) {
                    SFlag::S_IFDIR => return Ok(Some(stat)),
                    SFlag::S_IFLNK => return Err(Fault::ThroughSymlink { link: shown(&path::join(names)) }),
                    _ => return Ok(None),
                },
                Err(Errno::ENOENT) if !hides => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Removes whatever is called `name` in `parent`, with all that is in it.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<(), Fault> {
        // The descriptor may be of a directory that goes now.
        self.last = None;
        let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
        let removed = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        removed.map_err(Fault::io("remove what an earlier entry put there"))
    }
}

/// What the last of `names`, in `parent`, is instead of a directory.
fn in_the_way(parent: &OwnedFd, names: &[&OsStr]) -> Fault {
    let path = shown(&path::join(names));
    let found = names.last().and_then(|name| stat(parent.as_raw_fd(), name).ok());
    match found.is_some_and(|stat| kind(&stat) == SFlag::S_IFLNK) {
        true => Fault::ThroughSymlink { link: path },
        false => Fault::ThroughFile { parent: path },
    }
}

fn is_whiteout(parent: &OwnedFd, name: &OsStr) -> bool {
    stat(parent.as_raw_fd(), name).is_ok_and(|stat| kind(&stat) == SFlag::S_IFCHR)
}

/// Opens `path` below `dir`, through directories only.
fn beneath(dir: RawFd, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).resolve(resolve);
    let fd = openat2(dir, path, how)?;
    // SAFETY: the call just returned the descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn open_directory(dir: RawFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    open(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// Opens one name in `dir`, never through a link.
pub(super) fn open(dir: RawFd, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    let fd = openat(Some(dir), name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode)?;
    // SAFETY: the call just returned the descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn openat_dup(dir: &OwnedFd) -> Result<OwnedFd, Fault> {
    dir.try_clone().map_err(Fault::io("open the layer below"))
}

pub(super) fn make_directory(parent: RawFd, name: &OsStr) -> Result<(), Fault> {
    mkdirat(Some(parent), name, Mode::from_bits_truncate(0o700)).map_err(Fault::io("make the directory"))?;
    let fd = open_directory(parent, name).map_err(Fault::io("open the directory"))?;
    fchmod(fd.as_raw_fd(), Mode::from_bits_truncate(0o755)).map_err(Fault::io("set the mode"))
}

/// What is called `name` in `parent`, itself and not what it may point to.
pub(super) fn stat(parent: RawFd, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(Some(parent), name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The form in which overlayfs reads that a name is removed.
pub(super) fn make_whiteout(parent: RawFd, name: &OsStr) -> Result<(), Fault> {
    let made = mknodat(Some(parent), name, SFlag::S_IFCHR, Mode::empty(), 0);
    made.map_err(Fault::io("make the whiteout"))
}

pub(super) fn set_opaque(dir: &OwnedFd) -> Result<(), Fault> {
    set_xattr(dir, OPAQUE, b"y").map_err(Fault::io("mark the directory as opaque"))
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let Ok(name) = CString::new(OPAQUE) else { return false };
    let mut value = [0u8; 1];
    // SAFETY: the pointers are to a string that ends and to a buffer of the length given.
    let len =
        unsafe { libc::fgetxattr(dir.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    len == 1 && value == *b"y"
}

pub(super) fn set_xattr(file: &OwnedFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the pointers are to a string that ends and to `value.len()` bytes.
    let set =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets both times to `mtime`, as unpackers do: an access time is worth nothing here.
pub(super) fn set_time(parent: RawFd, name: &OsStr, mtime: (i64, u32)) -> Result<(), Fault> {
    let time = TimeSpec::new(mtime.0, i64::from(mtime.1));
    let name = if name.is_empty() { OsStr::from_bytes(b".") } else { name };
    let set = utimensat(Some(parent), name, &time, &time, UtimensatFlags::NoFollowSymlink);
    set.map_err(Fault::io("set the modification time"))
}
