//! The shim: one process per container, from before its start until after its end.
//!
//! The agent executes one *fork server*, `covey shim --serve`, long before it needs it ([`serve`]). Asked for a container,
//! the server makes its shim ([`start`]), which locks the bundle, forks a *builder* ([`build`]) and at once executes itself
//! as a [`waiter`]: the process that is needed for long is the smallest, and is there before what it waits for. Until then
//! it borrows the server's memory ([`vfork`]), so that page tables are copied once and not twice. The builder
//! makes the container with libcontainer, which needs a process of its own (single-threaded, whose working directory,
//! dumpable flag and descriptors it may change); the container's first process becomes the waiter's child, not its own. It
//! says whether the program runs, and ends. The waiter moves log bytes, waits, writes the exit record, and ends.
//!
//! A shim that is killed takes its container along (`PR_SET_PDEATHSIG`): without it nobody would read the container's
//! output nor learn its exit status, so the task ends as `shim_lost` and is started anew, instead of running on unseen.
//! Nobody else's death matters to it: not the agent's, not the server's. Whoever is its parent then has nothing to do but
//! reap it: the server, which leaves that to the kernel, or init.

mod binds;
mod build;
mod capability;
mod cgroupfs;
mod exec;
mod inside;
mod late;
mod mounts;
mod network;
mod program;
mod report;
mod serve;
mod start;
mod user;
mod usual;
mod vfork;
mod volume;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run as `covey shim ARGS…`: the arguments after `shim`. To be called before anything else of the process: no thread
/// may exist yet.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    match args.next() {
        Some(flag) if flag == "--serve" => serve::main(&args.map(PathBuf::from).collect::<Vec<_>>()),
        Some(flag) if flag == "--exec" => exec::main(),
        // `--wait` has been answered before any of this ran, if the program was linked as it must be.
        _ => {
            eprintln!("covey shim is started by the agent");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
#[path = "shim/pump_tests.rs"]
mod pump_tests;
