//! Actions and states as one line each.

use agent::event::{Action, Change, Signal};
use gossip::wire::{Delta, FromAgent, News, RefusedOffer, Welcome};
use placement::{
    job::{Check, Probe},
    node::{Books, NodeInfo},
    resources::Resources,
    task::{Report, State},
};

pub(crate) fn action(action: &Action) -> String {
    match action {
        Action::Store { ticket, changes } => {
            format!("store {ticket}: {}", changes.iter().map(change).collect::<Vec<_>>().join(", "))
        }
        Action::Welcome(Welcome::Open { session, life }) => {
            format!("welcome: session {}/{} life {life}", session.placer, session.agent)
        }
        Action::Welcome(Welcome::Promised(p)) => format!("welcome: promised {}.{}", p.cell, p.index),
        Action::Send(message) => send(message),
        Action::Start(start) => {
            let ports: Vec<_> = start.ports.iter().map(|(name, port)| format!(" {name}={port}")).collect();
            format!("start {}{}", start.run, ports.concat())
        }
        Action::Amend(amend) => {
            format!("change {} to v{}: {}", amend.run, amend.version.number, amounts(&amend.to.limit))
        }
        Action::Signal { run, signal: Signal::Term } => format!("SIGTERM {run}"),
        Action::Signal { run, signal: Signal::Kill } => format!("SIGKILL {run}"),
        Action::Abandon { run } => format!("abandon {run}"),
        Action::Remove { run, own: false } => format!("remove {run}"),
        Action::Remove { run, own: true } => format!("remove {run} and what its copy alone has"),
        Action::Probe { run, check, health, port, good } => {
            let port = port.unwrap_or_default();
            let what = match &health.probe {
                Probe::Http { http, .. } => format!(":{port}{http}"),
                Probe::Tcp { .. } => format!(":{port}"),
                Probe::Command { command } => command.join(" "),
            };
            let good = if *good { ", good so far" } else { "" };
            match check {
                Check::Live => format!("probe {run} {what}{good}"),
                check => format!("probe {run} {check} {what}{good}"),
            }
        }
        Action::Unprobe { run } => format!("unprobe {run}"),
        Action::WakeAt { mono_ms } => format!("wake at {mono_ms}"),
        Action::Note(note) => {
            let about = note.about.as_ref().map(|a| format!(" {}/{}", a.job, a.index)).unwrap_or_default();
            format!("note {}{about}: {}", note.kind, note.text)
        }
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::Put(record) => {
            let mut text = format!("put {} {} run {}", record.key, record.generation, record.run);
            if let Some(stopping) = &record.stopping {
                text += if stopping.told_ms.is_some() { " told to stop" } else { " stopping" };
            }
            if let Some(next) = &record.next {
                text += &format!(" next v{}", next.version.number);
            }
            if let Some(checked) = record.checked.filter(|checked| checked.run == record.run) {
                let said =
                    [("startup", checked.startup), ("health", checked.health), ("ready", checked.ready)];
                let said = said.iter().filter_map(|(name, good)| Some((name, (*good)?)));
                said.for_each(|(name, good)| {
                    text += &format!(" {name}:{}", if good { "good" } else { "bad" })
                });
            }
            if let Some(outcome) = record.outcome {
                text += &format!(" {outcome:?}").to_lowercase();
            }
            text
        }
        Change::Drop(key) => format!("drop {key}"),
        Change::Promise(p) => format!("promise {}.{}", p.cell, p.index),
        Change::Bad(bad) => format!("bad ({})", bad.len()),
    }
}

fn send(message: &FromAgent) -> String {
    let what = match &message.news {
        News::Full { node, books, tasks, .. } => format!("full{}{}{}", bad(node), states(tasks), sums(books)),
        News::Delta(d) => format!("delta{}", delta(d)),
        News::Accepted { key, generation, delta: d } => format!("accepted {key} {generation}{}", delta(d)),
        News::Refused { key, generation, refused, delta: d } => {
            format!("refused {key} {generation}: {}{}", refusal(refused), delta(d))
        }
        News::NotAmended { key, generation, version, why, delta: d } => {
            format!("not changed {key} {generation} to v{}: {why:?}{}", version.number, delta(d))
        }
    };
    format!("send #{} {what}", message.number)
}

fn refusal(refused: &RefusedOffer) -> String {
    match refused {
        RefusedOffer::Short { resource, wanted, free } => {
            format!("short of {resource}, wanted {wanted}, free {free}")
        }
        RefusedOffer::NoPort { free } => format!("no port, free {free}"),
        RefusedOffer::Stale { seen } => format!("stale, seen {seen}"),
        RefusedOffer::Busy { generation } => format!("busy with {generation}"),
        RefusedOffer::Succeeded { .. } => "succeeded".into(),
        RefusedOffer::Store { why } => format!("store: {why}"),
    }
}

fn delta(delta: &Delta) -> String {
    let node = delta.node.as_ref().map(|n| format!(" [capacity {}{}]", amounts(&n.capacity), bad(n)));
    let gone: String = delta.gone.iter().map(|key| format!(" -{key}")).collect();
    let node = node.unwrap_or_default();
    format!("{node}{}{gone}{}", states(&delta.tasks), sums(&delta.books))
}

fn bad(node: &NodeInfo) -> String {
    let each = node.bad.iter().map(|b| {
        format!("; {} {} failed {} times until {}: {}", b.key, b.generation, b.times, b.until(), b.why)
    });
    each.collect()
}

fn states(tasks: &[Report]) -> String {
    tasks.iter().map(|t| format!(" {}:{}", t.key, state(t))).collect()
}

fn state(task: &Report) -> String {
    format!("{:?}", task.state).to_lowercase()
}

fn sums(books: &Books) -> String {
    let short = match amounts(&books.short) {
        none if none.is_empty() => none,
        short => format!("; short of {short}"),
    };
    format!(" ({}{short})", amounts(&books.limits()))
}

fn amounts(resources: &Resources) -> String {
    let each: Vec<_> = resources.0.iter().map(|(name, amount)| format!("{name} {amount}")).collect();
    each.join(", ")
}

/// A task as it stands.
pub(crate) fn task(task: &Report) -> String {
    let mut text = format!("{} {} {}", task.key, task.generation, state(task));
    if let Some(pid) = task.pid {
        text += &format!(" pid {pid}");
    }
    for (name, port) in &task.ports {
        text += &format!(" {name}={port}");
    }
    if task.version.number > 1 {
        text += &format!(" v{}", task.version.number);
    }
    if task.restarts > 0 {
        text += &format!(" restarts {}", task.restarts);
    }
    if task.restart_at > 0 {
        text += &format!(" restart_at {}", task.restart_at);
    }
    if let Some(healthy) = task.healthy {
        text += if healthy { " healthy" } else { " unhealthy" };
    }
    // Of itself it is so if it runs and is healthy.
    if task.state == State::Running && task.ready != (task.healthy != Some(false)) {
        text += if task.ready { " ready" } else { " not ready" };
    }
    assert!(!task.ready || task.state == State::Running, "{task:?}");
    if let Some(exit) = &task.exit {
        let cause = serde_json::to_value(exit.cause).unwrap();
        let how = exit.code.map(|c| format!("code {c}")).or(exit.signal.map(|s| format!("signal {s}")));
        let how = how.map(|h| h + ", ").unwrap_or_default();
        text += &format!(" exit({how}{})", cause.as_str().unwrap());
    }
    if let Some(reason) = &task.reason {
        text += &format!(" \"{reason}\"");
    }
    text
}
