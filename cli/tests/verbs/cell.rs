//! Verbs about the cell and its nodes.

use std::collections::BTreeMap;

use gossip::{
    token::Token,
    wire::{Call, Reply},
};
use placement::{ids::Principal, ledger::Role};
use serde_json::json;

use crate::fake::{Fake, Step, end, item, refuse};

fn made() -> serde_json::Value {
    json!({"cell": "ab".repeat(32), "cell_name": "lab", "role": "node", "name": null, "uses": 100,
           "expires": "2026-05-05T12:00:00Z"})
}

#[test]
fn a_token_is_printed_once_and_only_its_hash_is_sent() {
    let fake = Fake::new(|_, _| vec![item(made()), end()]);
    let done = fake.covey(&["token"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    let token: Token = done.out.trim_end().parse().unwrap();
    assert_eq!(done.out, format!("{token}\n"));
    let asked = Call::Token {
        hash: Token::hash(token.secret()),
        role: Role::Node,
        name: None,
        uses: 100,
        ttl_ms: 86_400_000,
    };
    assert_eq!(fake.calls(), [asked]);

    let done = fake.covey(&["token", "--json", "--role", "user", "--name", "ann", "--ttl", "10m"]);
    let document = done.json();
    assert_eq!((&document["cell"], &document["expires"]), (&json!("lab"), &json!("2026-05-05T12:00:00Z")));
    let other: Token = document["token"].as_str().unwrap().parse().unwrap();
    assert_ne!(other.secret(), token.secret());
    match &fake.calls()[1] {
        Call::Token { role: Role::User, name: Some(name), uses: 1, ttl_ms: 600_000, hash } => {
            assert_eq!((name.as_str(), hash), ("ann", &Token::hash(other.secret())));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn labels_are_set_and_taken_away_in_one_request() {
    let fake = Fake::new(|n, _| {
        let labels = if n == 2 { json!({}) } else { json!({"rack": "r1", "zone": "z1"}) };
        vec![
            item(json!({"id": "00c0ffee00c0ffee", "name": "n1", "labels": labels, "changed": n == 0})),
            end(),
        ]
    });
    let done = fake.covey(&["label", "n1", "rack=r1", "disk-"]);
    assert_eq!(done.out, "n1 has rack=r1 zone=z1\n");
    let labels = BTreeMap::from([("rack".to_owned(), Some("r1".to_owned())), ("disk".to_owned(), None)]);
    assert_eq!(fake.calls(), [Call::Label { node: "n1".into(), labels }]);
    assert_eq!(fake.covey(&["label", "n1", "rack=r1"]).out, "n1 has rack=r1 zone=z1 already\n");
    assert_eq!(fake.covey(&["label", "n1", "rack-"]).out, "n1 has no labels by operators already\n");
}

#[test]
fn rights_are_shown_given_and_taken_away() {
    let ann = |rights: &[&str]| json!({"name": "ann", "role": "user", "grants": rights, "created": "2026-01-01T00:00:00Z"});
    let fake = Fake::new(move |n, _| match n {
        0 => vec![item(ann(&["admin.jobs"])), end()],
        _ => {
            let boss =
                json!({"name": "boss", "role": "admin", "grants": [], "created": "2026-01-01T00:00:00Z"});
            vec![item(json!({"items": [ann(&["admin.jobs"]), boss], "missing": [], "stale": false})), end()]
        }
    });
    let done = fake.covey(&["grant", "ann", "admin.jobs", "--revoke", "host.path:/etc"]);
    assert_eq!(done.out, "ann has the rights: admin.jobs\n");
    let (give, take) = (["admin.jobs".to_owned()].into(), ["host.path:/etc".to_owned()].into());
    assert_eq!(fake.calls(), [Call::Grant { principal: Principal("ann".into()), give, take }]);
    let table = "USER  ROLE   SINCE                 RIGHTS\nann   user   2026-01-01T00:00:00Z  admin.jobs\nboss  admin  2026-01-01T00:00:00Z  all\n";
    assert_eq!(fake.covey(&["grant"]).out, table);
    assert!(!fake.covey(&["grant", "ann"]).out.contains("boss"));
}

#[test]
fn a_node_that_is_alive_is_not_forgotten() {
    let fake = Fake::new(|n, _| match n {
        0 => vec![refuse("conflict", "node n2 is not gone", Some("`covey leave` on it makes it leave"))],
        _ => vec![item(json!({"id": "00c0ffee00c0ffee", "name": "n2", "changed": true})), end()],
    });
    let done = fake.covey(&["node", "rm", "n2"]);
    assert_eq!(done.code, Some(1));
    let said =
        "covey: cannot forget node n2: node n2 is not gone\n  hint: `covey leave` on it makes it leave\n";
    assert_eq!(done.err, said);
    assert_eq!(fake.covey(&["node", "rm", "n2"]).out, "n2 is forgotten: its key is never let in again\n");
    assert_eq!(fake.calls()[1], Call::NodeRemove { node: "n2".into(), leaves: false });
}

#[test]
fn a_node_is_drained_and_leaves() {
    let progress =
        |done| Step::Say(Reply::Progress { what: "tasks have moved to other nodes".into(), done, total: 2 });
    let fake = Fake::new(move |_, call| match call {
        Call::Drain { on, .. } => {
            vec![item(json!({"name": "n2", "draining": on, "changed": on})), end()]
        }
        _ => vec![progress(0), progress(1), item(json!({"name": "n1", "ended": 1})), end()],
    });
    assert_eq!(fake.covey(&["drain", "n2"]).out, "n2 is drained: its tasks move to other nodes\n");
    assert_eq!(fake.covey(&["undrain", "n2"]).out, "n2 was not drained\n");
    let done = fake.covey(&["leave", "--deadline", "1m"]);
    let said =
        "n1 has left the cell, and its agent ends; 1 of its tasks found no other place and are ended\n";
    assert_eq!(done.out, said);
    assert!(done.err.ends_with("tasks have moved to other nodes: 1 of 2\n"), "{done:?}");
    let drain = |on| Call::Drain { node: "n2".into(), on };
    assert_eq!(fake.calls(), [drain(true), drain(false), Call::Leave { deadline_ms: Some(60_000) }]);
}

#[test]
fn the_cell_and_its_settings() {
    let cell = json!({"id": "ab".repeat(32), "name": "lab", "generation": 1, "placer": "n1", "voters": ["n1", "n2", "n3"],
                      "nodes": 5, "settings": {"lost_after_ms": 5000, "later_thing": 7}});
    let fake = Fake::new({
        let cell = cell.clone();
        move |_, _| vec![item(cell.clone()), end()]
    });
    let text = format!(
        "cell lab\n  id          {}\n  nodes       5\n  placer      n1\n  voters      n1, n2, n3\n  later-thing 7\n  \
         lost-after  5s\n",
        "ab".repeat(32)
    );
    assert_eq!(fake.covey(&["cell"]).out, text);
    assert_eq!(fake.covey(&["cell", "set", "lost-after=5s", "--json"]).json(), cell);
    assert_eq!(fake.calls(), [Call::Cell, Call::CellSet { lost_after_ms: Some(5000) }]);
}

#[test]
fn the_doctor_fails_if_something_is_wrong_and_prints_one_document() {
    let well = json!({"healthy": true, "missing": [], "items": [], "nodes": [{"name": "n1", "answers": true}], "pairs": []});
    let mut ill = well.clone();
    ill["healthy"] = json!(false);
    ill["items"] = json!([
        {"weight": "wrong", "kind": "clock", "nodes": ["n1"], "text": "the clock of n1 is 60 min ahead", "means": "m", "hint": "h"},
        {"weight": "note", "kind": "versions", "nodes": [], "text": "versions differ", "means": "m", "hint": "h"},
    ]);
    let fake = Fake::new({
        let (well, ill) = (well.clone(), ill.clone());
        move |n, _| vec![item(if n < 2 { well.clone() } else { ill.clone() }), end()]
    });
    let done = fake.covey(&["doctor"]);
    assert!(done.code == Some(0) && done.out.ends_with("nothing is wrong\n"), "{done:?}");
    assert_eq!(fake.covey(&["doctor", "--json"]).json(), well);
    let done = fake.covey(&["doctor"]);
    assert_eq!((done.code, done.err.as_str()), (Some(1), "covey: the cell is not well: 1 thing is wrong\n"));
    assert!(
        done.out.contains("wrong: the clock of n1 is 60 min ahead\n  that means: m\n  to do: h\n"),
        "{done:?}"
    );
    let done = fake.covey(&["doctor", "--json"]);
    assert_eq!((done.code, done.json(), done.err.as_str()), (Some(1), ill, ""));
}

#[test]
fn wrong_arguments_are_not_sent() {
    let fake = Fake::new(|_, _| panic!("asked"));
    let cases: [(&[&str], &str); 11] = [
        (&["token", "--role", "user"], "--name <NAME>"),
        (&["token", "--role", "king"], "a role is node, user or admin"),
        (&["token", "--uses", "0"], "a token is good for 1 to 10000 uses"),
        (&["token", "--ttl", "long"], "500ms, 30s, 2m"),
        (&["token", "--role", "user", "--name", "Ann Lee"], "a small letter"),
        (&["label", "n1"], "<KEY=VALUE|KEY->"),
        (&["label", "n1", "rack"], "KEY- takes it away"),
        (&["label", "n1", "a b=c"], "`a b` cannot be in a label"),
        (&["cell", "set", "lost-after"], "KEY=VALUE"),
        (&["cell", "set", "colour=red"], "no setting `colour`: there is lost-after"),
        (&["node", "rm"], "<NODE>"),
    ];
    for (args, wanted) in cases {
        let done = fake.covey(args);
        assert!(done.code == Some(2) && done.err.contains(wanted), "{args:?}: {done:?}");
    }
}
