//! The two ends of a session's stream (PROTOCOL 14): frames to events and back. Decides nothing.

use std::time::Duration;

use gossip::{
    frame::{self, FrameError},
    wire::{FromAgent, Hello, Order, PROTOCOL, SessionId, ToAgent, Welcome},
};
use placement::ids::NodeId;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

/// A placer that has nothing to say says so: connections that nobody uses end after 30 s.
const BEAT: Duration = Duration::from_secs(10);

/// A session that did not come about, or ended otherwise than by its stream's end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the other side speaks `{0}`, this one {PROTOCOL}")]
    Protocol(String),
    #[error("the other side closed the stream before the session was open")]
    Closed,
    #[error("the node has promised a newer placer (activation {0})")]
    Promised(u64),
}

/// What an agent's end tells the node's loop.
#[derive(Debug)]
pub enum AgentEnd {
    /// The answer and all that follows go to `out`.
    Hello {
        hello: Hello,
        fresh: u64,
        out: UnboundedSender<ToPlacer>,
    },
    /// The node has welcomed the placer.
    Opened(SessionId),
    Order(ToAgent),
    Closed(SessionId),
}

/// What the node's loop sends through an agent's end.
#[derive(Debug)]
pub enum ToPlacer {
    Welcome(Welcome),
    News(Box<FromAgent>),
}

/// Serves one stream that a placer opened, to its end.
pub async fn agent_end<S: AsyncRead + AsyncWrite>(
    stream: S,
    tell: impl Fn(AgentEnd),
) -> Result<(), SessionError> {
    let (mut read, mut write) = split(stream);
    let hello: Hello = frame::read(&mut read).await?.ok_or(SessionError::Closed)?;
    if hello.protocol != PROTOCOL {
        return Err(SessionError::Protocol(hello.protocol));
    }
    let (out, mut outbox) = unbounded_channel();
    tell(AgentEnd::Hello { hello, fresh: fresh(), out });
    let Some(ToPlacer::Welcome(welcome)) = outbox.recv().await else {
        return Err(SessionError::Closed);
    };
    frame::write(&mut write, &welcome).await?;
    let Welcome::Open { session, .. } = welcome else {
        let _ = write.shutdown().await;
        return Ok(());
    };
    tell(AgentEnd::Opened(session));
    let result = tokio::select! {
        result = async {
            while let Some(order) = frame::read::<ToAgent>(&mut read).await? {
                tell(AgentEnd::Order(order));
            }
            Ok(())
        } => result,
        result = async {
            while let Some(ToPlacer::News(news)) = outbox.recv().await {
                frame::write(&mut write, &*news).await?;
            }
            Ok(())
        } => result,
    };
    tell(AgentEnd::Closed(session));
    result
}

/// What a placer's end tells the placer's loop.
#[derive(Debug)]
pub enum PlacerEnd {
    Opened { node: NodeId, session: SessionId, life: u64, orders: UnboundedSender<ToAgent> },
    News { node: NodeId, news: Box<FromAgent> },
    Closed { node: NodeId, session: SessionId },
}

/// Opens a session on `stream` with `node` and serves it to its end.
pub async fn placer_end<S: AsyncRead + AsyncWrite>(
    stream: S,
    node: NodeId,
    hello: Hello,
    tell: impl Fn(PlacerEnd),
) -> Result<(), SessionError> {
    let (mut read, mut write) = split(stream);
    frame::write(&mut write, &hello).await?;
    let (session, life) = match frame::read(&mut read).await?.ok_or(SessionError::Closed)? {
        Welcome::Open { session, life } => (session, life),
        Welcome::Promised(newer) => return Err(SessionError::Promised(newer.index)),
    };
    let (orders, mut outbox): (_, UnboundedReceiver<ToAgent>) = unbounded_channel();
    tell(PlacerEnd::Opened { node, session, life, orders });
    let result = tokio::select! {
        result = async {
            while let Some(news) = frame::read(&mut read).await? {
                tell(PlacerEnd::News { node, news: Box::new(news) });
            }
            Ok(())
        } => result,
        result = async {
            loop {
                match timeout(BEAT, outbox.recv()).await {
                    Ok(Some(order)) => frame::write(&mut write, &order).await?,
                    Ok(None) => return Ok(()),
                    Err(_) => frame::write(&mut write, &ToAgent::new(session, Order::Beat)).await?,
                }
            }
        } => result,
    };
    tell(PlacerEnd::Closed { node, session });
    result
}

/// A number that nobody used before: one side's part of a session's id.
pub fn fresh() -> u64 {
    let mut bytes = [0; 8];
    // The system's generator cannot fail once the machine has booted; were it to, sessions would still be told apart by
    // the other side's part.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    u64::from_le_bytes(bytes)
}
