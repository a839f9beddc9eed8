//! What happens to a host or its agent.

use std::net::Ipv4Addr;
use std::path::Path;

use test_vms::lab::{self, Lab, Result};

pub(crate) fn kill(lab: &Lab, host: &str) -> Result<()> {
    lab.kill(host)
}

pub(crate) fn start(lab: &Lab, host: &str, binary: Option<&Path>) -> Result<()> {
    if let Some(binary) = binary {
        lab.install(host, &lab::binary(Some(binary))?)?;
    }
    lab.start(host)
}

pub(crate) fn crash(lab: &Lab, host: &str) -> Result<()> {
    lab.crash(host)
}

pub(crate) fn boot(lab: &Lab, host: &str, addr: Option<Ipv4Addr>) -> Result<()> {
    lab.boot(host, addr)
}
