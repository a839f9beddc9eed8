//! Limits, weights and device rules, in the dialects of v1 and v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Home, Limits, Placement, number};

/// The kernel's default period for CPU quotas, in microseconds.
const PERIOD_US: u64 = 100_000;
/// Bytes in which no program can be executed: what the kernel needs for its arguments, its page tables and its stack.
const LEAST_MEMORY: u64 = 128 << 10;
/// The least quota that the kernel takes.
const LEAST_QUOTA_US: u64 = 1_000;

impl Placement {
    /// Set the limits, on a cgroup in use too. A controller that the host lacks is passed over: [`super::Tree::open`]
    /// has warned of it.
    pub fn apply(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(home) = self.home("cpu") {
            cpu(&home, limits.cpu_milli, limits.yields)?;
        }
        if let Some(home) = self.home("memory") {
            memory(&home, limits.memory_bytes)?;
            if self.band.is_prod() {
                protect(&home, limits.memory_bytes)?;
            }
        }
        if let Some(Home::V1(dir) | Home::V2(dir)) = self.home("pids") {
            write(&dir.join("pids.max"), &or_max(limits.pids))?;
        }
        self.weigh_io(limits.yields);
        self.limit_io(&limits.io)
    }
}

/// Have what is in `dir` run when nobody beside it wants to, and stop at once when somebody does (`SCHED_IDLE` for a cgroup,
/// since Linux 5.15). Its weight is 3 of 1024 then: it gets its percent beside [`Band::weight`]s that run all the time.
pub(super) fn yield_to_others(unified: bool, dir: &Path) -> Result<(), Error> {
    let idle = dir.join("cpu.idle");
    match idle.exists() {
        true => write(&idle, "1"),
        false => weight(unified, dir, 1),
    }
}

/// `weight` is on v2's scale; v1's shares have 1024 where v2 has 100.
pub(super) fn weight(unified: bool, dir: &Path, weight: u64) -> Result<(), Error> {
    if unified {
        write(&dir.join("cpu.weight"), &weight.clamp(1, 10_000).to_string())
    } else {
        write(&dir.join("cpu.shares"), &(weight * 1024 / 100).clamp(2, 262_144).to_string())
    }
}

fn cpu(home: &Home, milli: Option<u64>, yields: bool) -> Result<(), Error> {
    let (unified, dir) = match home {
        Home::V1(dir) => (false, dir),
        Home::V2(dir) => (true, dir),
    };
    if yields {
        yield_to_others(unified, dir)?;
    } else if let Some(milli) = milli {
        match weight(unified, dir, milli / 10) {
            // What yields has no weight: it did so until now.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
                write(&dir.join("cpu.idle"), "0")?;
                weight(unified, dir, milli / 10)?;
            }
            weighed => weighed?,
        }
    }
    quota(home, milli)
}

pub(super) fn quota(home: &Home, milli: Option<u64>) -> Result<(), Error> {
    let quota = milli.map(|milli| (milli * PERIOD_US / 1000).max(LEAST_QUOTA_US));
    match home {
        Home::V1(dir) => {
            let quota = quota.map_or("-1".to_string(), |quota| quota.to_string());
            write(&dir.join("cpu.cfs_quota_us"), &quota)
        }
        Home::V2(dir) => write(&dir.join("cpu.max"), &format!("{} {PERIOD_US}", or_max(quota))),
    }
}

/// What is made below a cgroup of v1 is not swapped out for the sake of those above it, as on v2: what it has would not be
/// seen any more, and it would wait for the disk where another gives way.
pub(super) fn no_swap(dir: &Path) -> Result<(), Error> {
    let swappiness = dir.join("memory.swappiness");
    if swappiness.exists() { write(&swappiness, "0") } else { Ok(()) }
}

/// Keep the kernel from taking memory from `home` for somebody below production; v2 only.
pub(super) fn protect(home: &Home, bytes: Option<u64>) -> Result<(), Error> {
    match home {
        Home::V2(dir) if dir.join("memory.low").exists() => write(&dir.join("memory.low"), &or_max(bytes)),
        Home::V1(_) | Home::V2(_) => Ok(()),
    }
}

fn memory(home: &Home, bytes: Option<u64>) -> Result<(), Error> {
    match home {
        Home::V1(dir) => {
            let (limit, with_swap) =
                (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
            if let Some(limit) = bytes.filter(|bytes| *bytes < LEAST_MEMORY) {
                let source = io::Error::from_raw_os_error(libc::EBUSY);
                return Err(Error::MemoryTooSmall { limit, path: dir.join("memory.limit_in_bytes"), source });
            }
            // Inherited from the bands that the agent takes memory back from: a task that reaches its own limit would wait
            // for ever for somebody to kill it.
            let oom = dir.join("memory.oom_control");
            if oom.exists() {
                write(&oom, "0")?;
            }
            let text = bytes.map_or("-1".to_string(), |b| b.to_string());
            // Absent when the kernel does not account for swap: then there is nothing to forbid by it.
            let swap_counts = with_swap.exists();
            let first = write(&limit, &text);
            let raised = matches!(&first, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EINVAL));
            if raised && swap_counts {
                // The limit may never exceed memory and swap together: when it grows, that grows first.
                write(&with_swap, &text)?;
                return write(&limit, &text);
            }
            too_small(first, bytes)?;
            if swap_counts { too_small(write(&with_swap, &text), bytes) } else { Ok(()) }
        }
        Home::V2(dir) => {
            // A container without one of its processes is no container: it goes as a whole. Since Linux 4.19.
            let together = dir.join("memory.oom.group");
            if together.exists() {
                write(&together, "1")?;
            }
            let no_swap = dir.join("memory.swap.max");
            if no_swap.exists() {
                write(&no_swap, if bytes.is_some() { "0" } else { "max" })?;
            }
            if let Some(limit) = bytes {
                fits(dir, limit)?;
            }
            write(&dir.join("memory.max"), &or_max(bytes))
        }
    }
}

/// v1 refuses a limit below what cannot be reclaimed; v2 takes it and kills. Here both refuse.
fn fits(dir: &Path, limit: u64) -> Result<(), Error> {
    let path = dir.join("memory.current");
    let over = || number(&path).unwrap_or(0).saturating_sub(limit);
    if over() == 0 {
        return Ok(());
    }
    // It may not grow meanwhile; setting this takes back what can be.
    let high = dir.join("memory.high");
    let _ = write(&high, &limit.to_string());
    // Since Linux 5.19; it fails when less could be reclaimed.
    let _ = write(&dir.join("memory.reclaim"), &over().to_string());
    let still = over();
    let _ = write(&high, "max");
    if still > 0 {
        return Err(Error::MemoryTooSmall { limit, path, source: io::Error::from_raw_os_error(libc::EBUSY) });
    }
    Ok(())
}

fn too_small(result: Result<(), Error>, limit: Option<u64>) -> Result<(), Error> {
    match (result, limit) {
        (Err(Error::Io { path, source, .. }), Some(limit)) if source.raw_os_error() == Some(libc::EBUSY) => {
            Err(Error::MemoryTooSmall { limit, path, source })
        }
        (other, _) => other,
    }
}

pub(super) fn or_max(value: Option<u64>) -> String {
    value.map_or("max".to_string(), |v| v.to_string())
}

/// One write(2): the kernel takes each as one instruction.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        use std::io::Write as _;
        // Not created: on a file system that is no cgroup this must fail.
        fs::File::options().write(true).open(path)?.write_all(text.as_bytes())
    };
    write().map_err(|source| Error::Io { op: "write", path: PathBuf::from(path), source })
}
