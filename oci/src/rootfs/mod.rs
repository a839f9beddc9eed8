//! A container's root filesystem: an overlay of an image's unpacked layers and a directory for what it writes.
//!
//! Called in a private mount namespace by a process of one thread. With a user namespace the layers are not
//! copied: overlayfs sees them through a detached, *idmapped* clone of the mount they are on (`mount_setattr`,
//! Linux 5.19 for overlayfs), on which what user 0 owns on disk is owned by the mapped root.

mod part;
mod syscalls;
mod user_namespace;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::bundle::IdMap;
use crate::container;
use crate::content::error::hint;
pub(crate) use part::Part;
use syscalls::FsContext;

/// Whom `id` of the image belongs to on the host. What is not mapped could belong to nobody in the container; its
/// root is the best owner then.
fn on_host(id: u32, idmap: Option<&IdMap>) -> u32 {
    match idmap {
        None => id,
        Some(map) if id < map.size => map.host.saturating_add(id),
        Some(map) => map.host,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller may mount without an idmap, and say that the container then shares the host's ids.
    #[error(
        "layers under {} cannot be idmapped: {source}; user namespaces need Linux 5.19 and a filesystem that \
         supports idmapped mounts (ext4, xfs, btrfs …)",
        path.display()
    )]
    IdmapUnsupported { path: PathBuf, source: io::Error },
    #[error("make a user namespace for the id map {host}+{size}: {source}")]
    UserNamespace { host: u32, size: u32, source: io::Error },
    #[error("the image has no layers: nothing to mount on {}", .0.display())]
    NoLayers(PathBuf),
    #[error("{doing} {}: {source}{}", path.display(), hint(source))]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("mount an overlay of {layers} layers on {}: {doing}: {source}{log}", target.display())]
    Overlay {
        target: PathBuf,
        layers: usize,
        doing: &'static str,
        source: io::Error,
        /// What the kernel says about it, if it does.
        log: String,
    },
}

impl Error {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, path: path.to_owned(), source }
    }
}

/// Mounts an overlay of `lowers` (topmost first) on `target`; writes go to `upper`.
///
/// The directories `upper`, `work` and `target` are made if they are missing; `upper` gets the owner and mode
/// of the image's root, `work` is emptied. The mount is `nodev` (the runtime mounts its own /dev) and *volatile*: fsync
/// in it does not wait for the disk, as what a container writes there does not outlive the machine's boot.
///
/// Nothing else stays mounted. The process must have left the host's mount namespace.
pub fn mount(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    idmap: Option<&IdMap>,
) -> Result<(), Error> {
    let Some(top) = lowers.first() else { return Err(Error::NoLayers(target.to_owned())) };
    prepare(top, upper, work, target, idmap)?;
    let clones = clones_for(lowers, idmap)?;
    let open = |path| syscalls::open_path(syscalls::CWD, path).map_err(Error::io("open", path));
    let overlay =
        Overlay { lowers: opened(lowers, &clones)?, writable: Some((open(upper)?, open(work)?)), target };
    overlay.mount_through(&clones, Some(work))
}

/// Mounts on `target`, read-only, what a container with such a root has left; as `mount` otherwise.
pub(crate) fn mount_left(
    lowers: &[PathBuf],
    upper: &Path,
    target: &Path,
    idmap: Option<&IdMap>,
) -> Result<(), Error> {
    let clones = clones_for(lowers, idmap)?;
    fs::create_dir_all(target).map_err(Error::io("make the directory", target))?;
    // What the container wrote has the host's owners already.
    let mut layers = vec![syscalls::open_path(syscalls::CWD, upper).map_err(Error::io("open", upper))?];
    layers.extend(opened(lowers, &clones)?);
    Overlay { lowers: layers, writable: None, target }.mount_through(&clones, None)
}

/// A user namespace with the map, for whoever is to see files as the container's users do.
pub(crate) fn user_namespace(map: &IdMap) -> io::Result<OwnedFd> {
    user_namespace::make(map)
}

fn clones_for<'a>(
    lowers: &'a [PathBuf],
    idmap: Option<&IdMap>,
) -> Result<BTreeMap<&'a Path, OwnedFd>, Error> {
    idmap.map_or_else(|| Ok(BTreeMap::new()), |idmap| idmapped_clones(lowers, idmap))
}

fn opened(lowers: &[PathBuf], clones: &BTreeMap<&Path, OwnedFd>) -> Result<Vec<OwnedFd>, Error> {
    lowers
        .iter()
        .map(|lower| {
            // Opened in the clone, the layer is seen with mapped owners.
            let opened =
                match parent_and_name(lower).and_then(|(parent, name)| Some((clones.get(parent)?, name))) {
                    Some((clone, name)) => syscalls::open_path(clone.as_fd(), name),
                    None => syscalls::open_path(syscalls::CWD, lower),
                };
            opened.map_err(Error::io("open the layer", lower))
        })
        .collect()
}

/// Whether layers below `dir` can be mapped into user namespaces here. Mounts nothing, and may be called anywhere.
pub fn can_map_ids(dir: &Path) -> Result<(), Error> {
    idmapped_clones(&[dir.join("layer")], &IdMap { host: 1 << 16, size: 1 << 16 }).map(drop)
}

/// The directories of one overlay, as descriptors: so that neither the number of layers nor the length of paths nor
/// colons and commas in them matter.
struct Overlay<'a> {
    lowers: Vec<OwnedFd>,
    /// Where writes go, and the scratch directory for them; none: it is read-only.
    writable: Option<(OwnedFd, OwnedFd)>,
    target: &'a Path,
}

impl Overlay<'_> {
    /// `work`: to be cleared before a second attempt.
    fn mount_through(&self, clones: &BTreeMap<&Path, OwnedFd>, work: Option<&Path>) -> Result<(), Error> {
        match self.mount() {
            // Before Linux 6.14 or so, overlayfs takes layers from attached mounts only.
            Err(Error::Overlay { source, .. })
                if !clones.is_empty() && source.raw_os_error() == Some(libc::EINVAL) =>
            {
                let _attached = attach(clones)?;
                // A failed attempt may leave its mark of a volatile overlay, which the next would take for a crashed one's.
                let marked = work.map(|work| work.join("work"));
                match marked.as_deref().map_or(Ok(()), fs::remove_dir_all) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("empty", work.unwrap_or(self.target))(error));
                    }
                    _ => {}
                }
                self.mount()
            }
            other => other,
        }
    }

    fn mount(&self) -> Result<(), Error> {
        let context =
            FsContext::open("overlay").map_err(|source| self.error("fsopen", source, String::new()))?;
        let context = &context;
        let error = |doing| move |source| self.error(doing, source, context.log());
        for (index, lower) in self.lowers.iter().enumerate() {
            match context.set_string("lowerdir+", &fd_path(lower.as_fd())) {
                // Linux before 6.5 does not know the option.
                Err(source) if index == 0 && source.raw_os_error() == Some(libc::EINVAL) => {
                    return self.mount_with_data();
                }
                other => other.map_err(error("add a layer"))?,
            }
        }
        if let Some((upper, work)) = &self.writable {
            context.set_string("upperdir", &fd_path(upper.as_fd())).map_err(error("set upperdir"))?;
            context.set_string("workdir", &fd_path(work.as_fd())).map_err(error("set workdir"))?;
            context.set_flag("volatile").map_err(error("set volatile"))?;
        }
        match context.create() {
            // Linux before 6.5 took the options unread, and finds out only now which of them it does not know.
            Err(source) if source.raw_os_error() == Some(libc::EINVAL) && context.log().is_empty() => {
                return self.mount_with_data();
            }
            other => other.map_err(error("create"))?,
        }
        let mount = context.mount_nodev().map_err(error("fsmount"))?;
        syscalls::attach(mount.as_fd(), self.target).map_err(error("attach"))
    }

    /// The way of older kernels. Its one page of options holds some 220 layers.
    fn mount_with_data(&self) -> Result<(), Error> {
        let lowers = self.lowers.iter().map(|lower| fd_path(lower.as_fd())).collect::<Vec<_>>().join(":");
        let mut data = format!("lowerdir={lowers}");
        if let Some((upper, work)) = &self.writable {
            let (upper, work) = (fd_path(upper.as_fd()), fd_path(work.as_fd()));
            data.push_str(&format!(",upperdir={upper},workdir={work},volatile"));
        }
        let flags = nix::mount::MsFlags::MS_NODEV;
        nix::mount::mount(Some("overlay"), self.target, Some("overlay"), flags, Some(data.as_str()))
            .map_err(|errno| self.error("mount", errno.into(), String::new()))
    }

    fn error(&self, doing: &'static str, source: io::Error, log: String) -> Error {
        Error::Overlay { target: self.target.to_owned(), layers: self.lowers.len(), doing, source, log }
    }
}

fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn parent_and_name(path: &Path) -> Option<(&Path, &Path)> {
    Some((path.parent()?, Path::new(path.file_name()?)))
}

fn prepare(top: &Path, upper: &Path, work: &Path, target: &Path, idmap: Option<&IdMap>) -> Result<(), Error> {
    // The directory itself may have served before (see `container::Stock`).
    match container::empty_tree(work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("empty", work)(error)),
        _ => {}
    }
    for (dir, mode) in [(upper, 0o755), (work, 0o700), (target, 0o755)] {
        let made = fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
        made.map_err(Error::io("make the directory", dir))?;
    }
    // The upper directory stands for the root directory that the container sees.
    let root = fs::metadata(top).map_err(Error::io("look at the layer", top))?;
    let (uid, gid) = (on_host(root.uid(), idmap), on_host(root.gid(), idmap));
    chown(upper, Some(uid), Some(gid)).map_err(Error::io("set the owner of", upper))?;
    let mode = Permissions::from_mode(root.mode() & 0o7777);
    fs::set_permissions(upper, mode).map_err(Error::io("set the mode of", upper))
}

/// Detached idmapped clones of the directories that hold the layers: in practice one, whatever the layers' number.
fn idmapped_clones<'a>(lowers: &'a [PathBuf], idmap: &IdMap) -> Result<BTreeMap<&'a Path, OwnedFd>, Error> {
    let namespace = user_namespace::make(idmap);
    let IdMap { host, size } = *idmap;
    let namespace = namespace.map_err(|source| Error::UserNamespace { host, size, source })?;
    let mut clones = BTreeMap::new();
    for (parent, _) in lowers.iter().filter_map(|lower| parent_and_name(lower)) {
        if clones.contains_key(parent) {
            continue;
        }
        let unsupported = |source: io::Error| Error::IdmapUnsupported { path: parent.to_owned(), source };
        let clone = syscalls::clone_mount(parent).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOSYS) => unsupported(source),
            _ => Error::io("clone the mount of", parent)(source),
        })?;
        syscalls::set_idmap(clone.as_fd(), namespace.as_fd()).map_err(unsupported)?;
        clones.insert(parent, clone);
    }
    Ok(clones)
}

/// Attaches each clone over the directory it was made of, for as long as the value lives.
fn attach<'a>(clones: &BTreeMap<&'a Path, OwnedFd>) -> Result<Vec<Attached<'a>>, Error> {
    let attach = |(path, clone): (&&'a Path, &OwnedFd)| {
        syscalls::attach(clone.as_fd(), path).map_err(Error::io("attach the idmapped layers on", path))?;
        Ok(Attached(path))
    };
    clones.iter().map(attach).collect()
}

struct Attached<'a>(&'a Path);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // The overlay has clones of its own. What cannot be detached goes with the namespace.
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    //! The ways of older kernels, which the kernel at hand still knows.
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const MAP: IdMap = IdMap { host: 700_000, size: 65_536 };

    fn own_mounts() {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    }

    /// Directories for an overlay of two layers, made and opened; the layers through a clone if there is one.
    fn directories(dir: &Path) -> (Vec<PathBuf>, [PathBuf; 3]) {
        let lowers: Vec<_> = ["layers/a", "layers/b"].iter().map(|name| dir.join(name)).collect();
        for lower in &lowers {
            fs::create_dir_all(lower).unwrap();
            fs::write(lower.join(lower.file_name().unwrap()), "").unwrap();
        }
        let dirs = ["upper", "work", "rootfs"].map(|name| dir.join(name));
        prepare(&lowers[0], &dirs[0], &dirs[1], &dirs[2], Some(&MAP)).unwrap();
        (lowers, dirs)
    }

    fn open(path: &Path) -> OwnedFd {
        syscalls::open_path(syscalls::CWD, path).unwrap()
    }

    fn mounts() -> usize {
        fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count()
    }

    #[test]
    fn options_in_one_page() {
        own_mounts();
        let dir = tempfile::tempdir().unwrap();
        let (lowers, [upper, work, target]) = directories(dir.path());
        let lowers = lowers.iter().map(|lower| open(lower)).collect();
        let overlay = Overlay { lowers, writable: Some((open(&upper), open(&work))), target: &target };
        overlay.mount_with_data().unwrap();
        assert!(target.join("a").exists() && target.join("b").exists());
    }

    #[test]
    fn idmapped_layers_attached_for_a_moment() {
        own_mounts();
        let dir = tempfile::tempdir().unwrap();
        let (lowers, [upper, work, target]) = directories(dir.path());
        let before = mounts();
        let clones = idmapped_clones(&lowers, &MAP).unwrap();
        let (parent, clone) = clones.first_key_value().unwrap();
        let in_clone = |name| syscalls::open_path(clone.as_fd(), Path::new(name)).unwrap();
        let lower_fds = vec![in_clone("a"), in_clone("b")];
        let overlay =
            Overlay { lowers: lower_fds, writable: Some((open(&upper), open(&work))), target: &target };
        let attached = attach(&clones).unwrap();
        assert_eq!((mounts(), fs::metadata(parent.join("a/a")).unwrap().uid()), (before + 1, MAP.host));
        overlay.mount_with_data().unwrap();
        drop(attached);
        assert_eq!((mounts(), fs::metadata(parent.join("a/a")).unwrap().uid()), (before + 1, 0));
        assert_eq!(fs::metadata(target.join("b")).unwrap().uid(), MAP.host);
    }
}
