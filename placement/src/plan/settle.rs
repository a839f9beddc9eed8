//! What becomes of the copies there are, and which indexes lack one.

use alloc::{collections::BTreeMap, format, string::ToString, sync::Arc, vec::Vec};

use super::{
    Pending, Plan, PlannedStop, Told,
    copies::{Copies, Copy, Here, Offered},
    elsewhere,
};
use crate::{
    change::Change,
    ids::{Generation, TaskKey},
    intent::{Intent, Verdict, Wanted},
    job::{Kind, Template},
    ledger::Completion,
    obstacle::{No, Obstacle},
    task::{Cause, Exit, State},
    view::{OpenAmend, Standing, View},
};

/// One job's indexes, sorted by what they need next.
pub(super) struct JobNow<'a> {
    pub(super) wanted: &'a Wanted,
    /// On no node.
    pub(super) missing: Vec<u32>,
    /// On their way, or not well: while there is one, no other index of the job is disturbed.
    pub(super) unwell: Vec<u32>,
    /// Run an old version, and can be given what is new.
    pub(super) amend: Vec<Copy<'a>>,
    /// Run an old version that has to be replaced.
    pub(super) outdated: Vec<Copy<'a>>,
    /// Are to be restarted in place.
    pub(super) restart: Vec<Copy<'a>>,
    /// Failed again and again where they are.
    pub(super) failing: Vec<Copy<'a>>,
}

pub(super) fn settle<'a>(
    intent: &'a Intent,
    view: &View,
    copies: &Copies<'a>,
    plan: &mut Plan,
) -> Vec<JobNow<'a>> {
    for here in copies.values() {
        for (key, here) in here {
            match intent.verdict(*key) {
                Verdict::Wanted | Verdict::Held(_) => {}
                Verdict::Unwanted(why) => end(*key, here, why, plan),
                Verdict::Finished => end(*key, here, "its end is recorded", plan),
            }
        }
    }
    intent.jobs.values().map(|wanted| job(wanted, view, copies, plan)).collect()
}

/// Stops what runs or is on offer, and forgets what ended: for a success the only way (PROTOCOL 25).
fn end(key: TaskKey, here: &Here<'_>, why: &str, plan: &mut Plan) {
    for copy in &here.copies {
        if copy.ended() { forget(copy, plan) } else { stop(copy, why, plan) }
    }
    here.offers.iter().for_each(|offer| withdraw(key, offer, why, plan));
}

fn stop(copy: &Copy<'_>, why: &str, plan: &mut Plan) {
    if copy.live() && !copy.ending() {
        let (node, key, generation) = (copy.id, copy.report.key, copy.report.generation);
        plan.stops.push(PlannedStop { node, key, generation, reason: why.to_string() });
    }
}

fn withdraw(key: TaskKey, offered: &Offered<'_>, why: &str, plan: &mut Plan) {
    let (node, generation) = (offered.id, offered.offer.generation);
    if offered.node.standing == Standing::Live && !offered.node.stopping(key, generation) {
        plan.stops.push(PlannedStop { node, key, generation, reason: why.to_string() });
    }
}

fn forget(copy: &Copy<'_>, plan: &mut Plan) {
    if copy.live() && !copy.node.forgotten.contains(&copy.report.key) {
        plan.forgets.push((copy.id, copy.report.key));
    }
}

fn job<'a>(wanted: &'a Wanted, view: &View, copies: &Copies<'a>, plan: &mut Plan) -> JobNow<'a> {
    let mut now = JobNow {
        wanted,
        missing: Vec::new(),
        unwell: Vec::new(),
        amend: Vec::new(),
        outdated: Vec::new(),
        restart: Vec::new(),
        failing: Vec::new(),
    };
    if let (Err(text), false) = (&wanted.job, wanted.record.stopped) {
        let text = format!("its document cannot be read: {text}");
        plan.pending.insert(wanted.task(0), waits(Obstacle::everywhere(No::Job(text))));
    }
    let none = BTreeMap::new();
    for index in wanted.indexes() {
        let key = wanted.task(index);
        let of_name = copies.get(&(&wanted.key, index)).unwrap_or(&none);
        if let Some(here) = of_name.get(&key) {
            let waits = settle_index(&mut now, key, here, view, plan);
            plan.pending.extend(waits.map(|p| (key, p)));
        } else if !of_name.is_empty() {
            // PROTOCOL 2.
            let nodes = of_name
                .values()
                .flat_map(|h| h.copies.iter().map(|c| c.node).chain(h.offers.iter().map(|o| o.node)));
            let nodes = nodes.map(|n| n.name.clone()).collect();
            plan.pending.insert(key, waits(Obstacle { no: No::OlderJob, nodes }));
        } else if view.completing.contains(&key) {
            // Its record may be gone already (it was of no interest for a while): what is proposed may be applied yet.
            plan.pending.insert(key, waits(Obstacle::everywhere(No::Recording)));
        } else {
            now.missing.push(index);
        }
    }
    now
}

fn waits(obstacle: Obstacle) -> Pending {
    Pending { unknown: false, obstacles: Arc::new(Vec::from([obstacle])) }
}

/// A wanted index of which there is something. Returns why it waits, if it does.
fn settle_index<'a>(
    now: &mut JobNow<'a>,
    key: TaskKey,
    here: &Here<'a>,
    view: &View,
    plan: &mut Plan,
) -> Option<Pending> {
    let batch = now.wanted.job.as_ref().is_ok_and(|job| job.kind == Kind::Batch);
    if batch && let Some(success) = here.copies.iter().find(|c| c.report.state == State::Succeeded) {
        // Success is final (PROTOCOL 24); nothing else of this key may be left when it is committed (26).
        end_others(key, here, None, "it has succeeded", plan);
        complete(key, here, success, true, view, plan);
        return None;
    }
    let newest_copy = here.copies.iter().max_by_key(|c| c.report.generation);
    let newest_offer = here.offers.iter().max_by_key(|o| o.offer.generation);
    let newest = newest_copy.map(|c| c.report.generation).max(newest_offer.map(|o| o.offer.generation))?;
    end_others(key, here, Some(newest), &format!("generation {newest} has taken its place"), plan);

    let copy = match newest_copy {
        Some(copy) if copy.report.generation == newest => copy,
        _ => {
            now.unwell.push(key.index);
            let offer = here.offers.iter().find(|o| o.offer.generation == newest)?;
            return Some(waits(Obstacle::on(No::Offered, &offer.node.name)));
        }
    };
    let change = now.wanted.change(copy.report.version, key.index);
    let wanted_version = now.wanted.record.version;
    let rigid = copy.node.rigid.get(&key).is_some_and(|version| *version >= wanted_version);
    let outdated = change == Change::Restart || (change == Change::Live && rigid);
    // Whether a copy of another version is checked is not known here.
    let checked = !outdated && now.wanted.template(key.index).is_some_and(Template::is_checked);
    if copy.ended() {
        let failed_for_good = batch
            && copy.report.state == State::Failed
            && copy.report.exit.as_ref().is_none_or(|e| e.cause != Cause::Stopped)
            && copy.report.restart_at >= now.wanted.restart_at(key.index)
            // With other limits it may succeed.
            && change < Change::Live;
        if failed_for_good {
            complete(key, here, copy, false, view, plan);
            return None;
        }
        forget(copy, plan);
    }
    if copy.ended() || copy.ending() {
        now.unwell.push(key.index);
        return Some(waits(Obstacle::on(No::Ending { generation: newest }, &copy.node.name)));
    }
    let only = here.copies.iter().filter(|c| !c.ended()).count() + here.offers.len() == 1;
    if batch && only && copy.live() && view.complete() && copy.node.kept.get(&key) != Some(&newest) {
        // PROTOCOL 23: for the only copy. That it is the only one is not known before everybody has reported.
        plan.keeps.push(Told { node: copy.id, key, generation: newest });
    }
    let wish = now.wanted.restart_at(key.index);
    let restarting =
        copy.report.restart_at < wish && copy.node.restarted.get(&key).is_some_and(|at| *at >= wish);
    if !copy.well(checked) || restarting {
        now.unwell.push(key.index);
    }
    if outdated || copy.node.draining {
        now.outdated.push(*copy);
        return None;
    }
    let told = |a: &OpenAmend| a.generation == newest && a.version >= wanted_version;
    let amend = change != Change::None && !rigid;
    if amend && !copy.node.amended.get(&key).is_some_and(told) {
        now.amend.push(*copy);
    }
    if copy.report.restart_at < wish && !restarting {
        now.restart.push(*copy);
    } else if !amend && !copy.well(checked) && elsewhere::asks(copy) {
        now.failing.push(*copy);
    }
    None
}

/// Everything of the key but the generation that stays.
fn end_others(key: TaskKey, here: &Here<'_>, stays: Option<Generation>, why: &str, plan: &mut Plan) {
    for copy in here.copies.iter().filter(|c| Some(c.report.generation) != stays) {
        match copy.report.state {
            // Whoever else succeeded stays until the commit.
            State::Succeeded if stays.is_none() => {}
            state if state.is_final() => forget(copy, plan),
            _ => stop(copy, why, plan),
        }
    }
    for offer in here.offers.iter().filter(|o| Some(o.offer.generation) != stays) {
        withdraw(key, offer, why, plan);
    }
}

/// PROTOCOL 26: commit when every member has reported or is gone, and nothing else of the key is left.
fn complete(key: TaskKey, here: &Here<'_>, copy: &Copy<'_>, success: bool, view: &View, plan: &mut Plan) {
    let alone = here.offers.is_empty() && here.copies.iter().all(|c| c.ended());
    if alone && view.complete() && !view.completing.contains(&key) {
        let exit =
            copy.report.exit.clone().unwrap_or(Exit { code: None, signal: None, cause: Cause::Exited });
        let restart_at = copy.report.restart_at;
        plan.complete.push(Completion { uid: key.uid, index: key.index, exit, success, restart_at });
    }
}
