//! A client's side of a request.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use placement::ledger::Refusal;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use crate::{
    frame::{self, FrameError},
    tls::ClientCredentials,
    transport::{self, JoinError, Stream},
    wire::{Reply, Request},
};

/// To be let in by an agent on the same machine. Over the network, `transport` has its own patience.
const PATIENCE: Duration = Duration::from_secs(3);

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent answers on {path}: {source}")]
    Connect { path: String, source: io::Error },
    #[error(transparent)]
    Reach(#[from] JoinError),
    #[error("the agent's answer broke off: {0}")]
    Frame(#[from] FrameError),
    #[error("the agent closed the connection before it had answered")]
    Closed,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// One request under way.
pub struct Answer {
    from: From,
}

enum From {
    Local(UnixStream),
    Node(Stream),
}

/// Sends `request` to the agent that listens on `socket`.
pub async fn send(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let connect = |source| ClientError::Connect { path: socket.display().to_string(), source };
    let connected = timeout(PATIENCE, UnixStream::connect(socket)).await;
    let mut stream = connected.map_err(|_| connect(io::ErrorKind::TimedOut.into()))?.map_err(connect)?;
    frame::write(&mut stream, request).await?;
    Ok(Answer { from: From::Local(stream) })
}

/// Sends `request` to the node that listens on `to`, as the principal of `me`.
pub async fn send_to(
    to: SocketAddr,
    me: &ClientCredentials,
    request: &Request,
) -> Result<Answer, ClientError> {
    let mut stream = transport::request(to, me).await?;
    stream.write(request).await?;
    Ok(Answer { from: From::Node(stream) })
}

/// Where an answer goes on with parts of its own (`wire::stream`): from the node, and to it.
pub type Ways = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

impl Answer {
    /// What comes after the replies that were read, and the way back. Whoever drops the way back hangs up.
    pub fn into_ways(self) -> Ways {
        match self.from {
            From::Local(stream) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
            From::Node(Stream { outgoing, incoming }) => (Box::new(incoming), Box::new(outgoing)),
        }
    }

    /// The next part; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Reply>, ClientError> {
        let read = match &mut self.from {
            From::Local(stream) => frame::read(stream).await,
            From::Node(stream) => stream.read().await,
        };
        match read? {
            Some(Reply::End) => Ok(None),
            Some(Reply::Error(refusal)) => Err(refusal.into()),
            Some(reply) => Ok(Some(reply)),
            None => Err(ClientError::Closed),
        }
    }
}
