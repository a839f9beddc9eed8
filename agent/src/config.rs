//! What an agent is told at its start.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use placement::resources::Resources;

use crate::{
    estimate::Settings,
    images::{Rules, registry},
};

/// Where the local socket is unless somebody says otherwise.
pub const SOCKET: &str = "/run/covey/agent.sock";

/// The UDP port that nodes use unless somebody says otherwise.
pub const PORT: u16 = 7411;

/// Where nodes listen unless somebody says otherwise: on all addresses.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);

#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory; made if it is absent.
    pub data: PathBuf,
    pub socket: PathBuf,
    /// The node's name; none: the one it has, at first the host's.
    pub name: Option<String>,
    /// The cell's name; none: the one it has, at first `covey`. Another than it has is refused.
    pub cell: Option<String>,
    /// Where other nodes and clients are listened for (UDP). Port 0: one that is free.
    pub listen: SocketAddr,
    /// Where others reach this node, if not where it listens.
    pub advertise: Option<SocketAddr>,
    /// Members of the cell to join, `HOST:PORT`, any of which will do. Of no interest if the directory has a cell; none:
    /// without a cell in the directory a new one is started.
    pub join: Vec<String>,
    /// What admits this node (`gossip::token`). A form that is none was refused before.
    pub token: Option<String>,
    /// Laid over the detected ones.
    pub labels: BTreeMap<String, String>,
    /// Less than the machine has; what is not named is as detected.
    pub capacity: Resources,
    /// Where private networks have their addresses from; none: from a part of 10.128.0.0/9 that nothing else uses.
    pub subnet: Option<oci::network::Subnet>,
    /// The covey binary: what shims are made of, and the image `hello:1`.
    pub exe: PathBuf,
    /// Where images come from that no node has.
    pub registries: registry::Settings,
    /// When images that nobody uses go.
    pub collect: Rules,
    /// How tasks' needs are estimated; none: not at all, nothing is reclaimed.
    pub estimate: Option<Settings>,
    /// A throw-away cell (`covey dev`): its directory goes away with it, so nothing is forced to disk for the sake of
    /// the next start.
    pub dev: bool,
}

impl Config {
    /// Whether the data directory holds a node of a cell already.
    pub fn has_cell(&self) -> bool {
        self.data.join("identity.json").exists()
    }
}
