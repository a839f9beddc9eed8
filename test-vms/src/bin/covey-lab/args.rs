//! The command line's shape, and the texts of `--help`.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::units;

const TOUR: &str = "\
Hosts on one machine, with a covey cell on them, to break at will. Root only.

A short tour:
  covey-lab up --hosts 5                   h1 to h5 and their cell, ready in a few seconds
  covey-lab exec h2 -- covey nodes         any command on a host; covey asks that host's agent
  covey-lab crash h3                       power off: agent, containers and link are gone at once
  covey-lab boot h3                        power on: same disk, empty /run
  covey-lab cut h1,h2 h3,h4,h5             two halves, until covey-lab heal
  covey-lab down                           nothing is left over
  covey-lab up --vm --hosts 3              the same on virtual machines, ready in a minute

A host has its own network, name, mounts, /run, disk and cgroups, with limits on CPU and memory.
All else, the kernel and the files outside of its data directory, it shares with this machine.
A virtual machine has its own kernel too, a stock one of Debian's, and cgroup v2 alone.";

/// Hosts on one machine.
#[derive(Debug, Parser)]
#[command(name = "covey-lab", version, about = TOUR, max_term_width = 120)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments; `exec` exits as its command did, 125 for its own \
                        failures. A lab's files are in /var/lib/covey-lab/NAME, each agent's log as HOST/agent.log, the \
                        console of a virtual machine as HOST/console.log."
)]
pub(crate) struct Cli {
    /// Which lab; it is its cell's name too
    #[arg(long, global = true, default_value = "lab", value_name = "LAB")]
    pub(crate) name: String,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Up(Up),
    /// Show the hosts, their agents, and what is wrong with the network
    Status {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Add a host, whose agent joins the cell
    #[command(after_help = "Example: covey-lab add h6")]
    Add {
        /// h1, h2 …
        host: String,
        /// A virtual machine, beside whatever the others are
        #[arg(long)]
        vm: bool,
    },
    /// End all that is this lab's, after a crash of it too
    Down,
    /// Run a command on a host
    #[command(after_help = "Example: covey-lab exec h2 -- covey nodes --json")]
    Exec {
        /// h1, h2 …
        host: String,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// SIGKILL a host's agent alone; its containers stay
    Kill {
        /// h1, h2 …
        host: String,
    },
    /// Start a host's agent again
    #[command(
        after_help = "Example, an upgrade: covey-lab kill h2 && covey-lab start h2 --binary ./new/covey"
    )]
    Start {
        /// h1, h2 …
        host: String,
        /// What `covey` is on that host from now on
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Power a host off: agent, shims, containers and link are gone at once
    ///
    /// A host that is a virtual machine loses what its kernel had not written to the disk. Of others the page cache survives.
    Crash {
        /// h1, h2 …
        host: String,
    },
    /// Power a host on and start its agent: same disk, empty /run
    Boot {
        /// h1, h2 …
        host: String,
        /// Another address than before, from 10.77.0.0/16
        #[arg(long, value_name = "IP")]
        addr: Option<Ipv4Addr>,
    },
    /// Drop all packets between two sets of hosts; cuts add up
    #[command(after_help = "Example: covey-lab cut h1,h2 h3,h4,h5")]
    Cut {
        /// Hosts, with commas
        #[arg(value_name = "A,B")]
        from: String,
        /// Hosts, with commas
        #[arg(value_name = "C,D,E")]
        to: String,
        /// Only those from the first set to the second
        #[arg(long)]
        one_way: bool,
    },
    /// Undo all cuts
    Heal,
    /// Drop a share of what a host sends and of what is sent to it; 0 ends it
    ///
    /// Each packet is decided upon alone, so what goes to and fro is lost twice as often.
    #[command(after_help = "Example: covey-lab loss h3 5")]
    Loss {
        /// h1, h2 …
        host: String,
        /// 0 to 100, fractions too
        percent: f64,
    },
    /// Limit a host's bandwidth, in each direction; 0 ends it
    #[command(after_help = "Example: covey-lab rate h3 10")]
    Rate {
        /// h1, h2 …
        host: String,
        /// Mbit/s
        mbit: u32,
    },
    /// What a virtual machine runs as its first process
    #[command(hide = true)]
    Guest {
        /// Of the host
        dir: PathBuf,
    },
    /// Run a command in the virtual machine to which this network leads
    #[command(hide = true)]
    PassOn {
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Load an image (an OCI layout or a docker archive) into the cell
    Image {
        /// The layout's directory, or an archive
        file: PathBuf,
    },
}

/// Make hosts h1 to hN, an agent on each, and one cell of them
///
/// Returns when all are alive on every one of them, a placer leads and the voters are settled, and prints how long that took.
#[derive(Debug, Args)]
#[command(after_help = "Example: covey-lab up --hosts 5 --racks 3 --memory 512MiB")]
pub(crate) struct Up {
    /// How many
    #[arg(long, value_name = "N", value_parser = units::hosts)]
    pub(crate) hosts: u32,
    /// Deal the hosts to racks r1 to rR in turn; the label `rack` says which
    #[arg(long, value_name = "R", default_value = "1", value_parser = units::hosts)]
    pub(crate) racks: u32,
    /// What each host's processes may use together: CPUs
    ///
    /// Default: 4; 2 for virtual machines, whose CPUs are all emulated by one of this machine's.
    #[arg(long, value_name = "CPUS", value_parser = units::cpu_milli)]
    pub(crate) cpu: Option<u64>,
    /// The same: memory. Default: 4GiB; 1GiB for virtual machines
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub(crate) memory: Option<u64>,
    /// The size of each host's data directory; only what is used takes room
    #[arg(long, value_name = "BYTES", default_value = "2GiB", value_parser = units::bytes)]
    pub(crate) disk: u64,
    /// The covey binary; default: $COVEY, else the one beside covey-lab
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// A configuration file for all agents: `covey agent --help` says what may be in it
    #[arg(long, value_name = "FILE", conflicts_with = "vm")]
    pub(crate) config: Option<PathBuf>,
    /// Hosts are virtual machines: a stock Debian kernel under software emulation, cgroup v2 alone, a disk that loses what
    /// was not synced when the power fails
    ///
    /// Each takes some 5 seconds of a CPU to boot, and all in it is slower by ten times and more. Needs busybox-static, and
    /// fetches the emulator and the kernel from Debian once (into ~/.cache/covey).
    #[arg(long)]
    pub(crate) vm: bool,
    /// Hosts only: no agents, no cell
    #[arg(long)]
    pub(crate) bare: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_well_formed() {
        Cli::command().debug_assert();
    }
}
