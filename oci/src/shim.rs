//! The shim: one process per container, from before its start until after its end.
//!
//! `covey shim BUNDLE` builds the container with libcontainer, which needs a process of its own (single-threaded, whose
//! working directory, dumpable flag and descriptors it may change), and says on stdout whether the program runs. It then
//! executes itself again as a *waiter* (the children of a process stay its children), so that nothing of building is
//! kept in memory: the waiter moves log bytes, waits, and writes the exit record.
//!
//! A shim that is killed takes its container along (`PR_SET_PDEATHSIG`): without it nobody would read the container's
//! output nor learn its exit status, so the task ends as `shim_lost` and is started anew, instead of running on unseen.

mod binds;
mod build;
mod exec;
mod inside;
mod mounts;
mod network;
mod program;
mod pump;
mod report;
mod start;
mod user;
mod volume;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run as `covey shim ARGS…`: the arguments after `shim`. To be called before anything else of the process: no thread
/// may exist yet.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let number = |arg: &OsString| arg.to_str().and_then(|text| text.parse::<i32>().ok());
    match args.as_slice() {
        [wait, bundle, numbers @ ..] if wait == "--wait" => {
            match numbers.iter().filter_map(number).collect::<Vec<_>>()[..] {
                [init, stdout, stderr, lock] => {
                    wait::main(&PathBuf::from(bundle), init, [stdout, stderr], lock)
                }
                _ => usage(),
            }
        }
        [exec] if exec == "--exec" => exec::main(),
        [bundle] => start::main(&PathBuf::from(bundle)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("covey shim is started by the agent, with one bundle directory as its argument");
    ExitCode::from(2)
}
