//! Block IO: the most that a run may ask of one disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::apply::{or_max, write};
use super::{Error, Home, Placement};

/// The v1 controller.
pub(super) const BLKIO: &str = "blkio";

/// The most of reads and of writes, each; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// The disk. Without one (a file system in memory, or over a network) nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

impl Io {
    /// Whether nothing is limited.
    pub fn is_free(&self) -> bool {
        self.iops.is_none() && self.bandwidth.is_none()
    }
}

/// A whole disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The driver.
    pub major: u32,
    /// The disk.
    pub minor: u32,
}

impl Disk {
    /// The disk that holds `path`, if one does. Of a partition it is the disk: the kernel limits no parts of it.
    pub fn of(path: &Path) -> Option<Disk> {
        let mut number = fs::metadata(path).ok()?.dev();
        if libc::major(number) == 0 {
            // Some file systems (btrfs, overlay) have a number of their own: their mount names the disk.
            let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
            number = fs::metadata(source(&mounts, path)?).ok()?.rdev();
        }
        let (major, minor) = (libc::major(number), libc::minor(number));
        let entry = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        if !entry.join("partition").exists() {
            return Some(Disk { major, minor });
        }
        let disk = fs::read_to_string(entry.parent()?.join("dev")).ok()?;
        let (major, minor) = disk.trim().split_once(':')?;
        Some(Disk { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What the deepest mount above `path` is made of.
fn source(mountinfo: &str, path: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let place = left.split(' ').nth(4)?;
        path.starts_with(place).then(|| (place.len(), right.split(' ').nth(1).unwrap_or_default()))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, source)| source.to_string())
}

impl Placement {
    /// Reads and writes, each. Nothing is written for a run that never had a limit.
    pub(super) fn limit_io(&self, io: &Io) -> Result<(), Error> {
        let Some(disk) = io.disk else { return Ok(()) };
        if let Some(tree) = self.trees.get(BLKIO) {
            let dir = self.in_tree(tree);
            for (file, most) in [("bps", io.bandwidth), ("iops", io.iops)] {
                for way in ["read", "write"] {
                    // 0 is no limit.
                    let file = dir.join(format!("blkio.throttle.{way}_{file}_device"));
                    write(&file, &format!("{disk} {}", most.unwrap_or(0)))?;
                }
            }
        } else if let Some(Home::V2(dir)) = self.home("io") {
            let (bytes, operations) = (or_max(io.bandwidth), or_max(io.iops));
            let text = format!("{disk} rbps={bytes} wbps={bytes} riops={operations} wiops={operations}");
            write(&dir.join("io.max"), &text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      2 1 0:40 /vol /data rw - btrfs /dev/sdb rw\n\
                      3 1 0:41 / /dat rw - btrfs /dev/sdc rw\n";
        assert_eq!(source(mounts, Path::new("/data/bundles")).unwrap(), "/dev/sdb");
        assert_eq!(source(mounts, Path::new("/var")).unwrap(), "/dev/sda1");
    }

    #[test]
    fn memory_is_no_disk() {
        assert_eq!(Disk::of(Path::new("/proc")), None);
        assert_eq!(Disk::of(Path::new("/nowhere")), None);
    }
}
