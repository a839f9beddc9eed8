//! Why a task does not run, and the cheapest changes that would make it run.
//!
//! A fix is a command, and it is offered only if the plan made after it would place the task: the change is applied to
//! a copy of the intent (or the view), and the same `plan` is asked again.

mod fixes;

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::Range;

use crate::{
    feasible::Obstacles,
    ids::{JobKey, TaskKey},
    intent::{Intent, Verdict, Wanted},
    job::Template,
    obstacle::{No, Obstacle},
    plan::{Plan, plan},
    task::{Report, State},
    view::{Standing, View},
};

/// Kinds of hindrance for which changes are tried, where many indexes are asked for.
const TRIED: usize = 4;

/// The answer to `covey why`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Why {
    /// None: nothing is in its way.
    pub obstacles: Vec<Obstacle>,
    /// Cheapest first.
    pub fixes: Vec<Fix>,
}

/// A command that would make it run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    pub command: String,
    /// What it does, and what it costs.
    pub text: String,
    /// To sort by; no unit. Below 10: nothing is given up. 10 to 99: this job asks for less. From 100: another suffers.
    pub cost: u32,
}

/// Of one index, or of all. `asker` is whose jobs go by their bare names.
pub fn why(intent: &Intent, view: &View, job: &JobKey, index: Option<u32>, asker: &str) -> Why {
    let Some(wanted) = intent.jobs.get(job) else { return Why::default() };
    let now = plan(intent, view);
    let name = if job.owner == asker { job.name.clone() } else { job.to_string() };

    let (first, end) = index.map_or((0, wanted.record.count()), |index| (index, index.saturating_add(1)));
    let (obstacles, stuck) = of_indexes(wanted, first..end, view, &now, &name);
    let asked =
        fixes::Asked { intent, view, wanted, name: &name, index: stuck, whole: index.is_none(), now: &now };
    Why { obstacles, fixes: fixes::fixes(&asked) }
}

/// Each of these indexes by itself, by one plan for all: a job may have many. Changes are tried for the first few that are
/// hindered in different ways: what helps the first of a kind is told of all of it.
pub fn why_each(
    intent: &Intent,
    view: &View,
    job: &JobKey,
    indexes: impl IntoIterator<Item = u32>,
    asker: &str,
) -> Vec<Why> {
    let Some(wanted) = intent.jobs.get(job) else {
        return indexes.into_iter().map(|_| Why::default()).collect();
    };
    let now = plan(intent, view);
    let name = if job.owner == asker { job.name.clone() } else { job.to_string() };
    let mut tried: Vec<Why> = Vec::new();
    let mut each = |index: u32| {
        let (obstacles, stuck) = of_indexes(wanted, index..index.saturating_add(1), view, &now, &name);
        if let Some(same) = tried.iter().find(|why| why.obstacles == obstacles) {
            let mut why = same.clone();
            // Of that one index.
            why.fixes.retain(|fix| !fix.command.starts_with("covey restart "));
            return why;
        }
        if obstacles.is_empty() || tried.len() == TRIED {
            return Why { obstacles, fixes: Vec::new() };
        }
        let asked = fixes::Asked { intent, view, wanted, name: &name, index: stuck, whole: false, now: &now };
        let why = Why { obstacles, fixes: fixes::fixes(&asked) };
        tried.push(why.clone());
        why
    };
    indexes.into_iter().map(&mut each).collect()
}

/// What keeps these from running, and the first that something of its own keeps.
fn of_indexes(
    wanted: &Wanted,
    indexes: Range<u32>,
    view: &View,
    now: &Plan,
    name: &str,
) -> (Vec<Obstacle>, Option<u32>) {
    let mut all = Obstacles::default();
    of_job(wanted).into_iter().for_each(|no| all.add(no, None));
    let mut stuck = None;
    for index in indexes {
        let nos = of_index(wanted, index, view, now, name);
        if !nos.is_empty() {
            stuck.get_or_insert(index);
        }
        nos.into_iter().for_each(|obstacle| all.add_all(obstacle));
    }
    (all.list(), stuck)
}

/// What keeps every index of the job from running.
fn of_job(wanted: &Wanted) -> Option<No> {
    match &wanted.job {
        _ if wanted.record.stopped => Some(No::Job("the job was stopped".to_string())),
        Err(text) => Some(No::Job(format!("its document cannot be read: {text}"))),
        Ok(job) if job.count == 0 => Some(No::Job("the job has a count of 0".to_string())),
        Ok(_) => None,
    }
}

/// What keeps one index from running.
fn of_index(wanted: &Wanted, index: u32, view: &View, now: &Plan, name: &str) -> Vec<Obstacle> {
    let everywhere = |text: String| Vec::from([Obstacle::everywhere(No::Job(text))]);
    let key = wanted.task(index);
    match wanted.verdict(index) {
        // Success is not in anybody's way.
        Verdict::Finished if wanted.record.has_succeeded(index) => return Vec::new(),
        Verdict::Finished => return everywhere(format!("index {index} failed for good")),
        Verdict::Unwanted(_) if wanted.record.stopped => return Vec::new(),
        Verdict::Unwanted(_) if index >= wanted.record.count() => {
            return everywhere(format!(
                "the job has a count of {}, and so no index {index}",
                wanted.record.count()
            ));
        }
        Verdict::Unwanted(_) => return everywhere(format!("index {index} was stopped by hand")),
        Verdict::Held(_) => return Vec::new(),
        Verdict::Wanted => {}
    }
    let mut obstacles = match now.pending.get(&key) {
        Some(pending) => pending.obstacles.to_vec(),
        None => copy_of(view, key)
            .and_then(|(node, copy)| not_well(wanted, node, copy, name))
            .into_iter()
            .collect(),
    };
    if let Some(stuck) = now.stuck.get(&key) {
        obstacles.extend(stuck.iter().cloned());
    }
    obstacles
}

fn copy_of(view: &View, key: TaskKey) -> Option<(&str, &Report)> {
    let nodes = view.nodes.values().filter(|n| n.standing != Standing::Gone);
    let copies = nodes.filter_map(|n| n.tasks.get(&key).map(|t| (n.name.as_str(), t)));
    copies.max_by_key(|(_, t)| t.generation)
}

/// It has its place, but does not run well there.
fn not_well(wanted: &Wanted, node: &str, copy: &Report, name: &str) -> Option<Obstacle> {
    let checked = wanted.template(copy.key.index).is_some_and(Template::is_checked);
    let mut text = match (copy.state, copy.healthy) {
        (State::Running, Some(false)) => "it runs, but is not healthy".to_string(),
        (State::Running, None) if checked => "it runs, but its health is not known yet".to_string(),
        (State::Running, _) => return None,
        (State::Starting, _) => "it is starting".to_string(),
        (State::Stopping, _) => "it is stopping".to_string(),
        _ => "it has ended".to_string(),
    };
    if let Some(reason) = &copy.reason {
        text = format!("{text}: {reason}");
    }
    if copy.exit.is_some() || copy.restarts > 0 {
        text = format!("{text} (`covey logs --previous {name}/{}` shows what it wrote last)", copy.key.index);
    }
    Some(Obstacle::on(No::NotWell(text), node))
}
