//! What people read of the placer: a row for each index and each node.

use std::collections::BTreeMap;

use placement::{
    ids::{Generation, JobKey, NodeId, TaskKey, Version},
    intent::{Verdict, Wanted},
    node::{NodeInfo, Predicted},
    resources::Resources,
    task::{Exit, Report, State},
    view::Standing,
};

use super::{Active, PlaceCore};
use crate::shares::Room;

/// One index: its newest copy, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    pub job: JobKey,
    pub key: TaskKey,
    pub state: State,
    pub node: Option<NodeId>,
    pub node_name: Option<String>,
    /// Never goes back: of the newest copy, or of the last that is known.
    pub generation: Option<Generation>,
    /// The version that runs, or would.
    pub version: Version,
    /// A sentence.
    pub reason: Option<String>,
    pub exit: Option<Exit>,
    pub limit: Resources,
    /// As the user wrote it, and its digest.
    pub image: String,
    pub digest: String,
    /// The copy behind it, also one that ended or whose node is away.
    pub report: Option<Report>,
}

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    pub id: NodeId,
    pub name: String,
    pub standing: Standing,
    /// Membership says that it is dead, whatever its session says.
    pub suspect: bool,
    /// None until the first report.
    pub info: Option<NodeInfo>,
    /// The node's own, and over them those that operators set.
    pub labels: BTreeMap<String, String>,
    pub limits: Resources,
    pub reserved: Resources,
    pub usage: Resources,
    /// What the node believes that its tasks will need at most.
    pub predicted: Option<Predicted>,
    /// What it could still take; nothing while it is drained, or gone.
    pub room: Room,
    /// What it has less of than it keeps for prod, and how much it keeps.
    pub short: Resources,
    /// How many copies hold resources there.
    pub tasks: u32,
}

/// A copy and where it is.
#[derive(Clone, Copy)]
struct Seen<'a> {
    node: NodeId,
    report: &'a Report,
}

impl PlaceCore {
    /// By job and index. Empty when this node is not the placer.
    pub fn tasks(&self) -> Vec<TaskRow> {
        self.active.as_ref().map(|a| a.task_rows(None)).unwrap_or_default()
    }

    /// One job's tasks.
    pub fn tasks_of(&self, job: &JobKey) -> Vec<TaskRow> {
        self.active.as_ref().map(|a| a.task_rows(Some(job))).unwrap_or_default()
    }

    /// By name.
    pub fn nodes(&self) -> Vec<NodeRow> {
        let Some(active) = &self.active else { return Vec::new() };
        let row = |(id, node): (&NodeId, &placement::view::NodeView)| NodeRow {
            id: *id,
            name: node.name.clone(),
            standing: node.standing,
            suspect: active.links.get(id).is_some_and(|l| l.dead_ms.is_some()),
            info: node.info.clone(),
            labels: node.all_labels(),
            limits: node.books.limits(),
            reserved: node.books.reserved(),
            usage: node.usage.clone(),
            predicted: node.books.predicted.clone(),
            room: match &node.info {
                Some(info) if !node.draining && node.standing != Standing::Gone => {
                    Room::of(&node.books, &info.capacity)
                }
                _ => Room::default(),
            },
            short: node.books.short.clone(),
            tasks: node.tasks.values().filter(|t| t.state.holds_resources()).count() as u32,
        };
        let mut rows: Vec<NodeRow> = active.view.nodes.iter().map(row).collect();
        rows.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        rows
    }
}

impl Active {
    pub(super) fn task_rows(&self, only: Option<&JobKey>) -> Vec<TaskRow> {
        let mut newest: BTreeMap<(&JobKey, u32), Seen<'_>> = BTreeMap::new();
        for (id, node) in &self.view.nodes {
            for report in node.tasks.values().filter(|r| only.is_none_or(|job| r.job == *job)) {
                let seen = Seen { node: *id, report };
                let order = |s: &Seen<'_>| (s.report.key.uid, s.report.generation);
                let entry = newest.entry((&report.job, report.key.index)).or_insert(seen);
                if order(&seen) > order(entry) {
                    *entry = seen;
                }
            }
        }
        let mut rows: BTreeMap<(JobKey, u32), TaskRow> = BTreeMap::new();
        for (name, seen) in &newest {
            rows.insert((name.0.clone(), name.1), self.row_of_copy(*seen));
        }
        for wanted in self.intent.jobs.values().filter(|w| only.is_none_or(|job| w.key == *job)) {
            let listed = if wanted.record.stopped { 0 } else { wanted.record.count() };
            let ended = wanted.record.finished.keys().copied().filter(|i| *i >= listed);
            for index in (0..listed).chain(ended) {
                let copy = newest.get(&(&wanted.key, index)).filter(|s| s.report.key.uid == wanted.uid());
                let row = self.row_of_index(wanted, index, copy.copied());
                rows.insert((wanted.key.clone(), index), row);
            }
        }
        rows.into_values().collect()
    }

    /// A copy as it is, wanted or not.
    fn row_of_copy(&self, seen: Seen<'_>) -> TaskRow {
        let Seen { node: id, report } = seen;
        let node = self.view.nodes.get(&id);
        let name = node.map(|n| n.name.clone());
        let standing = node.map_or(Standing::Gone, |n| n.standing);
        let stopping = node.is_some_and(|n| n.stopping(report.key, report.generation));
        let who = name.clone().unwrap_or_else(|| id.to_string());
        let (state, reason) = match (report.state, standing) {
            (state, _) if state.is_final() => (state, report.reason.clone()),
            (_, Standing::Gone) => (State::Lost, Some(format!("{who} is gone"))),
            (_, Standing::Away | Standing::Unheard) => {
                (State::Unknown, Some(format!("{who} has no connection to the placer")))
            }
            (_, Standing::Live) if stopping => (State::Stopping, report.reason.clone()),
            (state, Standing::Live) => {
                let stuck = self.plan.stuck.get(&report.key).and_then(|o| o.first());
                let waits = stuck.map(|o| format!("a new version waits: {o}"));
                (state, report.reason.clone().or(waits).or_else(|| self.came_from(id, report)))
            }
        };
        TaskRow {
            job: report.job.clone(),
            key: report.key,
            state,
            node: Some(id),
            node_name: name,
            generation: Some(report.generation),
            version: report.version,
            reason,
            exit: report.exit.clone(),
            limit: report.limit.clone(),
            image: report.image.clone(),
            digest: report.digest.clone(),
            report: Some(report.clone()),
        }
    }

    /// Where it failed before it came here.
    fn came_from(&self, here: NodeId, report: &Report) -> Option<String> {
        let others = self.view.nodes.iter().filter(|(id, _)| **id != here).map(|(_, node)| node);
        let failed = others.flat_map(|node| {
            let bad = node.info.iter().flat_map(|info| &info.bad);
            bad.filter(|bad| bad.key == report.key).map(|bad| (&node.name, bad))
        });
        let (node, bad) = failed.max_by_key(|(_, bad)| bad.generation)?;
        Some(format!("failed {} times on {node}, tried elsewhere until {}", bad.times, bad.until()))
    }

    /// An index that the job has, with a copy of it or without.
    fn row_of_index(&self, wanted: &Wanted, index: u32, copy: Option<Seen<'_>>) -> TaskRow {
        let key = wanted.task(index);
        if let Some(done) = wanted.record.finished.get(&index) {
            let (mut row, exit) = (self.row_without(wanted, index), Some(done.exit.clone()));
            row.state = if done.success { State::Succeeded } else { State::Failed };
            if done.success {
                row.reason = None;
            }
            return TaskRow { exit, ..row };
        }
        let pending = self.plan.pending.get(&key);
        if let Some(seen) = copy {
            let row = self.row_of_copy(seen);
            // Gone, or a service that gave up: what counts is that it is placed anew.
            if row.state != State::Lost || pending.is_none() {
                return row;
            }
            let because = pending.and_then(|p| p.obstacles.first()).map(|o| o.text());
            let reason = row.reason.into_iter().chain(because).collect::<Vec<_>>().join("; ");
            return TaskRow { reason: Some(reason), ..row };
        }
        let mut row = self.row_without(wanted, index);
        (row.exit, row.node, row.node_name) = (None, None, None);
        row.version = wanted.record.version;
        match pending {
            Some(pending) => {
                row.state = if pending.unknown { State::Unknown } else { State::Pending };
                let texts: Vec<String> = pending.obstacles.iter().map(|o| o.text()).collect();
                row.reason = Some(texts.join("; "));
            }
            None => {
                row.state = State::Pending;
                row.reason = match wanted.verdict(index) {
                    Verdict::Held(why) => Some(why.to_string()),
                    Verdict::Unwanted(_) => {
                        let (job, name) = (&wanted.key, &wanted.key.name);
                        Some(format!(
                            "somebody stopped {job}/{index}; `covey restart {name}/{index}` starts it"
                        ))
                    }
                    Verdict::Wanted | Verdict::Finished => None,
                };
            }
        }
        row
    }

    /// What is known of an index without a copy: from its last one, and from what the job says.
    fn row_without(&self, wanted: &Wanted, index: u32) -> TaskRow {
        let key = wanted.task(index);
        let last = self.last.get(&key);
        let template = wanted.template(index);
        let image = template.map(|t| t.image.clone()).unwrap_or_default();
        let report = last.map(|(_, r)| r);
        TaskRow {
            job: wanted.key.clone(),
            key,
            state: State::Pending,
            node: last.map(|(node, _)| *node),
            node_name: last.and_then(|(node, _)| self.view.nodes.get(node)).map(|n| n.name.clone()),
            generation: report.map(|r| r.generation),
            version: report.map_or(wanted.record.version, |r| r.version),
            reason: report.and_then(|r| r.reason.clone()),
            exit: report.and_then(|r| r.exit.clone()),
            limit: template.map(|t| t.limit.clone()).unwrap_or_default(),
            digest: wanted.record.images.get(&image).cloned().unwrap_or_default(),
            image,
            report: report.cloned(),
        }
    }
}
