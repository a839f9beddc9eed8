//! What a newer version of a job asks of a copy that runs: nothing, other values at the same process, or a new run.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    job::container::Class, job::signal::Signal, obstacle::amount, resources::Resources, task::TaskSpec,
};

/// From one spec of an index to another; the later the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The copy is what is wanted.
    None,
    /// In place; what runs is the same, only others see it differently: its priority, the image's name.
    Shown,
    /// In place: limits and the like, given to the process that runs.
    Live,
    /// Only a new run can have it.
    Restart,
}

/// What leads from `old` to `new`. When it was restarted last is not part of it.
pub fn between(old: &TaskSpec, new: &TaskSpec) -> Change {
    let mut bare = new.clone();
    bare.restart_at = old.restart_at;
    if bare == *old {
        return Change::None;
    }
    bare.priority = old.priority;
    bare.image.clone_from(&old.image);
    if bare == *old {
        return Change::Shown;
    }
    bare.limit.clone_from(&old.limit);
    (bare.grace_ms, bare.retries) = (old.grace_ms, old.retries);
    bare.estimate = old.estimate;
    (bare.container.pids, bare.container.io) = (old.container.pids, old.container.io);
    bare.container.class = old.container.class;
    bare.container.signal.clone_from(&old.container.signal);
    if bare == *old { Change::Live } else { Change::Restart }
}

/// What is different, to show: `cpu 250m → 500m, priority 150 → 160`. Of what needs a new run it says nothing.
pub fn in_words(old: &TaskSpec, new: &TaskSpec) -> String {
    let mut words = Vec::new();
    let names: BTreeSet<&String> = old.limit.0.keys().chain(new.limit.0.keys()).collect();
    for name in names {
        let (from, to) = (old.limit.get(name), new.limit.get(name));
        if from != to {
            let short = name.strip_suffix("_milli").or(name.strip_suffix("_bytes")).unwrap_or(name);
            words.push(format!("{short} {} → {}", amount(name, from), amount(name, to)));
        }
    }
    let mut number = |name: &str, from: String, to: String| {
        if from != to {
            words.push(format!("{name} {from} → {to}"));
        }
    };
    let or_none = |limit: Option<u64>| limit.map_or("none".to_string(), |n| n.to_string());
    let (was, now) = (&old.container, &new.container);
    number("pids", or_none(was.pids), or_none(now.pids));
    number("io.iops", or_none(was.io.iops), or_none(now.io.iops));
    number("io.bandwidth", or_none(was.io.bandwidth), or_none(now.io.bandwidth));
    number("estimate", old.estimate.to_string(), new.estimate.to_string());
    let class = |class: Option<Class>| match class {
        Some(Class::Latency) => "latency".to_string(),
        Some(Class::Batch) => "batch".to_string(),
        None => "the band's".to_string(),
    };
    number("class", class(was.class), class(now.class));
    let signal = |signal: &Option<Signal>| {
        signal.as_ref().map_or("none".to_string(), |s| format!("{} above {}", s.of, s.above))
    };
    number("signal", signal(&was.signal), signal(&now.signal));
    number("priority", old.priority.to_string(), new.priority.to_string());
    number("grace", format!("{}ms", old.grace_ms), format!("{}ms", new.grace_ms));
    number("retries", old.retries.to_string(), new.retries.to_string());
    number("image", old.image.clone(), new.image.clone());
    words.join(", ")
}

/// By how much the second is more than the first.
pub fn growth(old: &Resources, new: &Resources) -> Resources {
    let mut more = new.clone();
    more.sub(old);
    more.0.retain(|_, amount| *amount > 0);
    more
}
