//! A cgroup namespace that begins where the container ends up.
//!
//! It has as its root the cgroups that its first process is in when it makes it, and on v1 that process is moved to the
//! run's at the very end. So it is not libcontainer that makes it but the process itself, just before it executes the
//! program: that takes a capability which the program does not have.

use std::collections::HashSet;
use std::io;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};

/// Taken from a spec, which had it.
#[derive(Clone, Copy)]
pub(super) struct CgroupNamespace {
    /// The program has the capability too.
    granted: bool,
}

/// By number, in the kernel's words: CAP_SYS_ADMIN.
const SYS_ADMIN: u32 = 21;

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
        if self.granted { Ok(()) } else { give_up(SYS_ADMIN) }
    }
}

/// Take a capability from the calling process, for good.
fn give_up(capability: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// Of 64 bits, in two parts.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both are what this version of the calls wants.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    if let Some(part) = sets.get_mut(capability as usize / 32) {
        let others = !(1 << (capability % 32));
        *part = Sets {
            effective: part.effective & others,
            permitted: part.permitted & others,
            inheritable: part.inheritable & others,
        };
    }
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })?;
    Ok(())
}
