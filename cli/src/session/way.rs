//! The way to an agent: this machine's own, by its socket, or any node of a cell that one has logged in to.

use std::{cell::RefCell, fmt, io::ErrorKind, path::PathBuf, time::Duration};

use gossip::{
    client::{self, Answer, ClientError},
    tls::ClientCredentials,
    wire::Request,
};
use tokio::{net::lookup_host, time::timeout};

/// For a name to be found.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Where requests go.
pub(crate) enum Way {
    Socket(PathBuf),
    Cell(Box<Remote>),
}

/// Nodes of a cell, any of which will do.
pub(crate) struct Remote {
    me: ClientCredentials,
    /// `HOST:PORT`; the one that answered last comes first.
    nodes: RefCell<Vec<String>>,
}

/// Who was asked in vain, and why it was in vain.
#[derive(Debug, Default)]
pub(crate) struct Tried(pub(crate) Vec<(String, String)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (node, why)) in self.0.iter().enumerate() {
            let between = if n == 0 { "" } else { "; " };
            // Most causes name it.
            let named = if why.contains(node.as_str()) { String::new() } else { format!("{node}: ") };
            write!(f, "{between}{named}{why}")?;
        }
        Ok(())
    }
}

/// A request that nobody took.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Nobody(Tried),
}

impl Unsent {
    /// Whether the agent may be there again in a moment, if it was there before (`reached`).
    pub(crate) fn is_passing(&self, reached: bool) -> bool {
        use gossip::frame::FrameError;
        match self {
            Unsent::Client(ClientError::Closed | ClientError::Frame(FrameError::Broken(_))) => true,
            // Between two agents there is no socket, or nobody behind it.
            Unsent::Client(ClientError::Connect { source, .. }) => {
                reached && matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
            }
            Unsent::Nobody(_) => reached,
            Unsent::Client(_) => false,
        }
    }
}

impl Way {
    /// Hands the request to the agent, or to the first node that takes it.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, Unsent> {
        match self {
            Way::Socket(socket) => Ok(client::send(socket, request).await?),
            Way::Cell(remote) => remote.send(request).await,
        }
    }

    /// The nodes, the one that answered last first.
    pub(crate) fn nodes(&self) -> Vec<String> {
        match self {
            Way::Socket(_) => Vec::new(),
            Way::Cell(remote) => remote.nodes.borrow().clone(),
        }
    }

    /// The node that was asked last did not answer: others come first now.
    pub(crate) fn failed(&self) {
        if let Way::Cell(remote) = self {
            remote.nodes.borrow_mut().rotate_left(1);
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Socket(socket) => write!(f, "the agent on {}", socket.display()),
            Way::Cell(remote) => match remote.nodes.borrow().first() {
                Some(node) => write!(f, "the node at {node}"),
                None => f.write_str("no node"),
            },
        }
    }
}

impl Remote {
    /// `nodes` are tried in this order.
    pub(crate) fn new(me: ClientCredentials, nodes: Vec<String>) -> Self {
        Remote { me, nodes: RefCell::new(nodes) }
    }

    async fn send(&self, request: &Request) -> Result<Answer, Unsent> {
        let mut tried = Tried::default();
        let nodes = self.nodes.borrow().clone();
        for (n, node) in nodes.iter().enumerate() {
            match self.send_to(node, request).await {
                Ok(answer) => {
                    self.nodes.borrow_mut().rotate_left(n);
                    return Ok(answer);
                }
                Err(why) => tried.0.push((node.clone(), why)),
            }
        }
        Err(Unsent::Nobody(tried))
    }

    async fn send_to(&self, node: &str, request: &Request) -> Result<Answer, String> {
        let found = timeout(LOOK_UP, lookup_host(node)).await;
        let addresses = found
            .map_err(|_| "nobody knows the address of that name in time".to_owned())?
            .map_err(|why| format!("the name has no address: {why}"))?;
        let mut why = "the name has no address".to_owned();
        for to in addresses {
            match client::send_to(to, &self.me, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }
}
