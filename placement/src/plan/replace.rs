//! Copies of an old version are stopped one at a time for each job, and restarts go the same way: nothing is disturbed
//! while another index of the job is on its way or not well, and nothing is stopped whose new version fits nowhere. What
//! fails again and again where it is moves, if there is room on another node.

use alloc::{format, sync::Arc, vec::Vec};

use super::{Plan, PlannedRestart, PlannedStop, copies::Copy, elsewhere, settle::JobNow};
use crate::{
    feasible::{Obstacles, Place},
    home::Home,
    intent::Wanted,
    obstacle::{No, Obstacle},
    view::View,
};

pub(super) fn replace(jobs: Vec<JobNow<'_>>, view: &View, places: &mut [Place<'_>], plan: &mut Plan) {
    for now in jobs {
        // PROTOCOL 11: a replacement is a new generation too.
        let may_start = view.complete() || !view.old_names.contains(&now.wanted.key);
        let mut unwell = now.unwell;
        for copy in now.outdated.iter().filter(|c| may_start && c.live()) {
            let (key, generation) = (copy.report.key, copy.report.generation);
            let stuck = match other(&unwell, key.index) {
                Some(index) if !unwell.contains(&key.index) => {
                    Err(Vec::from([Obstacle::on(No::Budget { index }, &copy.node.name)]))
                }
                _ => room_for_next(now.wanted, copy, Where::HereFirst, places, view.now_ms),
            };
            match stuck {
                Ok(()) => {
                    unwell.push(key.index);
                    let reason = match copy.node.draining {
                        true => format!("{} is being drained: it moves to another node", copy.node.name),
                        false => format!("version {} takes its place", now.wanted.record.version.number),
                    };
                    plan.stops.push(PlannedStop { node: copy.id, key, generation, reason });
                }
                Err(obstacles) => {
                    plan.stuck.insert(key, Arc::new(obstacles));
                }
            }
        }
        // It does not run well as it is, so that nothing is disturbed.
        for copy in now.failing.iter().filter(|c| may_start && c.live()) {
            let (key, generation) = (copy.report.key, copy.report.generation);
            match room_for_next(now.wanted, copy, Where::Elsewhere, places, view.now_ms) {
                Ok(()) => {
                    let reason = elsewhere::reason(copy);
                    plan.stops.push(PlannedStop { node: copy.id, key, generation, reason });
                }
                Err(obstacles) => {
                    plan.stuck.insert(key, Arc::new(obstacles));
                }
            }
        }
        for copy in now.restart.iter().filter(|c| c.live()) {
            let (key, generation) = (copy.report.key, copy.report.generation);
            if unwell.contains(&key.index) || unwell.is_empty() {
                unwell.push(key.index);
                let at = now.wanted.restart_at(key.index);
                plan.restarts.push(PlannedRestart { node: copy.id, key, generation, at });
            }
        }
    }
}

/// Another index that is not well.
fn other(unwell: &[u32], index: u32) -> Option<u32> {
    unwell.iter().copied().find(|i| *i != index)
}

/// Where a copy's successor may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Where the copy is, as if that had ended, or anywhere.
    HereFirst,
    /// Neither there nor where another of the job failed.
    Elsewhere,
}

/// Sets room aside for what takes a copy's place.
fn room_for_next(
    wanted: &Wanted,
    copy: &Copy<'_>,
    to: Where,
    places: &mut [Place<'_>],
    now_ms: u64,
) -> Result<(), Vec<Obstacle>> {
    let job_says = |text| Vec::from([Obstacle::everywhere(No::Job(text))]);
    wanted.spec(copy.report.key.index).map_err(job_says)?;
    let Ok(job) = &wanted.job else { return Ok(()) };
    let key = copy.report.key;
    let (task, restart_at) = (job.template(key.index), wanted.restart_at(key.index));

    let home = Home::of(places, &wanted.key, key.index, task);

    let held = places[copy.at].clone();
    places[copy.at].give(copy.report);
    let mut obstacles = Obstacles::default();
    if let Some(at) = home.at {
        obstacles.add(home.no(), Some(&places[at].node.name));
    }
    let others = (0..places.len()).filter(|at| *at != copy.at);
    let there = (to == Where::HereFirst).then_some(copy.at).into_iter().chain(others);
    for at in there.filter(|at| home.allows(*at)) {
        let place = &mut places[at];
        let failed = (to == Where::Elsewhere).then(|| elsewhere::failed_on(place.node, wanted)).flatten();
        let refused = place.node.refusal(key, wanted.record.version, restart_at, now_ms);
        let no = place
            .closed(job.band)
            .or_else(|| place.unmet(&job.require))
            .or_else(|| refused.map(|r| No::Refused(r.why.clone())))
            .or_else(|| failed.map(elsewhere::no));
        if no.is_none() && place.fits(job.band, task) {
            place.take(job.band, task);
            return Ok(());
        }
        let shortages = if no.is_none() { place.shortages(job.band, task) } else { Vec::new() };
        no.into_iter().chain(shortages).for_each(|no| obstacles.add(no, Some(&place.node.name)));
    }
    obstacles.sum_up(places, &job.require);
    places[copy.at] = held;
    Err(obstacles.list())
}
