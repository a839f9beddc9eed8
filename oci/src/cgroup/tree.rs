//! The node's tree below the agent's own cgroup, in every hierarchy:
//! `covey-NODEID/{agent, shims, monitoring/RUN, production/RUN, spare/{batch/RUN, free/RUN}}`. What may be interrupted is
//! below one directory, so that one write holds all of it to what prod leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::block::BLKIO;
use super::host::{Hierarchy, hierarchies};
use super::{
    Band, DEVICES, Device, Error, Limits, Placement, SPARE, UNIFIED, apply, devices, floor, join, number,
    remove_tree, weigh,
};

/// The controllers without which a limit is not enforced, and that limit's name.
const NEEDED: [(&str, &str); 3] = [("cpu", "CPU"), ("memory", "memory"), ("pids", "process")];

/// What is handed down: those, and what tasks may ask for.
const USED: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Below a v1 hierarchy's tree: the runs that are granted devices.
const GRANTED: &str = "granted";

/// Something that does not work on this host, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: {effect}. {hint}")]
pub struct Warning {
    /// What is missing or refused.
    pub problem: String,
    /// What is not enforced because of that.
    pub effect: String,
    /// What to do.
    pub hint: String,
}

/// What the node has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// The node's cgroups.
#[derive(Clone, Debug)]
pub struct Tree {
    trees: BTreeMap<String, PathBuf>,
    /// Of v1's controller of block IO: only for runs that ask for it, unless a disk is shared by weight.
    blkio: Option<PathBuf>,
    weighs_all: bool,
    roots: BTreeMap<String, Hierarchy>,
    /// An earlier covey had batch and free beside production, and something of theirs may run there.
    old: bool,
}

impl Tree {
    /// Make or find the tree below the caller's own cgroups. A missing controller or right is a warning, never an
    /// error: what can be enforced is.
    pub fn open(node_id: &str) -> (Tree, Vec<Warning>) {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let (mounts, own) = (read("/proc/self/mountinfo".into()), read("/proc/self/cgroup".into()));
        let mut roots = hierarchies(&mounts, &own);
        let name = format!("covey-{node_id}");
        let mut warnings = Vec::new();
        let mut trees = BTreeMap::new();
        for (key, root) in &mut roots {
            // The agent may have been here before, in its own leaf.
            if root.own.ends_with("agent") && root.own.parent().is_some_and(|p| p.ends_with(&name)) {
                root.own = root.own.ancestors().nth(2).unwrap_or(&root.mount).to_path_buf();
            } else if let Some(above) =
                root.own.parent().filter(|above| delegated(above)).map(Path::to_path_buf)
            {
                // The service manager starts the agent in a leaf (systemd: `DelegateSubgroup=`), because it could not do
                // so again in a cgroup whose children have controllers. The one that is ours is above.
                let leaf = above.join(&name).join("agent");
                let _ = fs::create_dir_all(&leaf).map_err(drop).and_then(|()| join(&leaf).map_err(drop));
                root.own = above;
            }
            let made =
                if key == UNIFIED { unified(root, &name, &mut warnings) } else { v1(key, root, &name) };
            match made {
                Ok(tree) => _ = trees.insert(key.clone(), tree),
                // The unified hierarchy of a hybrid host only adds comfort.
                Err(_) if key == UNIFIED && read(root.mount.join("cgroup.controllers")).trim().is_empty() => {
                }
                Err(error) => warnings.push(Warning {
                    problem: error.to_string(),
                    effect: format!("limits that need the {key} cgroups are not enforced"),
                    hint: "Run the agent as root, with cgroups mounted writable".into(),
                }),
            }
        }
        let blkio = trees.remove(BLKIO);
        let old = trees
            .values()
            .chain(&blkio)
            .any(|tree| [Band::Batch, Band::Free].iter().any(|b| is_old(tree, *b)));
        let weighs_all = blkio.is_some() && weigh::any_disk();
        let tree = Tree { trees, blkio, weighs_all, roots, old };
        if let Err(error) = tree.restrict_devices() {
            warnings.push(Warning {
                problem: error.to_string(),
                effect: "only dropped capabilities and `nodev` mounts keep containers from devices".into(),
                hint: "Use a kernel with CONFIG_CGROUP_BPF or the v1 devices controller".into(),
            });
        }
        for (controller, limit) in NEEDED {
            if !tree.enforces(controller) {
                warnings.push(Warning {
                    problem: format!("there is no usable {controller} cgroup controller"),
                    effect: format!("{limit} limits are not enforced"),
                    hint: "Mount it, or boot without cgroup_disable; under systemd, set Delegate=yes".into(),
                });
            }
        }
        (tree, warnings)
    }

    /// By the v1 controller, by a program in the unified tree, or both: one that works is enough.
    fn restrict_devices(&self) -> Result<(), Error> {
        let in_bands = |key: &str, restrict: fn(&Path, &[Device]) -> Result<(), Error>| {
            let tree = self.trees.get(key)?;
            Some(Band::ALL.iter().try_for_each(|band| restrict(&band.dir(tree), &[])))
        };
        let done = [in_bands("devices", devices::restrict_v1), in_bands(UNIFIED, devices::restrict_v2)];
        let done: Vec<_> = done.into_iter().flatten().collect();
        if done.iter().any(Result::is_ok) { Ok(()) } else { done.into_iter().collect() }
    }

    /// Whether limits of `controller` ("cpu", "memory", "pids", "io") are in force here.
    pub fn enforces(&self, controller: &str) -> bool {
        self.trees.contains_key(controller)
            || (controller == "io" && self.blkio.is_some())
            || self.trees.get(UNIFIED).is_some_and(|tree| {
                let enabled = fs::read_to_string(tree.join("cgroup.subtree_control")).unwrap_or_default();
                enabled.split_whitespace().any(|c| c == controller)
            })
    }

    /// Where a run's cgroups shall be; nothing is made yet.
    pub fn placement(&self, band: Band, run: &str) -> Placement {
        let trees =
            self.trees.iter().map(|(key, tree)| (key.clone(), self.above_band(tree, band, run))).collect();
        Placement { trees, band, run: run.into() }
    }

    fn above_band(&self, tree: &Path, band: Band, run: &str) -> PathBuf {
        if band.is_prod() || self.old && tree.join(band.name()).join(run).exists() {
            tree.to_path_buf()
        } else {
            tree.join(SPARE)
        }
    }

    /// The same for a run that is granted devices: on v1 no cgroup may use what the one above may not, so it is made
    /// beside the bands. See [`Placement::allow`].
    pub fn placement_with_devices(&self, band: Band, run: &str) -> Placement {
        let mut placement = self.placement(band, run);
        if let Some(tree) = self.trees.get(DEVICES) {
            placement.trees.insert(DEVICES.to_string(), tree.join(GRANTED));
        }
        placement
    }

    /// The same for a run with these limits: block IO takes one more on v1.
    pub fn with_io(&self, placement: Placement, limits: &Limits) -> Placement {
        if limits.io.is_free() && !self.weighs_all { placement } else { self.with_blkio(placement) }
    }

    fn with_blkio(&self, mut placement: Placement) -> Placement {
        let tree = self.blkio.iter().map(|tree| self.above_band(tree, placement.band, &placement.run));
        placement.trees.extend(tree.map(|tree| (BLKIO.to_string(), tree)));
        placement
    }

    /// Whether buffered writes escape the limits of block IO: v1 counts them as nobody's.
    pub fn writes_escape(&self) -> bool {
        self.blkio.is_some()
    }

    /// Wherever a run may have cgroups.
    fn placements<'a>(&'a self, run: &'a str) -> impl Iterator<Item = Placement> + 'a {
        let both =
            |&band| [self.with_blkio(self.placement(band, run)), self.placement_with_devices(band, run)];
        Band::ALL.iter().flat_map(both)
    }

    /// Where the node's shims live, in each hierarchy.
    pub fn shims(&self) -> Vec<PathBuf> {
        let dirs: BTreeSet<PathBuf> = self.trees.values().map(|tree| tree.join("shims")).collect();
        dirs.into_iter().collect()
    }

    /// Where processes enter the shims' cgroup, in some v1 hierarchy.
    pub(crate) fn door(&self) -> Option<PathBuf> {
        let mut v1 = self.trees.iter().filter(|(key, _)| *key != UNIFIED);
        v1.next().map(|(_, tree)| tree.join("shims").join("cgroup.procs"))
    }

    /// The least of the machine and of what the agent's cgroup and those above it are allowed.
    pub fn capacity(&self) -> Capacity {
        // SAFETY: sysconf has no preconditions.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1) as u64;
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            text.lines()
                .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        });
        let mut capacity =
            Capacity { cpu_milli: cpus * 1000, memory_bytes: total.map_or(0, |kib: u64| kib * 1024) };
        for (key, root) in &self.roots {
            for dir in root.own.ancestors().take_while(|dir| dir.starts_with(&root.mount)) {
                if key == UNIFIED || key == "cpu" {
                    capacity.cpu_milli = capacity.cpu_milli.min(cpu_limit(dir).unwrap_or(u64::MAX));
                }
                for file in ["memory.max", "memory.limit_in_bytes"] {
                    capacity.memory_bytes =
                        capacity.memory_bytes.min(number(&dir.join(file)).unwrap_or(u64::MAX));
                }
            }
        }
        capacity
    }

    pub(crate) fn tree_of(&self, hierarchy: &str) -> Option<PathBuf> {
        self.trees.get(hierarchy).cloned()
    }

    /// The cgroup in which the tree of a hierarchy is, and those above it.
    pub(super) fn above(&self, hierarchy: &str) -> Vec<PathBuf> {
        let Some(root) = self.roots.get(hierarchy) else { return Vec::new() };
        root.own.ancestors().take_while(|dir| dir.starts_with(&root.mount)).map(Path::to_path_buf).collect()
    }

    /// Every run that has a cgroup here, with a record or without one.
    pub fn list(&self) -> Vec<(Band, String)> {
        let mut runs = BTreeSet::new();
        let granted = self.trees.get(DEVICES).map(|tree| tree.join(GRANTED));
        let trees = self.trees.values().chain(&granted).chain(&self.blkio);
        for (tree, band) in trees.flat_map(|tree| Band::ALL.map(|band| (tree, band))) {
            let dirs = [Some(band.dir(tree)), self.old.then(|| tree.join(band.name()))];
            let entries = dirs.into_iter().flatten().flat_map(fs::read_dir).flatten();
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    runs.insert((band, entry.file_name().to_string_lossy().into_owned()));
                }
            }
        }
        runs.into_iter().collect()
    }

    /// Kill what runs in a run's cgroups, whatever its band. Unknown runs are fine.
    pub fn kill(&self, run: &str) -> Result<(), Error> {
        self.placements(run).try_for_each(|placement| placement.kill())
    }

    /// Remove a run's cgroups, whatever its band; they must be empty. Unknown runs are fine.
    pub fn remove(&self, run: &str) -> Result<(), Error> {
        self.placements(run).try_for_each(|placement| placement.remove())
    }

    /// Take the whole tree away: runs are killed, the calling agent steps out. For a node that leaves.
    pub fn clear(&self) -> Result<(), Error> {
        for (band, run) in self.list() {
            let own = self.with_blkio(self.placement(band, &run));
            for placement in [own, self.placement_with_devices(band, &run)] {
                placement.kill()?;
                placement.remove()?;
            }
        }
        for (key, tree) in &self.trees {
            if let Some(root) = self.roots.get(key).filter(|_| tree.join("agent").exists()) {
                // v2 lets no process into a cgroup that has handed controllers on.
                for controller in ["-cpu", "-memory", "-pids", "-io"] {
                    let _ = fs::write(root.own.join("cgroup.subtree_control"), controller);
                }
                join(&root.own)?;
            }
            remove_tree(tree)?;
        }
        self.blkio.iter().try_for_each(|tree| remove_tree(tree))
    }
}

/// Whether the service manager has handed a cgroup over to who runs in it: systemd says so in an extended attribute.
fn delegated(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_encoded_bytes()) else { return false };
    [c"user.delegate", c"trusted.delegate"].into_iter().any(|name| {
        let mut value = [0_u8; 2];
        // SAFETY: the strings end with a zero, and the buffer is as long as is said.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        length == 1 && value[0] == b'1'
    })
}

fn cpu_limit(dir: &Path) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(dir.join("cpu.max")) {
        let (quota, period) = text.trim().split_once(' ')?;
        return Some(quota.parse::<u64>().ok()? * 1000 / period.parse::<u64>().ok()?.max(1));
    }
    let (quota, period) = (number(&dir.join("cpu.cfs_quota_us"))?, number(&dir.join("cpu.cfs_period_us"))?);
    Some(quota * 1000 / period.max(1))
}

fn v1(controller: &str, root: &Hierarchy, name: &str) -> Result<PathBuf, Error> {
    let tree = root.own.join(name);
    bands(&tree)?;
    match controller {
        "cpu" => weigh::cpu(false, &tree)?,
        "memory" => Band::ALL.iter().try_for_each(|band| apply::no_swap(&band.dir(&tree)))?,
        BLKIO => weigh::io(&tree),
        _ => {}
    }
    Ok(tree)
}

/// Whether something of a band is where it was before [`SPARE`]. What is empty there goes.
fn is_old(tree: &Path, band: Band) -> bool {
    let dir = tree.join(band.name());
    dir.exists() && fs::remove_dir(&dir).is_err()
}

fn bands(tree: &Path) -> Result<(), Error> {
    let dirs = Band::ALL.iter().map(|band| band.dir(tree)).chain([tree.join("shims")]);
    dirs.into_iter().try_for_each(|dir| {
        fs::create_dir_all(&dir).map_err(|source| Error::Io { op: "make", path: dir.clone(), source })
    })
}

/// On v2 a cgroup hands controllers to its children only if no process is in it itself. So the agent steps into a leaf
/// of its own; where others share its cgroup (a login session), the tree goes to the nearest ancestor that can hold it.
fn unified(root: &mut Hierarchy, name: &str, warnings: &mut Vec<Warning>) -> Result<PathBuf, Error> {
    let own = root.own.clone();
    let above: Vec<&Path> = own.ancestors().skip(1).take_while(|dir| dir.starts_with(&root.mount)).collect();
    // Controllers reach a cgroup only through all those above it; refused ones show below.
    for dir in above.iter().rev() {
        let _ = enable(dir);
    }
    let mut place = own.clone();
    if let Err(error) = enable(&own) {
        let leaf = own.join(name).join("agent");
        let stepped = fs::create_dir_all(&leaf).is_ok() && join(&leaf).is_ok();
        if !stepped || enable(&own).is_err() {
            if stepped {
                let _ = join(&own);
                let _ = remove_tree(&own.join(name));
            }
            if let Some(dir) = above.into_iter().find(|dir| enable(dir).is_ok()) {
                place = dir.to_path_buf();
            }
            let limits = if place == own {
                "limits are not enforced"
            } else {
                "limits of that cgroup itself do not bind"
            };
            warnings.push(Warning {
                problem: format!("other processes share the agent's cgroup {} ({error})", own.display()),
                effect: format!("containers get theirs below {}; {limits}", place.display()),
                hint: "Run the agent in a cgroup of its own: a systemd unit with Delegate=yes".into(),
            });
        }
    }
    let tree = place.join(name);
    bands(&tree)?;
    root.own = place;
    // Without controllers (hybrid) there is nothing to hand on, and nothing to weigh.
    if enable(&tree).is_ok() && enable(&tree.join(SPARE)).is_ok() {
        let inside = Band::ALL.map(|band| enable(&band.dir(&tree)));
        if inside.iter().all(Result::is_ok) && tree.join("shims").join("cpu.weight").exists() {
            weigh::cpu(true, &tree)?;
        }
        weigh::io(&tree);
        if tree.join("memory.low").exists() {
            floor::protect(&tree)?;
        }
    }
    Ok(tree)
}

/// Hand on what there is of the controllers in use; an error when one that is there is refused.
fn enable(dir: &Path) -> io::Result<()> {
    let there = fs::read_to_string(dir.join("cgroup.controllers"))?;
    let on = fs::read_to_string(dir.join("cgroup.subtree_control"))?;
    let has = |list: &str, controller: &str| list.split_whitespace().any(|c| c == controller);
    let missing: Vec<String> =
        USED.iter().filter(|c| has(&there, c) && !has(&on, c)).map(|c| format!("+{c}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // In one write: some are accepted beside processes, and make the cgroup a root of threads, which nobody can leave
    // for a cgroup below.
    fs::write(dir.join("cgroup.subtree_control"), missing.join(" "))
}
