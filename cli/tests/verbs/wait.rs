//! `run --wait`.

use gossip::wire::{Call, LogStream, Reply};
use serde_json::{Value, json};

use crate::{
    fake::{Done, Fake, Step, end, item, refuse},
    run::WEB,
};

const CHECKED: &str = "name = \"web\"\ncount = 2\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\nhealth = { http = \"/healthz\", \
                       port = \"http\" }\n";

fn task(index: u32, state: &str, healthy: Option<bool>, reason: Option<&str>) -> Value {
    let base = json!({"job": "web", "owner": "root", "index": index, "state": state, "version": 1});
    let mut task = base;
    task["healthy"] = json!(healthy);
    task["reason"] = json!(reason);
    task["restarts"] = json!(0);
    task["exit"] = Value::Null;
    task
}

fn job(settled: &str, tasks: &[Value]) -> Step {
    of_version(1, settled, tasks)
}

fn of_version(version: u64, settled: &str, tasks: &[Value]) -> Step {
    let settled =
        json!({"state": settled, "reason": (settled == "never").then_some("web/1 has failed for good")});
    item(
        json!({"name": "web", "owner": "root", "state": "running", "count": 2, "version": version, "tasks": tasks,
                "settled": settled}),
    )
}

/// Submits, then says `steps` on the n-th watch.
fn fake(mut steps: impl FnMut(usize) -> Vec<Step> + Send + 'static) -> Fake {
    let mut watches = 0;
    Fake::new(move |_, call| match call {
        Call::Job { .. } => vec![refuse("not_found", "no such job", None)],
        Call::Run { .. } => vec![item(json!({"version": 1, "was": null, "changed": true})), end()],
        Call::Watch { .. } => {
            watches += 1;
            steps(watches - 1)
        }
        Call::Logs { previous: false, .. } => vec![end()],
        Call::Logs { previous: true, .. } => {
            let text = "1\n2\n3\n4\n5\nno database\n".to_owned();
            let (run, stream) = ("r".to_owned(), LogStream::Stderr);
            vec![Step::Say(Reply::Log { run, stream, offset: 0, text, bytes: vec![], lost: 0 }), end()]
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_service_is_settled_when_all_tasks_run() {
    let fake = fake(|_| {
        vec![
            job("not_yet", &[task(0, "pending", None, None), task(1, "pending", None, None)]),
            job(
                "waiting",
                &[task(0, "starting", None, Some("unpacking hello:1")), task(1, "pending", None, None)],
            ),
            job("yes", &[task(0, "running", None, None), task(1, "running", None, None)]),
            Step::Wait,
        ]
    });
    let done = fake.covey(&["run", "--wait", &fake.file("web.toml", WEB)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.out, "created web v1\nweb is settled: 2 tasks running\n");
    let lines = "web: 0 of 2 running, 2 pending | web/0 pending\n\
                 web: 0 of 2 running, 1 pending, 1 starting | web/0 starting: unpacking hello:1\n";
    assert_eq!(done.err, lines);
}

#[test]
fn health_counts_where_there_is_a_check() {
    let fake = fake(|_| {
        vec![
            job("not_yet", &[task(0, "running", Some(true), None), task(1, "running", None, None)]),
            job("yes", &[task(0, "running", Some(true), None), task(1, "running", Some(true), None)]),
            end(),
        ]
    });
    let done = fake.covey(&["run", "--wait", "--json", &fake.file("web.toml", CHECKED)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.json()["tasks"][1]["healthy"], true);
    assert!(done.err.contains("1 of 2 running and healthy, 1 not healthy yet"), "{}", done.err);
}

#[test]
fn what_is_settled_in_an_older_version_is_not_settled() {
    let mut old = task(0, "running", None, None);
    old["version"] = json!(0);
    let fake = fake(move |n| match n {
        // The placer has not seen the change yet.
        0 => vec![of_version(0, "yes", &[old.clone(), old.clone()]), end()],
        1 => vec![refuse("no_quorum", "no placer acts", None)],
        2 => vec![job("not_yet", &[old.clone(), task(1, "running", None, None)]), end()],
        _ => vec![job("yes", &[task(0, "running", None, None), task(1, "running", None, None)]), end()],
    });
    let done = fake.covey(&["run", "--wait", &fake.file("web.toml", WEB)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.err.contains("web/0 running in an older version"), "{}", done.err);
}

#[test]
fn a_job_that_fails_says_why_with_the_end_of_its_log() {
    let mut bad = task(1, "failed", None, Some("it failed 5 times in a row"));
    bad["exit"] = json!({"code": 3, "signal": null, "cause": "exited"});
    bad["restarts"] = json!(1);
    let fake = fake(move |_| vec![job("never", &[task(0, "running", None, None), bad.clone()]), Step::Wait]);
    let done = fake.covey(&["run", "--wait", &fake.file("web.toml", WEB)]);
    assert_eq!(done.code, Some(1));
    let wanted = "\
covey: web did not settle: 1 of 2 running, 1 failed
  web/1 has failed for good
  web/1: failed: it failed 5 times in a row; the run before exited with code 3; restarted once
  the last lines of web/1's log:
    2
    3
    4
    5
    no database
  hint: `covey why web` says what would help
";
    assert_eq!(done.err, wanted);
}

#[test]
fn what_is_missing_in_time_is_said() {
    let pending = "no node has 8 GiB of memory free";
    let fake = fake(move |_| {
        let tasks = [task(0, "running", None, None), task(1, "pending", None, Some(pending))];
        vec![job("not_yet", &tasks), Step::Wait]
    });
    let file = fake.file("web.toml", WEB);
    let done = fake.covey(&["run", "--wait", "--timeout", "300ms", &file]);
    assert_eq!(done.code, Some(1));
    let wanted = "covey: web did not settle within 300ms: 1 of 2 running, 1 pending\n  \
                  web/1: pending: no node has 8 GiB of memory free\n";
    assert!(done.err.contains(wanted), "{}", done.err);
    let done = fake.covey(&["run", "--wait", "--timeout", "300ms", "--json", &file]);
    assert_eq!((done.code, &done.json()["error"]["code"]), (Some(1), &json!("unsettled")));
}

#[test]
fn the_watch_goes_on_over_a_restart_of_the_agent() {
    let fake = fake(|n| match n {
        0 => vec![job("not_yet", &[task(0, "pending", None, None)]), Step::Restart],
        _ => vec![job("yes", &[task(0, "running", None, None), task(1, "running", None, None)]), end()],
    });
    let done = fake.covey(&["run", "--wait", &fake.file("web.toml", WEB)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.err.contains("the agent went away"));
}

#[test]
fn a_batch_job_is_settled_when_its_completions_are_committed() {
    let batch = |settled: &str, succeeded: u64, tasks: Value| {
        item(
            json!({"name": "etl", "state": "running", "count": 2, "version": 1, "tasks": tasks, "succeeded": succeeded,
                    "settled": {"state": settled, "reason": null}}),
        )
    };
    let fake = fake(move |_| {
        vec![
            batch("not_yet", 0, json!([task(0, "succeeded", None, None), task(1, "running", None, None)])),
            batch("not_yet", 1, json!([task(1, "succeeded", None, None)])),
            batch("yes", 2, json!([])),
            Step::Wait,
        ]
    });
    let job = "name = \"etl\"\nkind = \"batch\"\ncount = 2\ntask = { image = \"hello:1\" }\n";
    let done = fake.covey(&["run", "--wait", &fake.file("etl.toml", job)]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), "created etl v1\netl is settled: 2 tasks succeeded\n")
    );
    assert_eq!(done.err, "etl: 1 of 2 succeeded, 1 running | etl/1 running\netl: 1 of 2 succeeded\n");
}

#[test]
fn ctrl_c_leaves_the_job_running_and_says_so() {
    let fake = fake(|_| vec![job("not_yet", &[task(0, "pending", None, None)]), Step::Wait]);
    let mut child = fake.spawn(&["run", "--wait", &fake.file("web.toml", WEB)]);
    // The first line of progress comes after the handler is there.
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut err, &mut line).unwrap();
    assert!(line.starts_with("web: 0 of 2 running"), "{line}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut err, &mut rest).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, Some(1));
    assert!(rest.contains("interrupted: web itself goes on") && rest.contains("covey stop web"), "{rest}");
    assert!(!fake.calls().iter().any(|call| matches!(call, Call::Stop { .. })));
}
