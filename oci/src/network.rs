//! Networks of their own for containers.
//!
//! ```text
//!  other hosts ── the node's links ── [routes, table of rules] ─┬─ link ══ eth0 in a namespace
//!                                                               └─ link ══ eth0 in another
//! ```
//! A node has a subnet and a table of packet rules, which with its links are named after it, so that several agents on a
//! machine do not meddle with one another's. The table is made for the first container and removed with the last;
//! nothing is written down, since the agent finds in the bundles who has which address. The namespaces have no names at
//! all: each lives as long as the agent or a process holds it, and its link, address and route die with it. So a power
//! cycle leaves nothing, and [`Networks::adopt`] removes what a killed agent did not come to remove.
//!
//! Packets go through the kernel's own forwarding and connection tracking: no process is in their way, and they go on
//! while the agent does not run.

mod error;
pub mod files;
mod links;
mod namespace;
mod netlink;
mod rules;
mod subnet;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use serde::{Deserialize, Serialize};

pub use self::error::Error;
pub use self::namespace::{Namespace, Spares};
use self::netlink::Socket;
use self::rules::Way;
pub use self::subnet::{BadSubnet, Subnet};

/// A port of the node's that leads to one of a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The node's.
    pub port: u16,
    /// The one that the container listens on.
    pub inside: u16,
}

/// How a container is attached to its node's private network: kept in its bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container's own.
    pub address: Ipv4Addr,
    /// Bits of the subnet: its first address is the node's.
    pub prefix: u8,
    /// Over TCP and UDP.
    pub ports: Vec<Published>,
}

impl Attachment {
    fn subnet(&self) -> Subnet {
        Subnet::of(self.address, self.prefix)
    }

    fn ways(&self) -> impl Iterator<Item = Way> {
        self.ports.iter().map(|p| Way { port: p.port, to: self.address, inside: p.inside })
    }
}

/// The private networks of a node.
pub struct Networks {
    names: Names,
    node: u64,
    wanted: Option<Subnet>,
    state: Mutex<State>,
}

struct Names {
    table: String,
    /// How those of links to containers begin; the rest is the address's place in the subnet.
    links: String,
}

#[derive(Default)]
struct State {
    /// By run. Those of runs that have ended count until they are detached.
    attached: BTreeMap<String, Attachment>,
    standing: Option<Standing>,
}

/// What there is once a container is attached.
struct Standing {
    subnet: Subnet,
    mtu: u32,
    /// To the host's links, and to its packet rules.
    host: Socket,
    rules: Socket,
}

impl Networks {
    /// Those of the node with this id, with addresses of `subnet`, or else of one that overlaps nothing. Touches nothing.
    pub fn new(node: u64, subnet: Option<Subnet>) -> Networks {
        let short = node as u32;
        let names = Names {
            table: format!("covey-{node:016x}"),
            // With four digits: 15 bytes, all that the kernel allows.
            links: format!("cv{short:08x}x"),
        };
        Networks { names, node, wanted: subnet, state: Mutex::default() }
    }

    /// To be called once, before anything is attached: takes over what an earlier agent attached, and removes whatever
    /// else it left. `runs`: who was attached, and whether it still runs.
    pub fn adopt(&self, runs: impl IntoIterator<Item = (String, Attachment, bool)>) -> Result<(), Error> {
        let mut state = self.lock();
        let mut alive = Vec::new();
        for (run, attachment, running) in runs {
            if running {
                alive.push(attachment.clone());
            }
            state.attached.insert(run, attachment);
        }
        let mut host = socket(NETLINK_ROUTE)?;
        let needed: Vec<String> = alive.iter().map(|a| self.link(a)).collect();
        for name in links::names(&mut host)? {
            if name.starts_with(&self.names.links) && !needed.contains(&name) {
                links::remove(&mut host, &name)?;
            }
        }
        match alive.first() {
            None => self.clear(&mut state).or_else(|error| match state.attached.is_empty() {
                // An agent that may not touch packet rules has left none.
                true => {
                    tracing::debug!("{error}");
                    Ok(())
                }
                false => Err(error),
            }),
            Some(first) => {
                let ways: Vec<Way> = alive.iter().flat_map(Attachment::ways).collect();
                state.standing = Some(self.build(first.subnet(), &ways)?);
                Ok(())
            }
        }
    }

    /// Attaches a run's namespace. `near`: the same number leads to the same address, if that is free.
    pub fn attach(
        &self,
        run: &str,
        namespace: &mut Namespace,
        ports: Vec<Published>,
        near: u32,
    ) -> Result<Attachment, Error> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.standing.is_none() {
            state.standing = Some(self.build(self.choose()?, &[])?);
        }
        let Some(standing) = &mut state.standing else { return Err(Error::NoSubnet) };
        let subnet = standing.subnet;
        let address = subnet
            .from(near)
            .find(|address| !state.attached.values().any(|a| a.address == *address))
            .ok_or_else(|| Error::Full { subnet, room: subnet.room() })?;
        let attachment = Attachment { address, prefix: subnet.prefix(), ports };
        let link = self.link(&attachment);
        let attached = links::remove(&mut standing.host, &link).and_then(|()| {
            let (gateway, mtu) = (subnet.gateway(), standing.mtu);
            links::connect(&mut standing.host, &link, namespace, gateway, address, mtu)?;
            // What the node sends from 127.0.0.1 to a published port leaves by this link; `guard` keeps the way back
            // shut.
            set(&format!("net/ipv4/conf/{link}/route_localnet"), "1")?;
            let ways: Vec<Way> = attachment.ways().collect();
            rules::open(&mut standing.rules, &self.names.table, &ways)
        });
        if let Err(error) = attached {
            let _ = links::remove(&mut standing.host, &link);
            if state.attached.is_empty() {
                let _ = self.clear(state);
            }
            return Err(error);
        }
        state.attached.insert(run.to_string(), attachment.clone());
        Ok(attachment)
    }

    /// Takes a run off the network; with the last, all that private networks need goes. A run that is not attached is no
    /// error.
    pub fn detach(&self, run: &str) -> Result<(), Error> {
        let link = {
            let mut state = self.lock();
            let state = &mut *state;
            let Some(attachment) = state.attached.get(run) else { return Ok(()) };
            if let Some(standing) = &mut state.standing {
                let ways: Vec<Way> = attachment.ways().collect();
                rules::close(&mut standing.rules, &self.names.table, &ways)?;
            }
            self.link(attachment)
        };
        // The kernel takes tens of milliseconds over it. The address is this run's until it is done.
        links::remove(&mut socket(NETLINK_ROUTE)?, &link)?;
        let mut state = self.lock();
        match state.attached.remove(run).is_some() && state.attached.is_empty() {
            true => self.clear(&mut state),
            false => Ok(()),
        }
    }

    /// The address of an attached run, at which the node's own programs reach all of its ports.
    pub fn address(&self, run: &str) -> Option<Ipv4Addr> {
        self.lock().attached.get(run).map(|attachment| attachment.address)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, attachment: &Attachment) -> String {
        let place = attachment.subnet().offset(attachment.address);
        format!("{}{place:04x}", self.names.links)
    }

    fn choose(&self) -> Result<Subnet, Error> {
        let (taken, _) = links::surroundings(&mut socket(NETLINK_ROUTE)?)?;
        match self.wanted {
            None => Subnet::choose(self.node, &taken).ok_or(Error::NoSubnet),
            Some(subnet) => match subnet.clash(&taken) {
                Some(route) => Err(Error::Overlap { subnet, route: *route }),
                None => Ok(subnet),
            },
        }
    }

    /// Switches forwarding on, and puts the rules in place.
    fn build(&self, subnet: Subnet, ways: &[Way]) -> Result<Standing, Error> {
        let mut host = socket(NETLINK_ROUTE)?;
        let (_, mtu) = links::surroundings(&mut host)?;
        set("net/ipv4/ip_forward", "1")?;
        let open = Error::of("speak to the kernel's packet rules", "nftables", "nf_tables");
        let mut rules = Socket::open(NETLINK_NETFILTER).map_err(open)?;
        rules::replace(&mut rules, &self.names.table, &self.names.links, &subnet, ways)?;
        Ok(Standing { subnet, mtu, host, rules })
    }

    /// Removes the rules. (Forwarding stays on: others may have come to rely on it.)
    fn clear(&self, state: &mut State) -> Result<(), Error> {
        let rules = match state.standing.take() {
            Some(standing) => Ok(standing.rules),
            None => Socket::open(NETLINK_NETFILTER),
        };
        match rules {
            Ok(mut rules) => rules::remove(&mut rules, &self.names.table),
            // A kernel without packet rules has none of ours.
            Err(_) => Ok(()),
        }
    }
}

fn socket(protocol: isize) -> Result<Socket, Error> {
    Socket::open(protocol).map_err(Error::step("speak to the kernel's links"))
}

/// Sets what a setting of the host's has to be, if it is not.
fn set(setting: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/{setting}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(Error::step(format!("set {path} to {value}")))
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
