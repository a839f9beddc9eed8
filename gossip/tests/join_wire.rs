//! What strangers say, and what nodes ask each other about certificates, frozen. `UPDATE=1` rewrites the golden file.
#![allow(clippy::unwrap_used)]

mod golden;

use golden::{frozen, lines};
use gossip::{
    tls::{AuthorityKey, PublicKey},
    wire::{
        PROTOCOL,
        ask::{Question, Told},
        join::{Join, Joined, NewNode, NewPrincipal, Wanted, Whom},
    },
};
use placement::{
    ids::{Activation, Principal},
    ledger::{Refusal, Role},
};

fn key() -> PublicKey {
    format!("04{}", "ab".repeat(64)).parse().unwrap()
}

fn wanted(whom: Whom) -> Wanted {
    Wanted { public_key: key(), whom }
}

fn joins() -> Vec<Join> {
    let (secret, name) = ("07".repeat(16), "n2".to_string());
    let whom = [
        Whom::Node { secret: secret.clone(), name: name.clone(), cell: None },
        Whom::Node { secret: secret.clone(), name, cell: Some("covey".into()) },
        Whom::Principal { secret },
        Whom::Returning,
    ];
    let join = |whom| Join {
        protocol: PROTOCOL.into(),
        version: "0.1.0".into(),
        proof: "30".into(),
        wanted: wanted(whom),
    };
    whom.into_iter().map(join).collect()
}

fn joined() -> Vec<Joined> {
    let (certificate, authority, cell) = ("C".to_string(), "A".to_string(), "covey".to_string());
    let nodes = vec!["10.0.0.1:7411".parse().unwrap(), "[2001:db8::1]:7411".parse().unwrap()];
    let node = NewNode {
        certificate: certificate.clone(),
        authority: authority.clone(),
        cell: cell.clone(),
        promise: Activation { cell: 1, index: 9 },
        members: nodes.clone(),
    };
    let principal = NewPrincipal {
        principal: Principal("ann".into()),
        role: Role::User,
        certificate: certificate.clone(),
        authority,
        cell,
        nodes,
    };
    let hint = Some("`covey token` on a member prints a new one".to_string());
    let refusal = Refusal { code: "denied".into(), message: "the token is used up".into(), hint };
    vec![
        Joined::Node(Box::new(node)),
        Joined::Principal(Box::new(principal)),
        Joined::Renewed { certificate },
        Joined::Refused(refusal),
    ]
}

fn questions() -> Vec<Question> {
    let authority = AuthorityKey { version: 1, key: "K".into(), certificate: "A".into() };
    vec![
        Question::Join(Box::new(wanted(Whom::Returning))),
        Question::Renew { public_key: key() },
        Question::Authority(Box::new(authority)),
    ]
}

fn told() -> Vec<Told> {
    let joined = Joined::Renewed { certificate: "C".into() };
    vec![Told::Joined(Box::new(joined)), Told::Renewed { certificate: "C".into() }, Told::Done]
}

#[test]
fn the_wire_is_as_it_was() {
    frozen("join", &[lines(joins()), lines(joined()), lines(questions()), lines(told())].concat());
}

#[test]
fn secrets_do_not_get_into_logs() {
    let shown = format!("{:?} {:?}", joins(), questions());
    assert!(!shown.contains(&"07".repeat(16)) && !shown.contains("\"K\""), "{shown}");
}
