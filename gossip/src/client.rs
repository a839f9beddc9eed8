//! A client's side of a request.

use std::{io, path::Path};

use placement::ledger::Refusal;
use tokio::net::UnixStream;

use crate::{
    frame::{self, FrameError},
    wire::{Reply, Request},
};

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent answers on {path}: {source}")]
    Connect { path: String, source: io::Error },
    #[error("the agent's answer broke off: {0}")]
    Frame(#[from] FrameError),
    #[error("the agent closed the connection before it had answered")]
    Closed,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// One request under way.
pub struct Answer {
    stream: UnixStream,
}

/// Sends `request` to the agent that listens on `socket`.
pub async fn send(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Connect { path: socket.display().to_string(), source })?;
    frame::write(&mut stream, request).await?;
    Ok(Answer { stream })
}

impl Answer {
    /// The next part; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Reply>, ClientError> {
        match frame::read(&mut self.stream).await? {
            Some(Reply::End) => Ok(None),
            Some(Reply::Error(refusal)) => Err(refusal.into()),
            Some(reply) => Ok(Some(reply)),
            None => Err(ClientError::Closed),
        }
    }
}
