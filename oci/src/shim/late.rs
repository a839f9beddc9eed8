//! A cgroup namespace that begins where the container ends up.
//!
//! It has as its root the cgroups that its first process is in when it makes it, and on v1 that process is moved to the
//! run's at the very end. So it is not libcontainer that makes it but the process itself, just before it executes the
//! program: that takes a capability which the program does not have.

use std::collections::HashSet;
use std::io;

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};

use super::capability;

/// Taken from a spec, which had it.
#[derive(Clone, Copy)]
pub(super) struct CgroupNamespace {
    /// The program has the capability too.
    granted: bool,
}

/// Whether the container gets a file system that shows the namespace.
pub(super) fn is_shown(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == Some("cgroup2"))
}

impl CgroupNamespace {
    /// Leave it to the container's first process, and the capability until then. It is not among those that an execve
    /// may keep. Not where the container gets a file system that shows the namespace: it is needed earlier there, and there
    /// nobody is moved.
    pub(super) fn take(spec: &mut Spec) -> Option<CgroupNamespace> {
        if is_shown(spec) {
            return None;
        }
        let linux = spec.linux_mut().as_mut()?;
        let mut namespaces = linux.namespaces().clone()?;
        let before = namespaces.len();
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Cgroup);
        if namespaces.len() == before {
            return None;
        }
        linux.set_namespaces(Some(namespaces));
        let process = spec.process_mut().as_mut()?;
        let mut capabilities = process.capabilities().clone()?;
        let with = |set: &Option<HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(Capability::SysAdmin);
            Some(set)
        };
        let granted = capabilities.effective().iter().flatten().any(|held| *held == Capability::SysAdmin);
        let (permitted, effective) = (with(capabilities.permitted()), with(capabilities.effective()));
        capabilities.set_permitted(permitted).set_effective(effective);
        process.set_capabilities(Some(capabilities));
        Some(CgroupNamespace { granted })
    }

    pub(super) fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWCGROUP)?;
        if self.granted { Ok(()) } else { capability::give_up(capability::SYS_ADMIN) }
    }
}
