//! Connections to what listens in a container, wherever its network is.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};

use crate::bundle::Process;

/// For an address that does not answer at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connect to a TCP port in the network of `init`, a container's first process: on its loopback, or else (in a network of its
/// own) on any of its addresses. Blocking.
///
/// # Errors
/// `NotFound`: the process has ended. Else what the first address answered.
pub fn dial(init: &Process, port: u16) -> io::Result<TcpStream> {
    let there = File::open(format!("/proc/{}/ns/net", init.pid))?;
    if !init.is_there() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (ours, theirs) = (fs::metadata("/proc/thread-self/ns/net")?, there.metadata()?);
    if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
        return connect(loopbacks(), port);
    }
    // A network belongs to a thread, and a socket to the network that it was made in.
    let connecting = std::thread::Builder::new().name("dial".into()).spawn(move || {
        setns(&there, CloneFlags::CLONE_NEWNET)?;
        let others = getifaddrs()?.filter_map(|interface| address(&interface)).filter(|ip| !ip.is_loopback());
        connect(loopbacks().chain(others), port)
    })?;
    connecting.join().unwrap_or_else(|_| Err(io::Error::other("the thread that dials broke off")))
}

fn loopbacks() -> impl Iterator<Item = IpAddr> {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].into_iter()
}

fn address(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    // Those of one link would need its number too.
    let v6 = address.as_sockaddr_in6().map(|v6| v6.ip()).filter(|ip| !ip.is_unicast_link_local());
    v4.or(v6.map(IpAddr::V6))
}

fn connect(addresses: impl Iterator<Item = IpAddr>, port: u16) -> io::Result<TcpStream> {
    let mut refused = None;
    for ip in addresses {
        match TcpStream::connect_timeout(&SocketAddr::new(ip, port), PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => _ = refused.get_or_insert(error),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}
