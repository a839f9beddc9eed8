//! A stream between two nodes as one thing that is read and written; dropped before its end, it is broken off.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use gossip::transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A session's priority: behind Raft's, before all that is large.
const PRIORITY: i32 = 1;

/// QUIC would still deliver what was written to a stream that is dropped. What a session has not delivered when it ends
/// must never arrive (PROTOCOL 14).
pub(super) struct Line {
    stream: Stream,
    /// All that was to be sent was said; it may be on its way yet.
    ended: bool,
}

impl Line {
    pub(super) fn new(stream: Stream) -> Line {
        let _ = stream.outgoing.set_priority(PRIORITY);
        Line { stream, ended: false }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.outgoing.reset(1u32.into());
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.incoming).poll_read(cx, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream.outgoing), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.outgoing).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Pin::new(&mut self.stream.outgoing).poll_shutdown(cx)
    }
}
