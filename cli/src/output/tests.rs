#![allow(clippy::unwrap_used)]

use std::{path::Path, time::SystemTime};

use serde_json::json;

use super::*;

fn noon() -> SystemTime {
    humantime::parse_rfc3339("2026-05-04T12:00:00Z").unwrap()
}

fn list(items: Value) -> Value {
    json!({"as_of": "2026-05-04T12:00:00Z", "stale": false, "missing": [], "items": items})
}

fn web_task(index: u32, state: &str) -> Value {
    json!({
        "job": "web", "owner": "root", "index": index, "generation": [1, 7, index], "state": state, "node": "n1", "pid": 4711,
        "ports": {"http": 20000 + index, "admin": 20100}, "restarts": 0, "version": 2, "image": "hello:1@sha256:ab12",
        "healthy": true, "since": "2026-05-04T11:57:00Z", "reason": null, "exit": null,
        "limit": {"cpu_milli": 250, "memory_bytes": 64 << 20},
        "reservation": {"cpu_milli": 250, "memory_bytes": 64 << 20},
        "usage": {"cpu_milli": 12, "memory_bytes": 3_500_000},
    })
}

fn tasks_of_all_kinds() -> Value {
    let mut failed = web_task(2, "failed");
    failed["owner"] = json!("alice");
    failed["exit"] = json!({"code": 3, "signal": null, "cause": "exited"});
    failed["restarts"] = json!(12);
    failed["pid"] = Value::Null;
    failed["healthy"] = Value::Null;
    failed["ports"] = json!({});
    failed["usage"] = json!({});
    let mut pending =
        json!({"job": "web", "owner": "root", "index": 10, "state": "pending", "version": 2, "ports": {}});
    pending["limit"] = json!({"cpu_milli": 16_000, "memory_bytes": 3_u64 << 40});
    pending["reason"] = json!("no node has 16 cores free\u{1b}[31m");
    let mut ill = web_task(1, "running");
    ill["healthy"] = json!(false);
    json!([web_task(0, "running"), ill, failed, pending])
}

fn web() -> Value {
    json!({"name": "web", "owner": "root", "band": "production", "priority": 250, "kind": "service", "count": 4, "running": 2,
           "pending": 1, "version": 2, "state": "updating", "tasks": tasks_of_all_kinds(),
           "versions": [{"version": 1, "time": "2026-05-01T12:00:00Z", "by": "root"},
                        {"version": 2, "time": "2026-05-04T10:00:00Z", "by": "alice"}]})
}

fn ill_cell() -> Value {
    let node = |name: &str, answers: bool| {
        json!({"name": name, "answers": answers, "placer": name == "n1", "voter": answers, "version": "0.1.0", "applied": 41,
               "behind": 0, "clock_ahead_ms": -3, "disk": {"free_bytes": 3_u64 << 30, "size_bytes": 9_u64 << 30},
               "certificate_ends": "2026-05-09T12:00:00.000Z"})
    };
    json!({"healthy": false, "missing": ["n3"], "nodes": [node("n1", true), node("n2", true), {"name": "n3", "answers": false}],
           "pairs": [{"from": "n1", "to": "n2", "rtt_us": 312}, {"from": "n1", "to": "n3", "rtt_us": null, "why": "silent"},
                     {"from": "n2", "to": "n1", "rtt_us": 12_040}],
           "items": [{"weight": "wrong", "kind": "gone", "nodes": ["n3"], "text": "n3 is gone: nobody reaches it",
                      "means": "what ran there is placed elsewhere", "hint": "start its agent"},
                     {"weight": "hint", "kind": "disk_unweighed", "nodes": ["n1"], "text": "the disk of n1 is not shared by weight",
                      "means": "batch may slow production", "hint": "bfq shares it"}]})
}

fn share(tasks: u32, cpu: [u64; 3], mib: [u64; 3]) -> Value {
    let amounts = |n: usize| json!({"cpu_milli": cpu[n], "memory_bytes": mib[n] << 20});
    let reclaimed = json!({"cpu_milli": cpu[0] - cpu[1], "memory_bytes": (mib[0] - mib[1]) << 20});
    json!({"tasks": tasks, "limit": amounts(0), "reservation": amounts(1), "usage": amounts(2), "reclaimed": reclaimed,
           "evicted": {"hour": 0, "day": tasks - 1, "causes": {"reclaimed": {"hour": 0, "day": tasks - 1}}},
           "notice": {"told": 90 * tasks, "notified": 90 * tasks - 1,
                      "causes": {"reclaimed": {"told": 3, "notified": 2}, "stopped": {"told": 10, "notified": 10}}}})
}

/// A share with more fields.
fn part_of(fields: Value, mut share: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        share[name] = value.clone();
    }
    share
}

fn usage_of(by: &str, items: Value) -> Value {
    let room = |cpu: u64, mib: u64| json!({"cpu_milli": cpu, "memory_bytes": mib << 20});
    json!({"as_of": "2026-05-04T12:00:00Z", "stale": false, "missing": ["n3"], "by": by, "items": items, "nodes": 2,
           "capacity": room(8000, 16_384), "room": {"prod": room(6000, 15_000), "non_prod": room(7100, 15_544)}, "kept": {"memory_bytes": 328 << 20},
           "prod": share(1, [1000, 400, 120], [512, 300, 256]), "non_prod": share(2, [1000, 500, 480], [512, 212, 200]),
           "total": share(3, [2000, 900, 600], [1024, 512, 456])})
}

fn usage_by_band() -> Value {
    let band = |name: &str, share| part_of(json!({"band": name}), share);
    let strain =
        json!({"waits_for_cpu_permille": 815, "waits_for_memory_permille": 4, "waits_for_io_permille": 20});
    usage_of(
        "band",
        json!([
            band("production", share(1, [1000, 400, 120], [512, 300, 256])),
            band("free", part_of(share(2, [1000, 500, 480], [512, 212, 200]), json!({"strain": strain})))
        ]),
    )
}

/// Nobody has looked yet.
fn unmeasured(mut share: Value) -> Value {
    share["usage"] = json!({"cpu_milli": null, "memory_bytes": null});
    share
}

fn usage_by_job() -> Value {
    let job = |owner: &str, name: &str, share| part_of(json!({"owner": owner, "job": name}), share);
    let mut document = usage_of(
        "job",
        json!([
            job("ann", "etl", share(2, [1000, 500, 480], [512, 212, 200])),
            job("root", "web", unmeasured(share(1, [1000, 400, 120], [512, 300, 256])))
        ]),
    );
    document["total"]["limit"]["disk_bytes"] = json!(3_u64 << 30);
    document["total"]["usage"]["disk_bytes"] = json!(1_u64 << 30);
    document
}

fn advised() -> Value {
    let item = |job: &str, word: &str, cpu: Value, memory: Value, saved: [i64; 2]| {
        json!({"job": job, "owner": "root", "band": "batch", "version": 3, "count": 4, "advice": word, "watched_s": 93_600,
               "confidence": 0.5, "kills": 0.0, "cpu": cpu, "memory": memory,
               "saved": {"cpu_milli": saved[0], "memory_bytes": saved[1] << 20}})
    };
    let of = |limit: u64, advised: u64, now: f64, then: Value| {
        let set = if limit == advised { Value::Null } else { json!("x") };
        json!({"limit": limit, "advised": advised, "used": 1, "risk_now": now, "risk": then, "set": set})
    };
    let mib =
        |limit: u64, advised: u64, now: f64, then: f64| of(limit << 20, advised << 20, now, json!(then));
    let mut killed =
        item("etl", "change", of(2000, 250, 0.0, json!(0.009)), mib(64, 96, 0.93, 0.004), [7000, -128]);
    killed["kills"] = json!(1.4);
    let mut young =
        item("new", "not_enough_history", of(100, 100, 0.0, json!(0.0)), mib(64, 64, 0.0, 0.0), [0, 0]);
    young["watched_s"] = json!(720);
    let mut list = list(json!([
        item("web", "lower", of(1000, 120, 0.0, json!(0.0071)), mib(512, 70, 0.0, 0.0004), [3520, 1768]),
        killed,
        item("hot", "raise", of(200, 400, 0.62, Value::Null), mib(64, 64, 0.002, 0.002), [-800, 0]),
        item("fit", "keep", of(100, 100, 0.003, json!(0.003)), mib(64, 64, 0.0, 0.0), [0, 0]),
        young
    ]));
    list["enough_s"] = json!(3600);
    list
}

/// Of one nothing is remembered, of the other no memory yet.
fn advised_early() -> Value {
    let of = |limit: u64, risk: Value| json!({"limit": limit, "advised": limit, "used": 0, "risk_now": risk, "risk": risk, "set": null});
    let item = |job: &str, word: &str, watched_s: u64, cpu: Value| {
        json!({"job": job, "owner": "root", "band": "batch", "version": 1, "count": 1, "advice": word, "watched_s": watched_s,
               "confidence": 0.0, "kills": 0.0, "cpu": of(250, cpu), "memory": of(64 << 20, Value::Null),
               "saved": {"cpu_milli": 0, "memory_bytes": 0}})
    };
    let mut list = list(json!([
        item("new", "not_enough_history", 0, Value::Null),
        item("web", "keep", 40, json!(0.004))
    ]));
    list["enough_s"] = json!(0);
    list
}

fn nothing_applied() -> String {
    let words = |words: &[&str]| {
        let items: Vec<Value> = words.iter().map(|word| json!({"advice": word})).collect();
        nothing_to_apply(&json!({"items": items, "enough_s": 3600}))
    };
    let (young, fits) = ("not_enough_history", "keep");
    [&[][..], &[fits], &[fits, fits], &[young, young], &[fits, young]].map(words).concat()
}

fn applied_lines() -> String {
    let mut list = advised();
    let mut line = |n: usize, done: Value| {
        list["items"][n]["applied"] = done;
        applied(&list["items"][n]) + "\n"
    };
    line(0, json!({"was": 3, "version": 4, "tasks": 4, "same_pid": 4}))
        + &line(1, json!({"was": 3, "version": 4, "tasks": 4, "same_pid": 3}))
        + &line(2, json!({"error": {"code": "denied", "message": "hot is ann's"}}))
}

fn top_in(columns: usize, rows: usize) -> String {
    let task = |index: u32, node: &str, share| {
        let of = json!({"owner": "ann", "job": "etl", "index": index, "node": node, "band": "free", "state": "running"});
        part_of(of, share)
    };
    let node = |name: &str, share| {
        let capacity = json!({"cpu_milli": 2000, "memory_bytes": 1_u64 << 30});
        part_of(json!({"node": name, "capacity": capacity}), share)
    };
    let mut document = usage_by_band();
    document["bands"] = document["items"].take();
    document["tasks"] = json!([
        task(0, "n1", share(1, [600, 200, 80], [64, 64, 60])),
        task(1, "n2", share(1, [400, 300, 200], [400, 148, 50])),
        task(2, "n2", unmeasured(share(1, [400, 400, 0], [400, 400, 0])))
    ]);
    document["nodes"] = json!([
        node("n1", share(2, [1600, 600, 200], [576, 364, 316])),
        node("n2", share(1, [2400, 300, 200], [400, 148, 50]))
    ]);
    let lines = top(&document, Sort::Cpu, Space { columns, rows });
    assert!(lines.len() <= rows && lines.iter().all(|line| line.text.chars().count() <= columns));
    lines.iter().map(|line| format!("{}\n", line.text)).collect()
}

/// All that is shown, in one golden file; `UPDATE=1` writes it anew.
#[test]
fn what_people_see() {
    let etl = json!({"name": "etl", "owner": "alice", "band": "free", "priority": 50, "kind": "batch", "count": 100,
                     "running": 0, "pending": 0, "version": 1, "state": "succeeded"});
    let node = json!({"id": "00c0ffee00c0ffee", "name": "n1", "addr": "", "state": "alive", "admin": "active", "placer": true,
                      "voter": true, "labels": {"arch": "x86_64", "rack": "r1"}, "version": "0.1.0",
                      "capacity": {"cpu_milli": 2000, "memory_bytes": 8_u64 << 30}, "tasks": 3,
                      "limits": {"cpu_milli": 1750, "memory_bytes": 192 << 20},
                      "usage": {"cpu_milli": 130, "memory_bytes": 70 << 20}, "reserved": {"cpu_milli": 300, "memory_bytes": 80 << 20},
                      "predicted": {"cpu_milli": 210, "memory_bytes": 75 << 20},
                      "kept": {"memory_bytes": 164 << 20}, "short": {"disk_bytes": 512 << 20},
                      "room": {"prod": {}, "non_prod": {"cpu_milli": 1790, "memory_bytes": 7_953_u64 << 20}}});
    let mut gone = node.clone();
    for (name, value) in [("name", "n2"), ("state", "gone"), ("admin", "draining"), ("addr", "10.0.0.2:7411")]
    {
        gone[name] = json!(value);
    }
    gone["placer"] = json!(false);
    (gone["predicted"], gone["kept"]) = (Value::Null, json!({}));
    gone["room"] = json!({"prod": {}, "non_prod": {}});
    let event = json!({"time": "2026-05-04T11:59:58.123Z", "node": "n1", "seq": 7, "kind": "exited", "job": "web",
                       "owner": "root", "index": 2, "text": "exited with code 3\nand more"});
    let mut of_node = event.clone();
    of_node["job"] = Value::Null;
    of_node["kind"] = json!("capacity_changed");
    let image = json!({"reference": "hello:1", "digest": format!("sha256:{}", "0123456789abcdef".repeat(4)), "size_bytes": 5_242_880, "nodes": ["h1", "h2"],
                       "trouble": ["h3: the disk is full"]});
    let blocked = json!({"job": "web", "owner": "root", "index": 10, "state": "pending",
                         "obstacles": [{"text": "it wants 16 cores, and 0.25 are free", "nodes": ["n1", "n2"]},
                                       {"text": "its image is not here", "nodes": []}],
                         "fixes": [{"command": "covey run web.toml --set task.cpu=250m", "text": "ask for less", "cost": 1},
                                   {"text": "add a node", "cost": 5}]});
    let mut alike = blocked.clone();
    alike["index"] = json!(11);
    let mut crashing = web_task(2, "starting");
    crashing["reason"] = json!("waits 8 s before it is started again: it exited with code 3");
    let mut stale = list(json!([etl]));
    stale["stale"] = json!(true);
    stale["missing"] = json!(["n2", "n3"]);
    let shown = [
        ("jobs", jobs(&list(json!([web(), etl])))),
        ("jobs, stale", jobs(&stale)),
        ("jobs, none", jobs(&list(json!([])))),
        ("job", job(&web(), noon())),
        ("tasks", tasks(&list(tasks_of_all_kinds()), noon())),
        ("tasks, none", tasks(&list(json!([])), noon())),
        ("task", task(&web_task(0, "running"), noon())),
        ("task that failed", task(&tasks_of_all_kinds()[2], noon())),
        ("nodes", nodes(&list(json!([node, gone])))),
        ("advice", advice(&advised())),
        ("advice, early", advice(&advised_early())),
        ("advice, applied", applied_lines()),
        ("advice, nothing to apply", nothing_applied()),
        ("top, wide", top_in(160, 24)),
        ("top, narrow", top_in(60, 24)),
        ("top, low", top_in(100, 10)),
        ("usage by band", usage(&usage_by_band())),
        ("usage by job", usage(&usage_by_job())),
        ("doctor", doctor(&ill_cell())),
        ("event", event_line(&event)),
        ("event of a node", event_line(&of_node)),
        ("images", images(&list(json!([image])))),
        ("why", why(&blocked)),
        (
            "why, of a job",
            why(&list(json!([blocked, alike, web_task(0, "running"), web_task(1, "running"), crashing]))),
        ),
        ("why, of a job that does well", why(&list(json!([web_task(0, "running")])))),
        ("why, of a job without tasks", why(&list(json!([])))),
        (
            "why not",
            why(&json!({"job": "web", "owner": "root", "state": "running", "obstacles": [], "fixes": []})),
        ),
    ];
    let mut text = String::new();
    for (name, shown) in shown {
        let plain = anstream::adapter::strip_str(&shown).to_string();
        text.push_str(&format!("=== {name}\n{}\n", plain.trim_end()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/output.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "output has changed; see `git diff` after UPDATE=1:\n{text}");
}

#[test]
fn rows_that_need_attention_stand_out() {
    let text = tasks(&list(tasks_of_all_kinds()), noon());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("\u{1b}[1mTASK"), "{text:?}");
    assert!(lines[1].starts_with("web/0"), "{text:?}");
    assert!(
        lines[2].starts_with("\u{1b}[31mweb/1") && lines[3].starts_with("\u{1b}[31malice/web/2"),
        "{text:?}"
    );
    assert!(lines[4].starts_with("\u{1b}[33mweb/10"), "{text:?}");
    assert!(!lines[4].contains("\u{1b}[31m"), "a node's text may not paint: {text:?}");
}

#[test]
fn amounts() {
    let cpus = [0, 1, 250, 999, 1000, 1500, 1050, 16_000].map(units::cpu);
    assert_eq!(cpus, ["0", "1m", "250m", "999m", "1", "1.5", "1.05", "16"]);
    let bytes = [0, 1023, 1024, 64 << 20, (1 << 20) - 1, 1 << 30, u64::MAX].map(units::bytes);
    assert_eq!(bytes, ["0 B", "1023 B", "1.0 KiB", "64.0 MiB", "1.0 MiB", "1.0 GiB", "16777216.0 TiB"]);
}

#[test]
fn ages() {
    let at = |ago: u64| units::age(&json!(1_777_896_000_000_u64 - ago * 1000), noon());
    assert_eq!(
        [0, 119, 120, 7199, 7200, 172_800].map(at),
        ["0s ago", "119s ago", "2m ago", "119m ago", "2h ago", "2d ago"]
    );
    assert_eq!(units::age(&json!("2026-05-04T12:00:03Z"), noon()), "0s ago");
    assert_eq!(units::age(&Value::Null, noon()), "-");
}

#[test]
fn endings() {
    let said = |exit: Value| ended(&exit);
    assert_eq!(
        said(json!({"code": 0, "signal": null, "cause": "exited"})).as_deref(),
        Some("exited with code 0")
    );
    assert_eq!(
        said(json!({"code": null, "signal": 9, "cause": "oom.limit"})).as_deref(),
        Some("killed by SIGKILL, its memory limit reached")
    );
    assert_eq!(
        said(json!({"code": null, "signal": 15, "cause": "stopped"})).as_deref(),
        Some("killed by SIGTERM, as it was told to")
    );
    assert_eq!(said(Value::Null), None);
}
