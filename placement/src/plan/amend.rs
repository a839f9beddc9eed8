//! Copies that need no new run are given what is new where they are, all at once: it disturbs nobody. What does not fit
//! there is replaced like any other old version.

use alloc::{sync::Arc, vec::Vec};
use core::cmp::Reverse;

use super::{Plan, PlannedAmend, settle::JobNow};
use crate::{
    change::growth,
    feasible::Place,
    obstacle::{No, Obstacle},
    view::View,
};

pub(super) fn amend(jobs: &mut [JobNow<'_>], view: &View, places: &mut [Place<'_>], plan: &mut Plan) {
    // Where several want what is left of a node: by priority, then by job and index.
    let mut queue = Vec::new();
    for (at, now) in jobs.iter_mut().enumerate() {
        // PROTOCOL 11: what is reported may be a copy that another has replaced.
        let may = view.complete() || !view.old_names.contains(&now.wanted.key);
        let priority = now.wanted.job.as_ref().map_or(0, |job| job.priority);
        let copies = core::mem::take(&mut now.amend).into_iter().filter(|copy| may && copy.live());
        queue.extend(copies.map(|copy| (Reverse(priority), at, copy.report.key.index, copy)));
    }
    queue.sort_unstable_by_key(|(priority, at, index, _)| (*priority, *at, *index));

    for (_, at, index, copy) in queue {
        let wanted = jobs[at].wanted;
        let (key, version) = (copy.report.key, wanted.record.version);
        let spec = match wanted.spec(index) {
            Ok(spec) => spec,
            Err(why) => {
                plan.stuck.insert(key, Arc::new(Vec::from([Obstacle::everywhere(No::Job(why))])));
                continue;
            }
        };
        let more = growth(&copy.report.limit, &spec.limit);
        let band = copy.report.band;
        if places[copy.at].room.short_of(band, &more).is_some() {
            jobs[at].outdated.push(copy);
            continue;
        }
        if let Some(refusal) = copy.node.refusal(key, version, copy.report.restart_at, view.now_ms) {
            let obstacle = Obstacle::on(No::Refused(refusal.why.clone()), &copy.node.name);
            plan.stuck.insert(key, Arc::new(Vec::from([obstacle])));
            continue;
        }
        places[copy.at].room.take(band, &more);
        let generation = copy.report.generation;
        plan.amends.push(PlannedAmend { node: copy.id, key, generation, version, spec, more });
    }
}
