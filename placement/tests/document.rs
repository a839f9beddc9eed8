//! The job document: what is read, what is refused and how, and that nothing at all makes the reader panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use placement::{
    ids::JobKey,
    job::{
        Band, Job, Kind, Step,
        document::{same_meaning, set_count},
    },
    resources::{CPU, DISK, MEMORY},
};
use proptest::prelude::*;
use serde_json::{Value, json};

mod golden;

fn read(document: &Value) -> Job {
    Job::from_document(document).unwrap_or_else(|e| panic!("{e} in {document}"))
}

#[test]
fn bad_documents() {
    golden::check("tests/golden/bad_jobs.txt", |line| {
        let document: Value = serde_json::from_str(line).unwrap();
        let error = match Job::from_document(&document) {
            Err(error) => error,
            Ok(_) => return "  is fine\n".to_string(),
        };
        let mut at = Some(&document);
        let mut path = String::new();
        for step in &error.path {
            at = match step {
                Step::Key(key) => at.and_then(|v| v.get(key)),
                Step::Index(index) => at.and_then(|v| v.get(index)),
            };
            path += &match step {
                Step::Key(key) => format!(" {key}"),
                Step::Index(index) => format!(" {index}"),
            };
        }
        assert!(at.is_some(), "the path of an error leads to a value: {line}");
        let hint = error.hint.map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
        format!("  at:{path}\n  {}\n{hint}", error.message)
    });
}

#[test]
fn the_whole_document_of_the_manual() {
    let job = read(&json!({
        "name": "web", "kind": "service", "band": "batch", "priority": 150, "count": 3,
        "require": ["arch=x86_64"], "prefer": ["disk=ssd"], "spread": ["rack"],
        "task": {
            "image": "hello:1", "command": ["/hello", "--listen", ":${PORT_http}"], "env": {"GREETING": "hi", "A": "1"},
            "cpu": "250m", "memory": "64MiB", "ports": ["http"], "grace": "10s",
            "health": {"http": "/healthz", "port": "http", "interval": "2s", "timeout": "1s", "failures": 3, "start": "30s"},
        },
        "override": [{"index": [2], "env": {"GREETING": "hello"}, "cpu": 2, "image": "hello:2"}],
    }));
    assert_eq!((job.kind, job.band, job.priority, job.count), (Kind::Service, Band::Batch, 150, 3));
    assert_eq!(job.task.env["GREETING"], "hi");
    assert_eq!(job.template(2).env["GREETING"], "hello");
    assert_eq!(job.template(2).env["A"], "1");
    assert_eq!(job.template(2).limit.get(CPU), 2000);
    assert_eq!(job.template(1).limit.get(CPU), 250);
    assert_eq!(job.template(2).limit.get(MEMORY), 64 << 20);
    assert_eq!(job.images().into_iter().collect::<Vec<_>>(), ["hello:1", "hello:2"]);

    let key = JobKey { owner: "ann".into(), name: "web".into() };
    let images = [("hello:1".to_string(), "sha256:01".to_string())].into();
    let spec = job.task_spec(0, &key, &images, 7).unwrap();
    assert_eq!((spec.digest.as_str(), spec.restart_at, spec.retries), ("sha256:01", 7, 0));
    let error = job.task_spec(2, &key, &images, 7).unwrap_err();
    assert_eq!(error.to_string(), "the image `hello:2` has no digest; submit the job again to resolve it");
}

#[test]
fn all_that_a_container_can_be() {
    let job = read(&json!({"name": "db", "task": {
        "image": "pg:1", "disk": "1GiB", "resources": {"gpu": 1}, "ports": ["sql=5432"], "network": "private",
        "io": {"iops": 500, "bandwidth": "10MiB"}, "pids": 100, "logs": "8MiB", "user": 999, "workdir": "/var/lib",
        "ready": {"tcp": "sql"}, "startup": {"command": ["/bin/sh", "-c", "test -e /up"]},
        "volumes": [{"name": "data", "path": "/data"}, {"tmpfs": "64MiB", "path": "/tmp"}, {"host": "/etc/ssl", "path": "/ssl"}],
        "process": [{"name": "prepare", "kind": "init", "command": ["/prepare", "${COVEY_INDEX}"]}],
        "estimate": false,
        "privileges": {"capabilities": ["CAP_NET_ADMIN"], "devices": ["/dev/kvm"], "host_users": true},
    }, "override": [{"index": [1], "network": "host", "ports": ["sql"]}]}));
    let container = &job.task.container;
    assert_eq!((job.task.limit.get(DISK), job.task.limit.get("gpu")), (1 << 30, 1));
    assert_eq!((job.task.ports.len(), container.inside["sql"], container.pids), (1, 5432, Some(100)));
    assert_eq!((container.io.iops, container.io.bandwidth), (Some(500), Some(10 << 20)));
    assert_eq!((container.user.as_deref(), container.workdir.as_deref()), (Some("999"), Some("/var/lib")));
    assert_eq!(container.privileges.capabilities, ["NET_ADMIN"]);
    assert_eq!(job.task.ready.as_ref().unwrap().port(), Some("sql"));
    assert!(job.template(1).container.inside.is_empty());

    // A plain container is not written at all, so that older releases understand it; any other survives the way.
    let key = JobKey { owner: "ann".into(), name: "db".into() };
    let images = [("pg:1".to_string(), "sha256:01".to_string())].into();
    let spec = job.task_spec(0, &key, &images, 0).unwrap();
    let stored = serde_json::to_value(&spec).unwrap();
    assert_eq!(stored["container"]["volumes"][0], json!({"path": "/data", "name": "data"}));
    assert_eq!(stored["startup"]["command"][2], "test -e /up");
    assert_eq!(serde_json::from_value::<placement::task::TaskSpec>(stored).unwrap(), spec);
    let plain =
        read(&json!({"name": "a", "task": {"image": "pg:1"}})).task_spec(0, &key, &images, 0).unwrap();
    let plain = serde_json::to_value(&plain).unwrap();
    assert_eq!((plain.get("container"), plain.get("estimate")), (None, None));
    assert_eq!((job.task.estimate, spec.estimate), (false, false));
}

#[test]
fn defaults() {
    let job = read(&json!({"name": "web", "task": {"image": "hello:1"}}));
    assert_eq!((job.kind, job.band, job.priority, job.count), (Kind::Service, Band::Batch, 150, 1));
    assert_eq!((job.task.limit.get(CPU), job.task.limit.get(MEMORY)), (100, 128 << 20));
    assert_eq!((job.task.grace_ms, job.task.command, job.spread.len()), (10_000, None, 0));
    for (band, middle) in [("free", 50), ("production", 250), ("monitoring", 350)] {
        assert_eq!(read(&json!({"name": "a", "band": band, "task": {"image": "b"}})).priority, middle);
    }
}

#[test]
fn amounts_in_every_form() {
    for (cpu, milli) in
        [(json!("250m"), 250), (json!(2), 2000), (json!("2"), 2000), (json!("0.5"), 500), (json!(0.1), 100)]
    {
        let job = read(&json!({"name": "a", "task": {"image": "b", "cpu": cpu}}));
        assert_eq!(job.task.limit.get(CPU), milli, "{cpu}");
    }
    for (memory, bytes) in
        [(json!("64MiB"), 64 << 20), (json!(1 << 20), 1 << 20), (json!("2GB"), 2_000_000_000)]
    {
        let job = read(&json!({"name": "a", "task": {"image": "b", "memory": memory}}));
        assert_eq!(job.task.limit.get(MEMORY), bytes, "{memory}");
    }
}

#[test]
fn meaning_does_not_depend_on_the_writing() {
    let short = json!({"name": "web", "task": {"image": "hello:1", "cpu": 0.5, "memory": "1GiB"}});
    let long = json!({"name": "web", "kind": "service", "count": 1, "priority": 150, "spread": [],
        "task": {"image": "hello:1", "cpu": "500m", "memory": "1024MiB", "grace": "10s", "env": {}}});
    assert!(same_meaning(&short, &long));
    let mut more = long.clone();
    set_count(&mut more, 2);
    assert!(!same_meaning(&short, &more));
    assert_eq!(read(&more).count, 2);
    // What this build cannot read is the same only if it is identical.
    let later = json!({"name": "web", "frobnicate": 1, "task": {"image": "hello:1"}});
    assert!(same_meaning(&later, &later.clone()));
    assert!(!same_meaning(&later, &short));
}

#[test]
fn a_huge_document_is_refused() {
    let error = Job::from_document(
        &json!({"name": "web", "task": {"image": "a", "env": {"A": "x".repeat(300 << 10)}}}),
    );
    assert_eq!(error.unwrap_err().message, "the document holds more than 256 KiB of text");
}

/// Any JSON, with the keys and texts of job documents in it more often than chance would.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[a-z$ {}=()<>!]{0,8}",
        proptest::sample::select(vec![
            "web",
            "batch",
            "free",
            "250m",
            "64MiB",
            "10s",
            "${A}",
            "$$",
            "http",
            "/h",
            "a=b",
            "zone in (a,b)",
        ])
        .prop_map(String::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..4u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let key = proptest::sample::select(vec![
        "name", "kind", "band", "priority", "count", "require", "prefer", "spread", "task", "override",
        "index", "image", "command", "env", "cpu", "memory", "ports", "grace", "health", "http", "port",
        "interval", "A",
    ]);
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone().prop_map(String::from), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A valid document with one value somewhere replaced.
fn damaged() -> impl Strategy<Value = Value> {
    let paths = [
        "/name",
        "/count",
        "/band",
        "/require",
        "/require/0",
        "/task",
        "/task/env",
        "/task/env/A",
        "/task/command/1",
        "/task/cpu",
        "/task/memory",
        "/task/ports",
        "/task/health",
        "/task/health/port",
        "/override",
        "/override/0",
        "/override/0/index",
        "/override/0/index/0",
        "/override/0/ports",
    ];
    (proptest::sample::select(paths.to_vec()), value()).prop_map(|(path, value)| {
        let mut document = json!({
            "name": "web", "count": 3, "band": "free", "require": ["a=b"],
            "task": {"image": "hello:1", "command": ["/hello", ":${PORT_http}"], "env": {"A": "b"}, "cpu": 1,
                "memory": "64MiB", "ports": ["http"], "health": {"http": "/", "port": "http"}},
            "override": [{"index": [1], "ports": ["http"]}],
        });
        *document.pointer_mut(path).unwrap() = value;
        document
    })
}

/// A valid document, with every key there or not.
fn valid() -> impl Strategy<Value = Value> {
    let job = (
        "[a-z]([a-z0-9-]{0,20}[a-z0-9])?",
        proptest::option::of(proptest::sample::select(vec!["free", "batch", "production", "monitoring"])),
        proptest::option::of(0..=100_000u32),
        proptest::collection::vec("[a-z]{1,5} ?(=|!=) ?[a-z0-9_.]{1,6}", 0..3),
    );
    let task = (
        proptest::option::of(1..9_000_000u64),
        proptest::option::of(1u64 << 20..1 << 40),
        proptest::collection::btree_set("[a-z][a-z0-9_]{0,6}", 0..5),
        proptest::collection::btree_map("[A-B][A-Z0-9_]{0,6}", "[a-z ]{0,3}([$]{2}|[$][{][A-C][}])?", 0..4),
        proptest::option::of(0..80_000_000u64),
    );
    (job, task).prop_map(|((name, band, count, require), (cpu, memory, ports, env, grace))| {
        let mut task = json!({"image": "hello:1", "ports": ports, "env": env});
        if let Some(cpu) = cpu {
            task["cpu"] = placement::job::quantity::format_cpu(cpu).into();
        }
        if let Some(memory) = memory {
            task["memory"] = placement::job::quantity::format_bytes(memory).into();
        }
        if let Some(grace) = grace {
            task["grace"] = placement::job::quantity::format_duration(grace).into();
        }
        if let Some(port) = ports.first() {
            task["health"] = json!({"http": "/", "port": port});
        }
        let mut document = json!({"name": name, "require": require, "task": task});
        if let Some(band) = band {
            document["band"] = band.into();
        }
        if let Some(count) = count {
            document["count"] = count.into();
        }
        document
    })
}

proptest! {
    #[test]
    fn no_value_makes_the_reader_panic(value in value(), damaged in damaged()) {
        for document in [value, damaged] {
            let first = Job::from_document(&document);
            prop_assert_eq!(first, Job::from_document(&document));
        }
    }

    #[test]
    fn a_valid_document_means_the_same_after_the_journey(document in valid()) {
        let job = read(&document);
        let text = serde_json::to_string(&document).unwrap();
        let back: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read(&back), &job);
        prop_assert!(same_meaning(&document, &back));
        prop_assert_eq!(&job.name, document["name"].as_str().unwrap());
        if let Some(cpu) = document["task"]["cpu"].as_str() {
            prop_assert_eq!(placement::job::quantity::format_cpu(job.task.limit.get(CPU)), cpu);
        }
    }
}
