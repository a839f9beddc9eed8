//! What runs in a band of a node, as the kernel sees it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::usage::counted;

pub(crate) const ALL: [&str; 4] = ["monitoring", "production", "batch", "free"];

/// The band's directory in each hierarchy.
pub(crate) fn dirs(node: &Node, band: &str) -> Vec<PathBuf> {
    let mut dirs = node.cgroups.below();
    dirs.retain(|dir| dir.ends_with(band));
    dirs
}

/// All processes of its containers.
pub(crate) fn pids(node: &Node, band: &str) -> Vec<i32> {
    let runs = dirs(node, band).into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let mut pids: Vec<i32> = runs
        .filter_map(|run| fs::read_to_string(run.path().join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// CPU time that it has used until now.
pub(crate) fn cpu(node: &Node, band: &str) -> Result<Duration> {
    dirs(node, band)
        .iter()
        .find_map(|dir| counted(dir))
        .ok_or_else(|| Error::Missing(format!("no cgroup of band {band} counts CPU time")))
}

/// Stops all that is in it where it stands, whatever is made meanwhile, or lets it go on.
pub(crate) fn go_on(node: &Node, band: &str, on: bool) -> Result<()> {
    let freezes =
        dirs(node, band).into_iter().map(|dir| dir.join("cgroup.freeze")).find(|file| file.exists());
    let file = freezes.ok_or_else(|| Error::Missing(format!("no cgroup of band {band} can be frozen")))?;
    fs::write(&file, if on { "0" } else { "1" })
        .map_err(|why| Error::Missing(format!("cannot write {}: {why}", file.display())))
}
