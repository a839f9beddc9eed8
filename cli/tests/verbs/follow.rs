//! `logs` and `events`, which read answers of many parts.

use gossip::wire::{Call, LogPlace, LogStream, Reply};
use serde_json::{Value, json};

use crate::fake::{Done, Fake, Step, end, item, refuse};

fn log(run: &str, stream: LogStream, offset: u64, text: &str) -> Step {
    let (run, text) = (run.to_owned(), text.to_owned());
    Step::Say(Reply::Log { run, stream, offset, text, bytes: vec![], lost: 0 })
}

fn out(run: &str, offset: u64, text: &str) -> Step {
    log(run, LogStream::Stdout, offset, text)
}

fn err(run: &str, offset: u64, text: &str) -> Step {
    log(run, LogStream::Stderr, offset, text)
}

#[test]
fn each_stream_goes_where_it_belongs_byte_for_byte() {
    let fake = Fake::new(|_, _| {
        let bytes = vec![0xff, b'\n'];
        let (run, text) = ("r0".to_owned(), "\u{fffd}\n".to_owned());
        let raw = Reply::Log { run, stream: LogStream::Stdout, offset: 4, text, bytes, lost: 0 };
        vec![out("r0", 0, "one\n"), err("r0", 0, "oh\n"), Step::Say(raw), err("r0", 3, "no\n"), end()]
    });
    let output = fake.command(&["logs", "--tail", "7", "--previous", "web/0"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"one\n\xff\n"[..]));
    assert_eq!(output.stderr, b"oh\nno\n");
    let calls = fake.calls();
    let [Call::Logs { index: 0, follow: false, previous: true, tail: Some(7), from: None, .. }] = &calls[..]
    else {
        panic!("{calls:?}")
    };
}

#[test]
fn a_follower_neither_loses_nor_repeats_a_line_over_restarts() {
    let fake = Fake::new(|n, _| match n {
        0 => vec![out("r0", 100, "one\ntwo\n"), err("r0", 7, "oh\n"), Step::Restart],
        // The agent begins again a little before the place: whole segments are easier to find.
        1 => vec![out("r0", 104, "two\nthree\n"), err("r0", 7, "oh\n"), out("r1", 0, "four\n")],
        _ => vec![out("r1", 5, "five\n"), end()],
    });
    let done = fake.covey(&["logs", "-f", "--tail", "2", "web/0"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "one\ntwo\nthree\nfour\nfive\n"));
    let own = |line: &&str| !line.starts_with("covey:");
    assert_eq!(done.err.lines().filter(own).collect::<Vec<_>>(), ["oh"]);
    let places: Vec<_> = fake
        .calls()
        .into_iter()
        .map(|call| match call {
            Call::Logs { from, .. } => from,
            other => panic!("{other:?}"),
        })
        .collect();
    let place = |run: &str, stdout, stderr| Some(LogPlace { run: run.into(), stdout, stderr });
    assert_eq!(places, [None, place("r0", 108, 10), place("r1", 5, 0)]);
}

#[test]
fn log_documents_have_their_place() {
    let fake = Fake::new(|_, _| {
        let (run, text) = ("r0".to_owned(), "b\n".to_owned());
        let lossy = Reply::Log { run, stream: LogStream::Stderr, offset: 90, text, bytes: vec![], lost: 90 };
        vec![out("r0", 5, "a\n"), Step::Say(lossy), end()]
    });
    let done = fake.covey(&["logs", "--json", "web/0"]);
    let lines: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted = [
        json!({"run": "r0", "stream": "stdout", "offset": 5, "text": "a\n", "lost": 0}),
        json!({"run": "r0", "stream": "stderr", "offset": 90, "text": "b\n", "lost": 90}),
    ];
    assert_eq!(lines, wanted);
    assert_eq!(done.err, "");
}

#[test]
fn a_task_that_is_not_there_is_an_error() {
    let fake = Fake::new(|_, _| vec![refuse("not_found", "web has no task 7", Some("it has 0 to 2"))]);
    let done = fake.covey(&["logs", "web/7"]);
    let wanted = "covey: cannot show the logs of web/7: web has no task 7\n  hint: it has 0 to 2\n";
    assert_eq!((done.code, done.err.as_str()), (Some(1), wanted));
}

#[test]
fn a_reader_that_has_enough_ends_the_command_quietly() {
    let fake = Fake::new(|_, _| (0..1000).map(|n| out("r0", n * 2, "y\n")).collect());
    let mut child = fake.spawn(&["logs", "-f", "web/0"]);
    drop(child.stdout.take());
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

fn event(seq: u64) -> Value {
    json!({"time": format!("2026-05-04T12:00:0{seq}.250Z"), "node": "n1", "seq": seq, "kind": "started", "job": "web",
           "owner": "root", "index": 0, "text": format!("started, number {seq}")})
}

#[test]
fn events_are_lines_or_one_list() {
    let list = json!({"as_of": "2026-05-04T12:00:09Z", "stale": false, "missing": [], "items": [event(1), event(2)]});
    let fake = Fake::new({
        let list = list.clone();
        move |_, _| vec![item(list.clone()), end()]
    });
    let done = fake.covey(&["events", "--job", "web", "--node", "n1", "--since", "1970-01-01T00:00:01Z"]);
    let line = "2026-05-04T12:00:01Z  n1          web/0         started       started, number 1";
    assert_eq!(done.out.lines().next(), Some(line));
    assert_eq!(fake.covey(&["events", "--json"]).json(), list);
    let Call::Events { job: Some(job), node: Some(node), since_ms: Some(1000), follow: false } =
        &fake.calls()[0]
    else {
        panic!("{:?}", fake.calls())
    };
    assert_eq!((job.name.as_str(), node.as_str()), ("web", "n1"));
}

#[test]
fn events_go_on_after_an_outage_without_repeating() {
    let fake = Fake::new(|n, _| match n {
        0 => vec![item(event(1)), item(event(2)), Step::Restart],
        _ => vec![item(event(2)), item(event(3)), end()],
    });
    let done = fake.covey(&["events", "-f", "--json"]);
    let seqs: Vec<u64> = done
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
    let Call::Events { since_ms: Some(since), .. } = fake.calls()[1] else { panic!("{:?}", fake.calls()) };
    assert_eq!(since, 1_777_896_002_250);
}
