//! How the node's loop is reached.

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{core::Core, event::Event, session::AgentEnd};

/// What reaches the loop.
pub enum NodeMsg {
    Event(Event),
    Session(AgentEnd),
    /// Somebody wants to look; he sends what he saw on a channel of his own.
    Read(Box<dyn FnOnce(&Core) + Send>),
}

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
}
