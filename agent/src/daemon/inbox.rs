//! How the node's loop is reached.

use std::{sync::mpsc, time::Duration};

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{core::Core, event::Event, session::AgentEnd};

/// What reaches the loop.
pub enum NodeMsg {
    Event(Event),
    Session(AgentEnd),
    /// Somebody wants to look; he sends what he saw on a channel of his own.
    Read(Box<dyn FnOnce(&Core) + Send>),
}

/// The loop has ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the node's loop has ended")]
pub struct Ended;

/// A handle on the loop.
#[derive(Clone)]
pub struct NodeHandle(UnboundedSender<NodeMsg>);

impl NodeHandle {
    pub fn new(inbox: UnboundedSender<NodeMsg>) -> NodeHandle {
        NodeHandle(inbox)
    }

    /// An event that comes after the loop's end is of no interest.
    pub fn tell(&self, event: Event) {
        let _ = self.0.send(NodeMsg::Event(event));
    }

    pub fn session(&self, end: AgentEnd) {
        let _ = self.0.send(NodeMsg::Session(end));
    }

    /// What `look` sees; none once the loop has ended.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Core) -> T + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let look = move |core: &Core| {
            let _ = tell.send(look(core));
        };
        self.0.send(NodeMsg::Read(Box::new(look))).ok()?;
        told.await.ok()
    }

    /// The same for a thread outside the runtime, which can wait only so long: none when the loop takes longer.
    pub fn read_within<T: Send + 'static>(
        &self,
        patience: Duration,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<Option<T>, Ended> {
        let (tell, told) = mpsc::channel();
        let look = move |core: &Core| {
            let _ = tell.send(look(core));
        };
        self.0.send(NodeMsg::Read(Box::new(look))).map_err(|_| Ended)?;
        match told.recv_timeout(patience) {
            Ok(seen) => Ok(Some(seen)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }
}
