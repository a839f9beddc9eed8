//! The other nodes: who is here, where those are that are not, and streams to them. Decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossip::{
    frame::FrameError,
    peer::Peer,
    transport::{ConnectError, Lane, Stream, Transport},
    wire::ask::{Question, Told},
};
use placement::{ids::NodeId, ledger::Refusal};
use tokio::{sync::watch, time::timeout};

/// For an answer to a question that is not waited for longer by its own meaning.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("node {0} is not here, and nobody knows its address")]
    Unknown(NodeId),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the answer of node {node} broke off: {source}")]
    Frame { node: NodeId, source: FrameError },
    #[error("node {0} ended its answer before it was whole")]
    Closed(NodeId),
    #[error("node {node} has not answered within {} s", after.as_secs_f32())]
    Silent { node: NodeId, after: Duration },
    #[error("node {node} refuses: {refusal}")]
    Refused { node: NodeId, refusal: Refusal },
}

impl AskError {
    /// The same of "it": for a sentence that has named the node already, as people know it.
    pub fn of_it(self) -> String {
        match self {
            AskError::Unknown(_) => "it is not here, and nobody knows its address".into(),
            AskError::Connect(error) => error.of_it().to_string(),
            AskError::Frame { source, .. } => format!("its answer broke off: {source}"),
            AskError::Closed(_) => "it ended its answer before it was whole".into(),
            AskError::Silent { after, .. } => format!("it has not answered within {} s", after.as_secs_f32()),
            AskError::Refused { refusal, .. } => format!("it refuses: {refusal}"),
        }
    }
}

/// The way to all other nodes. Clones are the same one.
#[derive(Clone)]
pub struct Peers {
    me: NodeId,
    transport: Transport,
    members: watch::Receiver<BTreeMap<NodeId, Peer>>,
    /// Where nodes were that are not here now.
    last: Arc<Mutex<BTreeMap<NodeId, SocketAddr>>>,
}

impl Peers {
    /// `members`: as membership sees them, this node not among them.
    pub fn new(me: NodeId, transport: Transport, members: watch::Receiver<BTreeMap<NodeId, Peer>>) -> Peers {
        Peers { me, transport, members, last: Arc::default() }
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// All others that are here now.
    pub fn members(&self) -> BTreeMap<NodeId, Peer> {
        self.members.borrow().clone()
    }

    /// The others that are here, each time that changes.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<NodeId, Peer>> {
        self.members.clone()
    }

    /// All nodes that are here now, this one among them.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.members.borrow().keys().copied().chain([self.me]).collect()
    }

    /// Whether membership sees it; a node sees itself.
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.me || self.members.borrow().contains_key(&node)
    }

    /// Where a node was, for when it is not here.
    pub fn remember(&self, node: NodeId, addr: SocketAddr) {
        self.last().insert(node, addr);
    }

    /// Where it is, or was when it was last seen.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let here = self.members.borrow().get(&node).map(|peer| peer.addr);
        here.or_else(|| self.last().get(&node).copied())
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<NodeId, SocketAddr>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of its own to `node`, at the address where it is or was.
    pub async fn open(&self, node: NodeId, lane: Lane) -> Result<Stream, AskError> {
        let here = self.members.borrow().get(&node).copied();
        let last = || self.last().get(&node).map(|addr| Peer::new(node, *addr, 0));
        let peer = here.or_else(last).ok_or(AskError::Unknown(node))?;
        Ok(self.transport.open(peer, lane).await?)
    }

    /// Asks what is answered by one message, and at once.
    pub async fn ask(&self, node: NodeId, question: &Question) -> Result<Told, AskError> {
        self.ask_within(node, question, PATIENCE).await
    }

    /// Asks what is answered by one message.
    pub async fn ask_within(
        &self,
        node: NodeId,
        question: &Question,
        after: Duration,
    ) -> Result<Told, AskError> {
        let asked = async {
            let mut answers = self.begin(node, question).await?;
            answers.next().await
        };
        timeout(after, asked).await.map_err(|_| AskError::Silent { node, after })?
    }

    /// Asks; the answer comes in parts. Who waits for them has patience of his own.
    pub async fn begin(&self, node: NodeId, question: &Question) -> Result<Answers, AskError> {
        let mut stream = self.open(node, Lane::Ask).await?;
        stream.write(question).await.map_err(|source| AskError::Frame { node, source })?;
        Ok(Answers { node, stream })
    }
}

/// An answer under way.
pub struct Answers {
    node: NodeId,
    pub stream: Stream,
}

impl Answers {
    /// The next part. Not cancel-safe.
    pub async fn next(&mut self) -> Result<Told, AskError> {
        let node = self.node;
        match self.stream.read().await {
            Ok(Some(Told::Refused(refusal))) => Err(AskError::Refused { node, refusal }),
            Ok(Some(told)) => Ok(told),
            Ok(None) => Err(AskError::Closed(node)),
            Err(source) => Err(AskError::Frame { node, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_it_says_no_id() {
        let node = NodeId(0x26cf);
        let connect = |error: ConnectError| AskError::Connect(error).of_it();
        let to = || format!("{node} at 10.0.0.2:7411");
        assert_eq!(connect(ConnectError::Silent { to: to() }), "it does not answer");
        assert_eq!(connect(ConnectError::Removed { to: to() }), "it was removed from this cell");
        let silent = AskError::Silent { node, after: Duration::from_millis(700) };
        assert_eq!(silent.to_string(), format!("node {node} has not answered within 0.7 s"));
        for error in [silent, AskError::Unknown(node), AskError::Closed(node)] {
            let said = error.of_it();
            assert!(said.starts_with("it ") && !said.contains("26cf"), "{said}");
        }
    }
}
