//! Messages on a byte stream: a big-endian length of four bytes, then that many bytes of JSON.

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// No message is longer: a peer cannot make us allocate more.
pub const MAX: usize = 8 << 20;

/// A frame that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the connection broke in the middle of a message: {}", with_cause(.0))]
    Broken(#[source] std::io::Error),
    #[error("a message of {0} bytes is longer than is allowed")]
    TooLong(usize),
    #[error("a message that is not what was expected: {0}")]
    Garbled(#[source] serde_json::Error),
}

/// QUIC's say no more than that the connection is lost, and keep why to themselves.
fn with_cause(error: &std::io::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The frame's bytes, to be written by whoever owns the stream.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Garbled)?;
    let len = bytes.len() - 4;
    match u32::try_from(len) {
        Ok(n) if len <= MAX => bytes[..4].copy_from_slice(&n.to_be_bytes()),
        _ => return Err(FrameError::TooLong(len)),
    }
    Ok(bytes)
}

/// Writes one message and flushes.
pub async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<(), FrameError> {
    let bytes = encode(message)?;
    to.write_all(&bytes).await.map_err(FrameError::Broken)?;
    to.flush().await.map_err(FrameError::Broken)
}

/// Reads one message; `None` if the stream ended before it began. Not cancel-safe.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<T>, FrameError> {
    read_at_most(from, MAX).await
}

/// As `read`, of who is not trusted with so many bytes.
pub async fn read_at_most<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<Option<T>, FrameError> {
    let mut len = [0; 4];
    let mut got = 0;
    while got < len.len() {
        match from.read(&mut len[got..]).await.map_err(FrameError::Broken)? {
            0 if got == 0 => return Ok(None),
            0 => return Err(FrameError::Broken(std::io::ErrorKind::UnexpectedEof.into())),
            n => got += n,
        }
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > most {
        return Err(FrameError::TooLong(len));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).await.map_err(FrameError::Broken)?;
    serde_json::from_slice(&bytes).map(Some).map_err(FrameError::Garbled)
}
