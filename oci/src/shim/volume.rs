//! A volume's first content: what the image has where it is mounted, as with Docker.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::binds::Owner;
use super::inside::Inside;
use super::start::failed;
use crate::bundle::{Bind, Failure};

/// Make the volume's directory if it is missing. It appears whole, and is on disk before anything is written to it.
pub(super) fn fill(inside: &Inside, bind: &Bind, owner: Owner) -> Result<(), Failure> {
    let (volume, target) = (&bind.source, bind.target.display());
    let what = || format!("make the volume {target}");
    if volume.is_dir() {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (volume.parent(), volume.file_name()) else {
        return Err(failed(what(), format!("{} is no place for one", volume.display()), ""));
    };
    let image = match inside.at(&bind.target, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK) {
        Ok(dir) => Some(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let hint = "mount the volume on a directory";
            return Err(failed(what(), "the image has a file there, or on the way", hint));
        }
        Err(error) => return Err(failed(what(), error, "")),
    };
    let fresh = parent.join(format!(".{}.new", name.to_string_lossy()));
    let make = || {
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        fs::create_dir(&fresh)?;
        match &image {
            Some(image) => Copying { owner, links: HashMap::new() }.directory(&of(image), &fresh)?,
            // Nobody else is to write there.
            None => {
                chown(&fresh, Some(owner.uid), Some(owner.gid))?;
                fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
            }
        }
        sync_all(&fresh)?;
        fs::rename(&fresh, volume)?;
        File::open(parent)?.sync_all()
    };
    make().map_err(|e| failed(what(), e, "look at the space on the disk of the node's data directory"))
}

/// All of it on disk, before its name says that it is whole.
fn sync_all(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(dir.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Through the descriptor: no link on the way counts.
fn of(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

/// From the mounted image, where ids are the host's, to a directory that holds the container's.
struct Copying {
    owner: Owner,
    /// Files with several names: where the first was copied to.
    links: HashMap<u64, PathBuf>,
}

impl Copying {
    fn directory(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            self.entry(&from.join(&name), &to.join(&name))?;
        }
        self.settle(&fs::metadata(from)?, to)
    }

    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let meta = fs::symlink_metadata(from)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(to)?;
            return self.directory(from, to);
        }
        if meta.nlink() > 1
            && let Some(first) = self.links.get(&meta.ino())
        {
            return fs::hard_link(first, to);
        }
        if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
            let (uid, gid) = self.ids(&meta);
            lchown(to, Some(uid), Some(gid))?;
        } else if kind.is_file() {
            fs::copy(from, to)?;
            self.settle(&meta, to)?;
        } else if kind.is_fifo() {
            nix::unistd::mkfifo(to, Mode::from_bits_truncate(0o600))?;
            let (uid, gid) = self.ids(&meta);
            chown(to, Some(uid), Some(gid))?;
            fs::set_permissions(to, Permissions::from_mode(meta.mode() & 0o7777))?;
        } else {
            // A device could not be used there, and nobody listens on a socket in an image.
            return Ok(());
        }
        if meta.nlink() > 1 {
            self.links.insert(meta.ino(), to.to_path_buf());
        }
        Ok(())
    }

    /// Owner, then mode (the other way round setuid bits would be lost), then times.
    fn settle(&self, meta: &Metadata, to: &Path) -> io::Result<()> {
        let (uid, gid) = self.ids(meta);
        chown(to, Some(uid), Some(gid))?;
        fs::set_permissions(to, Permissions::from_mode(meta.mode() & 0o7777))?;
        File::open(to)?.set_times(FileTimes::new().set_modified(meta.modified()?))
    }

    /// What is nobody's in the container becomes its root's.
    fn ids(&self, meta: &Metadata) -> (u32, u32) {
        let base = self.owner.base();
        let size = self.owner.idmap.map_or(u32::MAX, |map| map.size);
        let inside = |id: u32| id.checked_sub(base).filter(|id| *id < size).unwrap_or(0);
        (inside(meta.uid()), inside(meta.gid()))
    }
}
