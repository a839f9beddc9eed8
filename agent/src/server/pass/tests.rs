//! Nodes that say what a script has them say, over loopback, and one that passes a request on among them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use gossip::{
    peer::Peer,
    tls::{AuthorityKey, Credentials, Key},
    transport::{Event, Transport},
    wire::{Call, JobName, PROTOCOL, Request, ask::To},
};
use placement::{
    ids::{Activation, CellId, Principal, RequestId},
    ledger::{Command, Entry},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::{cell::Acting, ledger::LedgerHandle, peers::Peers};

/// What a node does with a request that is passed to it.
#[derive(Clone)]
enum Does {
    Answers(Value),
    Refuses(&'static str),
    /// It does not place, and names who does.
    Names(Option<NodeId>),
    /// Takes it, and says nothing.
    KeepsSilent,
    /// Takes it, and breaks off.
    BreaksOff,
}

/// A node of a script.
struct Node {
    id: NodeId,
    peer: Peer,
    does: Arc<Mutex<Does>>,
    /// Ids of the requests that came.
    came: mpsc::UnboundedReceiver<RequestId>,
    _transport: Transport,
}

impl Node {
    async fn asked(&mut self) -> RequestId {
        self.came.recv().await.unwrap()
    }

    fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }
}

/// The node that takes the client's request, and the others.
struct Scene {
    cell: Cell,
    members: watch::Sender<BTreeMap<NodeId, Peer>>,
    activations: u64,
    _temp: TempDir,
}

impl Scene {
    async fn new<const N: usize>(does: [Does; N]) -> (Scene, [Node; N]) {
        let made = AuthorityKey::found("home").unwrap();
        let authority = made.open("home").unwrap();
        let bind = |name: &str| {
            let key = Key::generate().unwrap();
            let certificate = authority.issue(key.public(), name, std::time::SystemTime::now()).unwrap();
            let me = Credentials::new(&key.pem(), &certificate, &made.certificate).unwrap();
            let (transport, events) = Transport::bind("127.0.0.1:0".parse().unwrap(), &me).unwrap();
            (me.subject.node, transport, events)
        };
        let nodes = does.map(|does| {
            let (id, transport, events) = bind("other");
            let does = Arc::new(Mutex::new(does));
            let (tell, came) = mpsc::unbounded_channel();
            tokio::spawn(play(events, does.clone(), tell));
            let peer = Peer::new(id, transport.local_addr().unwrap(), 1);
            Node { id, peer, does, came, _transport: transport }
        });
        let (me, transport, _) = bind("n1");
        let here = nodes.iter().map(|node| (node.id, node.peer)).collect();
        let (members, seen) = watch::channel(here);
        let temp = tempfile::tempdir().unwrap();
        let ledger = LedgerHandle::open(&temp.path().join("ledger.redb"), me).await.unwrap();
        let cell = Cell::new(Peers::new(me, transport, seen), ledger);
        (Scene { cell, members, activations: 0, _temp: temp }, nodes)
    }

    /// `node` shows itself as the placer, newer than all before.
    fn acts(&mut self, node: NodeId) {
        self.activations += 1;
        self.cell.heard(Acting { node, activation: Activation { cell: 1, index: self.activations } });
    }

    /// The request, on its way. This node never places.
    fn insist(&self) -> tokio::task::JoinHandle<Result<Value, Refusal>> {
        let cell = self.cell.clone();
        tokio::spawn(async move { insist(&cell, &stop(), || async { Err(Unpassed::NotPlacer(None)) }).await })
    }
}

async fn play(
    mut events: mpsc::Receiver<Event>,
    does: Arc<Mutex<Does>>,
    tell: mpsc::UnboundedSender<RequestId>,
) {
    let mut silent = Vec::new();
    while let Some(event) = events.recv().await {
        let Event::Stream { lane: Lane::Request, mut stream, .. } = event else { continue };
        let passed: Passed = stream.read().await.unwrap().unwrap();
        assert_eq!(passed.to, To::Placer);
        let does = does.lock().unwrap().clone();
        let replies = match does {
            Does::Answers(document) => vec![Reply::Item(document), Reply::End],
            Does::Refuses(code) => {
                let refusal = Refusal { code: code.into(), message: "no".into(), hint: None };
                vec![Reply::Error(refusal)]
            }
            Does::Names(placer) => vec![Reply::NotPlacer { placer }],
            Does::KeepsSilent => {
                silent.push(stream);
                let _ = tell.send(passed.request.id);
                continue;
            }
            Does::BreaksOff => Vec::new(),
        };
        for reply in replies {
            stream.write(&reply).await.unwrap();
        }
        let _ = tell.send(passed.request.id);
        tokio::spawn(stream.finish());
    }
}

fn stop() -> Passed {
    let request = Request {
        protocol: PROTOCOL.into(),
        principal: Some(Principal("ann".into())),
        id: RequestId("7".into()),
        call: Call::Stop { job: JobName { owner: None, name: "web".into() }, index: None },
    };
    Passed { request, to: To::Placer, images: None, task: None, run: None }
}

fn done() -> Value {
    json!({"changed": true})
}

#[tokio::test]
async fn the_placer_decides() {
    let (mut scene, [mut a]) = Scene::new([Does::Answers(done())]).await;
    scene.acts(a.id);
    assert_eq!(scene.insist().await.unwrap().unwrap(), done());
    assert_eq!(a.asked().await.0, "7");

    a.now(Does::Refuses("conflict"));
    assert_eq!(scene.insist().await.unwrap().unwrap_err().code, "conflict");
    a.asked().await;
    // A refusal is a decision: nobody asks twice.
    assert!(a.came.try_recv().is_err());
}

#[tokio::test]
async fn a_placer_that_shows_itself_is_asked_at_once() {
    let (mut scene, [mut a, mut b]) = Scene::new([Does::KeepsSilent, Does::Answers(done())]).await;
    // Nobody is known yet.
    let insisting = scene.insist();
    scene.acts(a.id);
    let first = a.asked().await;
    // It fell silent, and is not known to be dead; another takes its place.
    scene.acts(b.id);
    assert_eq!(insisting.await.unwrap().unwrap(), done());
    // The same request, so that it is done once.
    assert_eq!(b.asked().await, first);
}

#[tokio::test]
async fn who_breaks_off_is_asked_again() {
    let (mut scene, [mut a]) = Scene::new([Does::BreaksOff]).await;
    scene.acts(a.id);
    let insisting = scene.insist();
    a.asked().await;
    a.now(Does::Refuses("no_quorum"));
    // It cannot now: that is no decision either.
    while a.asked().await.0.is_empty() {}
    a.now(Does::Answers(done()));
    assert_eq!(insisting.await.unwrap().unwrap(), done());
}

#[tokio::test]
async fn who_does_not_place_names_who_does() {
    let (mut scene, [mut a, mut b]) = Scene::new([Does::Names(None), Does::Answers(done())]).await;
    a.now(Does::Names(Some(b.id)));
    scene.acts(a.id);
    assert_eq!(scene.insist().await.unwrap().unwrap(), done());
    assert_eq!((a.asked().await.0, b.asked().await.0), ("7".into(), "7".into()));
    // Nobody is asked by an address that nobody knows.
    scene.members.send_replace(BTreeMap::new());
    b.now(Does::Refuses("gone"));
    assert!(matches!(
        pass(&scene.cell, NodeId(1), &stop()).await.map(drop),
        Err(Unpassed::Broken(why)) if why.contains("nobody knows its address")
    ));
}

#[tokio::test]
async fn a_node_that_comes_to_lead_decides_itself() {
    let (mut scene, [a]) = Scene::new([Does::KeepsSilent]).await;
    scene.acts(a.id);
    let (tell, mut called) = mpsc::unbounded_channel();
    let cell = scene.cell.clone();
    let insisting = tokio::spawn(async move {
        let here = || async {
            let _ = tell.send(());
            Ok(done())
        };
        insist(&cell, &stop(), here).await
    });
    let found = Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 };
    scene.cell.ledger.found(vec![Entry { request: None, at_ms: 0, command: found }]).await.unwrap();
    assert_eq!(insisting.await.unwrap().unwrap(), done());
    assert!(called.recv().await.is_some());
}

#[tokio::test]
async fn without_a_placer_it_is_said_what_to_do() {
    let (mut scene, [mut a]) = Scene::new([Does::Refuses("no_quorum")]).await;
    let passed = stop();
    let insist = |scene: &Scene| {
        let cell = scene.cell.clone();
        let passed = passed.clone();
        async move {
            let nobody = || async { Err(Unpassed::NotPlacer(None)) };
            insist_for(Duration::from_millis(300), &cell, &passed, nobody).await.unwrap_err()
        }
    };
    let refusal = insist(&scene).await;
    assert_eq!(refusal.code, "no_quorum");
    assert!(refusal.message.contains("none has shown itself"), "{refusal}");
    assert!(refusal.hint.unwrap().contains("may be given again"));

    scene.acts(a.id);
    let refusal = insist(&scene).await;
    a.asked().await;
    assert!(refusal.message.contains(&a.id.to_string()), "{refusal}");
}
