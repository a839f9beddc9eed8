//! `covey advise --apply`: the job's own document with other limits, compared with what was read.

use gossip::wire::Call;
use serde_json::{Value, json};

use crate::fake::{Fake, end, item, refuse};

fn advice(version: u64) -> Value {
    let of = |limit: u64, advised: u64, set: Value| json!({"limit": limit, "advised": advised, "used": 1, "risk_now": 0.0, "risk": 0.001, "set": set});
    let one = |job: &str, set: bool| {
        let cpu = if set { of(1000, 120, json!("120m")) } else { of(120, 120, Value::Null) };
        json!({"job": job, "owner": "ann", "version": version, "count": 2, "advice": if set { "lower" } else { "keep" },
               "watched_s": 7200, "kills": 0, "cpu": cpu, "memory": of(64 << 20, 64 << 20, Value::Null),
               "saved": {"cpu_milli": 1760, "memory_bytes": 0}})
    };
    json!({"as_of": "2026-05-04T12:00:00Z", "stale": false, "missing": [], "enough_s": 3600,
           "items": [one("web", true), one("fit", false)]})
}

/// As it is at a version, with these pids.
fn job(version: u64, pids: [u64; 2]) -> Value {
    let task = |index: usize| json!({"index": index, "version": version, "pid": pids[index]});
    json!({"name": "web", "owner": "ann", "version": version, "tasks": [task(0), task(1)],
           "read": {"uid": "1.7", "version": {"number": version, "cell": 1}},
           "document": {"name": "web", "count": 2, "later": true, "task": {"image": "hello:1", "cpu": 1, "env": {"A": "b"}}}})
}

#[test]
fn only_the_limit_changes_and_nothing_is_restarted() {
    let fake = Fake::new(|n, call| match (n, call) {
        (_, Call::Advise { .. }) => vec![item(advice(3)), end()],
        (1, Call::Job { .. }) => vec![item(job(3, [11, 12])), end()],
        (_, Call::Run { .. }) => {
            vec![item(json!({"name": "web", "was": 3, "version": 4, "changed": true})), end()]
        }
        // Not all of them have it at once.
        (3, Call::Job { .. }) => vec![item(job(3, [11, 12])), end()],
        (_, Call::Job { .. }) => vec![item(job(4, [11, 12])), end()],
        other => panic!("{other:?}"),
    });
    let done = fake.covey(&["advise", "--apply"]);
    let said = "changed ann/web v3 → v4: cpu 1 → 120m; 2 running, none restarted\n";
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), said, ""));
    let Call::Run { document, owner, create: false, read: Some(read), keep_images: true } = &fake.calls()[2]
    else {
        panic!("{:?}", fake.calls())
    };
    let wanted = json!({"name": "web", "count": 2, "later": true,
                        "task": {"image": "hello:1", "cpu": "120m", "env": {"A": "b"}}});
    assert_eq!((document, owner.as_deref(), read.version.number), (&wanted, Some("ann"), 3));
}

#[test]
fn where_nothing_is_to_be_changed_it_is_said_why() {
    let fake = Fake::new(|_, call| match call {
        Call::Advise { .. } => {
            let mut young = advice(3);
            young["items"][0] =
                json!({"job": "web", "owner": "ann", "advice": "not_enough_history", "watched_s": 12});
            vec![item(young), end()]
        }
        other => panic!("{other:?}"),
    });
    let done = fake.covey(&["advise", "--apply"]);
    let last = "nothing was changed: the limits of the other jobs fit, and 1 was not watched for 1h yet; --history says how \
                much is enough";
    assert_eq!((done.code, done.out.lines().last()), (Some(0), Some(last)), "{done:?}");
    assert!(done.out.contains("not enough history: 1h is wanted"), "{done:?}");
    assert_eq!(fake.calls().len(), 1);
}

#[test]
fn a_job_that_was_changed_meanwhile_is_left_alone() {
    let fake = Fake::new(|_, call| match call {
        Call::Advise { .. } => vec![item(advice(3)), end()],
        Call::Job { .. } => vec![item(job(4, [11, 12])), end()],
        other => panic!("{other:?}"),
    });
    let done = fake.covey(&["advise", "--apply"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("ann/web is not changed: somebody has changed ann/web meanwhile"), "{done:?}");
}

#[test]
fn who_may_not_change_it_is_told_so() {
    let fake = Fake::new(|_, call| match call {
        Call::Advise { .. } => vec![item(advice(3)), end()],
        Call::Job { .. } => vec![item(job(3, [11, 12])), end()],
        _ => vec![refuse("denied", "ann/web is ann's", Some("ask ann"))],
    });
    let done = fake.covey(&["advise", "web", "--apply", "--json"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.json()["items"][0]["applied"]["error"]["code"], "denied", "{done:?}");
}
