//! What people read of the placer: a row for each job.

use std::collections::BTreeMap;

use placement::{
    change::Change,
    ids::{JobKey, Uid, Version},
    intent::{Verdict, Wanted},
    job::{Band, Kind},
    task::{Cause, Exit, State},
};

use super::{Active, PlaceCore, rows::TaskRow};

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub job: JobKey,
    pub uid: Uid,
    pub version: Version,
    pub band: Band,
    pub priority: u32,
    pub kind: Kind,
    pub count: u32,
    pub running: u32,
    pub pending: u32,
    /// A word of INTERFACES.
    pub state: &'static str,
    /// Why it is not simply running.
    pub reason: Option<String>,
    pub created_ms: u64,
    pub changed_ms: u64,
}

impl PlaceCore {
    pub fn jobs(&self) -> Vec<JobRow> {
        let Some(active) = &self.active else { return Vec::new() };
        let mut rows: BTreeMap<JobKey, Vec<TaskRow>> = BTreeMap::new();
        for row in active.task_rows(None) {
            rows.entry(row.job.clone()).or_default().push(row);
        }
        let none = Vec::new();
        let jobs = active.intent.jobs.values();
        jobs.map(|wanted| active.job_row(wanted, rows.get(&wanted.key).unwrap_or(&none))).collect()
    }

    pub fn job(&self, job: &JobKey) -> Option<JobRow> {
        let active = self.active.as_ref()?;
        Some(active.job_row(active.intent.jobs.get(job)?, &active.task_rows(Some(job))))
    }
}

impl Active {
    pub(super) fn job_row(&self, wanted: &Wanted, rows: &[TaskRow]) -> JobRow {
        let own = || rows.iter().filter(|r| r.key.uid == wanted.uid());
        let waits = |r: &&TaskRow| matches!(r.state, State::Pending | State::Unknown | State::Lost);
        let desired = |r: &&TaskRow| wanted.verdict(r.key.index) == Verdict::Wanted;
        let (state, reason) = self.job_state(wanted, rows);
        let job = wanted.job.as_ref().ok();
        JobRow {
            job: wanted.key.clone(),
            uid: wanted.uid(),
            version: wanted.record.version,
            band: job.map_or(Band::Batch, |j| j.band),
            priority: job.map_or(0, |j| j.priority),
            kind: job.map_or(Kind::Service, |j| j.kind),
            count: wanted.record.count(),
            running: own().filter(|r| r.state == State::Running).count() as u32,
            pending: own().filter(waits).filter(desired).count() as u32,
            state,
            reason,
            created_ms: wanted.record.created_ms,
            changed_ms: wanted.record.changed_ms,
        }
    }

    fn job_state(&self, wanted: &Wanted, rows: &[TaskRow]) -> (&'static str, Option<String>) {
        let record = &wanted.record;
        let Ok(job) = &wanted.job else {
            let why = wanted.job.as_ref().err().cloned();
            return (if record.stopped { "stopped" } else { "blocked" }, why);
        };
        if record.is_finished() {
            let failed = record.finished.range(..job.count).find(|(_, done)| !done.success);
            return match failed {
                None => ("succeeded", None),
                Some((index, done)) => ("failed", Some(format!("index {index} {}", ending(&done.exit)))),
            };
        }
        if record.stopped {
            return ("stopped", None);
        }
        let own = || {
            rows.iter()
                .filter(|r| r.key.uid == wanted.uid() && wanted.verdict(r.key.index) == Verdict::Wanted)
        };
        let outdated = own().find(|r| {
            r.report
                .as_ref()
                .is_some_and(|c| !c.state.is_final() && wanted.change(c.version, r.key.index) != Change::None)
        });
        if let Some(row) = outdated {
            return ("updating", row.reason.clone());
        }
        let pending = own().find_map(|r| self.plan.pending.get(&r.key)).map(|p| &p.obstacles);
        match pending {
            Some(obstacles) => {
                let reason = obstacles.first().map(|o| o.text());
                let for_good = obstacles.iter().all(|o| o.no.for_good());
                (if for_good { "blocked" } else { "waiting" }, reason)
            }
            None => ("running", None),
        }
    }
}

/// "ended with code 1", "was killed by signal 9", "was killed for its memory limit".
pub(super) fn ending(exit: &Exit) -> String {
    match (exit.cause, exit.code, exit.signal) {
        (Cause::OomLimit, ..) => "was killed at its memory limit".to_string(),
        (Cause::OomHost, ..) => "was killed since its machine ran out of memory".to_string(),
        (Cause::Exited, None, None) => "could not be started".to_string(),
        (_, Some(code), _) => format!("ended with code {code}"),
        (_, _, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended without a record".to_string(),
    }
}
