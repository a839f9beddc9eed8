//! Principals may ask and nothing else; who was removed may nothing at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use cell::Cell;
use gossip::{
    client::{self, ClientError},
    frame::FrameError,
    peer::Peer,
    tls::{self, ClientCredentials, Credentials, Key, TlsError, Who},
    transport::{ConnectError, Event, JoinError, Lane, Refused, Stream, Transport},
    wire::{Call, PROTOCOL, Reply, Request},
};
use placement::{
    ids::{Principal, RequestId},
    ledger::Refusal,
};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

struct Node {
    peer: Peer,
    transport: Transport,
    events: Receiver<Event>,
}

impl Node {
    fn new(me: &Credentials) -> Node {
        let (transport, events) = Transport::bind("127.0.0.1:0".parse().unwrap(), me).unwrap();
        let peer = Peer::new(me.subject.node, transport.local_addr().unwrap(), 1);
        Node { peer, transport, events }
    }

    async fn next(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event").unwrap()
    }
}

fn principal(cell: &Cell, name: &str) -> ClientCredentials {
    let key = Key::generate().unwrap();
    let now = std::time::SystemTime::now();
    let certificate = cell.authority.issue_principal(key.public(), &Principal(name.into()), now).unwrap();
    ClientCredentials::new(&key.pem(), &certificate, &cell.certificate).unwrap()
}

fn request() -> Request {
    Request { protocol: PROTOCOL.into(), principal: None, id: RequestId("1".into()), call: Call::Nodes }
}

#[tokio::test]
async fn a_principal_asks_any_node_and_is_known_by_name() {
    let cell = Cell::new("covey");
    let ann = principal(&cell, "ann");
    let mut node = Node::new(&cell.node("n1"));
    let mut answer = client::send_to(node.peer.addr, &ann, &request()).await.unwrap();
    let Event::Request { from, mut stream } = node.next().await else { panic!("no request") };
    assert_eq!(from, Principal("ann".into()));
    assert_eq!(stream.read::<Request>().await.unwrap(), Some(request()));
    stream.write(&Reply::Item(json!({"name": "n1"}))).await.unwrap();
    assert_eq!(answer.next().await.unwrap(), Some(Reply::Item(json!({"name": "n1"}))));
    let refusal = Refusal { code: "denied".into(), message: "no".into(), hint: None };
    stream.write(&Reply::Error(refusal.clone())).await.unwrap();
    assert!(matches!(answer.next().await, Err(ClientError::Refused(told)) if told == refusal));
    // Who goes away is noticed at the next word.
    drop(answer);
    let gone = async { while stream.write(&Reply::End).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test]
async fn a_principal_is_no_node() {
    let cell = Cell::new("covey");
    let ann = principal(&cell, "ann");
    let mut node = Node::new(&cell.node("n1"));
    let connection = raw(node.peer.addr, &ann).await;
    for lane in [Lane::Session, Lane::Raft, Lane::Exchange, Lane::Join, Lane::Ask] {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&[lane as u8]).await.unwrap();
        let event = node.next().await;
        assert!(
            matches!(event, Event::Refused { why: Refused::Lane(n), .. } if n == lane as u8),
            "{event:?}"
        );
    }
    // A datagram would be SWIM's: it goes nowhere, and what comes after it arrives.
    connection.send_datagram(Bytes::from_static(b"ann is dead")).unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[Lane::Request as u8]).await.unwrap();
    assert!(matches!(node.next().await, Event::Request { .. }));
    // Nor can it listen where a node was.
    let other = Node::new(&cell.node("n2"));
    assert!(matches!(other.transport.open(posing(&ann), Lane::Raft).await, Err(ConnectError::Lost { .. })));
}

/// A connection of a principal who does not keep to `client`.
async fn raw(to: SocketAddr, me: &ClientCredentials) -> quinn::Connection {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(me.client().unwrap()).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    endpoint.connect_with(config, to, &tls::any_server_name(&me.cell)).unwrap().await.unwrap()
}

/// A server with a principal's certificate.
fn posing(me: &ClientCredentials) -> Peer {
    let client = me.client().unwrap();
    let mut server =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(client)));
    server.alpn_protocols = vec![tls::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move { incoming.await.map(drop) });
        }
    });
    Peer::anyone_at(addr)
}

#[derive(Debug)]
struct Shown(rustls::ClientConfig);

impl rustls::server::ResolvesServerCert for Shown {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.0.client_auth_cert_resolver.resolve(&[], &[rustls::SignatureScheme::ECDSA_NISTP256_SHA256])
    }
}

#[tokio::test]
async fn whom_a_certificate_names_cannot_be_forged_by_a_name() {
    let cell = Cell::new("covey");
    let key = Key::generate().unwrap();
    for name in ["", "Ann", "a.b", "ann.principal", "*", "a b", "é", &"a".repeat(64)] {
        let made = cell.authority.issue_principal(
            key.public(),
            &Principal(name.into()),
            std::time::SystemTime::now(),
        );
        assert!(matches!(made, Err(TlsError::Subject(_))), "{name}");
    }
    // A node's certificate is no principal's, and the other way round.
    let now = std::time::SystemTime::now();
    let node = cell.authority.issue(key.public(), "ann", now).unwrap();
    assert!(ClientCredentials::new(&key.pem(), &node, &cell.certificate).is_err());
    let user = cell.authority.issue_principal(key.public(), &Principal("ann".into()), now).unwrap();
    assert!(Credentials::new(&key.pem(), &user, &cell.certificate).is_err());
    let shown = principal(&cell, "ann");
    assert_eq!((shown.principal.0.as_str(), &shown.cell), ("ann", &cell.id()));
    assert!(shown.until().unwrap() > now + tls::PRINCIPAL_LIFETIME - Duration::from_secs(60));
    assert!(matches!(Who::Principal(shown.principal), Who::Principal(Principal(name)) if name == "ann"));
}

#[tokio::test]
async fn a_principal_of_another_cell_is_refused_by_both() {
    let (ours, theirs) = (Cell::new("covey"), Cell::new("covey"));
    let mut node = Node::new(&ours.node("n1"));
    let error = client::send_to(node.peer.addr, &principal(&theirs, "ann"), &request()).await.err().unwrap();
    assert!(matches!(error, ClientError::Reach(JoinError::Connect(ConnectError::Lost { .. }))), "{error:?}");
    assert!(matches!(node.next().await, Event::Refused { why: Refused::Handshake(_), .. }));
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = client::send_to(nobody.local_addr().unwrap(), &principal(&ours, "ann"), &request()).await;
    let error = silent.err().unwrap().to_string();
    assert!(error.contains("does not answer"), "{error}");
}

#[tokio::test]
async fn who_is_removed_is_cut_off_and_stays_out() {
    let cell = Cell::new("covey");
    let (mut a, mut b) = (Node::new(&cell.node("n1")), Node::new(&cell.node("n2")));
    let mut out = a.transport.open(b.peer, Lane::Request).await.unwrap();
    out.write(&"?").await.unwrap();
    let Event::Stream { mut stream, .. } = b.next().await else { panic!("no stream") };
    assert_eq!(stream.read::<String>().await.unwrap().as_deref(), Some("?"));
    a.transport.revoke(BTreeSet::from([b.peer.id]));
    // What is open ends, on both sides; and neither can begin again.
    let told = broken(stream.read::<String>().await);
    assert!(told.contains("removed from the cell") && told.contains("empty data directory"), "{told}");
    broken(out.read::<String>().await);
    for to in [b.peer, Peer::anyone_at(b.peer.addr)] {
        let refused = a.transport.open(to, Lane::Request).await;
        assert!(matches!(refused, Err(ConnectError::Removed { .. })), "{refused:?}");
    }
    let seen = async {
        let mut stream = b.transport.open(a.peer, Lane::Request).await?;
        let _ = stream.write(&"?").await;
        Ok::<_, ConnectError>(broken(stream.read::<String>().await))
    };
    if let Ok(told) = seen.await {
        assert!(told.contains("removed from the cell"), "{told}");
    }
    let removed =
        |event: Event| matches!(event, Event::Refused { why: Refused::Removed(id), .. } if id == b.peer.id);
    assert!(removed(a.next().await));
    // Others are not disturbed, and a mistake can be taken back.
    let c = Node::new(&cell.node("n3"));
    c.transport.open(a.peer, Lane::Raft).await.unwrap();
    assert!(matches!(a.next().await, Event::Stream { .. }));
    a.transport.revoke(BTreeSet::new());
    a.transport.open(b.peer, Lane::Request).await.unwrap();
}

fn broken(read: Result<Option<String>, FrameError>) -> String {
    match read {
        Err(error @ FrameError::Broken(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A stream is refused to its sender, and no more.
#[tokio::test]
async fn a_request_of_a_principal_may_be_dropped() {
    let cell = Cell::new("covey");
    let mut node = Node::new(&cell.node("n1"));
    let mut answer = client::send_to(node.peer.addr, &principal(&cell, "ann"), &request()).await.unwrap();
    let Event::Request { stream, .. } = node.next().await else { panic!("no request") };
    drop::<Stream>(stream);
    assert!(matches!(
        answer.next().await,
        Err(ClientError::Closed | ClientError::Frame(FrameError::Broken(_)))
    ));
}
