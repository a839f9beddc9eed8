//! Where what is missing goes.

use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::cmp::Reverse;

use super::{Pending, Plan, PlannedOffer, copies::Copies, elsewhere::failed_on, settle::JobNow};
use crate::{
    feasible::{Obstacles, Place},
    home::Home,
    intent::Wanted,
    job::{Job, Template},
    obstacle::{No, Obstacle},
    score::{Spread, score},
    view::{Standing, View},
};

/// What holds for all tasks of a job while a plan is made.
struct Search<'a> {
    job: &'a Job,
    /// Places that are open and meet the job's constraints.
    open: Vec<usize>,
    /// Why the others are not.
    closed: Vec<(No, usize)>,
    spread: Spread,
    /// Of all places: a task of the job failed there again and again. They come last.
    failed: Vec<bool>,
    /// Templates that fit nowhere. Room only shrinks as a plan goes, so they stay so.
    hopeless: Vec<(*const Template, Arc<Vec<Obstacle>>)>,
}

/// Offers a place to each missing task, or says why there is none: by priority, in one priority in turn over owners
/// (so that a large job of one does not keep the others waiting), then by job and index.
pub(super) fn choose<'a>(
    mut jobs: Vec<JobNow<'a>>,
    view: &View,
    copies: &Copies<'a>,
    places: &mut [Place<'_>],
    plan: &mut Plan,
) -> Vec<JobNow<'a>> {
    let mut searches: BTreeMap<usize, Search<'a>> = BTreeMap::new();
    for (at, index) in queue(&jobs) {
        let wanted = jobs[at].wanted;
        let Ok(job) = &wanted.job else { continue };
        let key = wanted.task(index);
        if view.old_names.contains(&wanted.key) && !view.complete() {
            plan.pending.insert(
                key,
                Pending { unknown: true, obstacles: Arc::new(Vec::from([unheard(view, No::MayRun)])) },
            );
            continue;
        }
        if view.gathering {
            let obstacles = Arc::new(Vec::from([unheard(view, No::NotReported)]));
            plan.pending.insert(key, Pending { unknown: false, obstacles });
            continue;
        }
        let spec = match wanted.spec(index) {
            Ok(spec) => spec,
            Err(why) => {
                let obstacles = Arc::new(Vec::from([Obstacle::everywhere(No::Job(why))]));
                plan.pending.insert(key, Pending { unknown: false, obstacles });
                continue;
            }
        };
        let search = searches.entry(at).or_insert_with(|| Search::new(job, places, copies, wanted));
        let home = Home::of(places, &wanted.key, index, job.template(index));
        match search.place(wanted, index, &spec.digest, view.now_ms, places, &home) {
            Ok(place) => {
                places[place].take(job.band, job.template(index));
                search.spread.add(place);
                jobs[at].unwell.push(index);
                plan.offers.push(PlannedOffer {
                    node: places[place].id,
                    key,
                    version: wanted.record.version,
                    spec,
                    remark: home.lost,
                });
            }
            Err(obstacles) => {
                plan.pending.insert(key, Pending { unknown: false, obstacles });
            }
        }
    }
    jobs
}

/// Missing tasks in the order in which they choose: (position of the job, index).
fn queue(jobs: &[JobNow<'_>]) -> Vec<(usize, u32)> {
    let mut rounds: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut queue = Vec::new();
    for (at, now) in jobs.iter().enumerate() {
        let Ok(job) = &now.wanted.job else { continue };
        for index in &now.missing {
            let round = rounds.entry((job.priority, &now.wanted.key.owner)).or_insert(0);
            queue.push((Reverse(job.priority), *round, at, *index));
            *round += 1;
        }
    }
    queue.sort_unstable();
    queue.into_iter().map(|(_, _, at, index)| (at, index)).collect()
}

fn unheard(view: &View, no: No) -> Obstacle {
    let silent = view.nodes.values().filter(|n| n.standing == Standing::Unheard);
    Obstacle { no, nodes: silent.map(|n| n.name.clone()).collect::<Vec<String>>() }
}

impl<'a> Search<'a> {
    fn new(job: &'a Job, places: &[Place<'_>], copies: &Copies<'_>, wanted: &Wanted) -> Self {
        let name = &wanted.key;
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for (at, place) in places.iter().enumerate() {
            match place.closed(job.band).or_else(|| place.unmet(&job.require)) {
                None => open.push(at),
                Some(no) => closed.push((no, at)),
            }
        }
        let mut spread = Spread::new(job, places);
        for here in copies.range((name, 0)..=(name, u32::MAX)).flat_map(|(_, keys)| keys.values()) {
            here.copies.iter().filter(|c| !c.ended()).for_each(|c| spread.add(c.at));
            here.offers.iter().for_each(|o| spread.add(o.at));
        }
        let failed = places.iter().map(|p| failed_on(p.node, wanted).is_some()).collect();
        Search { job, open, closed, spread, failed, hopeless: Vec::new() }
    }

    /// The best place, or every obstacle.
    fn place(
        &mut self,
        wanted: &Wanted,
        index: u32,
        digest: &str,
        now_ms: u64,
        places: &[Place<'_>],
        home: &Home,
    ) -> Result<usize, Arc<Vec<Obstacle>>> {
        let (key, task) = (wanted.task(index), self.job.template(index));
        let (version, restart_at) = (wanted.record.version, wanted.restart_at(index));
        if let Some((_, obstacles)) =
            self.hopeless.iter().find(|(hopeless, _)| core::ptr::eq(*hopeless, task))
            && home.at.is_none()
        {
            return Err(obstacles.clone());
        }
        let refused = |at: usize| places[at].node.refusal(key, version, restart_at, now_ms);
        let band = self.job.band;
        let fits = |at: &usize| home.allows(*at) && places[*at].fits(band, task) && refused(*at).is_none();
        let fitting = self.open.iter().copied().filter(fits);
        let best = fitting
            .max_by_key(|at| (!self.failed[*at], score(places, *at, self.job, task, digest, &self.spread)));
        if let Some(best) = best {
            return Ok(best);
        }
        let mut obstacles = Obstacles::default();
        let mut own = home.at.is_some();
        if let Some(at) = home.at {
            obstacles.add(home.no(), Some(&places[at].node.name));
        }
        for at in self.open.iter().filter(|at| home.allows(**at)) {
            let name = Some(places[*at].node.name.as_str());
            places[*at].shortages(band, task).into_iter().for_each(|no| obstacles.add(no, name));
            if let Some(refusal) = refused(*at) {
                own = true;
                obstacles.add(No::Refused(refusal.why.clone()), name);
            }
        }
        for (no, at) in self.closed.iter().filter(|(_, at)| home.allows(*at)) {
            obstacles.add(no.clone(), Some(&places[*at].node.name));
        }
        obstacles.sum_up(places, &self.job.require);
        if places.is_empty() {
            obstacles.add(No::NoNode, None);
        }
        let obstacles = Arc::new(obstacles.list());
        if !own {
            self.hopeless.push((task, obstacles.clone()));
        }
        Err(obstacles)
    }
}
