//! Memory that is not taken from who needs it, on v2.
//!
//! `memory.low` (a production run's is its limit) asks the kernel to take memory elsewhere first; when nothing is left
//! elsewhere that can be dropped, it is taken all the same, and production waits while its own programs are read from disk
//! again. `memory.min` forbids that: then the kernel must find who has to go, and by their scores that is one of the bands that
//! may be interrupted. What is forbidden may never be all there is: a machine that cannot take a page from anybody stands
//! still. So it is no more than what production is believed to need, and all of it together leaves a share of the node.
//!
//! A run's own has to be set, and that of each cgroup above it as far as the node's tree: the kernel hands down no more than
//! the one above has, and, unless the file system is mounted so, nothing by itself. v1 has nothing like it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::apply::{self, write};
use super::{Band, Error, Home, Tree, UNIFIED};

/// What the agent and the shims need must not be taken from them, nor what production has for the others' sake.
const KEPT_BYTES: u64 = 64 << 20;
/// Of five parts of the node so many, at most, for everybody together.
const PARTS: u64 = 4;
/// Moves of a floor.
const STEP: u64 = 1 << 20;

/// Keeps memory for production.
#[derive(Debug)]
pub struct Floor {
    tree: PathBuf,
    /// What is in force, by directory.
    now: BTreeMap<PathBuf, u64>,
}

/// What is kept in a new tree.
pub(super) fn protect(tree: &Path) -> Result<(), Error> {
    for dir in [tree.into(), Band::Monitoring.dir(tree), Band::Production.dir(tree)] {
        apply::protect(&Home::V2(dir), None)?;
    }
    for (dir, bytes) in
        [(tree.into(), 2 * KEPT_BYTES), (tree.join("shims"), KEPT_BYTES), (tree.join("agent"), KEPT_BYTES)]
    {
        if dir.exists() {
            write(&dir.join("memory.min"), &bytes.to_string())?;
        }
    }
    Ok(())
}

impl Tree {
    /// The floor below production; `None` on v1.
    pub fn floor(&self) -> Option<Floor> {
        let tree = self.tree_of(UNIFIED).filter(|tree| tree.join("memory.min").exists())?;
        Some(Floor { tree, now: BTreeMap::new() })
    }
}

impl Floor {
    /// Keep so many bytes for each of these runs of production, of a node that may use `capacity`.
    pub fn put(&mut self, runs: &[(Band, String, u64)], capacity: u64) -> Result<(), Error> {
        let wanted = floors(&self.tree, runs, capacity);
        self.now.retain(|dir, _| wanted.contains_key(dir));
        for (dir, bytes) in wanted {
            if self.now.get(&dir) == Some(&bytes) {
                continue;
            }
            match write(&dir.join("memory.min"), &bytes.to_string()) {
                // It has ended meanwhile, or is about to be.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                done => done?,
            }
            self.now.insert(dir, bytes);
        }
        Ok(())
    }
}

/// Each directory's, in whole steps, so that all together have no more than their share of the capacity.
fn floors(tree: &Path, runs: &[(Band, String, u64)], capacity: u64) -> BTreeMap<PathBuf, u64> {
    let most = (capacity / 5 * PARTS).saturating_sub(2 * KEPT_BYTES);
    let sum = runs.iter().map(|(.., bytes)| bytes).sum::<u64>().max(1);
    let mut floors: BTreeMap<PathBuf, u64> =
        [Band::Monitoring, Band::Production].map(|band| (band.dir(tree), 0)).into();
    let mut all = 2 * KEPT_BYTES;
    for (band, run, bytes) in runs.iter().filter(|(band, ..)| band.is_prod()) {
        let share = u128::from(*bytes) * u128::from(most.min(sum)) / u128::from(sum);
        let bytes = u64::try_from(share).unwrap_or(0) & !(STEP - 1);
        *floors.entry(band.dir(tree)).or_default() += bytes;
        floors.insert(band.dir(tree).join(run), bytes);
        all += bytes;
    }
    floors.insert(tree.to_path_buf(), all);
    floors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn run(band: Band, name: &str, mib: u64) -> (Band, String, u64) {
        (band, name.to_string(), mib * MIB)
    }

    #[test]
    fn no_more_than_four_fifths_of_the_node_are_kept() {
        let tree = Path::new("/t");
        let at = |floors: &BTreeMap<PathBuf, u64>, dir: &str| floors[&tree.join(dir)] / MIB;
        let runs = [
            run(Band::Production, "a", 300),
            run(Band::Production, "b", 100),
            run(Band::Monitoring, "c", 40),
        ];
        let floors_of = floors(tree, &runs, 1000 * MIB);
        let seen =
            ["production/a", "production/b", "production", "monitoring"].map(|dir| at(&floors_of, dir));
        assert_eq!(seen, [300, 100, 400, 40]);
        assert_eq!(floors_of[tree] / MIB, 440 + 128);
        // Scaled down, all in the same proportion.
        let floors_of = floors(tree, &runs, 435 * MIB);
        assert_eq!(
            ["production/a", "production/b", "monitoring/c"].map(|dir| at(&floors_of, dir)),
            [150, 50, 20]
        );
        assert!(floors_of[tree] <= 435 * MIB / 5 * 4);
        // A node that is too small for its own agent keeps nothing for others.
        assert_eq!(at(&floors(tree, &runs, 100 * MIB), "production"), 0);
        assert_eq!(at(&floors(tree, &[run(Band::Batch, "x", 5)], 1000 * MIB), "production"), 0);
    }

    #[test]
    fn what_moved_is_written_and_who_is_gone_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().to_path_buf();
        for name in ["", "production", "production/a", "monitoring"] {
            fs::create_dir_all(tree.join(name)).unwrap();
            fs::write(tree.join(name).join("memory.min"), "").unwrap();
        }
        let says = |name: &str| fs::read_to_string(tree.join(name).join("memory.min")).unwrap();
        let mut floor = Floor { tree: tree.clone(), now: BTreeMap::new() };
        let a = run(Band::Production, "a", 3);
        floor.put(&[a.clone(), run(Band::Production, "gone", 5)], 1000 * MIB).unwrap();
        assert_eq!(
            (says("production/a"), says("production")),
            ((3 * MIB).to_string(), (8 * MIB).to_string())
        );
        fs::write(tree.join("production/a/memory.min"), "").unwrap();
        floor.put(std::slice::from_ref(&a), 1000 * MIB).unwrap();
        assert_eq!((says("production/a").as_str(), says("production")), ("", (3 * MIB).to_string()));
    }
}
