//! The placer's core: what people want minus what nodes report, as orders to nodes and entries for the ledger.
//!
//! PROTOCOL has the rules. What a session holds is in `session`, carrying out a plan in `tell`, what time
//! alone changes in `silence`, what people read in `rows`, `jobs` and `settled`, what they read without a placer in
//! `gathered`. Rules 5 and 6 are in `reign`, beside the
//! core: by it the shell feeds `Activated` and `Deposed`, and outside of these two it tells the core nothing. `company`
//! says who is in the roster and alive.

pub mod company;
mod gathered;
mod jobs;
mod lessons;
pub mod reign;
mod rows;
mod session;
mod settled;
mod silence;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gossip::wire::{FromAgent, SessionId, ToAgent};
use placement::{
    ids::{Activation, NodeId, TaskKey},
    intent::{Intent, Verdict},
    ledger::{Command, Completion, Ledger},
    plan::Plan,
    task::Report,
    view::{NodeView, Standing, View},
};

pub use gathered::own;
pub use jobs::JobRow;
pub use rows::{NodeRow, TaskRow};
pub use settled::Settled;

use crate::{
    estimate::{Lessons, told::Told},
    event::Now,
};

/// All that can happen to the placer.
#[derive(Debug, Clone, PartialEq)]
pub enum PlaceEvent {
    /// This node's activation entry is applied (PROTOCOL 5).
    Activated {
        activation: Activation,
        ledger: Arc<Ledger>,
    },
    /// The ledger after an entry.
    Ledger(Arc<Ledger>),
    /// The node answered the shell's `Hello`.
    SessionOpened {
        node: NodeId,
        session: SessionId,
    },
    News {
        node: NodeId,
        from: Box<FromAgent>,
    },
    SessionClosed {
        node: NodeId,
        session: SessionId,
    },
    /// Membership sees the node.
    MemberAlive(NodeId),
    /// Membership has declared it dead.
    MemberGone(NodeId),
    /// Another placer acts, or no quorum is behind this one.
    Deposed,
    /// The time last asked for by `WakeAt` has come.
    Woke,
}

/// All that the placer can want.
#[derive(Debug, Clone, PartialEq)]
pub enum PlaceAction {
    /// On the node's session, in order.
    Send { node: NodeId, order: ToAgent },
    /// Close it; a new one, with a full report, tells what happened.
    CloseSession { node: NodeId, session: SessionId },
    /// An entry for the ledger. If it fails, nothing needs to be done: it is proposed again.
    Propose(Command),
    /// What people read may have changed.
    Changed,
    /// Ask for `Woke` at this monotonic time; replaces the last one.
    WakeAt { mono_ms: u64 },
}

/// Times, in milliseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceConfig {
    /// A dead member is gone so long after the verdict, and after its last traffic (W of PROTOCOL 13).
    pub lost_after_ms: u64,
    /// A member that is not dead but has not reported for so long is gone for placement (PROTOCOL 12).
    pub silent_after_ms: u64,
    /// A new placer waits so long at most for members that are alive to report before it places what it could: else
    /// whoever reports first gets everything.
    pub patience_ms: u64,
}

impl Default for PlaceConfig {
    fn default() -> Self {
        PlaceConfig { lost_after_ms: 1_000, silent_after_ms: 10_000, patience_ms: 200 }
    }
}

#[derive(Debug, Default)]
pub struct PlaceCore {
    config: PlaceConfig,
    active: Option<Active>,
}

/// One activation: forgotten as a whole when it ends.
#[derive(Debug)]
struct Active {
    config: PlaceConfig,
    activation: Activation,
    /// When it was activated.
    since_ms: u64,
    ledger: Arc<Ledger>,
    intent: Intent,
    view: View,
    plan: Plan,
    /// Of the next generation (PROTOCOL 3).
    seq: u64,
    links: BTreeMap<NodeId, Link>,
    /// The last that was heard of each wanted or finished task, and where.
    last: BTreeMap<TaskKey, (NodeId, Report)>,
    /// What nodes have learned of jobs' needs: soft, as all of the above.
    lessons: Lessons,
    /// Proposed, and not seen applied.
    completing: BTreeMap<TaskKey, Completing>,
    /// Stops that were said in the open session (PROTOCOL 16: said again in the next).
    said_stops: BTreeSet<(NodeId, TaskKey)>,
    wake: Option<u64>,
}

/// A completion on its way through the ledger. Whether a proposal came to nothing cannot be known, so it is held, and
/// proposed again, until the ledger shows it or something newer.
#[derive(Debug)]
struct Completing {
    done: Completion,
    /// When to propose it again.
    again_ms: u64,
}

/// The connection to one member.
#[derive(Debug, Default)]
struct Link {
    session: Option<SessionId>,
    /// Number of the next news; 0 before the full report.
    next: u64,
    /// When it last said anything; at first, when the activation began (PROTOCOL 13).
    heard_ms: u64,
    /// Since when membership says that it is dead.
    dead_ms: Option<u64>,
    /// Since when its oldest offer has had no answer.
    offered_ms: Option<u64>,
    /// What this session has heard or told of jobs' lessons, and when to look again for what it has not.
    told: BTreeMap<Arc<str>, Told>,
    teaches_ms: u64,
}

/// What an event calls for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Nothing,
    /// Only figures changed.
    Shown,
    Replan,
}

impl PlaceCore {
    pub fn new(config: PlaceConfig) -> PlaceCore {
        PlaceCore { config, active: None }
    }

    /// The activation under which it acts, if it does.
    pub fn activation(&self) -> Option<Activation> {
        self.active.as_ref().map(|a| a.activation)
    }

    /// What the placer has seen; None when it does not act.
    pub fn view(&self) -> Option<(&Intent, &View)> {
        self.active.as_ref().map(|a| (&a.intent, &a.view))
    }

    /// The newest plan: for what waits, why.
    pub fn plan(&self) -> Option<&Plan> {
        self.active.as_ref().map(|a| &a.plan)
    }

    pub fn handle(&mut self, now: Now, event: PlaceEvent) -> Vec<PlaceAction> {
        let mut actions = Vec::new();
        let effect = match event {
            PlaceEvent::Activated { activation, ledger } => {
                self.active = Some(Active::new(self.config, activation, ledger, now));
                Effect::Replan
            }
            PlaceEvent::Deposed => {
                self.active = None;
                actions.push(PlaceAction::Changed);
                return actions;
            }
            other => match &mut self.active {
                Some(active) => active.apply(now, other, &mut actions),
                None => return actions,
            },
        };
        if let Some(active) = &mut self.active {
            active.view.now_ms = now.mono_ms;
            let effect = if active.expire(now, &mut actions) { Effect::Replan } else { effect };
            if effect == Effect::Replan {
                active.replan(now, &mut actions);
            }
            if effect != Effect::Nothing {
                actions.push(PlaceAction::Changed);
            }
            active.ask_to_wake(now, &mut actions);
        }
        actions
    }
}

impl Active {
    fn new(config: PlaceConfig, activation: Activation, ledger: Arc<Ledger>, now: Now) -> Active {
        let view = View { old_names: ledger.jobs.keys().cloned().collect(), ..View::default() };
        let mut active = Active {
            config,
            activation,
            since_ms: now.mono_ms,
            intent: Intent::default(),
            view,
            plan: Plan::default(),
            seq: 0,
            links: BTreeMap::new(),
            last: BTreeMap::new(),
            lessons: Lessons::default(),
            completing: BTreeMap::new(),
            said_stops: BTreeSet::new(),
            wake: None,
            ledger: ledger.clone(),
        };
        active.adopt(ledger, now);
        active
    }

    fn apply(&mut self, now: Now, event: PlaceEvent, actions: &mut Vec<PlaceAction>) -> Effect {
        match event {
            PlaceEvent::Ledger(ledger) => self.adopt(ledger, now),
            PlaceEvent::SessionOpened { node, session } => return self.opened(node, session, now, actions),
            PlaceEvent::News { node, from } => return self.news(node, *from, now, actions),
            PlaceEvent::SessionClosed { node, session } => return self.closed(node, session, now),
            PlaceEvent::MemberAlive(node) => self.member(node, None),
            PlaceEvent::MemberGone(node) => self.member(node, Some(now.mono_ms)),
            PlaceEvent::Woke => {
                self.wake = None;
                return Effect::Nothing;
            }
            PlaceEvent::Activated { .. } | PlaceEvent::Deposed => return Effect::Nothing,
        }
        Effect::Replan
    }

    /// A newer ledger: members come and go by it alone (PROTOCOL 10).
    fn adopt(&mut self, ledger: Arc<Ledger>, now: Now) {
        self.intent = Intent::read(&ledger, &self.intent);
        self.config.lost_after_ms = ledger.settings.lost_after_ms;
        self.view.nodes.retain(|id, _| ledger.roster.contains_key(id));
        self.links.retain(|id, _| ledger.roster.contains_key(id));
        for (id, member) in &ledger.roster {
            self.links.entry(*id).or_insert_with(|| Link { heard_ms: now.mono_ms, ..Link::default() });
            let node = self.view.nodes.entry(*id).or_insert_with(|| {
                // Whoever was admitted later has never answered an older placer (PROTOCOL 8).
                let new = member.admitted > self.activation.index;
                let standing = if new { Standing::Away } else { Standing::Unheard };
                NodeView { standing, ..NodeView::default() }
            });
            node.name.clone_from(&member.name);
            node.draining = member.draining;
            node.labels.clone_from(&member.labels);
        }
        let intent = &self.intent;
        let counts = |key: &TaskKey| matches!(intent.verdict(*key), Verdict::Wanted | Verdict::Finished);
        self.completing.retain(|key, completing| {
            let Some(wanted) = intent.by_uid(key.uid).filter(|w| !w.record.stopped) else { return false };
            let overtaken =
                !completing.done.success && wanted.restart_at(key.index) > completing.done.restart_at;
            !overtaken && wanted.verdict(key.index) != Verdict::Finished
        });
        self.view.completing = self.completing.keys().copied().collect();
        self.last.retain(|key, _| counts(key));
        for node in self.view.nodes.values_mut() {
            node.refusals.retain(|key, _| counts(key));
        }
        self.forget_lessons();
        self.ledger = ledger;
    }

    fn member(&mut self, node: NodeId, dead_ms: Option<u64>) {
        if let Some(link) = self.links.get_mut(&node) {
            link.dead_ms = dead_ms.map(|now| link.dead_ms.unwrap_or(now));
        }
    }
}
