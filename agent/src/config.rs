//! What an agent is told at its start.

use std::{collections::BTreeMap, path::PathBuf};

use placement::resources::Resources;

/// Where the local socket is unless somebody says otherwise.
pub const SOCKET: &str = "/run/covey/agent.sock";

#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory; made if it is absent.
    pub data: PathBuf,
    pub socket: PathBuf,
    /// The node's name; none: the one it has, at first the host's.
    pub name: Option<String>,
    /// The cell's name; none: the one it has, at first `covey`. Another than it has is refused.
    pub cell: Option<String>,
    /// Laid over the detected ones.
    pub labels: BTreeMap<String, String>,
    /// Less than the machine has; what is not named is as detected.
    pub capacity: Resources,
    /// The covey binary: what shims are made of, and the image `hello:1`.
    pub exe: PathBuf,
    /// A throw-away cell (`covey dev`): its directory goes away with it, so nothing is forced to disk for the sake of
    /// the next start.
    pub dev: bool,
}
