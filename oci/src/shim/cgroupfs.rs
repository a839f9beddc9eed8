//! What a container sees of its limits on a host with v1 controllers: its own cgroups below `/sys/fs/cgroup`, read-only and
//! at the usual paths, where language runtimes look for the memory and the CPUs that they may use. (On pure v2 hosts the
//! spec has a cgroup file system, and the kernel shows what it should.)
//!
//! libcontainer must not see a cgroup file system (see [`super::mounts`]), and a container's own root cannot attach one. So
//! the directories are cloned while the host's mounts are there, and attached in the container's mount namespace when that
//! is complete. A container without such a view runs as well: what a kernel refuses here is passed over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Spec;

use crate::cgroup::Placement;
use crate::rootfs::Part;

const NONE: Option<&str> = None;
const CGROUPS: &str = "/sys/fs/cgroup";
/// What runtimes read: a JVM believes nothing where one of them is missing. Each costs some 50 µs of a start.
const SHOWN: [&str; 4] = ["cpu", "cpuacct", "cpuset", "memory"];
/// A run has no cgroup of its own in this hierarchy: it is where the agent is.
const CPUSET: &str = "cpuset";

/// The run's cgroups, to be shown to its container.
pub(super) struct View {
    /// By the names of the controllers that are mounted together: `cpu,cpuacct`.
    parts: Vec<(String, Part)>,
    /// Controllers that have no directory of their own name, and where they are.
    links: Vec<(&'static str, String)>,
}

impl View {
    /// To be asked among the host's mounts, once the run's cgroups are made. `None` where there is nothing to be shown.
    pub(super) fn open(placement: &Placement, spec: &Spec) -> Option<View> {
        placement.trees.get("memory")?;
        if spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new(CGROUPS)) {
            return None;
        }
        let mut dirs: BTreeMap<PathBuf, Vec<&'static str>> = BTreeMap::new();
        for name in SHOWN {
            let dir = match placement.trees.get(name) {
                Some(tree) => Some(placement.in_tree(tree)),
                None => (name == CPUSET).then(own_cpuset).flatten(),
            };
            if let Some(dir) = dir {
                dirs.entry(dir).or_default().push(name);
            }
        }
        let (mut parts, mut links) = (Vec::new(), Vec::new());
        for (dir, names) in dirs {
            let joint = names.join(",");
            if names.len() > 1 {
                links.extend(names.into_iter().map(|name| (name, joint.clone())));
            }
            parts.push((joint, Part::read_only(&dir).ok()?));
        }
        Some(View { parts, links })
    }

    /// Show it to the container of this process, whose root file system is complete. The caller's thread, which must not
    /// share its root directory, is in the container's mount namespace afterwards.
    pub(super) fn attach(self, init: i32) -> io::Result<()> {
        setns(File::open(format!("/proc/{init}/ns/mnt"))?, CloneFlags::CLONE_NEWNS)?;
        let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), CGROUPS, Some("tmpfs"), quiet, Some("mode=0755,size=4k"))?;
        let root = Path::new(CGROUPS);
        for (name, part) in self.parts {
            let target = root.join(name);
            fs::create_dir(&target)?;
            part.attach(&target)?;
        }
        for (name, to) in self.links {
            std::os::unix::fs::symlink(to, root.join(name))?;
        }
        let closed = quiet | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NONE, CGROUPS, NONE, closed, NONE)?;
        // Nothing that is mounted there, by either side, is to be seen on the other.
        Ok(mount(NONE, CGROUPS, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?)
    }
}

/// By the usual place of the hierarchy: it matters to nobody but those who look for it there.
fn own_cpuset() -> Option<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.split_once(":cpuset:")).map(|(_, path)| path)?;
    let dir = Path::new(CGROUPS).join(CPUSET).join(own.trim_start_matches('/'));
    dir.join("cpuset.cpus").exists().then_some(dir)
}
