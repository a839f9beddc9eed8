//! Two nodes on loopback: one votes and holds the authority, the other's certificate gets old.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use agent::{
    cell::{Acting, Cell},
    certificates::{self, CertificateError},
    dir::DataDir,
    identity::{Held, Identity},
    join::{asked, knocked},
    ledger::LedgerHandle,
    peers::{AskError, Peers},
};
use gossip::{
    peer::Peer,
    tls::{AuthorityKey, Key, LIFETIME},
    transport::{Event, Lane, Transport},
    wire::{
        ask::{Question, Told},
        join::NewNode,
    },
};
use placement::{
    ids::{Activation, NodeId},
    ledger::{Command, Entry},
};
use tempfile::TempDir;
use tokio::sync::watch;

struct Node {
    _temp: TempDir,
    held: Held,
    cell: Cell,
    peer: Peer,
    seen: watch::Sender<BTreeMap<NodeId, Peer>>,
}

impl Node {
    /// Serves what the daemon would.
    async fn start(temp: TempDir, dir: &DataDir, identity: Identity) -> Node {
        let held = Held::new(dir, identity.clone()).unwrap();
        let ledger = LedgerHandle::open(&dir.join("ledger.redb"), identity.node).await.unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let (transport, mut events) = Transport::bind(listen, &identity.credentials().unwrap()).unwrap();
        let peer = Peer::new(identity.node, transport.local_addr().unwrap(), 1);
        let (seen, members) = watch::channel(BTreeMap::new());
        let cell = Cell::new(Peers::new(identity.node, transport, members), ledger);
        let (serving, keys) = (cell.clone(), held.clone());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let (cell, held) = (serving.clone(), keys.clone());
                tokio::spawn(async move {
                    match event {
                        Event::Stream { from, lane: Lane::Ask, mut stream } => {
                            let question = stream.read::<Question>().await.unwrap().unwrap();
                            let told = asked(&cell, &held, from, &question).await.unwrap();
                            stream.write(&told).await.unwrap();
                            stream.finish().await;
                        }
                        Event::Joining { stream, binding, .. } => {
                            let _ = knocked(&cell, &held, stream, binding).await;
                        }
                        _ => {}
                    }
                });
            }
        });
        Node { _temp: temp, held, cell, peer, seen }
    }

    fn sees(&self, other: &Node) {
        self.seen.send_replace(BTreeMap::from([(other.peer.id, other.peer)]));
    }

    fn until(&self) -> SystemTime {
        self.held.identity().credentials().unwrap().validity().unwrap().1
    }
}

async fn propose(ledger: &LedgerHandle, command: Command) {
    ledger.propose(&Entry { request: None, at_ms: 1_700_000_000_000, command }).await.unwrap();
}

/// A founder that leads, and a member whose certificate was made so long ago. They see each other.
async fn two(age: Duration) -> (Node, Node) {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let first = Identity::open(&dir, Some("n1"), Some("home")).unwrap();
    let one = Node::start(temp, &dir, first.clone()).await;
    let entry = |command| Entry { request: None, at_ms: 1_700_000_000_000, command };
    let found = Command::Found { cell: first.cell.clone(), name: "home".into(), generation: 1 };
    let admit = Command::Admit { node: first.node, name: "n1".into() };
    one.cell.ledger.found(vec![entry(found), entry(admit)]).await.unwrap();

    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let key = Identity::joining_key(&dir).unwrap();
    propose(&one.cell.ledger, Command::Admit { node: key.node(), name: "n2".into() }).await;
    let authority = one.held.authority().unwrap();
    let new = NewNode {
        certificate: authority.issue(key.public(), "n2", SystemTime::now() - age).unwrap(),
        authority: authority.certificate().to_string(),
        cell: "home".into(),
        promise: Activation { cell: 1, index: 3 },
        members: vec![one.peer.addr],
    };
    let second = Identity::joined(&dir, &key, "n2", authority.cell(), new).unwrap();
    let two = Node::start(temp, &dir, second).await;
    one.sees(&two);
    two.sees(&one);
    two.cell.heard(Acting { node: one.peer.id, activation: Activation { cell: 1, index: 4 } });
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_certificate_is_left_alone() {
    let (_one, two) = two(Duration::ZERO).await;
    let before = two.until();
    let wait = certificates::renew_if_due(&two.cell, &two.held).await.unwrap();
    assert!(wait > Duration::from_secs(60), "{wait:?}");
    assert_eq!(two.until(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_certificate_is_renewed_by_a_voter() {
    let (one, two) = two(LIFETIME * 3 / 4).await;
    certificates::renew_if_due(&two.cell, &two.held).await.unwrap();
    assert!(two.until() > SystemTime::now() + LIFETIME / 2);
    // Whoever holds the authority needs nobody.
    let old = Key::from_pem(&one.held.identity().key).unwrap();
    let old = one.held.authority().unwrap().issue(old.public(), "n1", SystemTime::now() - LIFETIME * 2);
    one.held.renewed(old.unwrap()).unwrap();
    one.seen.send_replace(BTreeMap::new());
    certificates::renew_if_due(&one.cell, &one.held).await.unwrap();
    assert!(one.until() > SystemTime::now() + LIFETIME / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_weeks_off_a_node_finds_back_by_itself() {
    let (one, two) = two(LIFETIME * 3).await;
    let question =
        Question::Renew { public_key: Key::from_pem(&two.held.identity().key).unwrap().public().clone() };
    let refused = two.cell.peers.ask(one.peer.id, &question).await.unwrap_err().to_string();
    assert!(refused.contains("xpired"), "{refused}");
    // It has seen nobody since: what it has is where members were.
    two.seen.send_replace(BTreeMap::new());
    certificates::renew_if_due(&two.cell, &two.held).await.unwrap();
    assert!(two.until() > SystemTime::now() + LIFETIME / 2);
    two.sees(&one);
    // In use from then on, both ways.
    assert!(matches!(two.cell.peers.ask(one.peer.id, &question).await, Ok(Told::Renewed { .. })));
    let key = AuthorityKey::found("home").unwrap();
    let other = Question::Authority(Box::new(key));
    one.cell.peers.transport().forget(two.peer.id);
    assert!(matches!(one.cell.peers.ask(two.peer.id, &other).await, Err(AskError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anothers_certificate_and_the_removed_none() {
    let (one, two) = two(Duration::ZERO).await;
    let others = Key::from_pem(&one.held.identity().key).unwrap().public().clone();
    let refused = two.cell.peers.ask(one.peer.id, &Question::Renew { public_key: others }).await.unwrap_err();
    assert!(refused.to_string().contains("asks for a certificate of"), "{refused}");
    // Whoever does not vote says so.
    let mine =
        Question::Renew { public_key: Key::from_pem(&one.held.identity().key).unwrap().public().clone() };
    let refused = one.cell.peers.ask(two.peer.id, &mine).await.unwrap_err();
    assert!(
        matches!(&refused, AskError::Refused { refusal, .. } if refusal.code == "no_quorum"),
        "{refused}"
    );
    propose(&one.cell.ledger, Command::Remove { node: two.peer.id }).await;
    let mine = Key::from_pem(&two.held.identity().key).unwrap().public().clone();
    let refused = two.cell.peers.ask(one.peer.id, &Question::Renew { public_key: mine }).await.unwrap_err();
    assert!(refused.to_string().contains("was removed from this cell"), "{refused}");
    one.cell.peers.transport().revoke(BTreeSet::from([two.peer.id]));
    assert!(one.cell.peers.open(two.peer.id, Lane::Ask).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_handed_to_who_will_vote_and_no_other_is_taken() {
    let (one, two) = two(Duration::ZERO).await;
    assert!(two.held.authority().is_none());
    for _ in 0..2 {
        certificates::hand_authority(&one.cell, &one.held, two.peer.id).await.unwrap();
    }
    assert_eq!(two.held.authority().unwrap().cell(), one.held.authority().unwrap().cell());
    // Another cell's would make it issue what nobody accepts.
    let other = Question::Authority(Box::new(AuthorityKey::found("home").unwrap()));
    let refused = one.cell.peers.ask(two.peer.id, &other).await.unwrap_err();
    assert!(refused.to_string().contains("not the authority of this node's cell"), "{refused}");
    assert_eq!(two.held.authority().unwrap().cell(), one.held.authority().unwrap().cell());
    two.held.drop_authority().unwrap();
    let nothing = certificates::hand_authority(&two.cell, &two.held, one.peer.id).await;
    assert!(matches!(nothing, Err(CertificateError::NotHeld)));
}
