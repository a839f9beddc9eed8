//! Production before the rest, over all hosts. A real host's kernel lets what may be interrupted wait while anything else
//! wants to run. Hosts of a lab share one kernel, to which each of them is as good as the next, so that the batch work of one
//! holds up the services of another: by a time slice for each host, many times what a short request takes. So the spare part
//! of all hosts' trees comes together below one directory of the lab's, which is idle beside all hosts.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, Lab, Result, host};
use crate::error::output_of;

/// What may be interrupted, below a node's tree, and below the lab.
const SPARE: &str = "spare";
/// It, and what a node makes below.
const BANDS: [&str; 3] = ["", "batch", "free"];
/// How a node's tree begins, in the cgroup of its agent.
const TREE: &str = "covey-";
/// What a cgroup is beside others; what is idle has no shares.
const RANKS: [&str; 2] = ["cpu.idle", "cpu.shares"];

impl Lab {
    /// Lets nothing interruptible of any host run while anything else of any host wants to, on all hosts; their agents have
    /// been started. What a node does with its cgroups goes on as before: its spare part of the CPU hierarchy is only in
    /// another place, where the host's own CPU limit does not bind it.
    ///
    /// # Errors
    /// When a host has no power or no tree, or CPU time has no v1 hierarchy of its own here.
    pub fn production_first(&self) -> Result<()> {
        let cpu = self.cgroups()?.of_cpu().map_err(order())?;
        let all = cpu.join(SPARE);
        fs::create_dir_all(&all).map_err(crate::Error::file("make", &all)).map_err(order())?;
        write(&all.join(RANKS[0]), "1").map_err(order())?;
        let state = self.state()?;
        self.hosts()?.iter().try_for_each(|name| {
            let mut mount = self.machine(&state, name)?.space.command("mount", None).map_err(order())?;
            let (own, shared) = (spare_of(&cpu.join(name)).map_err(order())?, all.join(name));
            let moved = mirror(&own, &shared);
            let moved = moved.and_then(|()| output_of(mount.arg("--bind").args([&shared, &own])));
            moved.map(drop).map_err(order())
        })
    }
}

fn order() -> impl FnOnce(crate::Error) -> Error {
    Error::step("put production before the rest on all hosts")
}

/// The spare part of the tree of the node on a host.
fn spare_of(host: &Path) -> crate::Result<PathBuf> {
    let agent = host.join(host::AGENT);
    let entries = fs::read_dir(&agent).map_err(crate::Error::file("read", &agent))?.flatten();
    let mut trees = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TREE));
    let tree = trees.next().map(|tree| tree.path().join(SPARE)).filter(|spare| spare.is_dir());
    tree.ok_or_else(|| crate::Error::Missing(format!("no node has a tree in {}", agent.display())))
}

/// Makes the same cgroups in another place.
fn mirror(from: &Path, to: &Path) -> crate::Result<()> {
    for (from, to) in BANDS.map(|band| (from.join(band), to.join(band))) {
        fs::create_dir_all(&to).map_err(crate::Error::file("make", &to))?;
        for file in RANKS {
            let rank = fs::read_to_string(from.join(file)).map_err(crate::Error::file("read", &from))?;
            if rank.trim() != "0" {
                write(&to.join(file), rank.trim())?;
                break;
            }
        }
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> crate::Result<()> {
    fs::write(file, text).map_err(crate::Error::file("write", file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_comes_last_in_one_place_does_so_in_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (host, to) = (dir.path().join("h1"), dir.path().join("spare/h1"));
        let from = host.join("agent/covey-1/spare");
        for (band, idle, shares) in [("", "1\n", "3\n"), ("batch", "0\n", "1024\n"), ("free", "0\n", "10\n")]
        {
            fs::create_dir_all(from.join(band)).unwrap();
            fs::write(from.join(band).join("cpu.idle"), idle).unwrap();
            fs::write(from.join(band).join("cpu.shares"), shares).unwrap();
        }
        assert_eq!(spare_of(&host).unwrap(), from);
        mirror(&from, &to).unwrap();
        let now = |file: &str| fs::read_to_string(to.join(file)).ok();
        assert_eq!([now("cpu.idle"), now("cpu.shares")], [Some("1".to_owned()), None]);
        assert_eq!([now("free/cpu.idle"), now("free/cpu.shares")], [None, Some("10".to_owned())]);
        assert!(spare_of(&dir.path().join("h2")).is_err(), "a host without a node has none");
    }
}
