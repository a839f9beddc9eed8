//! The node's cgroups: where a run's are, what limits they carry, and how they end.
//!
//! libcontainer is kept away from cgroups (see `shim::mounts`): one small implementation of our own serves v1, hybrid
//! and v2 hosts, whose hierarchies may each start at another directory, and lets limits be set when the container is
//! built but not yet started, so that neither does building it count against them nor can it be throttled.

mod alarm;
mod apply;
mod block;
mod ceiling;
mod change;
mod devices;
mod floor;
mod gauge;
mod host;
mod nest;
mod oom;
mod tree;
mod weigh;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::pidfd;

pub use devices::Device;
pub(crate) use nest::Nest;

pub use alarm::{Alarm, Woken};
pub use block::{Disk, Io};
pub use ceiling::Ceiling;
pub use floor::Floor;
pub use gauge::{Gauge, Memory};
pub use oom::OutOfMemory;
pub use tree::{Capacity, Tree, Warning};

/// The key of the v2 hierarchy in [`Placement::trees`].
pub const UNIFIED: &str = "unified";

/// Below a node's tree: the bands that may be interrupted, batch and free.
pub const SPARE: &str = "spare";

/// The key of v1's controller of devices.
const DEVICES: &str = "devices";

/// A cgroup could not be made, changed, emptied or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {op} cgroup {path}: {source}")]
    Io {
        /// make, join, write …
        op: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A memory limit below what the container already uses.
    #[error("a memory limit of {limit} bytes is less than starting a container takes ({path}): {source}")]
    MemoryTooSmall {
        /// The limit.
        limit: u64,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A memory limit below what a running container uses and cannot be made to give back.
    #[error("memory cannot be lowered to {limit} bytes while it uses {used} bytes that it cannot do without")]
    MemoryInUse {
        /// The limit.
        limit: u64,
        /// What it uses.
        used: u64,
    },
    /// Killed processes that do not end: they hang in the kernel, on a disk or network file system that is gone.
    #[error("processes in cgroup {path} do not die: {pids:?}")]
    Undead {
        /// The directory.
        path: PathBuf,
        /// Some of them.
        pids: Vec<i32>,
    },
}

/// The four bands, as far as cgroups are concerned: directories with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Band {
    /// Watches the others.
    Monitoring,
    /// What people wait for.
    Production,
    /// What may wait.
    Batch,
    /// What gets the rest.
    Free,
}

impl Band {
    /// All of them, the strongest first.
    pub const ALL: [Band; 4] = [Band::Monitoring, Band::Production, Band::Batch, Band::Free];

    /// The directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Band::Monitoring => "monitoring",
            Band::Production => "production",
            Band::Batch => "batch",
            Band::Free => "free",
        }
    }

    /// Whether what is in it is never interrupted for others.
    pub fn is_prod(self) -> bool {
        matches!(self, Band::Monitoring | Band::Production)
    }

    /// Its directory in a node's tree.
    pub(crate) fn dir(self, tree: &Path) -> PathBuf {
        if self.is_prod() { tree.join(self.name()) } else { tree.join(SPARE).join(self.name()) }
    }

    /// CPU weight against those beside it, in cgroup v2's scale (100 is the kernel's default). What is idle by class
    /// weighs 0.3 there, of which production that never rests shall leave it a percent.
    fn weight(self) -> u64 {
        match self {
            Band::Monitoring => 40,
            Band::Production => 20,
            Band::Batch => 100,
            Band::Free => 2,
        }
    }
}

/// What a container may use at most; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU: both the most it gets and its weight against its neighbours.
    pub cpu_milli: Option<u64>,
    /// Memory in bytes; swap is never added to it.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Block IO.
    #[serde(default, skip_serializing_if = "Io::is_free")]
    pub io: Io,
    /// It runs when nobody beside it in its band wants to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yields: bool,
}

/// Where the cgroups of one run are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// By v1 controller, or [`UNIFIED`]: the node's tree in that hierarchy (an absolute path).
    pub trees: BTreeMap<String, PathBuf>,
    /// The run's band.
    pub band: Band,
    /// The run's name.
    pub run: String,
}

/// A controller's directory, in the dialect of its hierarchy.
enum Home {
    V1(PathBuf),
    V2(PathBuf),
}

impl Placement {
    pub(crate) fn in_tree(&self, tree: &Path) -> PathBuf {
        tree.join(self.band.name()).join(&self.run)
    }

    /// The run's directories; controllers that are mounted together share one.
    pub fn dirs(&self) -> BTreeSet<PathBuf> {
        self.trees.values().map(|tree| self.in_tree(tree)).collect()
    }

    /// Stop everything in the run's cgroups where it stands, or let it go on. Only the unified tree can; whether it could.
    pub fn freeze(&self, freeze: bool) -> bool {
        let Some(tree) = self.trees.get(UNIFIED) else { return false };
        fs::write(self.in_tree(tree).join("cgroup.freeze"), if freeze { "1" } else { "0" }).is_ok()
    }

    /// Where `controller` works for this run: its v1 hierarchy if it has one, else the unified one if it is enabled.
    fn home(&self, controller: &str) -> Option<Home> {
        if let Some(tree) = self.trees.get(controller) {
            return Some(Home::V1(self.in_tree(tree)));
        }
        let dir = self.in_tree(self.trees.get(UNIFIED)?);
        let enabled = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
        enabled.split_whitespace().any(|c| c == controller).then_some(Home::V2(dir))
    }

    /// Make the run's cgroups, empty and without limits.
    pub fn create(&self) -> Result<(), Error> {
        for dir in self.dirs() {
            fs::create_dir_all(&dir).map_err(|source| Error::Io { op: "make", path: dir.clone(), source })?;
        }
        Ok(())
    }

    /// Make the run's cgroups, and let those in it use these devices beside the usual ones. For a placement that was made
    /// for it.
    pub fn allow(&self, more: &[Device]) -> Result<(), Error> {
        self.create()?;
        let dir = |key| self.trees.get(key).map(|tree| self.in_tree(tree));
        let v1 = dir(DEVICES).map(|dir| devices::restrict_v1(&dir, more));
        let v2 = dir(UNIFIED).map(|dir| devices::restrict_v2(&dir, more));
        // As for the bands: one that works is enough, and where none does nothing is forbidden.
        let done: Vec<_> = v1.into_iter().chain(v2).collect();
        if done.iter().any(Result::is_ok) { Ok(()) } else { done.into_iter().collect() }
    }

    /// The way into the run's cgroups, to be taken later, from a mount namespace that has no cgroups too.
    pub(crate) fn doors(&self) -> Result<Doors, Error> {
        Doors::open(&self.dirs(), self.unified().as_deref())
    }

    fn unified(&self) -> Option<PathBuf> {
        self.trees.get(UNIFIED).map(|tree| self.in_tree(tree))
    }

    /// Where a process can be made, rather than moved to: the run's cgroup, if the unified tree is all there is. (Nobody
    /// can be made there while somebody is being moved.)
    pub(crate) fn birthplace(&self) -> Option<File> {
        File::open(self.unified().filter(|_| self.is_unified())?).ok()
    }

    pub(crate) fn is_unified(&self) -> bool {
        self.trees.keys().all(|key| key == UNIFIED)
    }

    /// Move the calling process where the node's shims live.
    pub fn join_shims(&self) -> Result<(), Error> {
        let shims: BTreeSet<PathBuf> = self.trees.values().map(|tree| whole(tree).join("shims")).collect();
        for dir in shims {
            fs::create_dir_all(&dir).map_err(|source| Error::Io { op: "make", path: dir.clone(), source })?;
            join(&dir)?;
        }
        Ok(())
    }

    /// The processes in any of the run's cgroups.
    pub fn processes(&self) -> BTreeSet<i32> {
        self.dirs().iter().flat_map(|dir| pids_in(dir)).collect()
    }

    /// Kill whatever runs in the run's cgroups and wait until it is gone. Nothing there is fine.
    pub fn kill(&self) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut pause = Duration::from_micros(200);
        loop {
            let left = self.processes();
            let Some(&first) = left.first() else { return Ok(()) };
            if Instant::now() > deadline {
                let path = self.dirs().into_iter().find(|d| pids_in(d).contains(&first)).unwrap_or_default();
                return Err(Error::Undead { path, pids: left.into_iter().take(8).collect() });
            }
            // At once and without a race where the kernel can; and one by one, until no new ones come.
            if let Some(tree) = self.trees.get(UNIFIED) {
                let _ = fs::write(self.in_tree(tree).join("cgroup.kill"), "1");
            }
            let held: Vec<_> = left.iter().filter_map(|&pid| Some((pid, pidfd::open(pid).ok()?))).collect();
            // Still there now that we hold it: so it is not another process with a pid that was free again.
            let still = self.processes();
            for (_, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                let _ = pidfd::signal(fd, libc::SIGKILL);
                let _ = pidfd::release_memory(fd);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Remove the run's cgroups if nothing is in them, as after most ends; false when something is.
    pub fn remove_if_empty(&self) -> bool {
        let gone = |dir: &PathBuf| match fs::remove_dir(dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        self.dirs().iter().all(gone)
    }

    /// Remove the run's cgroups, which must be empty of processes. Absent ones are fine.
    pub fn remove(&self) -> Result<(), Error> {
        self.dirs().iter().try_for_each(|dir| remove_tree(dir))
    }
}

/// The node's tree, of which `tree` may be the part for what may be interrupted.
fn whole(tree: &Path) -> &Path {
    tree.parent().filter(|_| tree.ends_with(SPARE)).unwrap_or(tree)
}

/// See [`Placement::doors`].
pub(crate) struct Doors {
    unified: Option<(File, PathBuf)>,
    others: Vec<(File, PathBuf)>,
}

impl Doors {
    fn open(dirs: &BTreeSet<PathBuf>, unified: Option<&Path>) -> Result<Doors, Error> {
        let mut doors = Doors { unified: None, others: Vec::new() };
        for dir in dirs {
            let path = dir.join("cgroup.procs");
            let file = File::options().write(true).open(&path);
            let file = file.map_err(|source| Error::Io { op: "open", path: path.clone(), source })?;
            match unified == Some(dir.as_path()) {
                true => doors.unified = Some((file, path)),
                false => doors.others.push((file, path)),
            }
        }
        Ok(doors)
    }

    /// Move the calling process in, everywhere.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        self.admit(0)
    }

    /// Move the calling process in, in the unified tree.
    pub(crate) fn enter_unified(&self) -> Result<(), Error> {
        self.unified.iter().try_for_each(|door| pass(door, 0))
    }

    /// Move process `pid` in, everywhere; 0 is the calling one.
    pub(crate) fn admit(&self, pid: i32) -> Result<(), Error> {
        self.unified.iter().chain(&self.others).try_for_each(|door| pass(door, pid))
    }
}

fn pass((file, path): &(File, PathBuf), pid: i32) -> Result<(), Error> {
    let written = (&*file).write_all(pid.to_string().as_bytes());
    written.map_err(|source| Error::Io { op: "join", path: path.clone(), source })
}

fn join(dir: &Path) -> Result<(), Error> {
    let path = dir.join("cgroup.procs");
    fs::write(&path, "0").map_err(|source| Error::Io { op: "join", path, source })
}

fn pids_in(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process of another pid namespace, which cannot be named here.
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect()
}

/// Remove a cgroup and those below it, the deepest first.
fn remove_tree(dir: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { op: "read", path: dir.into(), source }),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // A process that is dying leaves its cgroup a moment after its parent has seen its end.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(source) => return Err(Error::Io { op: "remove", path: dir.into(), source }),
        }
    }
}

/// The number behind `key` in a file of `key number` lines.
pub(crate) fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The number that is all of a file; `max` and absence are `None`.
pub(crate) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
#[path = "cgroup/tests.rs"]
mod tests;
