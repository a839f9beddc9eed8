//! Scripts of ledger commands with what each answers and changes below it. `UPDATE=1` rewrites the answers.
//!
//! ```text
//! [@PRINCIPAL#REQUEST] found NAME | admit NODE NAME | activate NODE | remove NODE | label NODE [KEY=VALUE | KEY]…
//! join NODE NAME TOKEN [ADDR] | login KEY TOKEN | token TOKEN ROLE[:NAME] USES TTL (ms) | address NODE ADDR | set MS
//! may PRINCIPAL COMMAND…                       whether the ledger's principal may have it done
//! submit OWNER/NAME [EXPECT] [key=value…]      task keys as task.key, values as JSON or text
//! submit OWNER/NAME [EXPECT] {…}               the document itself
//! stop JOB[/I] | restart JOB[/I] | scale JOB N [EXPECT]
//! complete JOB/I|UID/I ok|fail[:RESTART] …
//! versions JOB | wanted | reload | skip N      show; through a snapshot; leave out N indexes
//! Tokens and keys are written as a short word of hex digits. The clock is 1 s for each index.
//! ```
//! EXPECT: any (default), new, vN (of the present uid), vN@UID. `unresolved` before the keys leaves the images out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fmt::Write as _, fs};

use placement::{
    ids::{CellId, JobKey, NodeId, Principal, RequestId, Version},
    ledger::{Access, Answer, Command, Completion, Entry, Expect, JobRecord, Ledger, RequestStamp},
    task::{Cause, Exit},
};
use serde_json::{Map, Value, json};

mod golden;

#[test]
fn scripts() {
    let mut names: Vec<String> = fs::read_dir(format!("{}/tests/ledger", env!("CARGO_MANIFEST_DIR")))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 12, "only {} scripts are there", names.len());
    for name in names {
        let mut run = Run::default();
        golden::check(&format!("tests/ledger/{name}"), |line| run.line(line));
    }
}

#[derive(Default)]
struct Run {
    ledger: Ledger,
    index: u64,
}

impl Run {
    fn line(&mut self, line: &str) -> String {
        let (stamp, line) = match line.strip_prefix('@') {
            Some(rest) => {
                let (who, line) = rest.split_once(' ').unwrap();
                let (principal, id) = who.split_once('#').unwrap();
                let stamp = RequestStamp { principal: Principal(principal.into()), id: RequestId(id.into()) };
                (Some(stamp), line)
            }
            None => (None, line),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["versions", job] => return self.versions(&key(job)),
            ["wanted"] => {
                let tasks: Vec<String> = self.ledger.wanted().map(|(task, _, _)| task.to_string()).collect();
                return format!(
                    "  wanted: {}\n",
                    if tasks.is_empty() { "none".to_string() } else { tasks.join(" ") }
                );
            }
            ["may", who, rest @ ..] => {
                let rest = self.command(rest, line);
                return match self.ledger.may(&Principal(who.to_string()), &rest) {
                    Ok(()) => "  yes\n".to_string(),
                    Err(refusal) => format!("  {}\n", show(&Answer::Refused(refusal))),
                };
            }
            ["skip", n] => {
                self.index += n.parse::<u64>().unwrap();
                return String::new();
            }
            ["reload"] => {
                let text = serde_json::to_string(&self.ledger).unwrap();
                let back: Ledger = serde_json::from_str(&text).unwrap();
                assert_eq!(back, self.ledger, "a snapshot holds all");
                self.ledger = back;
                return String::new();
            }
            _ => {}
        }
        let command = self.command(&words, line);
        self.index += 1;
        let before = self.ledger.clone();
        let entry = Entry { request: stamp, at_ms: 1000 * self.index, command };
        let answer = self.ledger.apply(self.index, &entry);
        format!("  {}: {}\n{}", self.index, show(&answer), self.changes(&before))
    }

    fn command(&self, words: &[&str], line: &str) -> Command {
        match words {
            ["found", name] => {
                Command::Found { cell: CellId("c0".into()), name: name.to_string(), generation: 1 }
            }
            ["admit", id, name] => Command::Admit { node: node(id), name: name.to_string() },
            ["join", id, name, token, addr @ ..] => Command::Join {
                node: node(id),
                name: name.to_string(),
                token_hash: hash(token),
                addr: addr.first().map(|addr| addr.to_string()),
            },
            ["login", key, token] => Command::Login { key_hash: hash(key), token_hash: hash(token) },
            ["token", token, role, uses, ttl] => {
                let (role, name) =
                    role.split_once(':').map_or((*role, None), |(role, name)| (role, Some(name)));
                Command::Token {
                    hash: hash(token),
                    role: serde_json::from_value(json!(role)).unwrap(),
                    name: name.map(String::from),
                    uses: uses.parse().unwrap(),
                    ttl_ms: ttl.parse().unwrap(),
                }
            }
            ["grant", who, rights @ ..] => {
                let signed = |sign: char| {
                    rights.iter().filter_map(|right| right.strip_prefix(sign)).map(String::from).collect()
                };
                Command::Grant { principal: Principal(who.to_string()), give: signed('+'), take: signed('-') }
            }
            ["address", id, addr] => Command::Address { node: node(id), addr: addr.to_string() },
            ["set", ms] => Command::Set { lost_after_ms: ms.parse().ok() },
            ["drain", id, on] => Command::Drain { node: node(id), on: *on == "on" },
            ["remove", id] => Command::Remove { node: node(id) },
            ["label", id, labels @ ..] => {
                let label = |word: &&str| match word.split_once('=') {
                    Some((key, value)) => (key.to_string(), Some(value.to_string())),
                    None => (word.to_string(), None),
                };
                Command::Label { node: node(id), labels: labels.iter().map(label).collect() }
            }
            ["activate", id] => Command::Activate { node: node(id) },
            ["stop", job] => {
                let (job, index) = task(job);
                Command::Stop { job, index }
            }
            ["restart", job] => {
                let (job, index) = task(job);
                Command::Restart { job, index }
            }
            ["scale", job, count, rest @ ..] => {
                let job = key(job);
                let expect = rest.first().map_or(Expect::Any, |word| self.expect(word, &job).unwrap());
                Command::Scale { job, count: count.parse().unwrap(), expect }
            }
            ["complete", rest @ ..] => Command::Complete {
                done: rest.chunks(2).map(|pair| self.completion(pair[0], pair[1])).collect(),
            },
            ["submit", job, rest @ ..] => self.submit(key(job), rest, line),
            other => panic!("no such command: {other:?}"),
        }
    }

    fn submit(&self, job: JobKey, words: &[&str], line: &str) -> Command {
        let expect = words.first().and_then(|word| self.expect(word, &job));
        let words = if expect.is_some() { &words[1..] } else { words };
        let resolved = words.first() != Some(&"unresolved");
        let words = if resolved { words } else { &words[1..] };
        let mut document = json!({"name": job.name, "task": {"image": "hello:1"}});
        let mut digest = None;
        if words.first().is_some_and(|word| word.starts_with('{')) {
            document = serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap();
        } else {
            for word in words {
                let (name, value) = word.split_once('=').unwrap();
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
                match name.strip_prefix("task.") {
                    Some(name) => document["task"][name] = value,
                    None if name == "digest" => digest = value.as_str().map(String::from),
                    None => document[name] = value,
                }
            }
        }
        let of = |value: &Value| value.get("image").and_then(Value::as_str).map(String::from);
        let overrides = document.get("override").and_then(Value::as_array).into_iter().flatten();
        let images = document.get("task").into_iter().chain(overrides).filter_map(of);
        let images = images
            .filter(|_| resolved)
            .map(|image| (image.clone(), digest.clone().unwrap_or(format!("sha256:{image}"))))
            .collect();
        Command::Submit { job, document, images, expect: expect.unwrap_or(Expect::Any) }
    }

    fn expect(&self, word: &str, job: &JobKey) -> Option<Expect> {
        let (word, uid) = word.split_once('@').map_or((word, None), |(word, uid)| (word, Some(uid)));
        match word {
            "any" => Some(Expect::Any),
            "new" => Some(Expect::Absent),
            _ => {
                let number = word.strip_prefix('v')?.parse().ok()?;
                let uid = uid.map_or_else(|| self.ledger.jobs[job].uid, |uid| uid.parse().unwrap());
                Some(Expect::Version { uid, version: Version { cell: 1, number } })
            }
        }
    }

    fn completion(&self, task: &str, how: &str) -> Completion {
        let (job, index) = task.rsplit_once('/').unwrap();
        let uid = match job.contains('/') {
            true => self.ledger.jobs[&key(job)].uid,
            false => job.parse().unwrap(),
        };
        let (how, restart_at) = how.split_once(':').map_or((how, 0), |(how, at)| (how, at.parse().unwrap()));
        let success = how == "ok";
        let exit = Exit { code: Some(if success { 0 } else { 3 }), signal: None, cause: Cause::Exited };
        Completion { uid, index: index.parse().unwrap(), exit, success, restart_at }
    }

    fn changes(&self, before: &Ledger) -> String {
        let mut out = String::new();
        let now = &self.ledger;
        if now.cell != before.cell {
            writeln!(out, "     cell {}", now.cell.as_ref().unwrap().name).unwrap();
        }
        for (id, member) in &now.roster {
            if before.roster.get(id) != Some(member) {
                write!(out, "     node {id} {} admitted at {}", member.name, member.admitted).unwrap();
                member.addr.iter().for_each(|addr| write!(out, " at {addr}").unwrap());
                member.labels.iter().for_each(|(key, value)| write!(out, " {key}={value}").unwrap());
                out.push('\n');
            }
        }
        for id in now.removed.difference(&before.removed) {
            writeln!(out, "     node {id} removed").unwrap();
        }
        if now.settings != before.settings {
            writeln!(out, "     {}", serde_json::to_string(&now.settings).unwrap()).unwrap();
        }
        for (hash, token) in &now.tokens {
            if before.tokens.get(hash) != Some(token) {
                let name = token.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
                let (used, uses, until) = (token.used_by.len(), token.uses, token.expires_ms);
                writeln!(
                    out,
                    "     token {} {}{name} used {used}/{uses} until {until}",
                    short(hash),
                    token.role
                )
                .unwrap();
            }
        }
        for hash in before.tokens.keys().filter(|hash| !now.tokens.contains_key(*hash)) {
            writeln!(out, "     token {} is no more", short(hash)).unwrap();
        }
        for (principal, record) in &now.principals {
            if before.principals.get(principal) != Some(record) {
                writeln!(out, "     {} {}", record.role, principal.0).unwrap();
            }
        }
        if now.activation != before.activation {
            let (activation, placer) = (now.activation, now.placer.unwrap());
            writeln!(out, "     placer {placer} activation {}.{}", activation.cell, activation.index)
                .unwrap();
        }
        for (key, record) in &now.jobs {
            if before.jobs.get(key) != Some(record) {
                writeln!(out, "     {key} {}", summary(record)).unwrap();
            }
        }
        out
    }

    fn versions(&self, key: &JobKey) -> String {
        let mut out = String::new();
        for kept in &self.ledger.jobs[key].versions {
            let by = kept.by.as_ref().map_or("nobody", |by| by.0.as_str());
            writeln!(out, "  v{} by {by}: {}", kept.version.number, kept.document).unwrap();
        }
        out
    }
}

fn summary(record: &JobRecord) -> String {
    let wanted: Vec<String> = record.wanted().map(|index| index.to_string()).collect();
    let mut out = format!(
        "uid {} v{} count {} wanted [{}]",
        record.uid,
        record.version.number,
        record.count(),
        wanted.join(" ")
    );
    if record.stopped {
        out += " stopped";
    }
    if record.is_ended() {
        out += " ended";
    }
    for index in &record.held {
        write!(out, " held {index}").unwrap();
    }
    for (index, at) in &record.restarts {
        write!(out, " restart {index} at {at}").unwrap();
    }
    for (index, done) in &record.finished {
        write!(out, " {} {index}", if done.success { "succeeded" } else { "failed" }).unwrap();
    }
    if let Err(error) = record.job() {
        write!(out, " invalid: {error}").unwrap();
    }
    out
}

fn show(answer: &Answer) -> String {
    match answer {
        Answer::Done { job: None, access: Some(access), changed } => {
            let done = if *changed { "done" } else { "unchanged" };
            match access {
                Access::Node { admitted, promise } => {
                    format!(
                        "{done}, admitted at {admitted} under activation {}.{}",
                        promise.cell, promise.index
                    )
                }
                Access::Principal { principal, role } => format!("{done}, {role} {}", principal.0),
            }
        }
        Answer::Done { job: Some((uid, version)), changed, .. } => {
            format!("{} {uid} v{}", if *changed { "done" } else { "unchanged" }, version.number)
        }
        Answer::Done { changed, .. } => (if *changed { "done" } else { "unchanged" }).to_string(),
        Answer::Refused(refusal) => {
            let hint = refusal.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {refusal}{hint}", refusal.code)
        }
    }
}

/// A word of hex digits for a whole hash.
fn hash(text: &str) -> String {
    format!("{text:0<64}")
}

fn short(hash: &str) -> &str {
    hash.trim_end_matches('0')
}

fn node(text: &str) -> NodeId {
    NodeId(text.parse().unwrap())
}

fn key(text: &str) -> JobKey {
    let (owner, name) = text.split_once('/').unwrap();
    JobKey { owner: owner.into(), name: name.into() }
}

fn task(text: &str) -> (JobKey, Option<u32>) {
    match text.match_indices('/').nth(1) {
        Some((at, _)) => (key(&text[..at]), Some(text[at + 1..].parse().unwrap())),
        None => (key(text), None),
    }
}

/// A job that a later covey stored, with keys that this one refuses, is kept and hurts nobody.
#[test]
fn a_stored_document_of_a_later_covey_degrades() {
    let mut run = Run::default();
    for line in ["found lab", "submit ann/web count=2", "submit ann/etl kind=batch count=2"] {
        run.line(line);
    }
    let web = key("ann/web");
    let later = std::sync::Arc::make_mut(run.ledger.jobs.get_mut(&web).unwrap());
    later.document["frobnicate"] = json!({"deep": [1, 2]});
    run.line("reload");
    let record = &run.ledger.jobs[&web];
    assert_eq!(record.job().unwrap_err().message, "unknown key `frobnicate`");
    assert_eq!(record.wanted().collect::<Vec<_>>(), [0, 1]);
    // It can still be scaled, restarted and stopped, and keeps what this build does not understand.
    assert_eq!(run.line("scale ann/web 3").lines().next(), Some("  4: done 1.2 v2"));
    assert_eq!(run.ledger.jobs[&web].document["frobnicate"], json!({"deep": [1, 2]}));
    assert_eq!(run.line("restart ann/web/2").lines().next(), Some("  5: done 1.2 v2"));
    assert_eq!(run.line("stop ann/web").lines().next(), Some("  6: done 1.2 v2"));
    assert_eq!(run.line("complete ann/etl/0 ok").lines().next(), Some("  7: done"));
}

#[test]
fn versions_and_requests_are_bounded() {
    let mut run = Run::default();
    run.line("found lab");
    for count in 1..=30 {
        run.line(&format!("submit ann/web count={count}"));
    }
    let versions: Vec<u64> =
        run.ledger.jobs[&key("ann/web")].versions.iter().map(|kept| kept.version.number).collect();
    assert_eq!(versions, (11..=30).collect::<Vec<u64>>());
    for id in 0..1100 {
        run.line(&format!("@ann#{id} stop ann/none"));
    }
    let requests = &run.ledger.requests[&Principal("ann".into())];
    assert_eq!((requests.len(), requests[0].id.0.as_str()), (1024, "76"));
    // The principal that was silent for longest makes room.
    for who in 0..300 {
        run.line(&format!("@p{who}#1 stop ann/none"));
        run.line("@ann#again stop ann/none");
    }
    assert_eq!(run.ledger.requests.len(), 256);
    assert!(!run.ledger.requests.contains_key(&Principal("p0".into())));
    assert!(run.ledger.requests.contains_key(&Principal("p299".into())));
}

#[test]
fn an_index_applied_before_changes_nothing() {
    let mut run = Run::default();
    let entry = |command| Entry { request: None, at_ms: 0, command };
    run.line("found lab");
    run.line("admit 1 h1");
    let before = run.ledger.clone();
    let node = NodeId(2);
    let answer = run.ledger.apply(2, &entry(Command::Admit { node, name: "h2".into() }));
    assert_eq!((answer, &run.ledger), (Answer::Done { job: None, access: None, changed: false }, &before));
}

#[test]
fn what_a_refusal_quotes_is_cut() {
    let mut run = Run::default();
    run.line("found lab");
    let document: Map<String, Value> = [("ü".repeat(50_000), json!(1))].into_iter().collect();
    let command = Command::Submit {
        job: key("ann/web"),
        document: document.into(),
        images: [].into(),
        expect: Expect::Any,
    };
    let answer = run.ledger.apply(2, &Entry { request: None, at_ms: 0, command });
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert!(refusal.message.len() < 700, "{}", refusal.message.len());
}
