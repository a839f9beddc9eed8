//! Network namespaces, made before a container needs them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, setns, unshare};

use super::error::Error;
use super::links;
use super::netlink::Socket;

/// A network namespace with its loopback up and nothing else in it. It is there as long as this is, or as a process is
/// in it: there is no name for it that could be left over.
pub struct Namespace {
    fd: OwnedFd,
    /// A socket in it.
    pub(super) inside: Socket,
}

/// What a container's own network allows that the host's does not: without a name it had no harm to do there. In a user
/// namespace its root has no rights over the network namespace, which is the host's.
const ALLOWED: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    // Any group may ping.
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
];

impl Namespace {
    /// Makes one.
    pub fn make() -> Result<Namespace, Error> {
        let made = Home::remember().and_then(|home| {
            let made = enter();
            drop(home);
            made
        });
        let mut made =
            made.map_err(Error::of("make a network namespace", "network namespaces", "none: CONFIG_NET_NS"))?;
        links::loopback(&mut made.inside)?;
        Ok(made)
    }

    /// Where another process of the host finds it, as long as this is there.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// The network namespace of a thread, to which it returns with this. A thread of its own for each namespace would take
/// longer than all that is done in one.
struct Home(File);

impl Home {
    fn remember() -> io::Result<Home> {
        let home = File::open(HERE)?;
        // Whoever may not come back does not go.
        setns(&home, CloneFlags::CLONE_NEWNET)?;
        Ok(Home(home))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if setns(&self.0, CloneFlags::CLONE_NEWNET).is_err() {
            // Whatever this thread did next would be done in a container's network. The next agent finds all that runs.
            std::process::abort();
        }
    }
}

/// The calling thread's.
const HERE: &str = "/proc/thread-self/ns/net";

/// Namespaces that are ready: a start takes one, and another is made behind it. None is made before the first start that
/// needs one.
#[derive(Default)]
pub struct Spares(Mutex<Vec<Namespace>>);

/// How many are kept ready: each takes about a hundred kilobytes of the kernel's memory.
const SPARES: usize = 2;

impl Spares {
    /// One that is ready, or else a new one. Call [`Spares::refill`] when there is time.
    pub fn take(&self) -> Result<Namespace, Error> {
        let ready = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        ready.map_or_else(Namespace::make, Ok)
    }

    /// Makes those that are missing.
    pub fn refill(&self) -> Result<(), Error> {
        let ready = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while ready().len() < SPARES {
            let made = Namespace::make()?;
            ready().push(made);
        }
        Ok(())
    }
}

fn enter() -> io::Result<Namespace> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    for (path, value) in ALLOWED {
        // What a sandbox does not let us do costs low ports, no more.
        if let Err(error) = fs::write(path, value) {
            tracing::debug!("cannot set {path} to {value} in a new network namespace: {error}");
        }
    }
    // Private networks are IPv4; `::1` is there already and stays.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let fd = File::open(HERE)?.into();
    let inside = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    Ok(Namespace { fd, inside })
}
