//! A stranger and a member on loopback: what is passed on, and what is refused before anybody is asked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cell;

use std::net::SocketAddr;

use cell::Cell;
use gossip::{
    frame::FrameError,
    join::{self, KnockError},
    tls::{Binding, Key},
    transport::{self, ConnectError, Event, JoinError, Stream, Transport},
    wire::{
        PROTOCOL,
        join::{Join, Joined, MOST, Wanted, Whom},
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A member that tells what it was asked, and renews.
struct Member {
    addr: SocketAddr,
    asked: mpsc::UnboundedReceiver<Wanted>,
    ended: mpsc::UnboundedReceiver<Result<(), FrameError>>,
    _transport: Transport,
}

impl Member {
    fn new(cell: &Cell) -> Member {
        let (transport, mut events) =
            Transport::bind("127.0.0.1:0".parse().unwrap(), &cell.node("n1")).unwrap();
        let (tell, asked) = mpsc::unbounded_channel();
        let (end, ended) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Event::Joining { stream, binding, .. } = event else { continue };
                let (tell, end) = (tell.clone(), end.clone());
                tokio::spawn(async move {
                    let decide = |wanted: Wanted| async move {
                        tell.send(wanted).unwrap();
                        Joined::Renewed { certificate: "C".into() }
                    };
                    end.send(join::answer(stream, binding, decide).await).unwrap();
                });
            }
        });
        Member { addr: transport.local_addr().unwrap(), asked, ended, _transport: transport }
    }

    /// Nobody was asked.
    fn kept_it(&mut self) {
        assert!(self.asked.try_recv().is_err());
    }
}

fn secret() -> Whom {
    Whom::Principal { secret: "s".into() }
}

#[tokio::test]
async fn what_a_stranger_wants_is_passed_on_and_answered() {
    let cell = Cell::new("covey");
    let mut member = Member::new(&cell);
    let key = Key::generate().unwrap();
    let joined = join::knock(member.addr, &cell.id(), &key, secret()).await.unwrap();
    assert_eq!(joined, Joined::Renewed { certificate: "C".into() });
    let wanted = member.asked.recv().await.unwrap();
    assert_eq!(wanted, Wanted { public_key: key.public().clone(), whom: secret() });
    assert!(!format!("{wanted:?}").contains("\"s\""));
    assert!(member.ended.recv().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_cell_that_the_token_is_not_of_learns_nothing() {
    let mut member = Member::new(&Cell::new("covey"));
    let error = join::knock(member.addr, &Cell::new("covey").id(), &Key::generate().unwrap(), secret()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, KnockError::Connect(JoinError::Connect(ConnectError::Subject { .. }))),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(&member.addr.to_string()) && text.contains("of another cell"), "{text}");
    member.kept_it();
}

#[tokio::test]
async fn nobody_there_is_said() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let cell = Cell::new("covey").id();
    let error = join::knock(closed.local_addr().unwrap(), &cell, &Key::generate().unwrap(), secret()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("does not answer"), "{text}");
}

/// A stranger who writes what he likes.
async fn say(member: &Member, cell: &Cell, message: impl FnOnce(&Binding) -> Value) -> Joined {
    let (mut stream, binding) = transport::join(member.addr, &cell.id()).await.unwrap();
    stream.write(&message(&binding)).await.unwrap();
    stream.read().await.unwrap().unwrap()
}

fn refused(joined: Joined, word: &str) {
    let Joined::Refused(refusal) = joined else { panic!("{joined:?}") };
    assert!(refusal.message.contains(word), "{refusal:?}");
}

#[tokio::test]
async fn a_proof_is_of_the_own_key_and_of_this_connection() {
    let cell = Cell::new("covey");
    let mut member = Member::new(&cell);
    let (mine, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let join = |proof: String| Join {
        protocol: PROTOCOL.into(),
        version: "0.1.0".into(),
        proof,
        wanted: Wanted { public_key: mine.public().clone(), whom: Whom::Returning },
    };
    let value = |proof: String| serde_json::to_value(join(proof)).unwrap();
    refused(say(&member, &cell, |here| value(other.prove(here).unwrap())).await, "holds the key");
    // What was good on one connection, once more on another.
    let mut replayed = None;
    say(&member, &cell, |here| replayed.insert(value(mine.prove(here).unwrap())).clone()).await;
    member.asked.recv().await.unwrap();
    refused(say(&member, &cell, |_| replayed.unwrap()).await, "holds the key");
    member.kept_it();
}

#[tokio::test]
async fn another_version_is_told_which_one_is_spoken() {
    let cell = Cell::new("covey");
    let mut member = Member::new(&cell);
    let newer = json!({"protocol": "covey/2", "version": "9.0.0", "proof": 7, "door": "front"});
    let joined = say(&member, &cell, |_| newer).await;
    refused(joined.clone(), "speaks covey/1");
    refused(joined, "covey/2 (covey 9.0.0)");
    let key = Key::generate().unwrap();
    let unknown = |here: &Binding| {
        let wanted = json!({"public_key": key.public(), "whom": {"alien": {}}});
        json!({"protocol": PROTOCOL, "version": "1", "proof": key.prove(here).unwrap(), "wanted": wanted})
    };
    refused(say(&member, &cell, unknown).await, "no request to join: unknown variant `alien`");
    member.kept_it();
}

#[tokio::test]
async fn nonsense_is_answered_or_dropped_and_harms_nobody() {
    let cell = Cell::new("covey");
    let mut member = Member::new(&cell);
    let begin = async |bytes: &[u8]| -> Stream {
        let (mut stream, _) = transport::join(member.addr, &cell.id()).await.unwrap();
        stream.outgoing.write_all(bytes).await.unwrap();
        stream
    };
    // Longer than is allowed, and not JSON: said.
    let long = u32::try_from(MOST + 1).unwrap().to_be_bytes();
    for (bytes, word) in [(&long[..], "longer than"), (b"\0\0\0\x02{{", "not what was expected")] {
        let mut stream = begin(bytes).await;
        refused(stream.read().await.unwrap().unwrap(), word);
        assert!(member.ended.recv().await.unwrap().is_ok());
    }
    // Cut short, and nothing at all.
    for bytes in [&b"\0\0\0\x20{"[..], b""] {
        let mut stream = begin(bytes).await;
        stream.outgoing.finish().unwrap();
        assert!(matches!(stream.read::<Joined>().await, Ok(None) | Err(FrameError::Broken(_))));
        member.ended.recv().await.unwrap().ok();
    }
    member.kept_it();
    join::knock(member.addr, &cell.id(), &Key::generate().unwrap(), secret()).await.unwrap();
}
