//! One event a line, the placer's answers below it. `UPDATE=1` rewrites the answers.
//!
//! ```text
//! cell n1:4:4 n2:2:8          found a cell of these nodes: cores, GiB
//! admit n3:4:4                another joins
//! activate                    a new placer; what it knew before is lost
//! deposed
//! job me/web key=value…       create or change (task keys as task.key; values as JSON or text)
//! stop me/web[/0] | restart me/web[/0] | scale me/web 3
//! commit                      what was proposed is applied
//! open n1 | close n1          a session
//! full n1                     its first report
//! accept n1 me/web/0          the offer, now among its tasks
//! take n1 me/web/0            the same, but the answer is lost
//! refuse n1 me/web/0 short memory_bytes WANTED FREE | noport FREE | busy | store TEXT
//! changed n1 me/web/0 | rigid … | cannot …    its answer to a change in place
//! task n1 me/web/0 STATE [healthy|unhealthy] [CODE] [reason_with_underscores] | gone
//! bad n1 me/web/0 | forgets n1     it failed three times in a row there; the node's memory of all that is over
//! short n1 MIB                so much disk is kept for production, since less is free; 0: there is enough
//! again n1 | skip n1 | stray n1    its last message twice; the next is lost; one of another session
//! dead n1 | alive n1          membership
//! at MS                       time passes; wakes if it was asked for
//! tasks | jobs | nodes | settled me/web | why me/web[/0]
//! ```
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs,
    sync::Arc,
};

use agent::{
    core::place::{PlaceAction, PlaceConfig, PlaceCore, PlaceEvent, Settled},
    event::Now,
};
use gossip::wire::{Delta, FromAgent, News, Order, RefusedOffer, SessionId, ToAgent};
use placement::{
    ids::{Activation, CellId, Generation, JobKey, NodeId, TaskKey, Uid},
    ledger::{Answer, Command, Entry, Expect, Ledger},
    resources::{CPU, DISK},
    why::why,
};
use serde_json::{Value, json};

use crate::models::NodeModel;

#[test]
fn scripts() {
    let folder = format!("{}/tests/place", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|name| name.ends_with(".txt"))
        .collect();
    names.sort();
    assert!(names.len() >= 12, "only {} scripts are there", names.len());
    let failed: Vec<String> = names.iter().filter_map(|name| check(name).err()).collect();
    assert!(failed.is_empty(), "{}\nUPDATE=1 rewrites them", failed.join("\n"));
}

fn check(path: &str) -> Result<(), String> {
    let before = fs::read_to_string(path).unwrap();
    let mut script = Script::new();
    let mut after = String::new();
    for line in before.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(after, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            if script.line(line).is_none() {
                script.answers.push("(there is no such thing)".to_string());
            }
            for answer in script.answers.drain(..) {
                writeln!(after, "  {answer}").unwrap();
            }
        }
    }
    if before == after {
        return Ok(());
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, after).unwrap();
        return Ok(());
    }
    let at = before.lines().zip(after.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_string();
    Err(format!("{path}:{}\n  expected: {}\n  got:      {}", at + 1, line(&before), line(&after)))
}

struct Script {
    core: PlaceCore,
    ledger: Ledger,
    now: u64,
    nodes: BTreeMap<String, NodeModel>,
    sessions: BTreeMap<String, (SessionId, u64)>,
    fresh: u64,
    last: BTreeMap<String, FromAgent>,
    proposed: VecDeque<Command>,
    /// Names of jobs, also of those that are no more.
    names: BTreeMap<Uid, JobKey>,
    wake: Option<u64>,
    answers: Vec<String>,
}

impl Script {
    fn new() -> Script {
        Script {
            core: PlaceCore::new(PlaceConfig::default()),
            ledger: Ledger::default(),
            now: 1_000,
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            fresh: 0,
            last: BTreeMap::new(),
            proposed: VecDeque::new(),
            names: BTreeMap::new(),
            wake: None,
            answers: Vec::new(),
        }
    }

    /// None: the line names what is not there.
    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.get(1).copied().unwrap_or_default().to_string();
        match words[0] {
            "cell" => {
                let cell = CellId("c".into());
                self.entry(Command::Found { cell, name: "c".into(), generation: 1 });
                words[1..].iter().for_each(|node| self.admit(node));
                self.activate();
            }
            "admit" => self.admit(words[1]),
            "activate" => {
                self.core = PlaceCore::new(PlaceConfig::default());
                self.sessions.clear();
                self.nodes.values_mut().for_each(|n| n.offers.clear());
                self.wake = None;
                self.activate();
            }
            "deposed" => self.event(PlaceEvent::Deposed),
            "job" => self.submit(&job(words[1]), &words[2..]),
            "stop" | "restart" => {
                let (job, index) = target(words[1]);
                self.entry(match words[0] {
                    "stop" => Command::Stop { job, index },
                    _ => Command::Restart { job, index },
                });
            }
            "scale" => {
                let count = words[2].parse().unwrap();
                self.entry(Command::Scale { job: job(words[1]), count, expect: Expect::Any });
            }
            "commit" => {
                while let Some(command) = self.proposed.pop_front() {
                    self.entry(command);
                }
            }
            "open" => {
                self.fresh += 1;
                let session = SessionId { placer: self.fresh, agent: self.fresh };
                self.sessions.insert(name.clone(), (session, 0));
                self.nodes.get_mut(&name).unwrap().offers.clear();
                self.event(PlaceEvent::SessionOpened { node: self.id(&name), session });
            }
            "close" => {
                let (session, _) = self.sessions.remove(&name)?;
                self.event(PlaceEvent::SessionClosed { node: self.id(&name), session });
            }
            "full" => self.say(&name, self.nodes[&name].full())?,
            "accept" => {
                let key = self.key(&name, words[2])?;
                let news = self.nodes.get_mut(&name).unwrap().accepted(key)?;
                self.say(&name, news)?;
            }
            "take" => {
                let key = self.key(&name, words[2])?;
                self.nodes.get_mut(&name).unwrap().take(key)?;
            }
            "refuse" => {
                let key = self.key(&name, words[2])?;
                let number = |at: usize| words[at].parse().unwrap();
                let refused = match words[3] {
                    "short" => {
                        let resource = words[4].to_string();
                        RefusedOffer::Short { resource, wanted: number(5), free: number(6) }
                    }
                    "noport" => RefusedOffer::NoPort { free: number(4) },
                    "busy" => RefusedOffer::Busy { generation: Generation::default() },
                    "store" => RefusedOffer::Store { why: words[4..].join(" ") },
                    other => panic!("no such refusal: {other}"),
                };
                let news = self.nodes.get_mut(&name).unwrap().refused(key, refused);
                self.say(&name, news?)?;
            }
            "changed" | "rigid" | "cannot" => {
                let key = self.key(&name, words[2])?;
                let news = self.nodes.get_mut(&name).unwrap().changed(key, words[0])?;
                self.say(&name, news)?;
            }
            "task" => {
                let key = self.key(&name, words[2])?;
                let node = self.nodes.get_mut(&name).unwrap();
                node.becomes(key, &words[3..]);
                let news = News::Delta(node.delta(&[key]));
                self.say(&name, news)?;
            }
            "bad" => {
                let key = self.key(&name, words[2])?;
                let node = self.nodes.get_mut(&name).unwrap();
                node.fails(key);
                let delta = Delta { node: Some(node.info.clone()), ..node.delta(&[key]) };
                self.say(&name, News::Delta(delta))?;
            }
            "forgets" => {
                let node = self.nodes.get_mut(&name).unwrap();
                node.info.bad.clear();
                let delta = Delta { node: Some(node.info.clone()), ..node.delta(&[]) };
                self.say(&name, News::Delta(delta))?;
            }
            "short" => {
                let node = self.nodes.get_mut(&name).unwrap();
                let mib: u64 = words[2].parse().unwrap();
                node.short = (mib > 0).then_some((DISK, mib << 20)).into_iter().collect();
                let news = News::Delta(node.delta(&[]));
                self.say(&name, news)?;
            }
            "again" => {
                let from = Box::new(self.last[&name].clone());
                self.event(PlaceEvent::News { node: self.id(&name), from });
            }
            "skip" => self.sessions.get_mut(&name)?.1 += 1,
            "stray" => {
                let session = SessionId { placer: 77, agent: 77 };
                let from = Box::new(FromAgent {
                    session,
                    number: 0,
                    news: self.nodes[&name].full(),
                    lessons: Vec::new(),
                });
                self.event(PlaceEvent::News { node: self.id(&name), from });
            }
            "dead" => self.event(PlaceEvent::MemberGone(self.id(&name))),
            "alive" => self.event(PlaceEvent::MemberAlive(self.id(&name))),
            "at" => {
                self.now = words[1].parse().unwrap();
                if self.wake.is_some_and(|at| at <= self.now) {
                    self.wake = None;
                    self.event(PlaceEvent::Woke);
                }
            }
            "tasks" => self.tasks(),
            "jobs" => self.jobs(),
            "nodes" => self.node_rows(),
            "settled" => {
                let text = match self.core.settled(&job(words[1])) {
                    None => "no such job".to_string(),
                    Some(Settled::Yes) => "yes".to_string(),
                    Some(Settled::NotYet(why)) => format!("not yet: {why}"),
                    Some(Settled::Never(why)) => format!("never: {why}"),
                };
                self.answers.push(text);
            }
            "why" => {
                let (job, index) = target(words[1]);
                let (intent, view) = self.core.view()?;
                let why = why(intent, view, &job, index, "me");
                self.answers.extend(why.obstacles.iter().map(|o| o.text()));
                self.answers.extend(why.fixes.iter().map(|f| format!("{}: {}", f.command, f.text)));
            }
            other => panic!("no such line: {other}"),
        }
        Some(())
    }

    fn id(&self, name: &str) -> NodeId {
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name}")).info.id
    }

    fn name(&self, id: NodeId) -> String {
        self.nodes.values().find(|n| n.info.id == id).map_or(id.to_string(), |n| n.info.name.clone())
    }

    fn key(&self, node: &str, task: &str) -> Option<TaskKey> {
        let (job, index) = target(task);
        self.nodes[node].key(&job, index.unwrap())
    }

    fn admit(&mut self, text: &str) {
        let [name, cores, gib] = text.split(':').collect::<Vec<_>>()[..] else {
            panic!("not name:cores:GiB")
        };
        let id = NodeId(self.nodes.len() as u64 + 1);
        let model = NodeModel::new(id, name, cores.parse().unwrap(), gib.parse().unwrap());
        self.nodes.insert(name.to_string(), model);
        self.entry(Command::Admit { node: id, name: name.to_string() });
    }

    fn activate(&mut self) {
        self.entry(Command::Activate { node: NodeId(1) });
        let Activation { cell, index } = self.ledger.activation;
        self.event(PlaceEvent::Activated {
            activation: Activation { cell, index },
            ledger: Arc::new(self.ledger.clone()),
        });
    }

    fn submit(&mut self, job: &JobKey, keys: &[&str]) {
        let mut document = json!({"name": job.name, "task": {"image": "hello:1"}});
        for pair in keys {
            let (key, value) = pair.split_once('=').expect("key=value");
            let value: Value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            match key.split_once('.') {
                Some((table, key)) => document[table][key] = value,
                None => document[key] = value,
            }
        }
        let images = BTreeMap::from([("hello:1".to_string(), "sha256:00".to_string())]);
        self.entry(Command::Submit { job: job.clone(), document, images, expect: Expect::Any });
    }

    fn entry(&mut self, command: Command) {
        let index = self.ledger.applied + 1;
        let answer = self.ledger.apply(index, &Entry { request: None, at_ms: 0, command });
        if let Answer::Refused(refusal) = answer {
            self.answers.push(format!("refused: {refusal}"));
        }
        self.names.extend(self.ledger.jobs.iter().map(|(name, record)| (record.uid, name.clone())));
        self.event(PlaceEvent::Ledger(Arc::new(self.ledger.clone())));
    }

    fn say(&mut self, name: &str, news: News) -> Option<()> {
        let (session, number) = self.sessions.get_mut(name)?;
        let from = FromAgent { session: *session, number: *number, news, lessons: Vec::new() };
        *number += 1;
        self.last.insert(name.to_string(), from.clone());
        self.event(PlaceEvent::News { node: self.id(name), from: Box::new(from) });
        Some(())
    }

    fn event(&mut self, event: PlaceEvent) {
        let now = Now { mono_ms: self.now, wall_ms: self.now };
        for action in self.core.handle(now, event) {
            let text = match action {
                PlaceAction::Changed => continue,
                PlaceAction::Send { node, order } => self.order(node, order),
                PlaceAction::CloseSession { node, session } => {
                    let name = self.name(node);
                    self.sessions.retain(|_, (mine, _)| *mine != session);
                    format!("{name}: close session {}", session.placer)
                }
                PlaceAction::Propose(command) => {
                    let Command::Complete { done } = &command else { panic!("{command:?}") };
                    let ends = done.iter().map(|d| {
                        let key = TaskKey { uid: d.uid, index: d.index };
                        format!("{} {}", self.task(key), if d.success { "succeeded" } else { "failed" })
                    });
                    let text = format!("propose: {}", ends.collect::<Vec<_>>().join(", "));
                    self.proposed.push_back(command);
                    text
                }
                PlaceAction::WakeAt { mono_ms } => {
                    self.wake = Some(mono_ms);
                    continue;
                }
            };
            self.answers.push(text);
        }
    }

    fn task(&self, key: TaskKey) -> String {
        match self.names.get(&key.uid) {
            Some(name) => format!("{name}/{}", key.index),
            None => key.to_string(),
        }
    }

    fn order(&mut self, node: NodeId, order: ToAgent) -> String {
        let name = self.name(node);
        let open = self.sessions.get(&name).map(|(session, _)| *session);
        assert_eq!(open, Some(order.session), "{name} is told something on another session");
        let text = match order.order {
            Order::Offer(offer) => {
                let text = format!(
                    "offer {} as {}, v{}",
                    self.task(offer.key),
                    offer.generation,
                    offer.version.number
                );
                self.nodes.get_mut(&name).unwrap().offers.insert(offer.key, *offer);
                text
            }
            Order::Stop { key, generation, reason } => {
                format!("stop {} up to {generation}: {reason}", self.task(key))
            }
            Order::Keep { key, generation } => format!("keep {} {generation}", self.task(key)),
            Order::Forget { key } => format!("forget {}", self.task(key)),
            Order::Beat => "beat".to_string(),
            Order::Amend(amend) => {
                let text = format!(
                    "change {} {} to v{}: {}",
                    self.task(amend.key),
                    amend.generation,
                    amend.version.number,
                    amend.spec.limit.get("cpu_milli"),
                );
                self.nodes.get_mut(&name).unwrap().amends.insert(amend.key, *amend);
                text
            }
            Order::Restart { key, generation, at } => {
                if let Some(copy) = self.nodes.get_mut(&name).unwrap().tasks.get_mut(&key) {
                    copy.restart_at = at;
                }
                format!("restart {} {generation} at {at}", self.task(key))
            }
        };
        format!("{name}: {text}")
    }

    fn tasks(&mut self) {
        for row in self.core.tasks() {
            let mut text = format!("{}/{} {}", row.job, row.key.index, word(row.state));
            if let Some(generation) = row.generation {
                write!(text, " {generation} v{}", row.version.number).unwrap();
            }
            if let Some(node) = &row.node_name {
                write!(text, " on {node}").unwrap();
            }
            if let Some(code) = row.exit.and_then(|e| e.code) {
                write!(text, " (code {code})").unwrap();
            }
            if let Some(reason) = &row.reason {
                write!(text, ": {reason}").unwrap();
            }
            self.answers.push(text);
        }
    }

    fn jobs(&mut self) {
        for row in self.core.jobs() {
            let (job, version, state) = (&row.job, row.version.number, row.state);
            let mut text = format!("{job} v{version} {state} {}/{}", row.running, row.count);
            if row.pending > 0 {
                write!(text, ", {} pending", row.pending).unwrap();
            }
            if let Some(reason) = &row.reason {
                write!(text, ": {reason}").unwrap();
            }
            self.answers.push(text);
        }
    }

    fn node_rows(&mut self) {
        for row in self.core.nodes() {
            let standing = format!("{:?}", row.standing).to_lowercase();
            let room = match row.room.non_prod.get(CPU) {
                _ if row.room.non_prod.is_empty() => "no room".to_string(),
                cpu => format!("room for {cpu}m"),
            };
            self.answers.push(format!("{} {standing}, {} tasks, {room}", row.name, row.tasks));
        }
    }
}

fn word(state: placement::task::State) -> String {
    serde_json::to_value(state).unwrap().as_str().unwrap().to_string()
}

fn job(text: &str) -> JobKey {
    let (owner, name) = text.split_once('/').expect("owner/name");
    JobKey { owner: owner.into(), name: name.into() }
}

fn target(text: &str) -> (JobKey, Option<u32>) {
    let parts: Vec<&str> = text.split('/').collect();
    let job = JobKey { owner: parts[0].into(), name: parts[1].into() };
    (job, parts.get(2).map(|i| i.parse().unwrap()))
}
