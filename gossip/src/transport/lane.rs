//! A stream between two nodes, and what it is for.

use quinn::{RecvStream, SendStream, VarInt};
use serde::{Serialize, de::DeserializeOwned};

use crate::frame::{self, FrameError};

/// What a stream is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A client's request, passed on.
    Request = 1,
    /// An agent's session with the placer.
    Session = 2,
    /// The ledger, between voters and to its copies.
    Raft = 3,
    /// Everything known of who is here.
    Exchange = 4,
    /// A stranger's only stream.
    Join = 5,
    /// One node asks another one thing.
    Ask = 6,
}

impl Lane {
    /// The lane with this first byte.
    pub fn read(byte: u8) -> Option<Lane> {
        [Lane::Request, Lane::Session, Lane::Raft, Lane::Exchange, Lane::Join, Lane::Ask]
            .into_iter()
            .find(|l| *l as u8 == byte)
    }
}

/// Frames, both ways. A stream that is dropped unread is refused to its sender.
#[derive(Debug)]
pub struct Stream {
    /// For what `frame` has no words for: priorities, resets.
    pub outgoing: SendStream,
    pub incoming: RecvStream,
}

impl Stream {
    pub(super) async fn begin(
        outgoing: SendStream,
        incoming: RecvStream,
        lane: Lane,
    ) -> Result<Stream, FrameError> {
        let mut stream = Stream { outgoing, incoming };
        let byte = [lane as u8];
        stream.outgoing.write_all(&byte).await.map_err(|e| FrameError::Broken(e.into()))?;
        Ok(stream)
    }

    /// Sends one message.
    pub async fn write<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        frame::write(&mut self.outgoing, message).await
    }

    /// The next message; none after the last. Not cancel-safe.
    pub async fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        frame::read(&mut self.incoming).await
    }

    /// As `read`, of who is not trusted with so many bytes.
    pub async fn read_at_most<T: DeserializeOwned>(&mut self, most: usize) -> Result<Option<T>, FrameError> {
        frame::read_at_most(&mut self.incoming, most).await
    }

    /// No more will be sent. Returns when the other side has it all, or has gone.
    pub async fn finish(mut self) {
        if self.outgoing.finish().is_ok() {
            let _ = self.outgoing.stopped().await;
        }
    }

    pub(super) fn refuse(mut self) {
        let _ = self.incoming.stop(VarInt::from_u32(1));
        let _ = self.outgoing.reset(VarInt::from_u32(1));
    }
}
