//! What runs on which core. A machine of two is noisy: whoever measures, and the agent, keep to one, what is measured has the
//! other.

use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use test_vms::lab::{self, Lab};
use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::band;

/// Where services and their neighbours run.
pub(crate) const MEASURED: usize = 0;
/// Where all others are: agent, clients.
pub(crate) const OTHERS: usize = 1;
/// A node weighs as much as so many busy processes of the machine: what else runs there is not its matter.
const WEIGHT: u64 = 100;

/// Gives the agent and this program one core; tasks get the other as they come ([`pin_tasks`]).
pub(crate) fn part(node: &Node) -> Result<()> {
    two()?;
    node.cgroups.weigh(WEIGHT)?;
    pin(node.agent_pid().cast_signed(), OTHERS)
}

/// The same for the hosts of a lab: agents, and all that this program does, have one core; whatever the agents start has the
/// other from its beginning, since it is of a server's making that is there already.
pub(crate) fn part_hosts(lab: &Lab) -> lab::Result<()> {
    two()?;
    pin(std::process::id().cast_signed(), OTHERS)?;
    for host in lab.hosts()? {
        let agent = lab.agent_pid(&host)?;
        for pid in lab.processes(&host)? {
            pin(pid, if Some(pid) == agent { OTHERS } else { MEASURED })?;
        }
    }
    Ok(())
}

fn two() -> Result<()> {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        2.. => Ok(()),
        _ => Err(Error::Missing("this takes two CPUs: one for clients, one for what they ask".to_owned())),
    }
}

/// Puts all of a node's containers on their core.
pub(crate) fn pin_tasks(node: &Node) -> Result<()> {
    let tasks = band::ALL.iter().flat_map(|name| band::pids(node, name));
    tasks.into_iter().try_for_each(|pid| pin(pid, MEASURED))
}

/// All threads of a process, and those that they will make. One that has ended meanwhile needs nothing.
fn pin(pid: i32, core: usize) -> Result<()> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok()).try_for_each(|thread| {
        match set(thread, core) {
            Err(nix::Error::ESRCH) | Ok(()) => Ok(()),
            Err(why) => Err(Error::Missing(format!("cannot give {thread} the CPU {core}: {why}"))),
        }
    })
}

/// The calling thread: on its core it comes before all that is not real-time, so that what it measures is not its own waiting.
/// Where the kernel refuses that, it is one of many.
pub(crate) fn pin_client() -> Result<()> {
    set(0, OTHERS).map_err(|why| Error::Missing(format!("cannot have the CPU {OTHERS}: {why}")))?;
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter lives as long as the call.
    let _ = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const priority)
    };
    Ok(())
}

fn set(thread: i32, core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
}
