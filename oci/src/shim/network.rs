//! The network namespace that was made for the container before its start, and the files that go with it.
//!
//! The shim joins the namespace, and libcontainer finds itself there: joining by path it would come too late, from a user namespace
//! that has no say in a network namespace of the host's.

use std::fs::File;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::mounts;
use super::start::failed;
use crate::bundle::{Bundle, Failure};

/// In the private mount namespace. A spec that names no network namespace by a path stays as it is.
pub(super) fn join(spec: &mut Spec) -> Result<(), Failure> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let made = |ns: &oci_spec::runtime::LinuxNamespace| {
        ns.typ() == LinuxNamespaceType::Network && ns.path().is_some()
    };
    let Some(at) = namespaces.iter().position(made) else { return Ok(()) };
    let path = namespaces.remove(at).path().clone().unwrap_or_default();
    linux.set_namespaces(Some(namespaces));

    let what = || format!("join the network namespace {}", path.display());
    let namespace = File::open(&path).map_err(|e| failed(what(), e, "the agent that made it is gone"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| failed(what(), e, ""))?;
    // A sysfs shows the links of the namespace in which it was mounted.
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), mounts::SYSFS, Some("sysfs"), quiet, None::<&str>)
        .map_err(|e| failed("mount a new sysfs", e, ""))
}

/// Brings the files that were written for the container to where its root may pass: the bundle's parents may be closed to
/// it.
pub(super) fn show_files(bundle: &Bundle, spec: &mut Spec) -> Result<(), Failure> {
    let dir = bundle.etc();
    let (mut found, to) = (false, Path::new(mounts::ETC));
    for shown in spec.mounts_mut().iter_mut().flatten() {
        let name = shown
            .source()
            .as_ref()
            .and_then(|source| source.strip_prefix(&dir).ok())
            .map(|name| to.join(name));
        if let Some(source) = name {
            found = true;
            shown.set_source(Some(source));
        }
    }
    if !found {
        return Ok(());
    }
    mount(Some(&dir), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| failed(format!("show {}", dir.display()), e, ""))
}
