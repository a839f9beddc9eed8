//! Network namespaces, made before a container needs them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, unshare};

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
        // On a thread that ends: it has left the host's network, and never needs to find back.
        let made = thread::scope(|scope| {
            let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, enter)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread broke off")))
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
    let fd = File::open("/proc/thread-self/ns/net")?.into();
    let inside = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    Ok(Namespace { fd, inside })
}
