//! Changes that would help, each tried on a copy.

mod label;

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use serde_json::json;

use super::Fix;
use crate::{
    feasible::{Place, met, places},
    ids::TaskKey,
    intent::{Intent, Verdict, Wanted},
    job::{Band, Job, Template},
    ledger::{JobRecord, Later, VersionRecord},
    obstacle::{No, amount},
    plan::{Plan, plan},
    resources::{CPU, MEMORY},
    view::View,
};

/// Other jobs that are tried, and those that are named.
const OTHERS_TRIED: usize = 20;
const OTHERS_NAMED: usize = 3;
/// Less is no fix.
const LEAST_MEMORY: u64 = 1 << 20;

/// The question.
pub(super) struct Asked<'a> {
    pub(super) intent: &'a Intent,
    pub(super) view: &'a View,
    pub(super) wanted: &'a Wanted,
    /// The job as the asker writes it.
    pub(super) name: &'a str,
    /// The first index that does not run.
    pub(super) index: Option<u32>,
    /// Whether all indexes were asked for.
    pub(super) whole: bool,
    pub(super) now: &'a Plan,
}

pub(super) fn fixes(asked: &Asked<'_>) -> Vec<Fix> {
    let mut all = Vec::new();
    all.extend(asked.run_again());
    if let Some(index) = asked.index {
        all.extend(asked.restart(index));
        all.extend(asked.load_image(index));
        if asked.wanted.verdict(index) == Verdict::Wanted {
            all.extend(asked.label(index));
            all.extend(asked.ask_for_less(index));
            all.extend(asked.require_less(index));
            all.extend(asked.stop_another(index));
        }
    }
    all.extend(asked.scale_down());
    all.sort_by(|a, b| (a.cost, &a.command).cmp(&(b.cost, &b.command)));
    all
}

impl Asked<'_> {
    /// The plan after a change of this job's record.
    fn after(&self, change: impl FnOnce(&mut JobRecord)) -> Plan {
        let mut record = self.wanted.record.clone();
        record.versions.push(VersionRecord {
            version: record.version,
            at_ms: 0,
            by: None,
            document: record.document.clone(),
            images: record.images.clone(),
            later: Later::new(),
        });
        change(&mut record);
        if record.document != self.wanted.record.document {
            record.version.number += 1;
        }
        let mut jobs = self.intent.jobs.clone();
        jobs.insert(self.wanted.key.clone(), Arc::new(Wanted::read(&self.wanted.key, &record)));
        plan(&Intent::of(self.intent.cell, self.intent.applied, jobs), self.view)
    }

    fn places(&self, plan: &Plan, index: u32) -> bool {
        let key = self.wanted.task(index);
        plan.offers.iter().any(|o| o.key == key)
    }

    fn run_again(&self) -> Option<Fix> {
        if !self.wanted.record.stopped {
            return None;
        }
        let plan = self.after(|record| record.stopped = false);
        plan.offers.iter().any(|o| o.key.uid == self.wanted.uid()).then(|| Fix {
            command: format!("covey run {}", self.file()),
            text: "with the job's file: creates the job anew".to_string(),
            cost: 1,
        })
    }

    /// For what somebody stopped, what failed for good, and what a node refused a moment ago.
    fn restart(&self, index: u32) -> Option<Fix> {
        let text = match self.wanted.verdict(index) {
            Verdict::Finished if !self.wanted.record.has_succeeded(index) => "lets it try again",
            Verdict::Unwanted(_) if self.wanted.record.held.contains(&index) => "lets it run again",
            Verdict::Wanted if self.refused(index) => "tries again at once",
            _ => return None,
        };
        let plan = self.after(|record| {
            record.held.remove(&index);
            record.finished.remove(&index);
            record.restarts.insert(index, self.intent.applied + 1);
        });
        self.places(&plan, index).then(|| Fix {
            command: format!("covey restart {}/{index}", self.name),
            text: text.to_string(),
            cost: 1,
        })
    }

    fn refused(&self, index: u32) -> bool {
        let pending = self.now.pending.get(&self.wanted.task(index));
        pending.is_some_and(|p| p.obstacles.iter().any(|o| matches!(o.no, No::Refused(_))))
    }

    fn load_image(&self, index: u32) -> Option<Fix> {
        let image = &self.wanted.template(index)?.image;
        if self.wanted.record.images.contains_key(image) {
            return None;
        }
        let plan = self.after(|record| {
            record.images.insert(image.clone(), String::from("sha256:"));
        });
        self.places(&plan, index).then(|| Fix {
            command: format!("covey image load FILE --name {image}"),
            text: format!("with an archive of the image; then `covey run {}` once more", self.file()),
            cost: 2,
        })
    }

    /// As much as is free where least has to go.
    fn ask_for_less(&self, index: u32) -> Option<Fix> {
        let job = self.wanted.job.as_ref().ok()?;
        let task = job.template(index);
        let here = places(self.view);
        let own = self.after_own_end(index, &here);
        let open = own.iter().filter(|p| p.closed(job.band).is_none() && p.unmet(&job.require).is_none());
        let (_, cuts) = open.filter_map(|place| cuts(place, job.band, task)).min()?;
        let plan = self.after(|record| {
            for cut in &cuts {
                record.document["task"][cut.key] = json!(cut.value);
            }
        });
        let helps = self.places(&plan, index) || plan.stops.iter().any(|s| s.key == self.wanted.task(index));
        helps.then(|| {
            let sets: Vec<String> =
                cuts.iter().map(|c| format!("--set task.{}={}", c.key, c.value)).collect();
            let less: Vec<String> =
                cuts.iter().map(|c| format!("{} instead of {}", c.value, c.was)).collect();
            Fix {
                command: format!("covey run {} {}", self.file(), sets.join(" ")),
                text: format!("with the job's file: each task may use {}", less.join(" and ")),
                cost: 10 + cuts.len() as u32,
            }
        })
    }

    /// A copy in an old version gives its room to the new one.
    fn after_own_end<'v>(&self, index: u32, here: &[Place<'v>]) -> Vec<Place<'v>> {
        let key = self.wanted.task(index);
        let mut here = here.to_vec();
        for place in &mut here {
            let node = place.node;
            if let Some(copy) = node.tasks.get(&key).filter(|c| c.state.holds_resources()) {
                place.give(copy);
            }
        }
        here
    }

    /// Drops the constraints that a node which could take it does not meet: as few as possible.
    fn require_less(&self, index: u32) -> Option<Fix> {
        let job = self.wanted.job.as_ref().ok()?;
        let here = places(self.view);
        let unmet = |place: &Place<'_>| -> Vec<usize> {
            let all = job.require.iter().enumerate();
            all.filter(|(_, c)| !met(c, place.label(&c.label))).map(|(i, _)| i).collect()
        };
        let open =
            here.iter().filter(|p| p.closed(job.band).is_none() && p.fits(job.band, job.template(index)));
        let drop = open.map(unmet).filter(|u| !u.is_empty()).min_by_key(|u| (u.len(), u.clone()))?;
        let keep = |i: &usize| !drop.contains(i);
        let rest: Vec<String> =
            (0..job.require.len()).filter(keep).map(|i| job.require[i].to_string()).collect();
        let plan = self.after(|record| record.document["require"] = json!(rest));
        self.places(&plan, index).then(|| {
            let dropped: Vec<String> = drop.iter().map(|i| job.require[*i].to_string()).collect();
            Fix {
                command: format!("covey run {} --set 'require={}'", self.file(), json!(rest)),
                text: format!("with the job's file: it no longer requires {}", dropped.join(" and ")),
                cost: 20 + drop.len() as u32,
            }
        })
    }

    /// Only for the whole job: as many as have a place now.
    fn scale_down(&self) -> Option<Fix> {
        let job = self.wanted.job.as_ref().ok().filter(|_| self.whole && !self.wanted.record.stopped)?;
        let waiting = |plan: &Plan| plan.pending.keys().filter(|k| k.uid == self.wanted.uid()).count() as u32;
        let count = job.count.checked_sub(waiting(self.now)).filter(|n| (1..job.count).contains(n))?;
        let plan = self.after(|record| crate::job::document::set_count(&mut record.document, count));
        (waiting(&plan) == 0).then(|| Fix {
            command: format!("covey scale {} {count}", self.name),
            text: format!("nothing waits then: {count} of {} have a place", job.count),
            cost: 30,
        })
    }

    /// A suggestion: jobs that count no more than this one, least important and smallest first.
    fn stop_another(&self, index: u32) -> Vec<Fix> {
        let priority = |w: &Wanted| w.job.as_ref().map_or(0, |j: &Job| j.priority);
        let mine = priority(self.wanted);
        let mut held: BTreeMap<_, u64> = BTreeMap::new();
        for report in self.view.nodes.values().flat_map(|n| n.tasks.values()).filter(|t| !t.state.is_final())
        {
            *held.entry(report.key.uid).or_default() += report.limit.get(MEMORY).saturating_add(1);
        }
        let others = self.intent.jobs.values().filter(|w| w.uid() != self.wanted.uid() && !w.record.stopped);
        let mut others: Vec<(u32, u64, &Wanted)> = others
            .filter_map(|w| held.get(&w.uid()).map(|memory| (priority(w), *memory, &**w)))
            .filter(|(priority, ..)| *priority <= mine)
            .collect();
        others.sort_by(|a, b| (a.0, a.1, &a.2.key).cmp(&(b.0, b.1, &b.2.key)));
        others
            .into_iter()
            .take(OTHERS_TRIED)
            .filter(|(_, _, other)| self.runs_without(other, index))
            .take(OTHERS_NAMED)
            .map(|(priority, _, other)| Fix {
                command: format!("covey stop {}", self.short(other)),
                text: format!("ends {} for it, of priority {priority} (this job: {mine})", other.key),
                cost: 100 + priority,
            })
            .collect()
    }

    fn runs_without(&self, other: &Wanted, index: u32) -> bool {
        let mut jobs = self.intent.jobs.clone();
        jobs.remove(&other.key);
        let intent = Intent::of(self.intent.cell, self.intent.applied, jobs);
        let mut view = self.view.clone();
        let own = |key: &TaskKey| key.uid == other.uid();
        for node in view.nodes.values_mut() {
            for copy in node.tasks.values().filter(|t| own(&t.key) && t.state.holds_resources()) {
                node.books.without(copy.band, &copy.limit, &copy.reservation);
            }
            node.tasks.retain(|key, _| !own(key));
            node.offers.retain(|key, _| !own(key));
        }
        self.places(&plan(&intent, &view), index)
    }

    /// As the asker would write another job.
    fn short(&self, other: &Wanted) -> String {
        let bare = self.name == self.wanted.key.name && other.key.owner == self.wanted.key.owner;
        if bare { other.key.name.clone() } else { other.key.to_string() }
    }

    /// What the job's file may be called: the placer never saw it.
    fn file(&self) -> String {
        format!("{}.toml", self.wanted.key.name)
    }
}

/// One amount, made smaller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    /// Below `[task]`.
    key: &'static str,
    value: String,
    was: String,
}

/// What would have to be cut for the task to fit there, and how much of it all, in thousandths. None if it fits, or if
/// nothing would be left of it.
fn cuts(place: &Place<'_>, band: Band, task: &Template) -> Option<(u64, Vec<Cut>)> {
    let (mut cuts, mut share) = (Vec::new(), 0);
    for no in place.shortages(band, task) {
        let No::Short { resource, wanted, free, .. } = no else { return None };
        let key = match resource.as_str() {
            CPU if free > 0 => "cpu",
            MEMORY if free >= LEAST_MEMORY => "memory",
            _ => return None,
        };
        share += (wanted - free).saturating_mul(1000) / wanted.max(1);
        cuts.push(Cut { key, value: amount(&resource, free), was: amount(&resource, wanted) });
    }
    (!cuts.is_empty()).then_some((share, cuts))
}
