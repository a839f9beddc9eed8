//! Who comes first where there is not enough for all: weights of the bands for CPU and for block IO, and of a run in its band.

use std::fs;
use std::path::Path;

use super::apply::{self, write};
use super::block::BLKIO;
use super::{Band, Disk, Error, Home, Placement, SPARE, Tree, UNIFIED, number};

/// Shims move everyone's log bytes.
const SHIMS_WEIGHT: u64 = 40;
/// The agent comes before all that it looks after, and needs little.
const AGENT_WEIGHT: u64 = 400;

/// Of block IO, in the kernel's scale from 1 to 1000. Unlike CPU, a disk is given back only when a request has ended, so
/// that what may be interrupted has a small share rather than next to none: else its requests would wait for seconds, and
/// hold locks of the file system meanwhile.
const SPARE_IO: u64 = 40;
const SHIMS_IO: u64 = 200;
const AGENT_IO: u64 = 800;
/// The kernel's default, and what a run has that yields.
const RUN_IO: u64 = 100;
const YIELDING_IO: u64 = 10;

/// The files, by the kernel's policies that weigh: v2's io.cost and bfq, v1's bfq and cfq.
const IO_FILES: [&str; 4] = ["io.weight", "io.bfq.weight", "blkio.bfq.weight", "blkio.weight"];

impl Band {
    fn io_weight(self) -> u64 {
        match self {
            Band::Monitoring => 800,
            Band::Production => 400,
            Band::Batch => 100,
            Band::Free => 10,
        }
    }
}

/// Gives all that is there its weight of CPU.
pub(super) fn cpu(unified: bool, tree: &Path) -> Result<(), Error> {
    for band in Band::ALL {
        apply::weight(unified, &band.dir(tree), band.weight())?;
    }
    apply::yield_to_others(unified, &tree.join(SPARE))?;
    apply::weight(unified, &tree.join("shims"), SHIMS_WEIGHT)?;
    match tree.join("agent") {
        leaf if leaf.exists() => apply::weight(unified, &leaf, AGENT_WEIGHT),
        _ => Ok(()),
    }
}

/// The same of block IO, where the kernel weighs it.
pub(super) fn io(tree: &Path) {
    for band in Band::ALL {
        io_of(&band.dir(tree), band.io_weight());
    }
    for (name, weight) in [(SPARE, SPARE_IO), ("shims", SHIMS_IO), ("agent", AGENT_IO)] {
        io_of(&tree.join(name), weight);
    }
}

/// Nothing depends on it: what a kernel does not take is as if it had no such file.
fn io_of(dir: &Path, weight: u64) {
    for file in IO_FILES.map(|name| dir.join(name)) {
        if file.exists() {
            let _ = write(&file, &weight.to_string());
        }
    }
}

impl Placement {
    /// A run's weight beside the others of its band.
    pub(super) fn weigh_io(&self, yields: bool) {
        let v1 = self.trees.get(BLKIO).map(|tree| self.in_tree(tree));
        let v2 = || match self.home("io") {
            Some(Home::V2(dir)) => Some(dir),
            Some(Home::V1(_)) | None => None,
        };
        if let Some(dir) = v1.or_else(v2) {
            io_of(&dir, if yields { YIELDING_IO } else { RUN_IO });
        }
    }
}

impl Tree {
    /// Whether a disk's time is shared by these weights: its scheduler does so, or v2's `io.cost` is on for it.
    pub fn weighs_io(&self, disk: Disk) -> bool {
        let scheduler = fs::read_to_string(format!("/sys/dev/block/{disk}/queue/scheduler"));
        if scheduler.is_ok_and(|text| weighs(&text)) {
            return self.enforces("io");
        }
        let costs = self.above(UNIFIED).last().map(|root| root.join("io.cost.qos"));
        let costs = costs.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        costs.lines().any(|line| is_on(line, disk)) && self.enforces("io")
    }
}

/// Whether any disk here is shared by weight.
pub(super) fn any_disk() -> bool {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    // A device that nothing is behind (a loop that was one) keeps its scheduler.
    let mut there =
        disks.map(|disk| disk.path()).filter(|disk| number(&disk.join("size")).is_some_and(|size| size > 0));
    there.any(|disk| fs::read_to_string(disk.join("queue/scheduler")).is_ok_and(|text| weighs(&text)))
}

/// `mq-deadline [bfq] none`: the one in brackets is in use.
fn weighs(scheduler: &str) -> bool {
    scheduler.contains("[bfq]") || scheduler.contains("[cfq]")
}

/// `8:0 enable=1 ctrl=auto …`
fn is_on(line: &str, disk: Disk) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some(&disk.to_string()) && words.any(|word| word == "enable=1")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn production_comes_first_and_free_last() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        let at = |name: &str, file: &str| tree.join(name).join(file);
        let all = ["monitoring", "production", "spare", "spare/batch", "spare/free", "shims"];
        for name in all {
            fs::create_dir_all(tree.join(name)).unwrap();
            fs::write(at(name, "io.bfq.weight"), "").unwrap();
        }
        io(tree);
        let written = all.map(|name| fs::read_to_string(at(name, "io.bfq.weight")).unwrap());
        assert_eq!(written, ["800", "400", "40", "100", "10", "200"]);
        assert!(!at("production", "io.weight").exists(), "what the kernel has not is not made");
    }

    #[test]
    fn a_run_that_yields_weighs_less_and_as_much_again_when_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("production/sum");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("blkio.bfq.weight"), "").unwrap();
        let trees = [(BLKIO.to_string(), dir.path().to_path_buf())].into();
        let placement = Placement { trees, band: Band::Production, run: "sum".into() };
        for (yields, weight) in [(true, "10"), (false, "100")] {
            fs::write(run.join("blkio.bfq.weight"), "").unwrap();
            placement.weigh_io(yields);
            assert_eq!(fs::read_to_string(run.join("blkio.bfq.weight")).unwrap(), weight);
        }
    }

    #[test]
    fn schedulers_and_costs_of_disks() {
        assert!(weighs("none mq-deadline [bfq]\n") && weighs("noop deadline [cfq]\n"));
        assert!(!weighs("[none] mq-deadline kyber bfq\n") && !weighs(""));
        let disk = Disk { major: 8, minor: 16 };
        assert!(is_on("8:16 enable=1 ctrl=auto rpct=95.00", disk));
        assert!(!is_on("8:16 enable=0 ctrl=auto", disk) && !is_on("8:1 enable=1", disk));
    }
}
