//! Scripts in, golden text out. A line `> EVENT` is handled; what follows are the actions, and after `=` each task that
//! now stands differently. `UPDATE=1 cargo test` writes the answers anew.
//!
//! Events: `hello ACTIVATION`, `offer KEY GENERATION [job=NAME] [batch] [cpu=N] [ports=A,B] [health] [startup] [ready]
//! [retries=N] [remark]`, `stop`,
//! `keep`, `forget`, `restart KEY GENERATION AT`, `amend KEY GENERATION VERSION [cpu=N] …`, `amended RUN VERSION [WHY NOT]`,
//! `stored [failed]` (the oldest store), `phase RUN TEXT`, `over RUN KIND MS
//! TEXT`, `started RUN PID`, `exited RUN CODE [at=MS]`, `after MS` (time passes), `agent RUN=STATE…` (the agent is killed
//! and started again and finds these runs; `running,PID[,MS]` one that runs, for so long), `endings` (shows what is counted of
//! them), …

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    fs,
    path::Path,
};

use agent::{
    core::{Config, Core, record::Record},
    event::{Action, Change, Ended, Event, Found, Now, RunEvent, RunId},
};
use gossip::wire::{Hello, Offer, Order, PROTOCOL, SessionId, ToAgent, Welcome};
use placement::{
    ids::{Activation, Generation, JobKey, NodeId, TaskKey, Version},
    job::{Band, Check, Health, Kind, Probe},
    node::NodeInfo,
    resources::{CPU, DISK, MEMORY, Resources},
    task::{Cause, Report, TaskSpec},
};

use crate::show;

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core");
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    assert!(paths.len() >= 25, "only {} scripts", paths.len());
    let mut wrong = String::new();
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        let answer = play(&script);
        if update {
            fs::write(&path, &answer).unwrap();
        } else if let Some((n, (want, got))) =
            script.lines().chain([""]).zip(answer.lines().chain([""])).enumerate().find(|(_, (a, b))| a != b)
        {
            writeln!(wrong, "{}:{}\n  expected: {want}\n  got:      {got}", path.display(), n + 1).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}(UPDATE=1 writes the answers anew)");
}

/// The script with its answers.
fn play(script: &str) -> String {
    let mut stage = Stage::new();
    let mut out = String::new();
    for line in script.lines() {
        if let Some(event) = line.strip_prefix("> ") {
            writeln!(out, "{line}").unwrap();
            stage.line(event, &mut out);
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

struct Stage {
    core: Core,
    config: Config,
    now: Now,
    sessions: Vec<SessionId>,
    hellos: u64,
    stores: VecDeque<(u64, Vec<Change>)>,
    records: BTreeMap<TaskKey, Record>,
    tasks: BTreeMap<TaskKey, Report>,
}

pub(crate) fn config() -> Config {
    Config {
        node: NodeInfo {
            id: NodeId(1),
            name: "n1".into(),
            addr: "10.0.0.1:7411".into(),
            version: "0".into(),
            labels: BTreeMap::new(),
            capacity: Resources::new(1000, 1 << 30),
            images: Default::default(),
            volumes: Default::default(),
            bad: Vec::new(),
        },
        cell: "lab".into(),
        life: 1,
        promise: Activation { cell: 1, index: 3 },
        ports: 20000..=20003,
        first_port: 20000,
        claims: false,
        estimate: None,
    }
}

pub(crate) fn spec(job: &str, kind: Kind) -> TaskSpec {
    TaskSpec {
        job: JobKey { owner: "ann".into(), name: job.into() },
        kind,
        band: Band::Batch,
        priority: 150,
        image: "hello:1".into(),
        digest: "sha256:00".into(),
        command: None,
        env: BTreeMap::new(),
        limit: Resources::new(100, 1 << 20),
        ports: Vec::new(),
        grace_ms: 10_000,
        health: None,
        ready: None,
        startup: None,
        container: Default::default(),
        estimate: true,
        restart_at: 0,
        retries: 0,
    }
}

impl Stage {
    fn new() -> Stage {
        Stage {
            core: Core::new(config()),
            config: config(),
            now: Now { mono_ms: 0, wall_ms: 1_000_000 },
            sessions: Vec::new(),
            hellos: 0,
            stores: VecDeque::new(),
            records: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    fn line(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let actions = match words[0] {
            "after" => {
                self.pass(words[1].parse().unwrap());
                return;
            }
            "config" => {
                for word in &words[1..] {
                    match word.split_once('=').unwrap() {
                        ("claims", value) => self.config.claims = value == "yes",
                        ("cpu", value) => self.config.node.capacity.set(CPU, value.parse().unwrap()),
                        (name, value) => self.config.node.capacity.set(name, value.parse().unwrap()),
                    }
                }
                self.core = Core::new(self.config.clone());
                return;
            }
            "agent" => self.start_agent(&words[1..]),
            "endings" => {
                for e in self.core.endings() {
                    let (band, cause) = (e.band, e.cause);
                    let text =
                        format!("{band:?} {cause:?}: {}, told {}, notified {}", e.day, e.told, e.notified);
                    writeln!(out, "    {text}").unwrap();
                }
                return;
            }
            _ => {
                let event = self.event(&words, line);
                self.core.handle(event, self.now)
            }
        };
        for action in &actions {
            writeln!(out, "    {}", show::action(action)).unwrap();
            match action {
                Action::Store { ticket, changes } => self.stores.push_back((*ticket, changes.clone())),
                Action::Welcome(Welcome::Open { session, .. }) => self.sessions.push(*session),
                _ => {}
            }
        }
        self.states(out);
    }

    fn states(&mut self, out: &mut String) {
        let tasks: BTreeMap<_, _> = self.core.reports().into_iter().map(|r| (r.key, r)).collect();
        for (key, task) in &tasks {
            let before = self.tasks.get(key).filter(|b| b.generation == task.generation);
            if let Some(before) = before {
                assert!(
                    before.state == task.state || before.state.may_become(task.state),
                    "{key}: {:?} may not become {:?}",
                    before.state,
                    task.state
                );
            }
            if before.map(show::task) != Some(show::task(task)) {
                writeln!(out, "  = {}", show::task(task)).unwrap();
            }
        }
        for key in self.tasks.keys().filter(|k| !tasks.contains_key(k)) {
            writeln!(out, "  = {key} gone").unwrap();
        }
        self.tasks = tasks;
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
    }

    /// What was not stored is lost.
    fn start_agent(&mut self, found: &[&str]) -> Vec<Action> {
        self.stores.clear();
        self.config.life += 1;
        let found = found
            .iter()
            .map(|word| {
                let (run, state) = word.split_once('=').unwrap();
                let state: Vec<&str> = state.split(',').collect();
                let found = match state[0] {
                    "running" => {
                        let ran_ms = state.get(2).map_or(0, |ms| ms.parse().unwrap());
                        let started_at_ms = self.now.wall_ms - ran_ms;
                        Found::Running { pid: state[1].parse().unwrap(), started_at_ms, ran_ms }
                    }
                    "starting" => Found::Starting,
                    "unstarted" => Found::Unstarted,
                    _ => Found::Ended(self.ended(&state)),
                };
                (run.parse().unwrap(), found)
            })
            .collect();
        // As the store would give them back.
        let written = serde_json::to_string(&self.records.values().collect::<Vec<_>>()).unwrap();
        let (core, actions) =
            Core::restore(self.config.clone(), serde_json::from_str(&written).unwrap(), found, self.now);
        self.core = core;
        self.tasks.clear();
        actions
    }

    /// `0`, `137`, `sig9`, `oom`, `oom-host`, `lost`; `unlogged=BYTES`; and `at=MS`, wall time relative to now.
    fn ended(&self, words: &[&str]) -> Ended {
        let mut ended = Ended {
            code: None,
            signal: None,
            log_bytes_lost: 0,
            oom: None,
            shim_lost: false,
            why: None,
            at_ms: self.now.wall_ms,
        };
        for word in words {
            match *word {
                "oom" => (ended.oom, ended.signal) = (Some(Cause::OomLimit), Some(9)),
                "oom-host" => (ended.oom, ended.signal) = (Some(Cause::OomHost), Some(9)),
                "lost" => ended.shim_lost = true,
                word if word.starts_with("sig") => ended.signal = word[3..].parse().ok(),
                word if word.starts_with("unlogged=") => ended.log_bytes_lost = word[9..].parse().unwrap(),
                word if word.starts_with("at=") => {
                    ended.at_ms = ended.at_ms.saturating_add_signed(word[3..].parse().unwrap())
                }
                word => ended.code = Some(word.parse().unwrap()),
            }
        }
        ended
    }

    fn event(&mut self, words: &[&str], line: &str) -> Event {
        let rest = |n: usize| words.get(n..).unwrap_or_default().join(" ");
        let run = |what: RunEvent| Event::Run { run: words[1].parse::<RunId>().unwrap(), what };
        match words[0] {
            "hello" => {
                self.hellos += 1;
                let [cell, index] = numbers(words[1]);
                Event::Hello {
                    hello: Hello {
                        protocol: PROTOCOL.into(),
                        placer: NodeId(1),
                        activation: Activation { cell, index },
                        fresh: self.hellos,
                    },
                    fresh: 100 + self.hellos,
                }
            }
            "closed" => Event::Closed(*self.sessions.last().unwrap()),
            "stored" => {
                let (ticket, changes) = self.stores.pop_front().expect("a store");
                let result = match words.get(1) {
                    Some(&"failed") => Err("no space left on device".into()),
                    _ => Ok(()),
                };
                if result.is_ok() {
                    self.apply(changes);
                }
                Event::Stored { ticket, result }
            }
            "woke" => Event::Woke,
            "capacity" => Event::Capacity(Resources::new(words[1].parse().unwrap(), 1 << 30)),
            "measured" => {
                let memory = words.get(3).map_or(0, |bytes| bytes.parse().unwrap());
                let usage = Resources::new(words[2].parse().unwrap(), memory);
                Event::Measured([(words[1].parse().unwrap(), usage)].into())
            }
            // `evict RUN hard|soft WHY`; `crowd`: the same for disk
            "evict" | "crowd" => {
                let (run, hard) = (words[1].parse().unwrap(), words[2] == "hard");
                let what = if words[0] == "crowd" { DISK } else { MEMORY };
                Event::Evict { run, hard, what, used: 0, why: rest(3) }
            }
            "disk" => Event::DiskShort((words[1] == "short").then_some(200 << 20)),
            "free" => Event::Free { memory: words[1].parse().unwrap() },
            "phase" => run(RunEvent::Phase(rest(2))),
            "over" => run(RunEvent::PhaseOver {
                kind: if words[2] == "fetched" { "fetched" } else { "unpacked" },
                text: rest(4),
                ms: words[3].parse().unwrap(),
            }),
            "started" => run(RunEvent::Started { pid: words[2].parse().unwrap() }),
            "failed" => run(RunEvent::StartFailed { why: rest(3), transient: words[2] == "transient" }),
            "busy" => run(RunEvent::PortBusy { port: words[2].parse().unwrap() }),
            "exited" => run(RunEvent::Exited(self.ended(&words[2..]))),
            "amended" => {
                let version = Version { cell: 1, number: words[2].parse().unwrap() };
                let result = if words.len() > 3 { Err(rest(3)) } else { Ok(()) };
                run(RunEvent::Amended { version, result })
            }
            "removed" => run(RunEvent::Removed),
            // `healthy RUN [startup|ready]`
            "healthy" => run(RunEvent::Health { check: check(words), ok: true, text: "200".into() }),
            "unhealthy" => run(RunEvent::Health { check: check(words), ok: false, text: "503".into() }),
            // `old offer …`: on the session before the present one.
            "old" => self.order(&words[1..], self.sessions[self.sessions.len() - 2], line),
            _ => self.order(words, *self.sessions.last().expect("a session"), line),
        }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(record) => drop(self.records.insert(record.key, *record)),
                Change::Drop(key) => drop(self.records.remove(&key)),
                Change::Promise(promise) => self.config.promise = promise,
                Change::Bad(bad) => self.config.node.bad = bad,
            }
        }
    }

    fn order(&self, words: &[&str], session: SessionId, line: &str) -> Event {
        let key: TaskKey = words[1].parse().unwrap();
        let generation = || -> Generation { numbers::<3>(words[2]).into() };
        let order = match words[0] {
            "offer" => Order::Offer(Box::new(Offer {
                key,
                generation: generation(),
                version: Version { cell: 1, number: 1 },
                spec: offered(&words[3..]),
                remark: words.contains(&"remark").then(|| "its volume starts empty".to_string()),
                lesson: None,
            })),
            "stop" => Order::Stop { key, generation: generation(), reason: "the job was stopped".into() },
            "keep" => Order::Keep { key, generation: generation() },
            "forget" => Order::Forget { key },
            "amend" => Order::Amend(Box::new(Offer {
                key,
                generation: generation(),
                version: Version { cell: 1, number: words[3].parse().unwrap() },
                spec: offered(&words[4..]),
                remark: None,
                lesson: None,
            })),
            "restart" => Order::Restart { key, generation: generation(), at: words[3].parse().unwrap() },
            _ => panic!("unknown event: {line}"),
        };
        Event::Order(ToAgent::new(session, order))
    }
}

fn offered(words: &[&str]) -> TaskSpec {
    let mut spec = spec("web", Kind::Service);
    for word in words {
        match word.split_once('=') {
            // Of the offer, not of the task.
            None if *word == "remark" => {}
            None if *word == "batch" => spec.kind = Kind::Batch,
            None if *word == "production" => spec.band = Band::Production,
            None if *word == "health" => {
                spec.health = health(Probe::Http { http: "/healthz".into(), port: "http".into() })
            }
            None if *word == "startup" => spec.startup = health(Probe::Tcp { tcp: "http".into() }),
            None if *word == "ready" => {
                spec.ready = health(Probe::Command { command: vec!["/ready".into(), "now".into()] })
            }
            Some(("job", name)) => spec.job.name = name.into(),
            Some(("cpu", amount)) => spec.limit.set(CPU, amount.parse().unwrap()),
            Some(("memory", amount)) => spec.limit.set(MEMORY, amount.parse().unwrap()),
            Some(("ports", names)) => spec.ports = names.split(',').map(String::from).collect(),
            Some(("retries", n)) => spec.retries = n.parse().unwrap(),
            Some(("grace", ms)) => spec.grace_ms = ms.parse().unwrap(),
            Some((name, amount)) => spec.limit.set(name, amount.parse().unwrap()),
            None => panic!("unknown word: {word}"),
        }
    }
    spec
}

fn numbers<const N: usize>(text: &str) -> [u64; N] {
    let parts: Vec<u64> = text.split('.').map(|p| p.parse().unwrap()).collect();
    parts.try_into().unwrap()
}

fn health(probe: Probe) -> Option<Health> {
    Some(Health { probe, interval_ms: 2_000, timeout_ms: 1_000, failures: 3, start_ms: 30_000 })
}

fn check(words: &[&str]) -> Check {
    match words.get(2) {
        None => Check::Live,
        Some(word) => Check::ALL.into_iter().find(|check| check.to_string() == *word).unwrap(),
    }
}
