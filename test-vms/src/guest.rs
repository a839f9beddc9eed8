//! Inside of a host that is a virtual machine: its first process, and the server through which its lab runs commands.
//!
//! The machine's root is this machine's own file system (through virtiofs), as it is for hosts that are namespaces; its
//! kernel, cgroups (v2 alone), `/run` and network are its own, and so is the disk of its data directory. The lab talks with
//! it over a cable of their own, which is no part of the lab's network and is seen by no process of the guest.

mod client;
mod init;
mod serve;
mod terminal;
mod wire;

pub use client::exec;
pub use init::init;

pub(crate) use client::{ask, environment};
pub(crate) use init::{SETTINGS, Settings};
pub(crate) use wire::{Answer, Process, Request};

use std::net::{Ipv4Addr, SocketAddrV4};

/// The lab's end of the cable between them. Link-local: no route leads there.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// The guest's end.
pub(crate) const INSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 77, 2), 77);
/// How the hardware address of the guest's end begins; those of the lab's network begin otherwise.
pub(crate) const CABLE: &str = "02:c0:7e:fe";
/// The directory in which the guest finds its settings, on its kernel's command line.
pub(crate) const VARIABLE: &str = "COVEY_HOST";
