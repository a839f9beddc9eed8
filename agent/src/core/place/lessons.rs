//! What nodes have learned of jobs' needs, merged, and handed to the node that gets the next task and to those that run some.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gossip::wire::{Order, ToAgent, lesson::JobLesson};
use placement::{
    ids::{JobKey, NodeId},
    intent::Intent,
};

use super::{Active, PlaceAction};
use crate::{
    estimate::{
        Lessons,
        told::{self, Told, Which},
    },
    event::Now,
};

/// Old peaks fade over this: eight days, as on nodes that predict a day ahead.
const MEMORY_MS: f64 = 8.0 * 86_400_000.0;
/// Lessons may be older than this machine runs.
const BEFORE_MS: u64 = 30 * 86_400_000;
/// A node is told of its jobs so often at most, and of so many at once.
const TEACHES_MS: u64 = 60_000;
const MOST: usize = 300;

fn at_ms(now: Now) -> u64 {
    now.mono_ms + BEFORE_MS
}

/// A node's lesson of a job that the ledger knows.
pub(super) fn learn(
    lessons: &mut Lessons,
    told: &mut BTreeMap<Arc<str>, Told>,
    intent: &Intent,
    lesson: &JobLesson,
    now: Now,
) {
    if intent.jobs.contains_key(&lesson.job) {
        let heard = told::hear(lesson, at_ms(now));
        told.extend(heard.entries().map(|(name, lesson)| (name.clone(), Told::of_job(lesson))));
        lessons.merge(&heard, MEMORY_MS);
    }
}

impl Active {
    /// What is known of an index: of its own runs, and of its siblings'.
    pub(super) fn lesson(&self, job: &JobKey, index: u32, now: Now) -> Option<JobLesson> {
        let lesson = self.lessons.job(&job.to_string())?;
        Some(told::tell(job.clone(), lesson, Which::One(index), at_ms(now)))
    }

    /// What a node has not heard of the jobs that run there, and others have learned: how high a sibling has gone is to be
    /// expected of each. With a beat, since it is no order.
    pub(super) fn teach(&mut self, id: NodeId, now: Now, actions: &mut Vec<PlaceAction>) {
        let (Some(link), Some(node)) = (self.links.get_mut(&id), self.view.nodes.get(&id)) else { return };
        let Some(session) = link.session.filter(|_| now.mono_ms >= link.teaches_ms) else { return };
        link.teaches_ms = now.mono_ms + TEACHES_MS;
        let jobs: BTreeSet<&JobKey> = node.tasks.values().map(|report| &report.job).collect();
        let known = jobs.into_iter().filter_map(|job| Some((job, self.lessons.entry(&job.to_string())?)));
        let mut before = std::mem::take(&mut link.told);
        let mut lessons = Vec::new();
        for (job, (name, lesson)) in known {
            let (told, newest) = (before.remove(&name), Told::of_job(lesson));
            let is_news = told.as_ref().is_none_or(|told| told.differs(&newest));
            if is_news && lessons.len() < MOST {
                lessons.push(told::tell(job.clone(), lesson, Which::None, at_ms(now)));
                link.told.insert(name, newest);
            } else if let Some(told) = told {
                link.told.insert(name, told);
            }
        }
        if !lessons.is_empty() {
            let order = ToAgent { lessons, ..ToAgent::new(session, Order::Beat) };
            actions.push(PlaceAction::Send { node: id, order });
        }
    }

    /// Of jobs that are no more.
    pub(super) fn forget_lessons(&mut self) {
        let jobs = &self.intent.jobs;
        self.lessons.keep(|name| told::job(name).is_some_and(|job| jobs.contains_key(&job)));
    }
}
