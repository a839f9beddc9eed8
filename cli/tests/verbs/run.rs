//! `run` and the other verbs that change something.

use gossip::wire::{Call, JobName, PROTOCOL, ReadVersion};
use placement::ids::{Uid, Version};
use serde_json::json;

use crate::fake::{Done, Fake, Step, end, item, refuse};

pub(crate) const WEB: &str = "name = \"web\"\ncount = 2\n[task]\nimage = \"hello:1\"\n";

fn not_found() -> Vec<Step> {
    vec![refuse("not_found", "there is no job web", None)]
}

fn answer(version: u64, was: Option<u64>, changed: bool) -> Vec<Step> {
    let uid = "1.7";
    vec![
        item(
            json!({"name": "web", "owner": "root", "uid": uid, "version": version, "was": was, "changed": changed}),
        ),
        end(),
    ]
}

fn existing() -> Vec<Step> {
    let read = ReadVersion { uid: Uid { cell: 1, index: 7 }, version: Version { cell: 1, number: 4 } };
    vec![item(json!({"name": "web", "state": "running", "version": 4, "read": read})), end()]
}

#[test]
fn a_new_job_is_created() {
    let fake = Fake::new(|n, _| if n == 0 { not_found() } else { answer(1, None, true) });
    let done =
        fake.covey(&["run", &fake.file("web.toml", WEB), "--count", "3", "--set", "task.memory=64MiB"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "created web v1\n", ""));
    let requests = fake.requests();
    assert_eq!(requests[0].call, Call::Job { job: JobName { owner: None, name: "web".into() } });
    let Call::Run { document, owner: None, create: false, read: None, keep_images: false } =
        &requests[1].call
    else {
        panic!("{:?}", requests[1])
    };
    let wanted = json!({"name": "web", "count": 3, "task": {"image": "hello:1", "memory": "64MiB"}});
    assert_eq!(*document, wanted);
    for request in &requests {
        assert_eq!(request.protocol, PROTOCOL);
        assert!(
            request.id.0.len() == 32 && request.id.0.chars().all(|c| c.is_ascii_hexdigit()),
            "{request:?}"
        );
        assert_eq!(request.principal, None);
    }
    assert_ne!(requests[0].id, requests[1].id);
}

#[test]
fn a_change_is_compared_with_what_was_read() {
    let fake = Fake::new(|n, _| if n == 0 { existing() } else { answer(5, Some(4), true) });
    let done = fake.covey(&["run", &fake.file("web.toml", WEB)]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "changed web v4 → v5\n"));
    let Call::Run { read: Some(read), .. } = fake.calls().remove(1) else { panic!("{:?}", fake.calls()) };
    assert_eq!((read.uid.index, read.version.number), (7, 4));
}

#[test]
fn what_changes_nothing_is_said_to_be_unchanged() {
    let fake = Fake::new(|n, _| if n == 0 { existing() } else { answer(4, Some(4), false) });
    let done = fake.covey(&["run", &fake.file("web.toml", WEB)]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "web v4 is unchanged\n"));
}

#[test]
fn a_stopped_job_is_created_anew() {
    let stopped = || {
        vec![
            item(
                json!({"name": "web", "state": "stopped", "read": {"uid": "1.7", "version": {"cell": 1, "number": 1}}}),
            ),
            end(),
        ]
    };
    let fake = Fake::new(move |n, _| if n == 0 { stopped() } else { answer(1, None, true) });
    assert_eq!(fake.covey(&["run", &fake.file("web.toml", WEB)]).code, Some(0));
    assert!(matches!(fake.calls()[1], Call::Run { read: None, .. }));
}

#[test]
fn create_does_not_read() {
    let fake = Fake::new(|_, _| {
        vec![refuse("conflict", "the job web exists", Some("leave out --create to change it"))]
    });
    let done = fake.covey(&["run", "--create", &fake.file("web.toml", WEB)]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.starts_with("covey: cannot run /"), "{}", done.err);
    assert!(done.err.ends_with("web.toml: the job web exists\n  hint: leave out --create to change it\n"));
    assert!(matches!(fake.calls()[..], [Call::Run { create: true, read: None, .. }]));
}

#[test]
fn a_refusal_is_a_document_for_programs() {
    let fake = Fake::new(|n, _| match n {
        0 => existing(),
        _ => vec![refuse("conflict", "somebody else changed web", Some("look and try again"))],
    });
    let done = fake.covey(&["--json", "run", &fake.file("web.toml", WEB)]);
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""));
    let error =
        json!({"code": "conflict", "message": "somebody else changed web", "hint": "look and try again"});
    assert_eq!(done.json(), json!({ "error": error }));
}

#[test]
fn a_broken_connection_repeats_the_request_under_its_id() {
    let fake = Fake::new(|n, _| match n {
        0 => not_found(),
        1 => vec![Step::Restart],
        2 => vec![],
        _ => answer(1, None, true),
    });
    let done = fake.covey(&["run", &fake.file("web.toml", WEB)]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "created web v1\n"));
    assert_eq!(done.err, "covey: the agent went away; waiting for it to come back\n");
    let requests = fake.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[1], requests[2]);
    assert_eq!(requests[1], requests[3]);
}

#[test]
fn a_bad_file_asks_nobody() {
    let fake = Fake::new(|_, _| panic!("asked"));
    let file = fake.file("web.toml", "name = \"web\"\n[task]\nimage = \"hello:1\"\ncolour = 1\n");
    let done = fake.covey(&["run", &file]);
    assert_eq!(done.code, Some(1));
    let wanted =
        format!("{file}:4:1: unknown key `task.colour`\n 4 | colour = 1\n   | ^^^^^^\n  hint: known here:");
    assert!(done.err.starts_with(&wanted), "{}", done.err);
    let error = fake.covey(&["run", &file, "--json"]).json();
    assert_eq!(error["error"]["line"], 4);
    assert_eq!(error["error"]["code"], "invalid");
    assert!(fake.calls().is_empty());
}

#[test]
fn stop_restart_and_scale_say_what_they_asked_for() {
    let fake = Fake::new(|_, call| {
        vec![item(json!({"changed": !matches!(call, Call::Stop { index: None, .. })})), end()]
    });
    let say = |args: &[&str]| fake.covey(args).out;
    assert_eq!(say(&["stop", "web/1"]), "web/1 is told to stop\n");
    assert_eq!(say(&["stop", "alice/web"]), "alice/web is stopped already\n");
    assert_eq!(say(&["restart", "web"]), "web is told to restart\n");
    assert_eq!(say(&["scale", "web", "1"]), "web is told to have 1 task\n");
    assert_eq!(say(&["scale", "web", "5", "--json"]), "{\"changed\":true}\n");
    let job = || JobName { owner: None, name: "web".into() };
    let alice = JobName { owner: Some("alice".into()), name: "web".into() };
    let wanted = [
        Call::Stop { job: job(), index: Some(1) },
        Call::Stop { job: alice, index: None },
        Call::Restart { job: job(), index: None },
        Call::Scale { job: job(), count: 1 },
        Call::Scale { job: job(), count: 5 },
    ];
    assert_eq!(fake.calls(), wanted);
}

#[test]
fn an_image_is_loaded_by_its_whole_path() {
    let fake = Fake::new(|_, _| {
        let image = json!({"reference": "app:2", "digest": format!("sha256:{}", "ab".repeat(32)), "size_bytes": 1 << 20});
        vec![item(json!({"items": [image]})), end()]
    });
    let done = Done::of(
        fake.command(&["image", "load", "app.tar", "--name", "app:2"]).current_dir("/tmp").output().unwrap(),
    );
    assert_eq!(done.out, "REFERENCE  DIGEST           SIZE  NODES\napp:2      abababababab  1.0 MiB  -\n");
    assert_eq!(fake.calls(), [Call::ImageLoad { path: "/tmp/app.tar".into(), name: Some("app:2".into()) }]);
}
