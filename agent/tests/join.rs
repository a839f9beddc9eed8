//! Newcomers and a cell of one, over loopback and on real files: who gets in, and what the others are told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use agent::{
    dir::DataDir,
    identity::{Held, Identity},
    join::{self, JoinError, admit},
    ledger::LedgerHandle,
};
use gossip::{
    join::{answer, knock},
    tls::{Authority, Key, LIFETIME, PublicKey},
    token::Token,
    transport::{Event, Transport},
    wire::join::{Joined, Whom},
};
use placement::ledger::{Answer, Command, Entry, Role};
use tempfile::TempDir;

/// A node that holds the authority and leads, at an address.
struct Founder {
    _temp: TempDir,
    held: Held,
    ledger: LedgerHandle,
    addr: SocketAddr,
    _transport: Transport,
}

fn entry(command: Command) -> Entry {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Entry { request: None, at_ms: u64::try_from(now.as_millis()).unwrap(), command }
}

fn dir() -> (TempDir, DataDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    (temp, dir)
}

impl Founder {
    async fn new() -> Founder {
        let (temp, dir) = dir();
        let identity = Identity::open(&dir, Some("n1"), Some("home")).unwrap();
        let held = Held::new(&dir, identity.clone()).unwrap();
        let ledger = LedgerHandle::open(&dir.join("ledger.redb"), identity.node).await.unwrap();
        let found = Command::Found { cell: identity.cell.clone(), name: "home".into(), generation: 1 };
        let admitted = Command::Admit { node: identity.node, name: "n1".into() };
        ledger.found(vec![entry(found), entry(admitted)]).await.unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let (transport, mut events) = Transport::bind(listen, &identity.credentials().unwrap()).unwrap();
        let addr = transport.local_addr().unwrap();
        let (serving, book) = (held.clone(), ledger.clone());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Event::Joining { stream, binding, .. } = event else { continue };
                let (held, ledger) = (serving.clone(), book.clone());
                tokio::spawn(async move {
                    let decide = |wanted| async move {
                        let authority = held.authority();
                        let members = vec!["10.0.0.9:7411".parse().unwrap()];
                        admit(&ledger, authority.as_deref(), &wanted, members, SystemTime::now()).await
                    };
                    answer(stream, binding, decide).await
                });
            }
        });
        Founder { _temp: temp, held, ledger, addr, _transport: transport }
    }

    /// A token of a role with so many uses.
    async fn token(&self, role: Role, name: Option<&str>, uses: u32) -> Token {
        let mut secret = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret).unwrap();
        let token = Token::new(self.held.identity().cell, secret);
        let hash = Token::hash(token.secret());
        let made = Command::Token { hash, role, name: name.map(Into::into), uses, ttl_ms: 60_000 };
        self.propose(made).await;
        token
    }

    async fn propose(&self, command: Command) {
        let answer = self.ledger.propose(&entry(command)).await.unwrap();
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    }

    fn at(&self) -> Vec<String> {
        vec![self.addr.to_string()]
    }

    fn authority(&self) -> Arc<Authority> {
        self.held.authority().unwrap()
    }
}

async fn enter(dir: &DataDir, at: &[String], token: &Token, name: &str) -> Result<Identity, JoinError> {
    join::join(dir, at, token, Some(name), None, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_a_node_in() {
    let founder = Founder::new().await;
    let token = founder.token(Role::Node, None, 1).await;
    let (_temp, dir) = dir();
    let node = enter(&dir, &founder.at(), &token, "n2").await.unwrap();
    let state = founder.ledger.state();
    assert_eq!(state.roster[&node.node].name, "n2");
    assert_eq!(node.admitted, Some(state.activation));
    assert_eq!((node.cell_name.as_str(), &node.cell), ("home", &founder.held.identity().cell));
    assert_eq!(node.members, [founder.addr, "10.0.0.9:7411".parse().unwrap()]);
    // It shows who it is, and has no part in the authority.
    assert_eq!(node.credentials().unwrap().subject.node, node.node);
    assert_eq!(Identity::open(&dir, None, Some("home")).unwrap(), node);
    assert!(node.authority(&dir).unwrap().is_none());
}

/// The ledger has let it in, and the answer was lost; or its disk was full.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_was_cut_short_is_repeated_as_the_same_node() {
    let founder = Founder::new().await;
    let token = founder.token(Role::Node, None, 1).await;
    let (_temp, dir) = dir();
    let key = Identity::joining_key(&dir).unwrap();
    let whom = Whom::Node { secret: token.secret().into(), name: "n2".into(), cell: None };
    let lost = knock(founder.addr, &token.cell, &key, whom).await.unwrap();
    assert!(matches!(lost, Joined::Node(_)), "{lost:?}");
    let node = enter(&dir, &founder.at(), &token, "n2").await.unwrap();
    assert_eq!(node.node, key.node());
    assert_eq!(founder.ledger.state().roster.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_in_is_told_why_and_leaves_no_trace() {
    let founder = Founder::new().await;
    let good = founder.token(Role::Node, None, 1).await;
    let (_temp, dir) = dir();
    let refused = async |token: &Token, name: &str, cell: Option<&str>| {
        let error = join::join(&dir, &founder.at(), token, Some(name), cell, |_| {}).await.unwrap_err();
        assert!(!dir.join("identity.json").exists());
        error.to_string()
    };
    let says = |text: String, words: &[&str]| assert!(words.iter().all(|w| text.contains(w)), "{text}");
    let unknown = Token::new(good.cell.clone(), [1; 16]);
    says(refused(&unknown, "n2", None).await, &["does not know the token", "`covey token`"]);
    says(refused(&good, "n1", None).await, &["name `n1` belongs to", "--name"]);
    says(refused(&good, "n2", Some("lab")).await, &["the cell `home`, not `lab`", "--cell"]);
    says(refused(&good, "9x", None).await, &["cannot be a node's name"]);
    let user = founder.token(Role::User, Some("ann"), 1).await;
    says(refused(&user, "n2", None).await, &["for `covey login`"]);
    let foreign = Token::new(Founder::new().await.held.identity().cell, [1; 16]);
    says(refused(&foreign, "n2", None).await, &["of another cell", "same cell"]);
    // None of this has used up the good one; then it is.
    enter(&dir, &founder.at(), &good, "n2").await.unwrap();
    let (_temp, other) = self::dir();
    let error = enter(&other, &founder.at(), &good, "n3").await.unwrap_err().to_string();
    says(error, &["used up", "`covey token`"]);
    assert_eq!(founder.ledger.state().roster.len(), 2);
    assert!(matches!(enter(&other, &[], &good, "n3").await, Err(JoinError::NoAddress)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_there_is_passed_over() {
    let founder = Founder::new().await;
    let token = founder.token(Role::Node, None, 1).await;
    let (_temp, dir) = dir();
    let at = [vec!["not an address".to_string()], founder.at()].concat();
    enter(&dir, &at, &token, "n2").await.unwrap();
}

/// The cell that is founded but has no majority: the newcomer waits, says so, and gets in once there is one.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_a_newcomer_waits() {
    let founder = Founder::new().await;
    let token = founder.token(Role::Node, None, 1).await;
    let key = founder.held.authority_key().unwrap().unwrap();
    founder.held.drop_authority().unwrap();
    let (_temp, dir) = dir();
    let mut told = Vec::new();
    let setback = |why: &str| {
        told.push(why.to_string());
        founder.held.keep_authority(&key).unwrap();
    };
    join::join(&dir, &founder.at(), &token, Some("n2"), None, setback).await.unwrap();
    assert!(told.len() == 1 && told[0].contains("cannot take a decision now"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_certificate_expired_comes_back() {
    let founder = Founder::new().await;
    let token = founder.token(Role::Node, None, 1).await;
    let (_temp, dir) = dir();
    let node = enter(&dir, &founder.at(), &token, "n2").await.unwrap();
    let key = Key::from_pem(&node.key).unwrap();
    let long_ago = SystemTime::now() - LIFETIME * 3;
    let old = founder.authority().issue(key.public(), "n2", long_ago).unwrap();
    let held = Held::new(&dir, node.clone()).unwrap();
    let credentials = held.renewed(old).unwrap();
    assert!(credentials.validity().unwrap().1 < SystemTime::now());
    let renewed = join::come_back(&held.identity(), &founder.at()).await.unwrap();
    let (from, until) = held.renewed(renewed).unwrap().validity().unwrap();
    assert!(from < SystemTime::now() && until > SystemTime::now() + LIFETIME / 2);
    // Also by a token, as anybody else, under its own name and id; this one may be used up by others.
    let again = founder.token(Role::Node, None, 1).await;
    let whom = Whom::Node { secret: again.secret().into(), name: "n2".into(), cell: None };
    let joined = knock(founder.addr, &again.cell, &key, whom).await.unwrap();
    assert!(matches!(joined, Joined::Node(ref new) if Some(new.promise) == node.admitted));
    // Removed is removed: by no way.
    founder.propose(Command::Remove { node: node.node }).await;
    let error = join::come_back(&held.identity(), &founder.at()).await.unwrap_err().to_string();
    assert!(error.contains("was removed from this cell"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_of_the_roster_are_renewed_and_by_the_name_they_have_there() {
    let founder = Founder::new().await;
    let renew =
        |key: &PublicKey| join::renew(&founder.ledger.state(), &founder.authority(), key, SystemTime::now());
    let stranger = Key::generate().unwrap();
    let refusal = renew(stranger.public()).unwrap_err();
    assert!(refusal.message.contains("has no node") && refusal.hint.is_some(), "{refusal:?}");
    founder.propose(Command::Admit { node: stranger.node(), name: "n2".into() }).await;
    assert!(renew(stranger.public()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_a_user() {
    let founder = Founder::new().await;
    let token = founder.token(Role::User, Some("ann"), 1).await;
    let key = Key::generate().unwrap();
    let whom = || Whom::Principal { secret: token.secret().into() };
    for _ in 0..2 {
        let joined = knock(founder.addr, &token.cell, &key, whom()).await.unwrap();
        let Joined::Principal(new) = joined else { panic!("{joined:?}") };
        assert_eq!((new.principal.0.as_str(), new.role, new.cell.as_str()), ("ann", Role::User, "home"));
    }
    let other = Key::generate().unwrap();
    let joined = knock(founder.addr, &token.cell, &other, whom()).await.unwrap();
    assert!(matches!(&joined, Joined::Refused(refusal) if refusal.message.contains("used up")), "{joined:?}");
    let nodes = founder.token(Role::Node, None, 1).await;
    let whom = Whom::Principal { secret: nodes.secret().into() };
    let joined = knock(founder.addr, &nodes.cell, &other, whom).await.unwrap();
    assert!(
        matches!(&joined, Joined::Refused(refusal) if refusal.message.contains("not people")),
        "{joined:?}"
    );
}

/// For the limit of attempts: an address may knock ten times at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_knocks_too_often_waits_and_gets_in() {
    let founder = Founder::new().await;
    let token = founder.token(Role::Node, None, 1).await;
    let stranger = Key::generate().unwrap();
    let mut refused = 0;
    while refused == 0 {
        let whom = Whom::Principal { secret: "no".into() };
        refused += usize::from(knock(founder.addr, &token.cell, &stranger, whom).await.is_err());
    }
    let (_temp, dir) = dir();
    let mut told = Vec::new();
    let at = founder.at();
    let joined = join::join(&dir, &at, &token, Some("n2"), None, |why| told.push(why.to_string()));
    let joined = tokio::time::timeout(Duration::from_secs(60), joined).await.unwrap();
    assert!(joined.is_ok(), "{joined:?}");
    assert!(told.iter().all(|why| why.contains("again in")), "{told:?}");
}
