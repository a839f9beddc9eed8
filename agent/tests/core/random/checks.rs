//! One check per property; each names the rule.

use std::collections::{BTreeMap, BTreeSet};

use agent::{core::Core, event::RunId};
use gossip::wire::{FromAgent, News, SessionId};
use placement::{
    ids::{Generation, TaskKey},
    node::NodeInfo,
    task::{Report, State},
};

#[derive(Default)]
pub(crate) struct Checks {
    started: BTreeSet<RunId>,
    succeeded: BTreeSet<TaskKey>,
    states: BTreeMap<TaskKey, (Generation, State)>,
    // ---- of the present session
    session: Option<SessionId>,
    number: u64,
    /// What the reports so far add up to.
    mirror: BTreeMap<TaskKey, Report>,
    unanswered: BTreeSet<(TaskKey, Generation)>,
    refused: BTreeSet<(TaskKey, Generation)>,
    kept: BTreeSet<(TaskKey, Generation)>,
}

impl Checks {
    pub(crate) fn session(&mut self, session: Option<SessionId>) {
        self.session = session;
        self.number = 0;
        self.mirror.clear();
        self.unanswered.clear();
        self.refused.clear();
        self.kept.clear();
    }

    /// An agent started anew: states may have been lost.
    pub(crate) fn agent_restarted(&mut self) {
        self.session(None);
        self.states.clear();
    }

    pub(crate) fn offered(&mut self, key: TaskKey, generation: Generation) {
        self.unanswered.insert((key, generation));
        self.kept.insert((key, generation));
    }

    pub(crate) fn kept(&mut self, key: TaskKey, generation: Generation) {
        self.kept.insert((key, generation));
    }

    /// An exit record says so: final (PROTOCOL 24).
    pub(crate) fn success(&mut self, key: TaskKey) {
        self.succeeded.insert(key);
    }

    pub(crate) fn starts(
        &mut self,
        run: RunId,
        batch: bool,
        on_disk: Option<(Generation, u32)>,
        living: &[RunId],
    ) {
        assert!(self.started.insert(run), "{run} was started twice");
        assert_eq!(
            on_disk,
            Some((run.generation, run.run)),
            "{run} starts before its record is on disk (19)"
        );
        assert!(!self.succeeded.contains(&run.key), "{run} starts after a success (24)");
        assert!(living.is_empty(), "{run} starts beside {living:?} (2)");
        assert!(
            !batch || self.kept.contains(&(run.key, run.generation)),
            "{run} starts without a keep of this session (23)"
        );
    }

    pub(crate) fn sent(&mut self, message: &FromAgent, on_disk: impl Fn(TaskKey) -> Option<Generation>) {
        assert_eq!(Some(message.session), self.session, "sent on another session (14)");
        assert_eq!(message.number, self.number, "a gap in the numbers (14)");
        self.number += 1;
        let delta = match &message.news {
            News::Full { tasks, .. } => {
                assert_eq!(message.number, 0);
                return self.mirror = tasks.iter().map(|t| (t.key, t.clone())).collect();
            }
            News::Delta(delta) | News::NotAmended { delta, .. } => delta,
            News::Accepted { key, generation, delta } => {
                assert_eq!(
                    on_disk(*key),
                    Some(*generation),
                    "{key} is accepted before its record is on disk (19)"
                );
                assert!(!self.refused.contains(&(*key, *generation)), "{key} {generation} was refused (17)");
                self.unanswered.remove(&(*key, *generation));
                delta
            }
            News::Refused { key, generation, delta, .. } => {
                self.refused.insert((*key, *generation));
                self.unanswered.remove(&(*key, *generation));
                delta
            }
        };
        for key in &delta.gone {
            self.mirror.remove(key);
        }
        self.mirror.extend(delta.tasks.iter().map(|t| (t.key, t.clone())));
    }

    pub(crate) fn after_event(&mut self, core: &Core) {
        let reports: BTreeMap<TaskKey, Report> = core.reports().into_iter().map(|r| (r.key, r)).collect();
        self.books(core, core.info());
        self.ports(&reports);
        self.edges(&reports);
        if self.session.is_some() && self.number > 0 {
            self.reported(&reports);
        }
    }

    fn books(&self, core: &Core, node: &NodeInfo) {
        let limits = core.books().limits();
        assert_eq!(node.capacity.short_of(&limits), None, "the books are above the capacity (20)");
    }

    fn ports(&self, reports: &BTreeMap<TaskKey, Report>) {
        let mut ports = BTreeSet::new();
        for report in reports.values().filter(|r| !r.reservation.0.is_empty()) {
            for port in report.ports.values() {
                assert!(ports.insert(port), "port {port} is handed twice");
            }
        }
    }

    fn edges(&mut self, reports: &BTreeMap<TaskKey, Report>) {
        for (key, report) in reports {
            if let Some((generation, before)) = self.states.insert(*key, (report.generation, report.state))
                && generation == report.generation
                && before != report.state
            {
                assert!(
                    before.may_become(report.state),
                    "{key}: {before:?} may not become {:?}",
                    report.state
                );
            }
        }
        self.states.retain(|key, _| reports.contains_key(key));
    }

    /// The placer, when it has heard all, knows all.
    fn reported(&self, reports: &BTreeMap<TaskKey, Report>) {
        for (key, report) in reports {
            let unanswered = self.unanswered.contains(&(*key, report.generation));
            assert!(
                unanswered || self.mirror.get(key) == Some(report),
                "{key}: {report:?} is not what was reported"
            );
        }
        for key in self.mirror.keys() {
            assert!(reports.contains_key(key), "{key} is gone, and the placer was not told");
        }
    }
}
