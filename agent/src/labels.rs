//! What a node says of itself without being asked.

use std::{collections::BTreeMap, path::Path};

/// `arch`, `kernel`, `os`, `cgroup`.
pub(crate) fn detect() -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Ok(uname) = nix::sys::utsname::uname() {
        labels.insert("arch".into(), uname.machine().to_string_lossy().into_owned());
        labels.insert("kernel".into(), number(&uname.release().to_string_lossy()));
    }
    if let Some(os) = os() {
        labels.insert("os".into(), os);
    }
    labels.insert("cgroup".into(), cgroup().into());
    labels
}

/// The part of a kernel's release that compares as a version.
fn number(release: &str) -> String {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    release[..end].trim_end_matches('.').to_string()
}

fn os() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    Some(id.trim_matches('"').to_string())
}

fn cgroup() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        "hybrid"
    } else if Path::new("/sys/fs/cgroup/memory").exists() {
        "v1"
    } else {
        "none"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_cut_to_its_version() {
        assert_eq!(number("6.1.0-18-cloud-amd64"), "6.1.0");
        assert_eq!(number("6.18.44"), "6.18.44");
        assert_eq!(number("5.15.-rc1"), "5.15");
    }
}
