//! What goes both ways after a request that opens a way into a task (`Call::Exec`, `Forward`, `CopyOut`, `CopyIn`): once the
//! node has answered with an `Item`, both sides send parts until the node has sent `End` or `Failed`.
//!
//! A part is its kind (one byte), a big-endian length of four bytes, and so many bytes: raw ones, or JSON with named fields.
//! A kind that a reader does not know is passed over. What comes out is held back by the stream itself; what goes in by
//! acknowledgement (`WINDOW`), so that a signal never waits behind input that nobody reads.

use placement::ledger::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::frame::FrameError;

/// No part holds more bytes.
pub const MOST: usize = 64 << 10;
/// Bytes of input that may be on their way, sent and not yet `Taken`.
pub const WINDOW: usize = 1 << 20;

const HEAD: usize = 5;

/// A terminal's size, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Client → node: input.
    In(Vec<u8>),
    /// There is no more of it.
    InEnd,
    /// The client's terminal has another size now.
    Resize(TerminalSize),
    /// To the command's process group, by its number.
    Signal(u8),
    /// Node → client: output.
    Out(Vec<u8>),
    /// The command's stderr.
    Err(Vec<u8>),
    /// There is no more output, though there may be room for input yet.
    OutEnd,
    /// So many bytes of input have been taken.
    Taken(u32),
    /// It is over. `Exec`: `{code, signal}`, one of them null; a copy: `{files, bytes, skipped}`.
    End(Value),
    /// It broke off, or could not be done to its end.
    Failed(Refusal),
}

impl Part {
    /// The part's bytes, to be written by whoever owns the stream.
    ///
    /// # Errors
    /// It is too long.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let json = |value: &Value| serde_json::to_vec(value).map_err(FrameError::Garbled);
        let (kind, bytes) = match self {
            Part::In(bytes) => (1, bytes.clone()),
            Part::InEnd => (2, Vec::new()),
            Part::Resize(size) => (3, serde_json::to_vec(size).map_err(FrameError::Garbled)?),
            Part::Signal(number) => (4, vec![*number]),
            Part::Out(bytes) => (16, bytes.clone()),
            Part::Err(bytes) => (17, bytes.clone()),
            Part::OutEnd => (18, Vec::new()),
            Part::Taken(bytes) => (19, bytes.to_be_bytes().to_vec()),
            Part::End(document) => (20, json(document)?),
            Part::Failed(refusal) => (21, serde_json::to_vec(refusal).map_err(FrameError::Garbled)?),
        };
        if bytes.len() > MOST {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let mut whole = Vec::with_capacity(HEAD + bytes.len());
        whole.push(kind);
        whole.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        whole.extend_from_slice(&bytes);
        Ok(whole)
    }

    /// `None`: of a kind that is not known here.
    fn decode(kind: u8, bytes: &[u8]) -> Result<Option<Part>, FrameError> {
        use serde::de::Error as _;
        let garbled = FrameError::Garbled;
        let odd = || garbled(serde_json::Error::custom("a part of another length than its kind has"));
        Ok(Some(match kind {
            1 => Part::In(bytes.to_vec()),
            2 => Part::InEnd,
            3 => Part::Resize(serde_json::from_slice(bytes).map_err(garbled)?),
            4 => Part::Signal(*bytes.first().ok_or_else(odd)?),
            16 => Part::Out(bytes.to_vec()),
            17 => Part::Err(bytes.to_vec()),
            18 => Part::OutEnd,
            19 => Part::Taken(u32::from_be_bytes(bytes.try_into().map_err(|_| odd())?)),
            20 => Part::End(serde_json::from_slice(bytes).map_err(garbled)?),
            21 => Part::Failed(serde_json::from_slice(bytes).map_err(garbled)?),
            _ => return Ok(None),
        }))
    }
}

/// Writes one part and flushes.
pub async fn write(to: &mut (impl AsyncWrite + Unpin + ?Sized), part: &Part) -> Result<(), FrameError> {
    let bytes = part.encode()?;
    to.write_all(&bytes).await.map_err(FrameError::Broken)?;
    to.flush().await.map_err(FrameError::Broken)
}

/// Reads parts. Cancel-safe: what was read of a part stays for the next time.
pub struct Parts<R> {
    from: R,
    held: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Parts<R> {
    pub fn new(from: R) -> Parts<R> {
        Parts { from, held: Vec::new() }
    }

    /// The next part; `None` if the stream ended between two.
    pub async fn next(&mut self) -> Result<Option<Part>, FrameError> {
        loop {
            while self.held.len() >= HEAD {
                let length = u32::from_be_bytes([self.held[1], self.held[2], self.held[3], self.held[4]]);
                let length = length as usize;
                if length > MOST {
                    return Err(FrameError::TooLong(length));
                }
                if self.held.len() < HEAD + length {
                    break;
                }
                let part = Part::decode(self.held[0], &self.held[HEAD..HEAD + length]);
                self.held.drain(..HEAD + length);
                match part {
                    Ok(Some(part)) => return Ok(Some(part)),
                    Ok(None) => {}
                    Err(error) => return Err(error),
                }
            }
            self.held.reserve(HEAD + MOST);
            let read = self.from.read_buf(&mut self.held).await.map_err(FrameError::Broken)?;
            if read == 0 {
                return match self.held.is_empty() {
                    true => Ok(None),
                    false => Err(FrameError::Broken(std::io::ErrorKind::UnexpectedEof.into())),
                };
            }
        }
    }
}
