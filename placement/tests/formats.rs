//! The written forms that logs, snapshots, records and messages rely on. They are frozen: a difference here is a change
//! of format, which readers of the release before must survive. New fields must have a default.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use placement::{
    ids::{Activation, CellId, Generation, JobKey, NodeId, Principal, RequestId, TaskKey, Uid, Version},
    job::{Band, Job, Kind},
    ledger::{Answer, Command, Completion, Entry, Expect, Ledger, Refusal, RequestStamp, Role},
    node::{Bad, Books, NodeInfo},
    resources::Resources,
    task::{Cause, Exit, Report, State},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

mod golden;

/// Compares with the golden file and reads that back.
fn frozen<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) -> Value {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    golden::whole(&format!("tests/golden/{name}.json"), &text);
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{name} is read back");
    serde_json::from_str(&text).unwrap()
}

/// Reads the value with a field of a later covey in each of these objects.
fn with_later_fields<T: DeserializeOwned + PartialEq + std::fmt::Debug>(
    written: &Value,
    at: &[&str],
    value: &T,
) {
    let mut later = written.clone();
    for pointer in at {
        let object = later.pointer_mut(pointer).and_then(Value::as_object_mut);
        object
            .unwrap_or_else(|| panic!("no object at {pointer}"))
            .insert("later".into(), json!({"deep": [1]}));
    }
    assert_eq!(&serde_json::from_value::<T>(later).unwrap(), value);
}

/// Reads and writes the value again, with fields of a later covey in each of these objects: they stay.
fn keeps_later_fields<T: Serialize + DeserializeOwned>(written: &Value, at: &[&str]) {
    let mut later = written.clone();
    for pointer in at {
        later.pointer_mut(pointer).unwrap()["later"] = json!({"deep": [1], "7": null});
    }
    let read: T = serde_json::from_str(&later.to_string()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), later);
}

fn key() -> JobKey {
    JobKey { owner: "ann".into(), name: "etl".into() }
}

fn exit(code: i32) -> Exit {
    Exit { code: Some(code), signal: None, cause: Cause::Exited }
}

fn entries() -> Vec<Entry> {
    let uid = Uid { cell: 1, index: 4 };
    let version = Version { cell: 1, number: 1 };
    let images = || BTreeMap::from([("hello:1".to_string(), "sha256:0f".to_string())]);
    let document = |count| json!({"name": "etl", "kind": "batch", "count": count, "task": {"image": "hello:1", "cpu": 0.5}});
    let asked = [
        Command::Submit { job: key(), document: document(4), images: images(), expect: Expect::Absent },
        Command::Submit {
            job: key(),
            document: document(3),
            images: images(),
            expect: Expect::Version { uid, version },
        },
        Command::Scale { job: key(), count: 4, expect: Expect::Any },
        Command::Stop { job: key(), index: Some(2) },
        Command::Restart { job: key(), index: None },
        Command::Stop { job: JobKey { owner: "ann".into(), name: "none".into() }, index: None },
    ];
    let own = [
        Command::Found { cell: CellId("c0ffee".into()), name: "lab".into(), generation: 1 },
        Command::Admit { node: NodeId(0xA1), name: "h1".into() },
        Command::Activate { node: NodeId(0xA1) },
    ];
    let done = vec![
        Completion { uid, index: 0, exit: exit(0), success: true, restart_at: 8 },
        Completion { uid, index: 1, exit: exit(3), success: false, restart_at: 8 },
    ];
    let mut out: Vec<Entry> =
        own.into_iter().map(|command| Entry { request: None, at_ms: 1_700_000_000_000, command }).collect();
    out.extend(asked.into_iter().enumerate().map(|(i, command)| Entry {
        request: Some(RequestStamp { principal: Principal("ann".into()), id: RequestId(format!("r{i}")) }),
        at_ms: 1_700_000_001_000,
        command,
    }));
    out.push(Entry { request: None, at_ms: 1_700_000_002_000, command: Command::Complete { done } });
    out
}

#[test]
fn entries_and_answers() {
    let entries = entries();
    let written = frozen("entries", &entries);
    let inner = [
        "/0",
        "/0/command/found",
        "/1/command/admit",
        "/2/command/activate",
        "/3/request",
        "/3/command/submit",
        "/3/command/submit/job",
        "/4/command/submit/expect/version",
        "/4/command/submit/expect/version/version",
        "/5/command/scale",
        "/6/command/stop",
        "/7/command/restart",
        "/9/command/complete",
        "/9/command/complete/done/0",
        "/9/command/complete/done/0/exit",
    ];
    with_later_fields(&written, &inner, &entries);

    let mut ledger = Ledger::default();
    let answers: Vec<Answer> =
        entries.iter().zip(1..).map(|(entry, index)| ledger.apply(index, entry)).collect();
    let written = frozen("answers", &answers);
    with_later_fields(&written, &["/0/done", "/3/done", "/8/refused"], &answers);
}

#[test]
fn a_snapshot_of_the_ledger() {
    let mut ledger = Ledger::default();
    for (index, entry) in (1..).zip(&entries()) {
        ledger.apply(index, entry);
    }
    let written = frozen("ledger", &ledger);
    let inner = [
        "/cell",
        "/activation",
        "/jobs/0/0",
        "/jobs/0/1/version",
        "/jobs/0/1/finished/0",
        "/requests/ann/0",
        "/requests/ann/0/answer/done",
    ];
    with_later_fields(&written, &inner, &ledger);
    let kept = ["", "/roster/00000000000000a1", "/jobs/0/1", "/jobs/0/1/versions/0", "/jobs/0/1/document"];
    keeps_later_fields::<Ledger>(&written, &kept);
    // A record that changes keeps them too.
    let mut later = written;
    for pointer in ["/roster/00000000000000a1", "/jobs/0/1"] {
        later.pointer_mut(pointer).unwrap()["later"] = json!(7);
    }
    let mut read: Ledger = serde_json::from_value(later).unwrap();
    let commands = [
        Command::Admit { node: NodeId(0xA1), name: "host1".into() },
        Command::Scale { job: key(), count: 9, expect: Expect::Any },
    ];
    for command in commands {
        let answer = read.apply(read.applied + 1, &Entry { request: None, at_ms: 0, command });
        assert!(matches!(answer, Answer::Done { changed: true, .. }), "{answer:?}");
    }
    assert_eq!(read.roster[&NodeId(0xA1)].later["later"], json!(7));
    assert_eq!(read.jobs[&key()].later["later"], json!(7));
}

#[test]
fn what_a_node_is_given_and_reports() {
    let document = json!({
        "name": "web", "band": "production",
        "task": {
            "image": "hello:1", "command": ["/hello"], "env": {"A": "${PORT_http}"}, "ports": ["http"],
            "health": {"http": "/healthz", "port": "http"},
        },
    });
    let images = [("hello:1".to_string(), "sha256:0f".to_string())].into();
    let spec = Job::from_document(&document).unwrap().task_spec(2, &key(), &images, 8).unwrap();
    let written = frozen("task_spec", &spec);
    with_later_fields(&written, &["", "/job", "/health"], &spec);
    // Fields with a default may be missing.
    let mut least = written;
    for field in ["command", "env", "ports", "health", "restart_at", "retries"] {
        least.as_object_mut().unwrap().remove(field);
    }
    assert!(serde_json::from_value::<placement::task::TaskSpec>(least).is_ok());

    let report = Report {
        key: TaskKey { uid: Uid { cell: 1, index: 4 }, index: 2 },
        job: key(),
        kind: Kind::Service,
        band: Band::Production,
        priority: 250,
        generation: Generation { cell: 1, activation: 3, seq: 9 },
        version: Version { cell: 1, number: 2 },
        state: State::Running,
        image: "hello:1".into(),
        digest: "sha256:0f".into(),
        pid: Some(4711),
        ports: [("http".to_string(), 20001)].into(),
        address: None,
        restarts: 1,
        restart_at: 8,
        healthy: Some(true),
        ready: true,
        since_ms: 1_700_000_000_000,
        reason: None,
        exit: None,
        limit: Resources::new(100, 128 << 20),
        reservation: Resources::new(100, 128 << 20),
        usage: Resources::default(),
        strain: None,
    };
    let written = frozen("report", &report);
    with_later_fields(&written, &["", "/job", "/version"], &report);
}

#[test]
fn names_and_amounts() {
    let mut books = Books::default();
    books.add(Band::Batch, &Resources::new(250, 64 << 20), &Resources::new(100, 32 << 20));
    let causes = [
        Cause::Exited,
        Cause::Stopped,
        Cause::Unhealthy,
        Cause::OomLimit,
        Cause::Reclaimed,
        Cause::OomHost,
        Cause::Preempted,
        Cause::Disk,
        Cause::NodeLost,
        Cause::ShimLost,
    ];
    let states = [
        State::Pending,
        State::Starting,
        State::Running,
        State::Stopping,
        State::Succeeded,
        State::Failed,
        State::Lost,
        State::Unknown,
    ];
    let bad = Bad {
        key: TaskKey { uid: Uid { cell: 1, index: 4 }, index: 2 },
        generation: Generation { cell: 1, activation: 3, seq: 9 },
        version: Version { cell: 1, number: 2 },
        restart_at: 0,
        times: 3,
        why: "exited with code 1".into(),
        until_ms: 1_750_000_600_000,
        reclaimed: false,
    };
    let node = NodeInfo {
        id: NodeId(0xA1),
        name: "h1".into(),
        addr: "10.0.0.1:7411".into(),
        version: "0.1.0".into(),
        labels: [("arch".to_string(), "x86_64".to_string())].into(),
        capacity: Resources::new(4000, 8 << 30),
        images: Default::default(),
        volumes: Default::default(),
        bad: vec![bad],
    };
    let refusal = Refusal::new("conflict", "web is at version 2, not at 1", Some("look again"));
    let all = json!({
        "node_id": NodeId(0xA1), "cell_id": CellId("c0ffee".into()), "uid": Uid { cell: 1, index: 4 },
        "task_key": TaskKey { uid: Uid { cell: 1, index: 4 }, index: 2 }, "job": key(),
        "generation": Generation { cell: 1, activation: 3, seq: 9 }, "activation": Activation { cell: 1, index: 3 },
        "version": Version { cell: 1, number: 2 }, "bands": Band::ALL, "kinds": [Kind::Service, Kind::Batch],
        "causes": causes, "states": states, "exit": exit(137), "books": books, "node": node, "refusal": refusal,
        "constraint": "zone in (a,b)".parse::<placement::job::Constraint>().unwrap(),
    });
    frozen("nouns", &all);
    assert_eq!(serde_json::from_value::<[Cause; 10]>(all["causes"].clone()).unwrap(), causes);
    assert_eq!(serde_json::from_value::<[State; 8]>(all["states"].clone()).unwrap(), states);
    assert_eq!(serde_json::from_value::<[Band; 4]>(all["bands"].clone()).unwrap(), Band::ALL);
    assert_eq!(serde_json::from_value::<Books>(all["books"].clone()).unwrap(), books);
    assert_eq!(serde_json::from_value::<NodeInfo>(all["node"].clone()).unwrap(), node);
    assert_eq!(serde_json::from_value::<Refusal>(all["refusal"].clone()).unwrap(), refusal);
}

#[test]
fn commands_about_the_cell() {
    let labels = BTreeMap::from([("rack".to_string(), Some("r1".to_string())), ("disk".to_string(), None)]);
    let node = NodeId(0xA1);
    for (command, written) in [
        (Command::Remove { node }, json!({"remove": {"node": "00000000000000a1"}})),
        (Command::Drain { node, on: true }, json!({"drain": {"node": "00000000000000a1", "on": true}})),
        (
            Command::Label { node, labels },
            json!({"label": {"node": "00000000000000a1", "labels": {"disk": null, "rack": "r1"}}}),
        ),
        (
            Command::Address { node, addr: "10.0.0.1:7411".into() },
            json!({"address": {"node": "00000000000000a1", "addr": "10.0.0.1:7411"}}),
        ),
        (
            Command::Token {
                hash: "5a".into(),
                role: Role::User,
                name: Some("ann".into()),
                uses: 1,
                ttl_ms: 9,
            },
            json!({"token": {"hash": "5a", "role": "user", "name": "ann", "uses": 1, "ttl_ms": 9}}),
        ),
        (
            Command::Join { node, name: "h1".into(), token_hash: "5a".into(), addr: None },
            json!({"join": {"node": "00000000000000a1", "name": "h1", "token_hash": "5a"}}),
        ),
        (
            Command::Login { key_hash: "f0".into(), token_hash: "5a".into() },
            json!({"login": {"key_hash": "f0", "token_hash": "5a"}}),
        ),
        (
            Command::Grant {
                principal: Principal("ann".into()),
                give: ["admin.jobs".to_string()].into(),
                take: Default::default(),
            },
            json!({"grant": {"principal": "ann", "give": ["admin.jobs"]}}),
        ),
        (Command::Set { lost_after_ms: Some(500) }, json!({"set": {"lost_after_ms": 500}})),
        (Command::Set { lost_after_ms: None }, json!({"set": {}})),
    ] {
        assert_eq!(serde_json::to_value(&command).unwrap(), written);
        assert_eq!(serde_json::from_value::<Command>(written).unwrap(), command);
    }
}

/// What tokens and logins leave in a snapshot, and what those who come in are answered.
#[test]
fn access() {
    let (hash, key_hash) = ("5a".repeat(32), "f0".repeat(32));
    let (token_hash, node) = (hash.clone(), NodeId(0xA1));
    let nodes = "5b".repeat(32);
    let commands = [
        Command::Found { cell: CellId("c0ffee".into()), name: "lab".into(), generation: 1 },
        Command::Token { hash, role: Role::User, name: Some("ann".into()), uses: 2, ttl_ms: 60_000 },
        Command::Token { hash: nodes.clone(), role: Role::Node, name: None, uses: 1, ttl_ms: 60_000 },
        Command::Login { key_hash, token_hash },
        Command::Join { node, name: "h1".into(), token_hash: nodes, addr: Some("10.0.0.1:7411".into()) },
        Command::Set { lost_after_ms: Some(500) },
    ];
    let mut ledger = Ledger::default();
    let mut answers = Vec::new();
    for (command, index) in commands.into_iter().zip(1..) {
        let request =
            Some(RequestStamp { principal: Principal("root".into()), id: RequestId(format!("r{index}")) });
        answers.push(ledger.apply(index, &Entry { request, at_ms: 1_700_000_000_000, command }));
    }
    ledger.requests.clear();
    let written = frozen("access", &json!({"ledger": ledger, "answers": answers}));
    assert_eq!(serde_json::from_value::<Ledger>(written["ledger"].clone()).unwrap(), ledger);
    assert_eq!(serde_json::from_value::<Vec<Answer>>(written["answers"].clone()).unwrap(), answers);
    let token = format!("/tokens/{}", "5a".repeat(32));
    keeps_later_fields::<Ledger>(&written["ledger"], &["/settings", "/principals/ann", &token]);
}
