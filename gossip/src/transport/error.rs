//! What can go wrong between nodes, and whom it concerns.

use std::{io, net::SocketAddr, time::Duration};

use placement::ids::NodeId;
use quinn::{ConnectionError, crypto::rustls::NoInitialCipherSuite};

use crate::tls::{BadSubject, TlsError};

/// Why somebody was turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the handshake failed: {0}")]
    Handshake(ConnectionError),
    #[error("it has no certificate of this cell")]
    NotAMember,
    #[error("node {0} was removed from this cell")]
    Removed(NodeId),
    #[error("it has this node's own key, from a copy of its data directory")]
    Twin,
    #[error("it tries to join too often; the next attempt in {0:?}")]
    TooOften(Duration),
    #[error(transparent)]
    Subject(BadSubject),
    #[error("it opened a stream of an unknown kind ({0})")]
    Lane(u8),
    #[error("it opened a stream and said nothing")]
    Silent,
}

/// A connection or stream that could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {to}: {source}")]
    Dial { to: String, source: quinn::ConnectError },
    #[error("{to} does not answer")]
    Silent { to: String },
    #[error("the connection to {to} failed: {source}")]
    Lost { to: String, source: ConnectionError },
    #[error("{to}: {source}")]
    Subject { to: String, source: BadSubject },
    #[error("{to} was removed from this cell")]
    Removed { to: String },
    #[error("this node stops")]
    Stopped,
    #[error("the stream to {to} broke before its first byte")]
    Stream { to: String },
}

impl ConnectError {
    /// The same of "it": for a sentence that has named the node already, as people know it.
    pub fn of_it(mut self) -> ConnectError {
        match &mut self {
            ConnectError::Dial { to, .. }
            | ConnectError::Silent { to }
            | ConnectError::Lost { to, .. }
            | ConnectError::Subject { to, .. }
            | ConnectError::Removed { to }
            | ConnectError::Stream { to } => "it".clone_into(to),
            ConnectError::Stopped => {}
        }
        self
    }
}

/// A node that cannot open its port.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on UDP {addr}: {source}")]
    Port { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("QUIC cannot use this TLS")]
    Quic(#[from] NoInitialCipherSuite),
}

/// A stranger that could not reach the cell.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl From<TlsError> for JoinError {
    fn from(error: TlsError) -> JoinError {
        JoinError::Bind(error.into())
    }
}

impl From<NoInitialCipherSuite> for JoinError {
    fn from(error: NoInitialCipherSuite) -> JoinError {
        JoinError::Bind(error.into())
    }
}
