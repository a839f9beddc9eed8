//! Which hierarchies the host has, where they are mounted, and where in them this process is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::UNIFIED;

/// The v1 controllers that are of use here. Others (cpuset, freezer …) are left alone: their cgroups would only have to
/// be made, joined and removed.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "blkio"];

/// One hierarchy as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where its topmost visible cgroup is.
    pub(super) mount: PathBuf,
    /// The cgroup that this process is in: `mount`, or below it.
    pub(super) own: PathBuf,
}

/// By v1 controller, or [`UNIFIED`]. Pure, so that hosts can be tested that this is not.
pub(super) fn hierarchies(mountinfo: &str, proc_cgroup: &str) -> BTreeMap<String, Hierarchy> {
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (&[_, _, _, root, mount, ..], &[kind, _, options]) = (&left[..], &right[..]) else { continue };
        let keys: Vec<&str> = match kind {
            "cgroup2" => vec![UNIFIED],
            "cgroup" => options.split(',').filter(|option| CONTROLLERS.contains(option)).collect(),
            _ => continue,
        };
        for key in keys {
            let Some(cgroup) = own_cgroup(proc_cgroup, key) else { continue };
            // Only a part of the hierarchy may be mounted (inside a container), and we may be outside of it.
            let Ok(below) = Path::new(cgroup).strip_prefix(root) else { continue };
            let mount = PathBuf::from(unescape(mount));
            let own = if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) };
            found.entry(key.to_string()).or_insert(Hierarchy { mount, own });
        }
    }
    found
}

/// The path behind a controller's line of `/proc/PID/cgroup`.
fn own_cgroup<'a>(proc_cgroup: &'a str, key: &str) -> Option<&'a str> {
    proc_cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = if key == UNIFIED { id == "0" } else { controllers.split(',').any(|c| c == key) };
        ours.then_some(path)
    })
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
