//! Parts of the host's tree, as a container may see them: detached mounts, to be attached in its mount namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::syscalls::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use super::{Error, user_namespace};
use crate::bundle::IdMap;

/// A file or directory of the host, mounted nowhere yet.
pub(crate) struct Part(OwnedFd);

impl Part {
    /// With all that is mounted below it, as the host has it, and nothing of it can be changed.
    pub(crate) fn read_only(path: &Path) -> io::Result<Part> {
        let part = syscalls::clone_mounts(path)?;
        syscalls::restrict(part.as_fd(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
        Ok(Part(part))
    }

    /// A directory that the container owns: what user 0 owns on disk belongs to the root of the map.
    pub(crate) fn owned(path: &Path, idmap: Option<&IdMap>) -> Result<Part, Error> {
        let part = syscalls::clone_mount(path).map_err(Error::io("clone the mount of", path))?;
        if let Some(idmap) = idmap {
            let IdMap { host, size } = *idmap;
            let namespace = user_namespace::make(idmap);
            let namespace = namespace.map_err(|source| Error::UserNamespace { host, size, source })?;
            syscalls::set_idmap(part.as_fd(), namespace.as_fd())
                .map_err(|source| Error::IdmapUnsupported { path: path.to_owned(), source })?;
        }
        syscalls::restrict(part.as_fd(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
            .map_err(Error::io("restrict the mount of", path))?;
        Ok(Part(part))
    }

    /// On a file or directory of the present mount namespace.
    pub(crate) fn attach(&self, target: &Path) -> io::Result<()> {
        syscalls::attach(self.0.as_fd(), target)
    }
}
