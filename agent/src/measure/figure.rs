//! Figures of the kernel, and what to make of those that cannot be.

use std::fmt;

use nix::unistd::{SysconfVar, sysconf};
use oci::stats::Counters;
use placement::task::Strain;

/// Time and counter are not read in the same instant: a little more than there is may be seen, but not so many times.
const SLACK: u64 = 2;

/// What a figure may be at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    pub(super) cpu_milli: u64,
    pub(super) memory_bytes: u64,
}

/// A figure that could not be had, or not be believed. Said once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    NoCpu,
    OddCpu,
    NoMemory,
    OddMemory,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Trouble::NoCpu => "a task's cgroup does not tell how much CPU it uses",
            Trouble::OddCpu => {
                "a task's cgroup tells of more CPU than this machine has, or of less than before"
            }
            Trouble::NoMemory => "a task's cgroup does not tell how much memory it uses",
            Trouble::OddMemory => "a task's cgroup tells of more memory than this machine has",
        };
        write!(
            f,
            "{what}: as long as that is so, such tasks count with their limits. Look at the cgroups below covey-*"
        )
    }
}

impl Machine {
    pub(super) fn this() -> Machine {
        let number = |what| sysconf(what).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        // A processor may come back while the agent runs.
        let cpus = number(SysconfVar::_NPROCESSORS_CONF).max(1);
        let memory_bytes = number(SysconfVar::_PHYS_PAGES) * number(SysconfVar::PAGE_SIZE);
        Machine {
            cpu_milli: cpus * 1000,
            memory_bytes: if memory_bytes == 0 { u64::MAX } else { memory_bytes },
        }
    }

    /// Thousandths of a CPU since the last look, and bytes. A CPU counter comes with its time, in microseconds and
    /// milliseconds.
    pub(super) fn figures(
        &self,
        last: Option<(Option<u64>, u64)>,
        (cpu_us, at_ms): (Option<u64>, u64),
        memory: Option<u64>,
    ) -> [Result<u64, Trouble>; 2] {
        let cpu = cpu_us.ok_or(Trouble::NoCpu).and_then(|now| match last {
            Some((Some(then), then_ms)) => {
                let since = now.checked_sub(then).map(|us| us / at_ms.saturating_sub(then_ms).max(1));
                let believable = since.filter(|milli| *milli <= self.cpu_milli * SLACK);
                believable.map(|milli| milli.min(self.cpu_milli)).ok_or(Trouble::OddCpu)
            }
            // Nothing is known of the time before.
            Some((None, _)) | None => Ok(0),
        });
        let memory = memory.ok_or(Trouble::NoMemory);
        [
            cpu,
            memory.and_then(
                |bytes| if bytes <= self.memory_bytes { Ok(bytes) } else { Err(Trouble::OddMemory) },
            ),
        ]
    }
}

/// A look at how a run fares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) at_ms: u64,
    pub(super) cpu_us: Option<u64>,
    /// It had used CPU since the look before.
    pub(super) busy: bool,
    pub(super) counters: Counters,
}

impl Counted {
    pub(super) fn since(&self, before: &Counted) -> Strain {
        let ms = self.at_ms.saturating_sub(before.at_ms).max(1);
        let grown = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
        let permille = |now, then| grown(now, then).map(|us| us / ms);
        let (now, then) = (&self.counters, &before.counters);
        let waits = |at: usize| permille(now.waited_us[at], then.waited_us[at]).map(|share| share.min(1000));
        Strain {
            memory_peak_bytes: now.memory_peak,
            io_bytes_per_second: grown(now.io_bytes, then.io_bytes)
                .map(|bytes| bytes.saturating_mul(1000) / ms),
            throttled_permille: permille(now.throttled_us, then.throttled_us),
            waits_for_cpu_permille: waits(0),
            waits_for_memory_permille: waits(1),
            waits_for_io_permille: waits(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cpu_milli: 2_000, memory_bytes: 1 << 30 };

    #[test]
    fn what_cannot_be_is_no_figure() {
        let cpu = |then, now| MACHINE.figures(Some((then, 10_000)), (now, 12_000), Some(1))[0];
        assert_eq!(cpu(Some(500), Some(1_000_500)), Ok(500));
        assert_eq!(cpu(Some(500), Some(500)), Ok(0));
        assert_eq!(
            cpu(Some(0), Some(4_200_000)),
            Ok(2_000),
            "a little more than there is, by when it was read"
        );
        assert_eq!(cpu(Some(0), Some(80_000_000)), Err(Trouble::OddCpu));
        assert_eq!(cpu(Some(0), Some(u64::MAX)), Err(Trouble::OddCpu));
        assert_eq!(cpu(Some(500), Some(0)), Err(Trouble::OddCpu), "it went back");
        assert_eq!(cpu(Some(500), None), Err(Trouble::NoCpu));
        assert_eq!(cpu(None, Some(5_000_000)), Ok(0), "the next look tells");
        assert_eq!(MACHINE.figures(None, (Some(5), 0), None), [Ok(0), Err(Trouble::NoMemory)]);
        assert_eq!(MACHINE.figures(None, (None, 0), Some(u64::MAX))[1], Err(Trouble::OddMemory));
        let this = Machine::this();
        assert!(this.cpu_milli >= 1_000 && this.memory_bytes > 1 << 20, "{this:?}");
    }

    #[test]
    fn strain_is_what_grew_and_nothing_where_nobody_tells() {
        let counted = |at_ms, counters| Counted { at_ms, cpu_us: None, busy: true, counters };
        let then = Counters {
            throttled_us: Some(1_000),
            memory_peak: Some(5),
            io_bytes: Some(0),
            waited_us: [Some(0), None, Some(9_000)],
        };
        let now = Counters {
            throttled_us: Some(5_001_000),
            memory_peak: Some(7),
            io_bytes: Some(1_000),
            waited_us: [Some(2_500_000), Some(7), Some(0)],
        };
        let strain = counted(20_000, now).since(&counted(10_000, then));
        let expected = Strain {
            memory_peak_bytes: Some(7),
            io_bytes_per_second: Some(100),
            throttled_permille: Some(500),
            waits_for_cpu_permille: Some(250),
            waits_for_memory_permille: None,
            waits_for_io_permille: None,
        };
        assert_eq!(strain, expected);
    }
}
