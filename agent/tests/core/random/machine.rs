//! The machine of the model: containers that live on when the agent does not.

use std::collections::BTreeMap;

use agent::event::{Ended, Event, Found, RunEvent, RunId};
use placement::{
    ids::{JobKey, TaskKey},
    job::Check,
    resources::Resources,
    task::Cause,
};

use super::world::World;

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) job: JobKey,
    pub(crate) batch: bool,
    pub(crate) ports: Vec<u16>,
    pub(crate) limit: Resources,
    pub(crate) stage: Stage,
    /// SIGTERM was sent.
    pub(crate) told: bool,
    pub(crate) killed: bool,
    pub(crate) probed: bool,
    pub(crate) removing: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    Starting,
    /// Its agent died before the start.
    Unstarted,
    Running {
        pid: u32,
        since_ms: u64,
    },
    Ended(Ended),
}

impl Run {
    /// Processes of it may be there: also after a lost shim.
    pub(crate) fn lives(&self) -> bool {
        match &self.stage {
            Stage::Starting | Stage::Running { .. } => true,
            Stage::Unstarted => false,
            Stage::Ended(ended) => ended.shim_lost,
        }
    }
}

impl World {
    /// One thing happens to one run. `benign`: nothing fails, services run on.
    pub(crate) fn run_moves(&mut self, id: RunId, benign: bool) -> bool {
        let (luck, at_ms) = (self.dice.below(100), self.now.wall_ms);
        let Some(run) = self.runs.get_mut(&id) else { return false };
        let end = |code, signal| Ended {
            code,
            signal,
            log_bytes_lost: 0,
            oom: None,
            shim_lost: false,
            why: None,
            at_ms,
        };
        if run.removing && (!run.told || run.stage != Stage::Starting) {
            self.runs.remove(&id);
            self.news.push_back(Event::Run { run: id, what: RunEvent::Removed });
            return true;
        }
        let what = match run.stage {
            Stage::Starting if !benign && luck < 10 => {
                RunEvent::StartFailed { why: "luck".into(), transient: true }
            }
            Stage::Starting if !benign && luck < 15 => {
                RunEvent::StartFailed { why: "luck".into(), transient: false }
            }
            Stage::Starting if !benign && luck < 30 && !run.ports.is_empty() => {
                RunEvent::PortBusy { port: run.ports[luck % run.ports.len()] }
            }
            Stage::Starting => {
                let pid = self.pids;
                self.pids += 1;
                run.stage = Stage::Running { pid, since_ms: at_ms };
                RunEvent::Started { pid }
            }
            Stage::Running { .. } if !benign && run.probed && luck < 70 => {
                RunEvent::Health { check: Check::Live, ok: luck < 10, text: "luck".into() }
            }
            Stage::Running { .. } if benign && !run.told && !run.killed && !run.batch => return false,
            Stage::Running { .. } => {
                let ended = match luck {
                    _ if run.killed => end(None, Some(9)),
                    // It takes its time.
                    _ if run.told && !benign && luck < 50 => return false,
                    _ if benign && !run.told => end(Some(0), None),
                    0..45 => end(Some(0), None),
                    45..90 => end(Some(1), None),
                    90..95 => Ended { oom: Some(Cause::OomLimit), ..end(None, Some(9)) },
                    _ => Ended::lost(at_ms),
                };
                run.stage = Stage::Ended(ended.clone());
                if run.batch && !run.told && ended.code == Some(0) {
                    self.checks.success(id.key);
                }
                RunEvent::Exited(ended)
            }
            Stage::Unstarted | Stage::Ended(_) => return false,
        };
        if matches!(what, RunEvent::StartFailed { .. } | RunEvent::PortBusy { .. }) {
            self.runs.remove(&id);
        }
        self.news.push_back(Event::Run { run: id, what });
        true
    }

    /// Without power nothing goes on, and what was not written is not there.
    pub(crate) fn power_fails(&mut self) {
        let at_ms = self.now.wall_ms;
        for run in
            self.runs.values_mut().filter(|r| matches!(r.stage, Stage::Starting | Stage::Running { .. }))
        {
            run.stage = Stage::Ended(Ended::lost(at_ms));
        }
    }

    /// What a new agent finds. A start that an agent had only begun may have left nothing.
    pub(crate) fn found(&mut self) -> BTreeMap<RunId, Found> {
        let begun: Vec<RunId> =
            self.runs.iter().filter(|(_, run)| run.stage == Stage::Starting).map(|(id, _)| *id).collect();
        for id in begun {
            match self.dice.below(4) {
                0 => drop(self.runs.remove(&id)),
                1 => self.runs.get_mut(&id).unwrap().stage = Stage::Unstarted,
                _ => {}
            }
        }
        let found = self.runs.iter_mut().map(|(id, run)| {
            (run.removing, run.probed) = (false, false);
            let found = match &run.stage {
                Stage::Starting => Found::Starting,
                Stage::Unstarted => Found::Unstarted,
                Stage::Running { pid, since_ms } => {
                    let ran_ms = self.now.wall_ms.saturating_sub(*since_ms);
                    Found::Running { pid: *pid, started_at_ms: *since_ms, ran_ms }
                }
                Stage::Ended(ended) => Found::Ended(ended.clone()),
            };
            (*id, found)
        });
        found.collect()
    }

    /// Runs of one index of the jobs of one name of which processes may be there.
    pub(crate) fn living(&self, job: &JobKey, key: TaskKey) -> Vec<RunId> {
        let mine =
            self.runs.iter().filter(|(id, run)| run.job == *job && id.key.index == key.index && run.lives());
        // What nobody answers for is being removed, and has no name (PROTOCOL 21).
        mine.map(|(id, _)| *id).filter(|id| self.disk.contains_key(&id.key)).collect()
    }
}
