//! What is on disk, and what the runner is told: golden.

use std::collections::BTreeMap;

use agent::{
    core::{
        Core,
        record::{Checked, Record, Stopping},
    },
    event::{Action, Change, Event, Now, RunId},
};
use gossip::wire::{Hello, Offer, Order, PROTOCOL, SessionId, ToAgent};
use placement::{
    ids::{Activation, NodeId, TaskKey, Uid, Version},
    job::{Health, Kind, Probe},
    task::{Cause, Exit, State},
};

use crate::script::{config, spec};

fn offered() -> Vec<Action> {
    let mut core = Core::new(config());
    let hello = Hello {
        protocol: PROTOCOL.into(),
        placer: NodeId(1),
        activation: Activation { cell: 1, index: 3 },
        fresh: 1,
    };
    let now = Now { mono_ms: 5, wall_ms: 1_700_000_000_000 };
    core.handle(Event::Hello { hello, fresh: 2 }, now);
    let mut spec = spec("web", Kind::Service);
    spec.command = Some(vec!["/hello".into(), "--listen".into(), ":${PORT_http}".into()]);
    spec.env = [("GREETING", "hi"), ("COVEY_JOB", "another")].map(|(k, v)| (k.into(), v.into())).into();
    spec.ports = vec!["http".into()];
    spec.health = Some(Health {
        probe: Probe::Http { http: "/healthz".into(), port: "http".into() },
        interval_ms: 2_000,
        timeout_ms: 1_000,
        failures: 3,
        start_ms: 30_000,
    });
    let offer = Offer {
        key: TaskKey { uid: Uid { cell: 1, index: 7 }, index: 2 },
        generation: [1, 3, 4].into(),
        version: Version { cell: 1, number: 1 },
        spec,
        remark: None,
        lesson: None,
    };
    let order = Order::Offer(Box::new(offer));
    let mut actions = core.handle(Event::Order(ToAgent::new(SessionId { placer: 1, agent: 2 }, order)), now);
    actions.extend(core.handle(Event::Stored { ticket: 0, result: Ok(()) }, now));
    actions
}

fn record() -> Record {
    let put = offered().into_iter().find_map(|action| match action {
        Action::Store { changes, .. } => match changes.into_iter().next() {
            Some(Change::Put(record)) => Some(*record),
            _ => None,
        },
        _ => None,
    });
    put.unwrap()
}

/// Every field, as an agent writes it. Changes must be additive: an older or newer agent reads it.
#[test]
fn record_golden() {
    let mut record = record();
    record.run = 3;
    record.restarts = 2;
    record.restart_at = 40;
    record.exit = Some(Exit { code: Some(1), signal: None, cause: Cause::Exited });
    record.outcome = Some(State::Failed);
    record.reason = Some("exited with code 1".into());
    record.stopping = Some(Stopping { reason: "scaled down".into(), told_ms: Some(9) });
    record.checked = Some(Checked { run: 3, startup: Some(true), health: Some(true), ready: Some(false) });
    let written = serde_json::to_string_pretty(&record).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/core/record.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &written).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, golden, "UPDATE=1 writes it anew");
    assert_eq!(serde_json::from_str::<Record>(&golden).unwrap(), record);
}

/// What a newer agent wrote beside is kept when this one writes the record again; what it left out has a default.
#[test]
fn record_keeps_what_it_does_not_know() {
    let mut value = serde_json::to_value(record()).unwrap();
    let object = value.as_object_mut().unwrap();
    object.insert("lease".into(), serde_json::json!({ "until": 7 }));
    for optional in ["restarts", "restart_at", "failures", "ports"] {
        object.remove(optional);
    }
    let read: Record = serde_json::from_value(value).unwrap();
    assert_eq!((read.restarts, read.ports.len()), (0, 0));
    assert_eq!(serde_json::to_value(&read).unwrap()["lease"]["until"], 7);
}

#[test]
fn a_run_is_told_who_it_is() {
    let start = offered().into_iter().find_map(|action| match action {
        Action::Start(start) => Some(start),
        _ => None,
    });
    let start = start.unwrap();
    let env: BTreeMap<&str, &str> = start.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let want = [
        ("COVEY_CELL", "lab"),
        ("COVEY_GENERATION", "1.3.4"),
        ("COVEY_GRACE_MS", "10000"),
        ("COVEY_INDEX", "2"),
        // Its own value for this one does not count.
        ("COVEY_JOB", "web"),
        ("COVEY_NODE", "n1"),
        ("COVEY_OWNER", "ann"),
        ("GREETING", "hi"),
        ("PORT_http", "20000"),
    ];
    assert_eq!(env, want.into());
    assert_eq!(start.hostname, "web-2");
    assert_eq!(start.command.unwrap()[2], ":${PORT_http}", "the image's variables are not known here");
}

#[test]
fn run_ids_name_bundles() {
    let text = "1.7.2-1.3.4-9";
    let run: RunId = text.parse().unwrap();
    assert_eq!((run.key.index, run.generation.seq, run.run), (2, 4, 9));
    assert_eq!(run.to_string(), text);
    for bad in ["", "1.7.2", "1.7.2-1.3.4", "1.7.2-1.3-9", "1.7.2-1.3.4-9-1", "1.7.2-1.3.4-x", "1.7-1.3.4-9"]
    {
        assert!(bad.parse::<RunId>().is_err(), "{bad}");
    }
}
