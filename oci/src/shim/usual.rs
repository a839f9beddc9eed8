//! The mounts that every container has, as far as they can be made before its namespaces are.
//!
//! libcontainer would make them too, asking the kernel some fifty times for each whether its path is what it seems; here
//! a path is opened once, and mounted on.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::{Mount, Spec};

use super::inside::Inside;
use super::mounts::SYSFS;
use super::start::failed;
use crate::bundle::Failure;

/// It can only be mounted by the container's first process. But where its directory is missing, libcontainer asks another
/// fifty times.
const QUEUES: &str = "/dev/mqueue";

/// Take them out of the spec, and make them. In the private mount namespace, with the image mounted; `base` is the host's
/// id of the container's 0.
pub(super) fn make(spec: &mut Spec, inside: &Inside, base: u32) -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let pseudoterminals = format!("newinstance,ptmxmode=0666,mode=0620,gid={}", base + 5);
    let memory = |mode| format!("mode={mode},size=65536k,uid={base},gid={base}");
    let usual = [
        ("/dev", "tmpfs", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, memory("755")),
        ("/dev/pts", "devpts", "devpts", safe, pseudoterminals),
        ("/dev/shm", "tmpfs", "tmpfs", safe | MsFlags::MS_NODEV, memory("1777")),
        // What it is restricted to, the mount is already.
        ("/sys", "bind", SYSFS, MsFlags::MS_BIND, String::new()),
    ];
    let mut left = spec.mounts_mut().take().unwrap_or_default();
    for (target, kind, source, flags, options) in usual {
        let path = Path::new(target);
        // The first only: whatever a job wants there comes after it, and on top.
        let usual = |mount: &Mount| mount.destination() == path && mount.typ().as_deref() == Some(kind);
        let Some(index) = left.iter().position(usual) else { continue };
        left.remove(index);
        let made = inside.make_dirs(path, base).and_then(|()| {
            let on = inside.at(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            let by_number = format!("/proc/self/fd/{}", on.as_raw_fd());
            Ok(mount(Some(source), by_number.as_str(), Some(kind), flags, Some(options.as_str()))?)
        });
        made.map_err(|e| failed(format!("mount {target}"), e, ""))?;
    }
    if left.iter().any(|mount| mount.destination() == Path::new(QUEUES)) {
        inside
            .make_dirs(Path::new(QUEUES), base)
            .map_err(|e| failed(format!("make the directory {QUEUES}"), e, ""))?;
    }
    spec.set_mounts(Some(left));
    Ok(())
}
