//! Endpoints on loopback: who gets through, and that nothing but what is meant to does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use cell::Cell;
use gossip::{
    frame::FrameError,
    peer::Peer,
    tls::Credentials,
    transport::{self, ConnectError, Event, Lane, Refused, Stream, Transport},
};
use placement::ids::NodeId;
use tokio::sync::mpsc::Receiver;

struct Node {
    id: NodeId,
    transport: Transport,
    events: Receiver<Event>,
}

impl Node {
    fn new(me: &Credentials) -> Node {
        Node::on(me, "127.0.0.1:0".parse().unwrap())
    }

    fn on(me: &Credentials, addr: SocketAddr) -> Node {
        let (transport, events) = Transport::bind(addr, me).unwrap();
        Node { id: me.subject.node, transport, events }
    }

    fn peer(&self) -> Peer {
        Peer::new(self.id, self.transport.local_addr().unwrap(), 1)
    }

    async fn next(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event").unwrap()
    }

    async fn stream(&mut self) -> (NodeId, Lane, Stream) {
        match self.next().await {
            Event::Stream { from, lane, stream } => (from, lane, stream),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn datagrams_and_streams_flow_both_ways_on_one_connection() {
    let cell = Cell::new("covey");
    let (mut a, mut b) = (Node::new(&cell.node("n1")), Node::new(&cell.node("n2")));
    // By address alone, as a node does that has just started.
    a.transport.datagram(Peer::anyone_at(b.peer().addr), Bytes::from_static(b"hello"));
    match b.next().await {
        Event::Datagram { from, bytes } => assert_eq!((from, &bytes[..]), (a.id, &b"hello"[..])),
        other => panic!("{other:?}"),
    }
    b.transport.datagram(a.peer(), Bytes::from(vec![7; 1150]));
    assert!(matches!(a.next().await, Event::Datagram { from, bytes } if from == b.id && bytes.len() == 1150));
    for lane in [Lane::Request, Lane::Session, Lane::Raft, Lane::Exchange] {
        let mut asking = a.transport.open(b.peer(), lane).await.unwrap();
        asking.write(&"ping").await.unwrap();
        let (from, seen, mut asked) = b.stream().await;
        assert_eq!((from, seen), (a.id, lane));
        assert_eq!(asked.read::<String>().await.unwrap().as_deref(), Some("ping"));
        asked.write(&"pong").await.unwrap();
        asked.finish().await;
        assert_eq!(asking.read::<String>().await.unwrap().as_deref(), Some("pong"));
        assert_eq!(asking.read::<String>().await.unwrap(), None);
    }
    assert_eq!((a.transport.connections(), b.transport.connections()), (1, 1));
}

#[tokio::test]
async fn many_at_once_share_a_connection_and_both_sides_may_begin() {
    let cell = Cell::new("covey");
    let (mut a, mut b) = (Node::new(&cell.node("n1")), Node::new(&cell.node("n2")));
    let (to_a, to_b) = (a.peer(), b.peer());
    for n in 0..20u8 {
        a.transport.datagram(to_b, Bytes::from(vec![n]));
        b.transport.datagram(to_a, Bytes::from(vec![n]));
    }
    for _ in 0..20 {
        assert!(matches!(a.next().await, Event::Datagram { .. }));
        assert!(matches!(b.next().await, Event::Datagram { .. }));
    }
    // One dialled by each at most; from then on both use the same one.
    assert!(a.transport.connections() <= 2, "{}", a.transport.connections());
    let mut stream = a.transport.open(to_b, Lane::Request).await.unwrap();
    stream.write(&1).await.unwrap();
    b.stream().await;
}

#[tokio::test]
async fn another_cell_is_refused() {
    let (ours, theirs) = (Cell::new("covey"), Cell::new("covey"));
    let (a, mut b) = (Node::new(&ours.node("n1")), Node::new(&theirs.node("n2")));
    let error = a.transport.open(b.peer(), Lane::Request).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(matches!(b.next().await, Event::Refused { why: Refused::Handshake(_), .. }));
    // Somebody else at the address where a member was.
    let c = Node::new(&ours.node("n3"));
    let elsewhere = Peer { addr: c.peer().addr, ..a.peer() };
    let error =
        Node::new(&ours.node("n4")).transport.open(elsewhere, Lane::Request).await.unwrap_err().to_string();
    assert!(error.contains(&c.id.to_string()) && error.contains(&a.id.to_string()), "{error}");
}

#[tokio::test]
async fn a_stranger_may_join_and_nothing_else() {
    let cell = Cell::new("covey");
    let mut a = Node::new(&cell.node("n1"));
    let addr = a.peer().addr;
    let (mut stranger, binding) = transport::join(addr, &cell.id()).await.unwrap();
    stranger.write(&"let me in").await.unwrap();
    let Event::Joining { mut stream, binding: theirs, .. } = a.next().await else { panic!("no join") };
    assert!(binding == theirs);
    assert_eq!(stream.read::<String>().await.unwrap().as_deref(), Some("let me in"));
    stream.write(&"welcome").await.unwrap();
    stream.finish().await;
    assert_eq!(stranger.read::<String>().await.unwrap().as_deref(), Some("welcome"));
    // A cell that is not the token's.
    let error = transport::join(addr, &Cell::new("covey").id()).await.unwrap_err().to_string();
    assert!(error.contains("of another cell"), "{error}");
    assert!(matches!(a.next().await, Event::Refused { why: Refused::Handshake(_), .. }));
    // Other lanes and protocols.
    let (mut send, _recv) = raw(addr, &cell, b"covey-join/1").await.open_bi().await.unwrap();
    send.write_all(&[Lane::Raft as u8]).await.unwrap();
    assert!(matches!(a.next().await, Event::Refused { why: Refused::Lane(3), .. }));
    let closed = raw(addr, &cell, b"covey/1").await.closed().await.to_string();
    assert!(closed.contains("join it first"), "{closed}");
    assert!(matches!(a.next().await, Event::Refused { why: Refused::NotAMember, .. }));
}

/// A stranger that speaks QUIC by hand.
async fn raw(to: SocketAddr, cell: &Cell, alpn: &[u8]) -> quinn::Connection {
    let mut tls = gossip::tls::joining(&cell.id()).unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    endpoint.connect_with(config, to, &gossip::tls::any_server_name(&cell.id())).unwrap().await.unwrap()
}

#[tokio::test]
async fn who_knocks_too_often_is_told_to_wait() {
    let cell = Cell::new("covey");
    let mut a = Node::new(&cell.node("n1"));
    let addr = a.peer().addr;
    let mut open = Vec::new();
    for _ in 0..30 {
        open.push(raw(addr, &cell, b"covey-join/1").await);
        let last = open.last().unwrap();
        if let Ok(reason) = tokio::time::timeout(Duration::from_millis(20), last.closed()).await {
            assert!(reason.to_string().contains("again in"), "{reason}");
            break;
        }
    }
    assert!((10..30).contains(&open.len()), "{}", open.len());
    assert!(matches!(a.next().await, Event::Refused { why: Refused::TooOften(_), .. }));
}

#[tokio::test]
async fn a_restarted_peer_is_found_again() {
    let cell = Cell::new("covey");
    let (mut a, me) = (Node::new(&cell.node("n1")), cell.node("n2"));
    let first = Node::new(&me);
    let (b, old) = (first.peer(), first.transport.clone());
    a.transport.open(b, Lane::Request).await.unwrap();
    // On another port, while the old one has not said good-bye.
    let mut second = Node::new(&me);
    a.transport.datagram(second.peer(), Bytes::from_static(b"there?"));
    assert!(matches!(second.next().await, Event::Datagram { .. }));
    second.transport.datagram(a.peer(), Bytes::from_static(b"here"));
    assert!(matches!(a.next().await, Event::Datagram { from, .. } if from == b.id));
    drop(old);
    // On the same port: after a proper stop.
    let addr = second.peer().addr;
    second.transport.close().await;
    drop(second);
    let mut third = None;
    while third.is_none() {
        third = Transport::bind(addr, &me).ok();
        tokio::task::yield_now().await;
    }
    let (_transport, mut events) = third.unwrap();
    let stream = a.transport.open(Peer { addr, ..b }, Lane::Request).await;
    assert!(stream.is_ok(), "{stream:?}");
    assert!(matches!(events.recv().await, Some(Event::Stream { .. })));
}

/// Without the reset (RFC 9000, 10.3) what is sent to the earlier life would wait for the idle timeout, 30 s.
#[test]
fn a_peer_that_crashed_and_is_back_on_its_port_says_so() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cell = Cell::new("covey");
    let (me, crashing, ours) = (cell.node("n2"), runtime(), runtime());
    let a = ours.block_on(async { Node::new(&cell.node("n1")) });
    let first = crashing.block_on(async { Node::new(&me) });
    let b = first.peer();
    let mut stream = ours.block_on(a.transport.open(b, Lane::Request)).unwrap();
    crashing.shutdown_timeout(Duration::from_secs(10));
    drop(first);
    ours.block_on(async {
        let mut second = Node::on(&me, b.addr);
        let seen = tokio::time::timeout(Duration::from_secs(20), async {
            let _ = stream.write(&"are you there?").await;
            stream.read::<String>().await
        });
        let seen = seen.await.expect("long before the idle timeout");
        assert!(matches!(seen, Err(FrameError::Broken(_))), "{seen:?}");
        a.transport.open(b, Lane::Raft).await.unwrap();
        assert_eq!(second.stream().await.1, Lane::Raft);
    });
}

#[tokio::test]
async fn who_waits_for_the_dead_learns_it() {
    let cell = Cell::new("covey");
    let (a, b) = (Node::new(&cell.node("n1")), Node::new(&cell.node("n2")));
    let mut stream = a.transport.open(b.peer(), Lane::Request).await.unwrap();
    a.transport.forget(b.id);
    assert!(matches!(stream.read::<String>().await, Err(FrameError::Broken(_))));
    // Nobody listens there any more.
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = Peer { addr: gone.local_addr().unwrap(), ..b.peer() };
    assert!(matches!(a.transport.open(to, Lane::Request).await, Err(ConnectError::Silent { .. })));
}

#[tokio::test]
async fn nonsense_is_named_and_contained() {
    let cell = Cell::new("covey");
    let (a, mut b) = (Node::new(&cell.node("n1")), Node::new(&cell.node("n2")));
    let mut stream = a.transport.open(b.peer(), Lane::Request).await.unwrap();
    // A frame of 4 GiB, and one that is no JSON.
    stream.outgoing.write_all(&[0xff; 8]).await.unwrap();
    let (_, _, mut got) = b.stream().await;
    assert!(matches!(got.read::<String>().await, Err(FrameError::TooLong(0xffff_ffff))));
    let mut stream = a.transport.open(b.peer(), Lane::Request).await.unwrap();
    stream.outgoing.write_all(b"\0\0\0\x03{{{").await.unwrap();
    let (_, _, mut got) = b.stream().await;
    assert!(matches!(got.read::<String>().await, Err(FrameError::Garbled(_))));
    // A member may not use the strangers' lane, and packets that are not QUIC's go nowhere.
    let _join = a.transport.open(b.peer(), Lane::Join).await.unwrap();
    assert!(matches!(b.next().await, Event::Refused { why: Refused::Lane(5), .. }));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200u8 {
        socket.send_to(&vec![n; usize::from(n) * 7], b.peer().addr).unwrap();
    }
    // All the while the connection is good.
    let mut stream = a.transport.open(b.peer(), Lane::Raft).await.unwrap();
    stream.write(&"still here").await.unwrap();
    let (_, _, mut got) = b.stream().await;
    assert_eq!(got.read::<String>().await.unwrap().as_deref(), Some("still here"));
}

#[tokio::test]
async fn a_copy_of_a_node_is_turned_away_and_told_how_long_the_node_was_there() {
    let cell = Cell::new("covey");
    let me = cell.node("n1");
    let mut first = Node::new(&me);
    let other = Node::new(&cell.node("n2"));
    let at = first.peer().addr;
    let age = transport::twin_at(at, &me).await.unwrap().expect("the key is there");
    assert!(age <= first.transport.age(), "{age:?}");
    assert!(matches!(first.next().await, Event::Refused { why: Refused::Twin, .. }));
    assert_eq!(transport::twin_at(other.peer().addr, &me).await.unwrap(), None, "that is another node");

    let copy = Node::new(&me);
    let seen = copy.transport.twin_at(at).await.expect("the key is there");
    assert!(seen > copy.transport.age(), "it was there first");
    assert!(matches!(first.next().await, Event::Refused { why: Refused::Twin, .. }));
    let seen = first.transport.twin_at(copy.peer().addr).await.expect("and here is its copy");
    assert!(seen < first.transport.age());
    assert_eq!(copy.transport.twin_at(other.peer().addr).await, None);
}
