//! A task on this node: its record, its goal, its run; and the state that follows from them.

use std::net::Ipv4Addr;

use placement::{
    change::growth,
    ids::Version,
    job::Kind,
    resources::Resources,
    task::{Cause, Report, State, Strain},
};

use super::{estimate::Need, health::Checks, record::Record};
use crate::{
    estimate::TaskId,
    event::{Ended, RunId, Ticket},
};
use gossip::wire::SessionId;

/// Pauses before a restart in place double from the first to the last.
const BACKOFF_FIRST_MS: u64 = 500;
const BACKOFF_LAST_MS: u64 = 60_000;
/// A run that lasts so long begins the pauses anew.
const BACKOFF_RESET_MS: u64 = 300_000;

/// No end is older when it is heard of, unless the agent was away.
const NEWS_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To run, or to have ended by itself.
    Run,
    /// To end, for this cause, and then run.
    Again(Cause),
    /// To end and be dropped.
    Gone,
}

/// Whether an end came before the signal, by the wall clock. One that seems to have come long before says that the clock
/// was set back, for news of an end takes no minute.
fn before(end_ms: u64, told_ms: u64) -> bool {
    end_ms < told_ms && told_ms - end_ms < NEWS_MS
}

/// What is being written, and so what its being written brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    Accept,
    /// An ending, or the number of the next run.
    Save,
    Drop,
}

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) record: Record,
    /// As last seen by users: follows from the rest (`state_now`).
    pub(crate) state: State,
    pub(crate) goal: Goal,
    pub(crate) run: Option<Run>,
    /// The session whose offer is not answered yet.
    pub(crate) accepting: Option<SessionId>,
    pub(crate) writing: Option<(Ticket, Writing)>,
    /// The record holds what must be on disk before the next step.
    pub(crate) unsaved: bool,
    /// Its outcome is on disk.
    pub(crate) ended: bool,
    /// Why its record cannot be written now, to show.
    pub(crate) trouble: Option<String>,
    /// Monotonic: when to write again after a failure.
    pub(crate) retry_at: Option<u64>,
    /// The record's run number is on disk, and no run of it was started.
    pub(crate) armed: bool,
    /// Monotonic: the end of the back-off.
    pub(crate) not_before: u64,
    /// Failures in a row, for the back-off.
    pub(crate) failures: u32,
    /// How often its room was taken back, and the memory that it had then: it starts again where there is as much. Or that
    /// it was for disk: it starts again when that is short no more.
    pub(crate) evictions: u32,
    pub(crate) wants_free: u64,
    pub(crate) wants_disk: bool,
    /// The write of `record.next`.
    pub(crate) amending: Option<Ticket>,
    pub(crate) usage: Resources,
    /// Usage as last reported.
    pub(crate) reported_usage: Resources,
    /// By which it is known over its generations, and on other nodes: OWNER/NAME and the index.
    pub(crate) id: TaskId,
    pub(crate) need: Need,
    /// Of the present run, by the last look.
    pub(crate) strain: Option<Strain>,
}

/// A container, from its start until its bundle is removed.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) number: u32,
    pub(crate) stage: Stage,
    /// Told to end.
    pub(crate) told: Option<Told>,
    /// `record.next` is being given to it: of which version.
    pub(crate) given: Option<Version>,
    /// What it took too much of, and how much: a sentence.
    pub(crate) over: Option<String>,
    /// It has to end without its grace.
    pub(crate) hurry: bool,
    /// Its start was called off.
    pub(crate) abandoned: bool,
    /// Its own, in a private network.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) checks: Checks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    /// `since`: monotonic, of this agent's first sight of it; `ran_ms`: what it had run before that.
    Running {
        pid: u32,
        since: u64,
        ran_ms: u64,
    },
    Ended {
        removing: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) wall_ms: u64,
    /// Monotonic. None: killed already.
    pub(crate) kill_at: Option<u64>,
    pub(crate) notice: Notice,
}

/// How much time a run has that is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// None: SIGKILL at once.
    None,
    /// SIGTERM, and SIGKILL before its grace was over.
    Short,
    /// SIGTERM, and its whole grace if it needs that.
    Whole,
}

impl Run {
    pub(crate) fn new(number: u32, stage: Stage) -> Run {
        Run {
            number,
            stage,
            told: None,
            given: None,
            over: None,
            hurry: false,
            abandoned: false,
            address: None,
            checks: Checks::default(),
        }
    }
}

impl Task {
    pub(crate) fn new(record: Record) -> Task {
        Task {
            state: record.outcome.unwrap_or(State::Starting),
            ended: record.outcome.is_some(),
            trouble: None,
            id: TaskId { job: record.spec.job.to_string().into(), index: Some(record.key.index) },
            need: Need::default(),
            strain: None,
            record,
            goal: Goal::Run,
            run: None,
            accepting: None,
            writing: None,
            unsaved: false,
            retry_at: None,
            armed: false,
            not_before: 0,
            failures: 0,
            evictions: 0,
            wants_free: 0,
            wants_disk: false,
            amending: None,
            usage: Resources::default(),
            reported_usage: Resources::default(),
        }
    }

    pub(crate) fn run_id(&self, run: u32) -> RunId {
        RunId { key: self.record.key, generation: self.record.generation, run }
    }

    pub(crate) fn is_batch(&self) -> bool {
        self.record.spec.kind == Kind::Batch
    }

    /// The state that record, goal and run amount to.
    pub(crate) fn state_now(&self) -> State {
        if let Some(outcome) = self.record.outcome {
            return outcome;
        }
        match (self.goal, self.run.as_ref().map(|r| r.stage)) {
            (Goal::Gone | Goal::Again(_), _) => State::Stopping,
            (Goal::Run, Some(Stage::Running { .. })) => State::Running,
            (Goal::Run, _) => State::Starting,
        }
    }

    /// Not yet gone (PROTOCOL 20): until the ending is on disk (else a new agent would run it again) and the cgroup empty.
    pub(crate) fn holds_resources(&self) -> bool {
        !self.ended || self.run.is_some()
    }

    /// What it holds of the node: while it changes, the more of each.
    pub(crate) fn held(&self) -> Resources {
        let mut held = self.record.spec.limit.clone();
        if let Some(next) = &self.record.next {
            held.add(&growth(&held, &next.spec.limit));
        }
        held
    }

    /// Whether it may count for less than its limit.
    pub(crate) fn is_estimated(&self) -> bool {
        self.record.spec.estimate && self.holds_resources()
    }

    /// What it is believed to need of the node now.
    pub(crate) fn reservation(&self) -> Resources {
        self.need.of(&self.held())
    }

    /// Why this run ended. An exit before SIGTERM was sent is the task's own; in the same millisecond it is an answer to
    /// it, since a success that is counted wrongly loses work, and one that is not only repeats it.
    pub(crate) fn cause(&self, ended: &Ended) -> Cause {
        // An earlier agent may have told it first.
        let stopping = self.record.stopping.as_ref().and_then(|s| s.told_ms);
        let told_ms = stopping.or(self.run.as_ref().and_then(|r| r.told).map(|t| t.wall_ms));
        if ended.shim_lost {
            Cause::ShimLost
        } else if told_ms.is_some_and(|told| !before(ended.at_ms, told)) {
            match self.goal {
                Goal::Again(cause) => cause,
                Goal::Run | Goal::Gone => Cause::Stopped,
            }
        } else {
            ended.oom.unwrap_or(Cause::Exited)
        }
    }

    /// Of a run that the node ended, and asked to end first: whether it ended by itself, or had its whole grace.
    pub(crate) fn notified(&self, ended: &Ended, cause: Cause) -> Option<bool> {
        // Another end was before the node's.
        if matches!(cause, Cause::Exited | Cause::OomLimit | Cause::OomHost | Cause::ShimLost) {
            return None;
        }
        let killed = ended.signal == Some(9);
        match self.run.as_ref().and_then(|run| run.told) {
            Some(Told { notice: Notice::None, .. }) => None,
            // Somebody else may have killed it meanwhile.
            Some(told) => Some(!killed || told.notice == Notice::Whole && told.kill_at.is_none()),
            // By an earlier agent.
            None => {
                let told_ms = self.record.stopping.as_ref()?.told_ms?;
                Some(!killed || ended.at_ms >= told_ms.saturating_add(self.record.spec.grace_ms))
            }
        }
    }

    /// The pause before the next start, after one more failure.
    pub(crate) fn back_off(&mut self, ran_ms: u64) -> u64 {
        if ran_ms >= BACKOFF_RESET_MS {
            self.failures = 0;
        }
        let pause = BACKOFF_FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_LAST_MS);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub(crate) fn report(&self) -> Report {
        let record = &self.record;
        let pid = match self.run.as_ref().map(|r| r.stage) {
            Some(Stage::Running { pid, .. }) => Some(pid),
            _ => None,
        };
        Report {
            key: record.key,
            job: record.spec.job.clone(),
            kind: record.spec.kind,
            band: record.spec.band,
            priority: record.spec.priority,
            generation: record.generation,
            version: record.version,
            state: self.state,
            image: record.spec.image.clone(),
            digest: record.spec.digest.clone(),
            pid,
            ports: record.ports.clone(),
            address: self.run.as_ref().and_then(|r| r.address).map(|address| address.to_string()),
            restarts: record.restarts,
            restart_at: record.restart_at,
            healthy: self.healthy(),
            ready: self.ready(),
            since_ms: record.since_ms,
            reason: self.trouble.clone().or_else(|| record.reason.clone()),
            exit: record.exit.clone(),
            limit: record.spec.limit.clone(),
            reservation: match self.holds_resources() {
                true => self.need.of(&record.spec.limit),
                false => Resources::default(),
            },
            usage: self.usage.clone(),
            strain: self.strain,
        }
    }
}
