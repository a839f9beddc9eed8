//! Sessions (PROTOCOL 14): what a node says, in order, and what a break means.

use gossip::wire::{Delta, FromAgent, News, NotAmended, RefusedOffer, SessionId};
use placement::{
    ids::{Generation, NodeId, TaskKey, Version},
    job::Kind,
    task::{Report, State},
    view::{NodeView, OpenAmend, Refusal, Standing},
};

use super::{Active, Effect, PlaceAction, lessons};
use crate::event::Now;

/// First wait after a refusal; doubles up to the longest.
const REFUSED_MS: u64 = 1_000;
const REFUSED_MOST_MS: u64 = 15_000;

impl Active {
    pub(super) fn opened(
        &mut self,
        id: NodeId,
        session: SessionId,
        now: Now,
        actions: &mut Vec<PlaceAction>,
    ) -> Effect {
        let Some(link) = self.links.get_mut(&id) else {
            // Not in the roster: it has no part in this cell.
            actions.push(PlaceAction::CloseSession { node: id, session });
            return Effect::Nothing;
        };
        let before = link.session.replace(session);
        (link.next, link.heard_ms) = (0, now.mono_ms);
        link.told.clear();
        if let Some(before) = before.filter(|before| *before != session) {
            actions.push(PlaceAction::CloseSession { node: id, session: before });
        }
        self.part(id);
        Effect::Shown
    }

    pub(super) fn closed(&mut self, id: NodeId, session: SessionId, now: Now) -> Effect {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.session == Some(session)) else {
            return Effect::Nothing;
        };
        link.session = None;
        link.heard_ms = now.mono_ms;
        self.part(id);
        Effect::Replan
    }

    /// What it last reported counts on, until it reports anew or is gone.
    fn part(&mut self, id: NodeId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.offered_ms = None;
        }
        if let Some(node) = self.view.nodes.get_mut(&id).filter(|n| n.standing == Standing::Live) {
            node.standing = Standing::Away;
        }
    }

    pub(super) fn news(
        &mut self,
        id: NodeId,
        from: FromAgent,
        now: Now,
        actions: &mut Vec<PlaceAction>,
    ) -> Effect {
        let (Some(link), Some(node)) = (self.links.get_mut(&id), self.view.nodes.get_mut(&id)) else {
            return Effect::Nothing;
        };
        if link.session != Some(from.session) {
            // Another session's: ignored, and whatever still carries it is closed.
            actions.push(PlaceAction::CloseSession { node: id, session: from.session });
            return Effect::Nothing;
        }
        if from.number < link.next {
            return Effect::Nothing;
        }
        let in_order =
            from.number == link.next && (from.number == 0) == matches!(from.news, News::Full { .. });
        if !in_order {
            actions.push(PlaceAction::CloseSession { node: id, session: from.session });
            return self.closed(id, from.session, now);
        }
        link.next += 1;
        link.heard_ms = now.mono_ms;
        for lesson in &from.lessons {
            lessons::learn(&mut self.lessons, &mut link.told, &self.intent, lesson, now);
        }

        let effect = match from.news {
            News::Full { node: info, books, usage, tasks } => {
                node.info = Some(info);
                (node.books, node.usage) = (books, usage);
                full(node, tasks, now);
                self.said_stops.retain(|(told, _)| *told != id);
                Effect::Replan
            }
            News::Delta(change) => delta(node, change, now),
            News::Accepted { key, generation, delta: change } => {
                if node.offers.get(&key).is_some_and(|o| o.generation <= generation) {
                    node.offers.remove(&key);
                }
                // Accepting in this session is as good as a keep.
                node.kept.insert(key, generation);
                delta(node, change, now);
                Effect::Replan
            }
            News::Refused { key, generation, refused, delta: change } => {
                if let RefusedOffer::Stale { seen } = &refused
                    && seen.placer() == self.activation
                {
                    self.seq = self.seq.max(seen.seq + 1);
                }
                refuse(node, key, generation, &refused, now);
                delta(node, change, now);
                Effect::Replan
            }
            News::NotAmended { key, generation, version, why, delta: change } => {
                delta(node, change, now);
                not_amended(node, key, (generation, version), why, now);
                Effect::Replan
            }
        };
        if node.offers.is_empty() {
            link.offered_ms = None;
        }
        if effect == Effect::Replan {
            for report in node.tasks.values() {
                let news = |(at, last): &(NodeId, Report)| {
                    last.generation <= report.generation && (*at != id || last != report)
                };
                if self.last.get(&report.key).is_none_or(news) {
                    self.last.insert(report.key, (id, report.clone()));
                }
            }
        }
        self.teach(id, now, actions);
        effect
    }
}

/// The first report of a session: all there is, so it shows what became of every offer (PROTOCOL 15).
fn full(node: &mut NodeView, tasks: Vec<Report>, now: Now) {
    node.standing = Standing::Live;
    node.offers.clear();
    node.kept.clear();
    node.forgotten.clear();
    node.restarted.clear();
    node.amended.clear();
    node.rigid.clear();
    node.tasks.clear();
    tasks.into_iter().for_each(|report| put(node, report, now));
    let tasks = &node.tasks;
    node.stops.retain(|key, stop| tasks.get(key).is_some_and(|t| holds(t, *stop)));
}

/// What changed. Returns whether it matters to placement.
fn delta(node: &mut NodeView, delta: Delta, now: Now) -> Effect {
    let mut effect = Effect::Shown;
    if let Some(info) = delta.node {
        node.info = Some(info);
        effect = Effect::Replan;
    }
    if node.books != delta.books {
        node.books = delta.books;
        effect = Effect::Replan;
    }
    node.usage = delta.usage;
    if !delta.gone.is_empty() {
        effect = Effect::Replan;
        // Whatever it was short of, there is more now.
        node.refusals.values_mut().filter(|r| r.for_room).for_each(|r| r.until_ms = 0);
    }
    for key in delta.gone {
        node.tasks.remove(&key);
        node.forgotten.remove(&key);
        node.kept.remove(&key);
        node.restarted.remove(&key);
        node.amended.remove(&key);
        node.rigid.remove(&key);
        // An offer that is still open comes after what is gone now, and so may its stop.
        let offered = node.offers.get(&key).map(|o| o.generation);
        let withdrawn = |stop: &Generation| offered.is_some_and(|o| o <= *stop);
        if !node.stops.get(&key).is_some_and(withdrawn) {
            node.stops.remove(&key);
        }
    }
    for report in delta.tasks {
        if node.tasks.get(&report.key).is_none_or(|before| differs(before, &report)) {
            effect = Effect::Replan;
        }
        put(node, report, now);
    }
    effect
}

fn put(node: &mut NodeView, report: Report, now: Now) {
    let key = report.key;
    if node.offers.get(&key).is_some_and(|o| o.generation <= report.generation) {
        node.offers.remove(&key);
    }
    if node.stops.get(&key).is_some_and(|stop| !holds(&report, *stop) && !node.offers.contains_key(&key)) {
        node.stops.remove(&key);
    }
    let answered = |amend: &OpenAmend| {
        amend.generation != report.generation || amend.version <= report.version || report.state.is_final()
    };
    if node.amended.get(&key).is_some_and(answered) {
        node.amended.remove(&key);
    }
    if node.tasks.get(&key).is_some_and(|before| before.generation != report.generation) {
        node.rigid.remove(&key);
    }
    let before = node.tasks.get(&key).filter(|b| b.generation == report.generation).map(|b| b.state);
    match report.state {
        State::Failed if report.kind == Kind::Service && before != Some(State::Failed) => {
            let why = report.reason.clone().unwrap_or_else(|| "the task failed there".to_string());
            remember(node, key, why, (report.version, report.restart_at), false, now);
        }
        State::Running => {
            node.refusals.remove(&key);
        }
        _ => {}
    }
    node.tasks.insert(key, report);
}

/// Whether a stop of that generation still has something to end (PROTOCOL 16).
fn holds(report: &Report, stop: Generation) -> bool {
    report.generation <= stop && !report.state.is_final()
}

/// Figures change all the time, and decide nothing.
fn differs(before: &Report, after: &Report) -> bool {
    let bare = |r: &Report| {
        let mut r = r.clone();
        (r.usage, r.reservation, r.strain) = Default::default();
        r
    };
    bare(before) != bare(after)
}

fn refuse(node: &mut NodeView, key: TaskKey, generation: Generation, refused: &RefusedOffer, now: Now) {
    let Some(offer) = node.offers.remove(&key) else { return };
    if offer.generation != generation {
        node.offers.insert(key, offer);
        return;
    }
    if node.stopping(key, generation) {
        // It was withdrawn: no news.
        if !node.tasks.get(&key).is_some_and(|t| node.stops.get(&key).is_some_and(|s| holds(t, *s))) {
            node.stops.remove(&key);
        }
        return;
    }
    let for_room = matches!(
        refused,
        RefusedOffer::Short { .. } | RefusedOffer::NoPort { .. } | RefusedOffer::Busy { .. }
    );
    remember(node, key, sentence(refused), (offer.version, offer.restart_at), for_room, now);
}

fn not_amended(
    node: &mut NodeView,
    key: TaskKey,
    (generation, version): (Generation, Version),
    why: NotAmended,
    now: Now,
) {
    if node.amended.get(&key).is_none_or(|a| (a.generation, a.version) != (generation, version)) {
        return;
    }
    node.amended.remove(&key);
    let restart_at = node.tasks.get(&key).map_or(0, |copy| copy.restart_at);
    let (why, for_room) = match why {
        NotAmended::Rigid { .. } => {
            node.rigid.insert(key, version);
            return;
        }
        NotAmended::Short { resource, wanted, free } => (
            format!("it cannot be changed: {}", placement::obstacle::shortage(&resource, wanted, free)),
            true,
        ),
        NotAmended::Store { why } => (format!("the change could not be written down: {why}"), false),
    };
    remember(node, key, why, (version, restart_at), for_room, now);
}

fn remember(
    node: &mut NodeView,
    key: TaskKey,
    why: String,
    (version, restart_at): (Version, u64),
    for_room: bool,
    now: Now,
) {
    let before = node.refusals.get(&key).filter(|r| r.version == version && r.restart_at == restart_at);
    let times = before.map_or(0, |r| r.times) + 1;
    let wait = (REFUSED_MS << times.saturating_sub(1).min(8)).min(REFUSED_MOST_MS);
    let until_ms = now.mono_ms + wait;
    node.refusals.insert(key, Refusal { why, version, restart_at, until_ms, times, for_room });
}

fn sentence(refused: &RefusedOffer) -> String {
    match refused {
        RefusedOffer::Short { resource, wanted, free } => {
            format!("it refused the task: {}", placement::obstacle::shortage(resource, *wanted, *free))
        }
        RefusedOffer::NoPort { free } => format!("it refused the task: {free} ports are free"),
        RefusedOffer::Stale { seen } => format!("it refused the task: it has seen generation {seen} already"),
        RefusedOffer::Busy { generation } => {
            format!("it refused the task: generation {generation} is still there")
        }
        RefusedOffer::Succeeded { .. } => "it refused the task: it has succeeded there".to_string(),
        RefusedOffer::Store { why } => format!("it could not write the task down: {why}"),
    }
}
