//! How far a job has got, read from its document. Pure.

use std::{collections::BTreeMap, fmt};

use gossip::wire::JobName;
use placement::job::{Job, Kind};
use serde_json::Value;

use crate::output::{ended, shown};

/// What is waited for.
pub(in crate::commands) struct Goal {
    pub(super) job: JobName,
    /// The number of the version that is to settle.
    version: u64,
    kind: Kind,
    /// Whether a task has a health check: without one, running is enough.
    checked: bool,
    /// Where an `[[override]]` says otherwise.
    overrides: BTreeMap<u32, bool>,
}

impl Goal {
    pub(in crate::commands) fn of(job: &Job, name: JobName, version: u64) -> Self {
        Goal {
            job: name,
            version,
            kind: job.kind,
            checked: job.task.is_checked(),
            overrides: job.overrides.iter().map(|(index, task)| (*index, task.is_checked())).collect(),
        }
    }

    fn any_checked(&self) -> bool {
        self.checked || self.overrides.values().any(|checked| *checked)
    }

    /// Whether this task is where it should be.
    fn reached_by(&self, task: &Value) -> bool {
        match self.kind {
            Kind::Batch => task["state"] == "succeeded",
            Kind::Service => {
                let index = task["index"].as_u64().and_then(|index| u32::try_from(index).ok());
                let checked = index.and_then(|i| self.overrides.get(&i)).copied().unwrap_or(self.checked);
                let healthy = if checked { task["healthy"] == true } else { task["healthy"] != false };
                task["state"] == "running" && healthy && self.is_due(task)
            }
        }
    }

    /// Whether a job or task is not of a version before the one that is to settle.
    fn is_due(&self, thing: &Value) -> bool {
        thing["version"].as_u64().is_some_and(|version| version >= self.version)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    UnderWay,
    /// With the words for it.
    Settled(String),
    /// Nothing that is under way will change it. With the reason, where there is one for the whole job.
    Never(Option<String>),
}

/// A task that is not where it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ailing {
    pub(super) task: String,
    pub(super) index: Option<u32>,
    /// Its state, and why.
    pub(super) text: String,
    /// Whether it may have said something in its log.
    pub(super) ran: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) verdict: Verdict,
    pub(super) counts: String,
    pub(super) ailing: Vec<Ailing>,
}

impl Progress {
    /// The job's `settled` decides; its tasks say how far it is.
    pub(super) fn of(job: &Value, goal: &Goal) -> Self {
        let none = Vec::new();
        let tasks = job["tasks"].as_array().unwrap_or(&none);
        let count = job["count"].as_u64().unwrap_or(0);
        let (mut there, other): (usize, Vec<_>) = {
            let (there, other): (Vec<_>, Vec<_>) = tasks.iter().partition(|task| goal.reached_by(task));
            (there.len(), other)
        };
        if let (Kind::Batch, Some(succeeded)) = (goal.kind, job["succeeded"].as_u64()) {
            // What has succeeded is first known to its node, then committed, then forgotten by its node.
            there = there.max(usize::try_from(succeeded).unwrap_or(0));
        }
        let reached = match (goal.kind, goal.any_checked()) {
            (Kind::Batch, _) => "succeeded",
            (Kind::Service, true) => "running and healthy",
            (Kind::Service, false) => "running",
        };
        let reason = || job["settled"]["reason"].as_str().map(|reason| shown(reason).into_owned());
        let verdict = match job["settled"]["state"].as_str() {
            Some("yes") if goal.is_due(job) => {
                let plural = if count == 1 { "" } else { "s" };
                Verdict::Settled(format!("{count} task{plural} {reached}"))
            }
            Some("never") if goal.is_due(job) => Verdict::Never(reason()),
            _ => Verdict::UnderWay,
        };
        let mut counts = format!("{there} of {count} {reached}");
        let mut others: BTreeMap<&str, u32> = BTreeMap::new();
        for task in &other {
            let how = match task["state"].as_str().unwrap_or("unknown") {
                "running" if goal.kind == Kind::Service && !goal.is_due(task) => "in an older version",
                "running" if goal.kind == Kind::Service => "not healthy yet",
                state => state,
            };
            *others.entry(how).or_default() += 1;
        }
        for (how, number) in others {
            counts.push_str(&format!(", {number} {}", shown(how)));
        }
        Progress { verdict, counts, ailing: other.into_iter().map(|task| ailing(goal, task)).collect() }
    }
}

fn ailing(goal: &Goal, task: &Value) -> Ailing {
    let name = &goal.job.name;
    let index = task["index"].as_u64().and_then(|index| u32::try_from(index).ok());
    let state = task["state"].as_str().unwrap_or("unknown");
    let mut text = shown(state).into_owned();
    if goal.kind == Kind::Service && state == "running" && !goal.is_due(task) {
        text.push_str(" in an older version");
    } else if task["healthy"] == false {
        text.push_str(", unhealthy");
    } else if goal.kind == Kind::Service && state == "running" && task["healthy"].is_null() {
        text.push_str(", its health not known yet");
    }
    if let Some(reason) = task["reason"].as_str().filter(|reason| !reason.is_empty()) {
        text.push_str(&format!(": {}", shown(reason)));
    }
    if let Some(how) = ended(&task["exit"]).filter(|how| !text.contains(how)) {
        text.push_str(&format!("; the run before {how}"));
    }
    if let Some(restarts @ 1..) = task["restarts"].as_u64() {
        text.push_str(&format!("; restarted {restarts} times").replace(" 1 times", " once"));
    }
    let task_name = match index {
        Some(index) => format!("{name}/{index}"),
        None => name.clone(),
    };
    let ran = !task["exit"].is_null() || !task["pid"].is_null() || task["restarts"].as_u64().unwrap_or(0) > 0;
    Ailing { task: task_name, index, text, ran }
}

impl fmt::Display for Progress {
    /// One line: the counts, and what holds up the first task that has a reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.counts)?;
        let telling = self.ailing.iter().find(|a| a.text.contains([':', ';', ','])).or(self.ailing.first());
        match telling {
            Some(ailing) => write!(f, " | {} {}", ailing.task, ailing.text),
            None => Ok(()),
        }
    }
}
