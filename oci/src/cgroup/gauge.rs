//! How much memory is left on a node, and who has the rest: for somebody who looks many times a second. The files stay
//! open, and of each look those that the kernel has to put together are read only where they matter.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Band, SPARE, Tree, UNIFIED, number};

/// One look, in bytes. Pages of files that the kernel can drop at once count as free, not as used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What could be had without anybody's giving way: of the machine and of every cgroup above that has a limit.
    pub free: u64,
    /// In use by monitoring and production.
    pub prod: u64,
    /// In use by batch and free.
    pub spare: u64,
    /// Of that: by free.
    pub lowest: u64,
    /// Somebody of them wants memory, and waits for it at the ceiling.
    pub waiting: bool,
    /// For how long somebody of production has waited for memory so far, in microseconds; 0 where the kernel does not tell.
    pub stalled_us: u64,
}

/// Reads [`Memory`].
#[derive(Debug)]
pub struct Gauge {
    words: &'static Words,
    machine: Option<File>,
    walls: Vec<(u64, Used)>,
    tree: Used,
    prod: Vec<Used>,
    spare: Used,
    lowest: Used,
    /// What tells that somebody waits at the ceiling of both, or of the free band alone.
    waiting: Vec<Waiting>,
    pressure: Option<File>,
    /// When it was last looked how many pages of files could be dropped, and whether there was little left.
    fresh: Option<Instant>,
    tight: bool,
}

/// Of what could be dropped the kernel has to make up its mind: it is asked less often while there is enough.
const SELDOM: Duration = Duration::from_millis(500);
/// Less than this share of the capacity is little.
const TIGHT: u64 = 6;

/// The file names of a dialect.
#[derive(Debug)]
struct Words {
    unified: bool,
    limit: &'static str,
    usage: &'static str,
    inactive: &'static str,
    events: &'static str,
}

const V1: Words = Words {
    unified: false,
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
    events: "memory.oom_control",
};

const V2: Words = Words {
    unified: true,
    limit: "memory.max",
    usage: "memory.current",
    inactive: "inactive_file",
    events: "memory.events",
};

/// Beyond this a limit is none: no machine has as much.
const NO_LIMIT: u64 = 1 << 60;

/// One cgroup's figures.
#[derive(Debug)]
struct Used {
    inactive: &'static str,
    usage: Option<File>,
    stat: Option<File>,
    /// As last looked at.
    dropped: u64,
}

impl Used {
    fn open(words: &Words, dir: &Path) -> Used {
        let open = |name: &str| File::open(dir.join(name)).ok();
        Used { inactive: words.inactive, usage: open(words.usage), stat: open("memory.stat"), dropped: 0 }
    }

    /// `None` when the file is gone or says something else than a number.
    fn get(&mut self, fresh: bool) -> Option<u64> {
        let used = first_number(&read(self.usage.as_ref()?)?)?;
        if fresh {
            let inactive = self.stat.as_ref().and_then(read).and_then(|text| field(&text, self.inactive));
            self.dropped = inactive.unwrap_or(0);
        }
        Some(used.saturating_sub(self.dropped))
    }
}

#[derive(Debug)]
struct Waiting {
    file: Option<File>,
    /// v2: how often it has been over its ceiling.
    before: u64,
}

impl Waiting {
    fn open(words: &Words, dir: &Path) -> Waiting {
        Waiting { file: File::open(dir.join(words.events)).ok(), before: u64::MAX }
    }

    fn look(&mut self, unified: bool) -> bool {
        let Some(text) = self.file.as_ref().and_then(read) else { return false };
        if !unified {
            return field(&text, "under_oom") == Some(1);
        }
        let now = field(&text, "high").unwrap_or(0);
        let before = std::mem::replace(&mut self.before, now);
        now > before
    }
}

impl Tree {
    /// For looking at the node's memory; `None` where there is no controller of memory.
    pub fn gauge(&self) -> Option<Gauge> {
        let (words, tree) = self.memory_tree()?;
        let unified = self.tree_of(UNIFIED).map(|tree| Band::Production.dir(&tree));
        let pressure = unified.and_then(|dir| File::open(dir.join("memory.pressure")).ok());
        let spare = tree.join(SPARE);
        let of = |dir: &Path| Used::open(words, dir);
        let mut gauge = Gauge {
            words,
            machine: File::open("/proc/meminfo").ok(),
            walls: Vec::new(),
            tree: of(&tree),
            prod: [Band::Monitoring, Band::Production].iter().map(|band| of(&band.dir(&tree))).collect(),
            lowest: of(&Band::Free.dir(&tree)),
            waiting: [&spare, &Band::Free.dir(&tree)].map(|dir| Waiting::open(words, dir)).into(),
            spare: of(&spare),
            pressure,
            fresh: None,
            tight: false,
        };
        gauge.look_up(self);
        Some(gauge)
    }

    fn memory_tree(&self) -> Option<(&'static Words, PathBuf)> {
        match self.tree_of("memory") {
            Some(tree) => Some((&V1, tree)),
            None => Some((&V2, self.tree_of(UNIFIED).filter(|tree| tree.join("memory.stat").exists())?)),
        }
    }
}

impl Gauge {
    /// Look for limits above the tree again: somebody may have changed them.
    pub fn look_up(&mut self, tree: &Tree) {
        let dirs = tree.above(if self.words.unified { UNIFIED } else { "memory" });
        let limited = dirs.iter().filter_map(|dir| {
            let limit = number(&dir.join(self.words.limit)).filter(|limit| *limit < NO_LIMIT)?;
            Some((limit, Used::open(self.words, dir)))
        });
        self.walls = limited.collect();
        self.fresh = None;
    }

    /// What was looked at a moment ago may not be so any more.
    pub fn forget(&mut self) {
        self.fresh = None;
    }

    /// One look. `capacity`: what the node may use at all. `None` when a file that all depends on cannot be read.
    pub fn look(&mut self, capacity: u64) -> Option<Memory> {
        let fresh = self.tight || self.fresh.is_none_or(|at| at.elapsed() >= SELDOM);
        if fresh {
            self.fresh = Some(Instant::now());
        }
        let machine = field(&read(self.machine.as_ref()?)?, "MemAvailable:")? * 1024;
        let mut free = machine.min(capacity.saturating_sub(self.tree.get(fresh)?));
        for (limit, used) in &mut self.walls {
            free = free.min(limit.saturating_sub(used.get(fresh)?));
        }
        let prod = self.prod.iter_mut().map(|used| used.get(fresh)).sum::<Option<u64>>()?;
        let (spare, lowest) = (self.spare.get(fresh)?, self.lowest.get(fresh)?);
        self.tight = free < capacity / TIGHT;
        let waiting = self.waiting.iter_mut().map(|w| w.look(self.words.unified)).fold(false, |a, b| a | b);
        let stalled_us = self.pressure.as_ref().and_then(read).and_then(|text| stalled(&text)).unwrap_or(0);
        Some(Memory { free, prod, spare, lowest, waiting, stalled_us })
    }
}

/// All that a file of the kernel says; each read makes it anew.
fn read(file: &File) -> Option<String> {
    let mut text = [0; 8192];
    let length = file.read_at(&mut text, 0).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

fn first_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind `key` at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().split(' ').next()?.parse().ok()
}

fn stalled(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_of_the_kernels_files() {
        let text = "MemTotal:       24684440 kB\nMemAvailable:   22537000 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(22_537_000));
        assert_eq!(field("total_inactive_file 5\ninactive_file 7\n", "inactive_file"), Some(7));
        assert_eq!(field("oom_kill_disable 1\nunder_oom 1\noom_kill 0\n", "under_oom"), Some(1));
        assert_eq!(field("garbage", "under_oom"), None);
        let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(pressure), Some(42));
    }

    #[test]
    fn a_lying_file_is_no_figure() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("memory.current"), "many\n").unwrap();
        assert_eq!(Used::open(&V2, dir.path()).get(true), None);
        std::fs::write(dir.path().join("memory.current"), "4096\n").unwrap();
        assert_eq!(Used::open(&V2, dir.path()).get(true), Some(4096));
        std::fs::write(dir.path().join("memory.stat"), "inactive_file 8192\n").unwrap();
        assert_eq!(Used::open(&V2, dir.path()).get(true), Some(0));
    }
}
