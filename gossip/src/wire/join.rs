//! What somebody without a certificate says to a member, on a protocol of its own (`tls::ALPN_JOIN`): one `Join`, and the
//! answer is one `Joined`. The member passes `Wanted` on to the placer.

use std::net::SocketAddr;

use placement::{
    ids::{Activation, Principal},
    ledger::{Refusal, Role},
};
use serde::{Deserialize, Serialize};

use crate::tls::PublicKey;

/// Of a `Join`: nobody need say more.
pub const MOST: usize = 16 << 10;
/// Of a `Joined`.
pub const MOST_ANSWER: usize = 256 << 10;

/// The one message of a stranger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub protocol: String,
    /// Of the stranger's covey.
    pub version: String,
    /// `Key::prove`: the stranger holds the key that it wants a certificate for.
    pub proof: String,
    pub wanted: Wanted,
}

/// A certificate, for this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub public_key: PublicKey,
    pub whom: Whom,
}

/// What makes the stranger one of the cell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// A new node, by the secret of a token. `cell`: the name that the cell must have.
    Node {
        secret: String,
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cell: Option<String>,
    },
    /// A user or an admin, by the secret of a token.
    Principal { secret: String },
    /// A member whose certificate has expired while it was off.
    Returning,
}

/// Without the secret: what is passed around gets into logs.
impl std::fmt::Debug for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Whom::Node { name, cell, .. } => {
                f.debug_struct("Node").field("name", name).field("cell", cell).finish_non_exhaustive()
            }
            Whom::Principal { .. } => f.debug_struct("Principal").finish_non_exhaustive(),
            Whom::Returning => f.write_str("Returning"),
        }
    }
}

/// The answer. Certificates are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Joined {
    Node(Box<NewNode>),
    Principal(Box<NewPrincipal>),
    /// The newest certificate of a member.
    Renewed {
        certificate: String,
    },
    Refused(Refusal),
}

/// What a node needs to be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    pub certificate: String,
    /// The authority's own.
    pub authority: String,
    /// The cell's name.
    pub cell: String,
    /// The activation in force when the ledger admitted the node: its promise begins with it (PROTOCOL 8).
    pub promise: Activation,
    /// Where some of the others are.
    pub members: Vec<SocketAddr>,
}

/// What a user needs to be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPrincipal {
    pub principal: Principal,
    pub role: Role,
    pub certificate: String,
    pub authority: String,
    pub cell: String,
    /// Where some of the nodes are.
    pub nodes: Vec<SocketAddr>,
}
