//! What covey is compared with: Debian's container engine and runtimes.

pub(crate) mod cycles;
mod docker;
mod runtime;
mod swarm;

pub(crate) use cycles::Starter;
pub(crate) use docker::{Docker, remove_cgroups};
pub(crate) use runtime::Runtime;
pub(crate) use swarm::{LAB, Swarm};

use std::process::{Command, Stdio};

use test_vms::{Error, Result};

/// Runs a command that leaves a container behind: with a pipe of ours for its output this would wait for the container.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(|why| Error::Missing(format!("cannot run {command:?}: {why}")))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Missing(format!("{command:?} ended with {status}"))),
    }
}

/// Runs a command to its end; what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|why| Error::Missing(format!("cannot run {command:?}: {why}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Missing(format!("{command:?} ended with {}: {}", output.status, said.trim())))
}
