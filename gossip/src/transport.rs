//! How nodes talk: one UDP port, QUIC, one connection for each pair that has something to say.
//!
//! Three ways on a connection: datagrams (who is here), streams of members (each begins with the byte of its `Lane`), and,
//! on a protocol of its own, the one stream of a stranger who wants to join.

mod accept;
mod alone;
mod error;
mod lane;
mod limit;
mod links;
mod twin;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use placement::ids::{CellId, NodeId, Principal};
use quinn::{
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout,
    ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

pub use alone::{join, request, twin_at};
pub use error::{BindError, ConnectError, JoinError, Refused};
pub use lane::{Lane, Stream};

use crate::{
    peer::Peer,
    tls::{self, BadSubject, Binding, Credentials, Subject, Who},
};
use links::Links;

/// A connection that nobody uses ends: 36 KiB a side are too much for a full mesh.
const IDLE: Duration = Duration::from_secs(30);
/// To be connected within: a LAN needs a millisecond, a lost first packet three times `FIRST_RTT` more.
const DIAL: Duration = Duration::from_secs(3);
/// A LAN's: quinn's own guess (333 ms) would repeat a lost handshake only after a second.
const FIRST_RTT: Duration = Duration::from_millis(20);
/// Datagrams that wait for a connection. More are lost: they would come too late.
const WAITING: usize = 256;
/// Of the other side's streams at once.
const STREAMS: u32 = 256;

/// Why a connection was closed: the code that the other side sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// This node stops, or has no more use for the other.
    Done = 0,
    /// No certificate, and not on the protocol for joining.
    NotAMember = 1,
    /// Too many attempts to join.
    TooOften = 2,
    /// Declared dead: whoever waits for an answer need not wait longer.
    Dead = 3,
    /// Removed from the cell for good.
    Removed = 4,
    /// Both ends have the same key: one of them runs from a copy of the other's data directory.
    Twin = 5,
}

/// What arrives.
#[derive(Debug)]
pub enum Event {
    Datagram {
        from: NodeId,
        bytes: Bytes,
    },
    /// Another member opened a stream.
    Stream {
        from: NodeId,
        lane: Lane,
        stream: Stream,
    },
    /// A principal opened a stream for a request: the only thing it may do.
    Request {
        from: Principal,
        stream: Stream,
    },
    /// A stranger wants to join. Its stream carries nothing else, and its connection ends with it.
    /// `binding`: for the proof of who it is.
    Joining {
        from: SocketAddr,
        stream: Stream,
        binding: Binding,
    },
    /// Somebody was turned away, or sent what makes no sense; nothing else was harmed.
    Refused {
        from: SocketAddr,
        why: Refused,
    },
}

/// One node's end of all its connections. Clones are the same one.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    /// Where all connections are served, whoever wants them: an agent that is busy must not look dead.
    runtime: Handle,
    cell: CellId,
    links: Links,
    waiting: AtomicUsize,
    begun: Instant,
    events: mpsc::Sender<Event>,
    /// Nodes that were removed from the cell: their certificates are good for a while yet.
    revoked: watch::Sender<BTreeSet<NodeId>>,
}

impl Transport {
    /// Listens on `addr`. Within a tokio runtime: all connections are served there. What arrives comes out of the
    /// receiver, which holds back the others when nobody reads it.
    pub fn bind(addr: SocketAddr, me: &Credentials) -> Result<(Transport, mpsc::Receiver<Event>), BindError> {
        let port = |source| BindError::Port { addr, source };
        let socket = std::net::UdpSocket::bind(addr).map_err(port)?;
        let runtime = quinn::default_runtime().ok_or_else(|| port(io::Error::other("no tokio runtime")))?;
        // The same key after a restart: what an earlier life's connections still send is then answered with a reset, and
        // the others need not wait for their silence to grow long.
        let reset = hmac::Key::new(hmac::HMAC_SHA256, me.derived("covey quic reset").as_ref());
        let mut config = EndpointConfig::new(Arc::new(reset));
        config.cid_generator(|| Box::new(RandomIds));
        let mut endpoint = Endpoint::new(config, Some(server(me)?), socket, runtime).map_err(port)?;
        endpoint.set_default_client_config(client(me.client()?)?);
        let (events, receiver) = mpsc::channel(1024);
        let links = Links::new(me.subject.node);
        let runtime = Handle::current();
        let (cell, waiting, revoked) = (me.cell.clone(), AtomicUsize::new(0), watch::Sender::default());
        let begun = Instant::now();
        let shared = Shared { endpoint, runtime, cell, links, waiting, begun, events, revoked };
        let transport = Transport { shared: Arc::new(shared) };
        tokio::spawn(accept::all(transport.clone()));
        Ok((transport, receiver))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// From now on with a renewed certificate. Connections that are open stay.
    pub fn renew(&self, me: &Credentials) -> Result<(), BindError> {
        self.shared.endpoint.set_server_config(Some(server(me)?));
        self.shared.links.renew(client(me.client()?)?);
        Ok(())
    }

    /// These nodes are no members any more, whatever certificates they have: their connections end now, and no new one is
    /// made.
    pub fn revoke(&self, nodes: BTreeSet<NodeId>) {
        self.shared.revoked.send_if_modified(|known| {
            let changed = *known != nodes;
            *known = nodes;
            changed
        });
    }

    fn is_revoked(&self, node: NodeId) -> bool {
        self.shared.revoked.borrow().contains(&node)
    }

    /// Sends it if there is a connection, else once there is one; may be lost. Never waits.
    pub fn datagram(&self, to: Peer, bytes: Bytes) {
        if let Some(connection) = self.shared.links.get(&to) {
            let _ = connection.send_datagram(bytes);
            return;
        }
        if self.shared.waiting.fetch_add(1, Relaxed) >= WAITING {
            self.shared.waiting.fetch_sub(1, Relaxed);
            return;
        }
        let transport = self.clone();
        self.shared.runtime.spawn(async move {
            // Lost like any other if nobody is there: SWIM finds out.
            if let Ok(connection) = transport.connection(to).await {
                let _ = connection.send_datagram(bytes);
            }
            transport.shared.waiting.fetch_sub(1, Relaxed);
        });
    }

    /// Has a connection ready before it is needed. Never waits.
    pub fn warm(&self, to: Peer) {
        if self.shared.links.get(&to).is_none() {
            let transport = self.clone();
            self.shared.runtime.spawn(async move { transport.connection(to).await.map(drop) });
        }
    }

    /// A new stream to a member.
    pub async fn open(&self, to: Peer, lane: Lane) -> Result<Stream, ConnectError> {
        let transport = self.clone();
        let connection = self.shared.runtime.spawn(async move { transport.connection(to).await });
        let connection = connection.await.map_err(|_| ConnectError::Stopped)??;
        let lost = |source| ConnectError::Lost { to: to.to_string(), source };
        let (send, recv) = connection.open_bi().await.map_err(lost)?;
        Stream::begin(send, recv, lane).await.map_err(|_| ConnectError::Stream { to: to.to_string() })
    }

    /// Nobody is there any more: who waits for an answer learns it now.
    pub fn forget(&self, node: NodeId) {
        self.shared.links.forget(node);
    }

    /// How many connections are open, both ways.
    pub fn connections(&self) -> usize {
        self.shared.endpoint.open_connections()
    }

    /// Ends all connections and waits until the others have been told.
    pub async fn close(&self) {
        self.shared.endpoint.close(VarInt::from_u32(Closed::Done as u32), b"the agent stops");
        self.shared.endpoint.wait_idle().await;
    }

    /// The one that is there, or a new one. Many who want the same share one attempt. Within the runtime.
    async fn connection(&self, to: Peer) -> Result<Connection, ConnectError> {
        let attempt = self.shared.links.attempt(&to);
        let _turn = attempt.lock().await;
        if let Some(connection) = self.shared.links.get(&to) {
            return Ok(connection);
        }
        let dialled = self.dial(to).await;
        self.shared.links.attempted(&to);
        let (node, connection) = dialled?;
        self.shared.links.add(node, connection.clone(), true);
        tokio::spawn(accept::member(self.clone(), node, connection.clone()));
        Ok(connection)
    }

    async fn dial(&self, to: Peer) -> Result<(NodeId, Connection), ConnectError> {
        if to.known().is_some_and(|node| self.is_revoked(node)) {
            return Err(ConnectError::Removed { to: to.to_string() });
        }
        let name = match to.known() {
            Some(node) => Subject::server_name(node, &self.shared.cell),
            None => tls::any_server_name(&self.shared.cell),
        };
        let connecting = match self.shared.links.renewed() {
            Some(config) => self.shared.endpoint.connect_with(config, to.addr, &name),
            None => self.shared.endpoint.connect(to.addr, &name),
        };
        let connecting = connecting.map_err(|source| ConnectError::Dial { to: to.to_string(), source })?;
        match tokio::time::timeout(DIAL, connecting).await {
            Err(_) => Err(ConnectError::Silent { to: to.to_string() }),
            Ok(Err(source)) => Err(ConnectError::Lost { to: to.to_string(), source }),
            Ok(Ok(connection)) => match accept::who(&connection, &self.shared.cell) {
                Some(Ok(Who::Node(subject))) if self.is_revoked(subject.node) => {
                    accept::turn_away(&connection);
                    Err(ConnectError::Removed { to: to.to_string() })
                }
                Some(Ok(Who::Node(subject))) => Ok((subject.node, connection)),
                // rustls has seen that a node answers.
                Some(Ok(Who::Principal(_))) | None => {
                    Err(ConnectError::Subject { to: to.to_string(), source: BadSubject::NoAuthority })
                }
                Some(Err(source)) => Err(ConnectError::Subject { to: to.to_string(), source }),
            },
        }
    }
}

fn binding(connection: &Connection) -> Option<Binding> {
    let mut bytes = [0; 32];
    connection.export_keying_material(&mut bytes, b"EXPORTER-covey-join", b"").ok()?;
    Some(Binding(bytes))
}

/// quinn's own ids can be told from an earlier process's, whose packets it then drops without the reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        // Without randomness there is no TLS either.
        let _ = SystemRandom::new().fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn server(me: &Credentials) -> Result<ServerConfig, BindError> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(me.server()?)?));
    config.transport_config(Arc::new(settings()));
    Ok(config)
}

fn client(tls: rustls::ClientConfig) -> Result<ClientConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(settings()));
    Ok(config)
}

/// All sizes bounded: a peer cannot make us hold more than these.
fn settings() -> TransportConfig {
    let mut settings = TransportConfig::default();
    settings
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(None)
        .initial_rtt(FIRST_RTT)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(8 << 20))
        .send_window(8 << 20)
        .datagram_receive_buffer_size(Some(256 << 10))
        .datagram_send_buffer_size(256 << 10);
    settings
}
