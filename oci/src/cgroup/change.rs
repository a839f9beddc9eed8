//! Other limits for a run that goes on.

use std::fs;

use super::apply::{self, write};
use super::block::BLKIO;
use super::{Error, Home, Limits, Placement, number, pids_in};

impl Placement {
    /// Put `to` in the place of `from`: all of it, or nothing. Memory is taken back first where it can be; what the run
    /// cannot do without is never taken by killing it.
    ///
    /// # Errors
    /// [`Error::MemoryInUse`], or what the system says.
    pub fn change(&self, from: &Limits, to: &Limits) -> Result<(), Error> {
        self.create()?;
        self.gather()?;
        let changed = self.apply(to);
        if changed.is_err() {
            // It was in force until now.
            let _ = self.apply(from);
        }
        changed.map_err(|error| match error {
            Error::MemoryTooSmall { limit, .. } => {
                Error::MemoryInUse { limit, used: self.memory_in_use().unwrap_or(limit) }
            }
            other => other,
        })
    }

    /// Let the run have less CPU than its limit for a while, or all of it again. Its weight stays.
    pub fn throttle(&self, cpu_milli: u64) -> Result<(), Error> {
        self.home("cpu").map_or(Ok(()), |home| apply::quota(&home, Some(cpu_milli)))
    }

    fn memory_in_use(&self) -> Option<u64> {
        match self.home("memory")? {
            Home::V1(dir) => number(&dir.join("memory.usage_in_bytes")),
            Home::V2(dir) => number(&dir.join("memory.current")),
        }
    }

    /// All processes into the one cgroup of the run that may be new.
    fn gather(&self) -> Result<(), Error> {
        let Some(tree) = self.trees.get(BLKIO) else { return Ok(()) };
        let dir = self.in_tree(tree);
        let door = dir.join("cgroup.procs");
        // Children are born where their parents are: each round finds those of processes not moved yet.
        for _ in 0..100 {
            let here = pids_in(&dir);
            let mut outside = self.processes();
            outside.retain(|pid| !here.contains(pid));
            if outside.is_empty() {
                break;
            }
            for pid in outside {
                match write(&door, &pid.to_string()) {
                    // It has ended meanwhile.
                    Err(_) if fs::metadata(format!("/proc/{pid}")).is_err() => {}
                    moved => moved?,
                }
            }
        }
        Ok(())
    }
}
