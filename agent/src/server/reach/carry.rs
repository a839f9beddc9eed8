//! Between a stream of parts and the ends of pipes, terminals and connections.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use gossip::wire::stream::{MOST, Part, Parts, WINDOW};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, unix::AsyncFd},
    sync::mpsc,
};

use super::Incoming;
use crate::server::Out;

/// Output that waits for the client, in parts.
const AHEAD: usize = 4;

/// What is said to the client, by whoever has something to say.
pub(super) type Say = mpsc::Sender<Part>;

pub(super) fn saying() -> (Say, mpsc::Receiver<Part>) {
    mpsc::channel(AHEAD)
}

/// Sends what is said, until the last part is.
pub(super) async fn speak(mut said: mpsc::Receiver<Part>, out: &mut Out) {
    while let Some(part) = said.recv().await {
        let last = matches!(part, Part::End(_) | Part::Failed(_));
        if out.part(&part).await.is_err() || last {
            return;
        }
    }
}

/// Input on its way from the client.
pub(super) struct Input {
    comes: mpsc::UnboundedReceiver<Option<Vec<u8>>>,
    /// Bytes that were sent and not taken yet: bounded by the window.
    waiting: Arc<AtomicUsize>,
}

/// Where input comes in.
pub(super) struct Inlet {
    goes: mpsc::UnboundedSender<Option<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn input() -> (Inlet, Input) {
    let (goes, comes) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Inlet { goes, waiting: waiting.clone() }, Input { comes, waiting })
}

impl Inlet {
    /// Takes what the client sends, and gives what is no input to `other`. Returns when the client has gone, or sends
    /// what it may not.
    pub(super) async fn hear(self, read: Incoming<'_>, mut other: impl FnMut(Part)) {
        let mut parts = Parts::new(read);
        while let Ok(Some(part)) = parts.next().await {
            match part {
                Part::In(bytes) => {
                    let waiting = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
                    if waiting > WINDOW {
                        return;
                    }
                    let _ = self.goes.send(Some(bytes));
                }
                Part::InEnd => drop(self.goes.send(None)),
                part => other(part),
            }
        }
    }
}

/// How input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    Bytes,
    /// In chunks that tell the end from a breaking off.
    Chunks,
    /// To a terminal, which is told of the end by a character.
    Keys,
}

/// Writes the input until its end. Who takes no more of it is not a failure: a command need not read.
pub(super) async fn feed(mut input: Input, sink: impl AsyncWrite + Unpin, how: As, say: Say) {
    const END_OF_INPUT: u8 = 4;
    let mut sink = Some(sink);
    while let Some(bytes) = input.comes.recv().await {
        let Some(bytes) = bytes else {
            if let Some(sink) = &mut sink {
                let last: &[u8] = match how {
                    As::Bytes => &[],
                    As::Chunks => &oci::copy::END,
                    As::Keys => &[END_OF_INPUT],
                };
                let _ = sink.write_all(last).await;
                let _ = sink.shutdown().await;
            }
            if how != As::Keys {
                return;
            }
            continue;
        };
        if let Some(to) = &mut sink {
            let written = async {
                if how == As::Chunks {
                    to.write_all(&oci::copy::head(bytes.len() as u32)).await?;
                }
                to.write_all(&bytes).await
            };
            if written.await.is_err() {
                sink = None;
            }
        }
        input.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        if say.send(Part::Taken(bytes.len() as u32)).await.is_err() {
            return;
        }
    }
}

/// Says all that comes out.
pub(super) async fn drain(mut source: impl AsyncRead + Unpin, part: fn(Vec<u8>) -> Part, say: Say) {
    let mut buffer = vec![0; MOST];
    // A terminal's end looks like an error.
    while let Ok(read @ 1..) = source.read(&mut buffer).await {
        if say.send(part(buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

/// A terminal's master, for both directions.
#[derive(Clone)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> io::Result<Terminal> {
        fcntl(master.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // SAFETY: the descriptor is owned by what is registered, which gives out nothing but a reference.
        let registered = unsafe { AsyncFd::register(master) };
        Ok(Terminal(Arc::new(registered.map_err(io::Error::from)?)))
    }

    pub(super) fn resize(&self, size: oci::exec::Size) {
        // One that is gone has no size.
        let _ = oci::exec::resize(self.0.get_ref(), size);
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let into = buffer.initialize_unfilled();
            let done = ready.try_io(|fd| Ok(nix::unistd::read(fd.as_raw_fd(), into)?));
            if let Ok(read) = done {
                return Poll::Ready(read.map(|read| buffer.advance(read)));
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|fd| Ok(nix::unistd::write(fd, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
