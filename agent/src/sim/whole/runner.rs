//! Containers: started, signalled and removed for the agent, and what they do by themselves.

use std::{collections::BTreeSet, time::Duration};

use placement::{
    ids::NodeId,
    job::{
        Kind,
        container::{Container, Source},
    },
    resources::MEMORY,
};

use super::{
    machine::{Run, Stage},
    world::{World, ms},
};
use crate::{
    event::{AmendRun, Ended, Event, RunEvent, RunId, Signal, StartRun},
    sim::runtime::{Group, draw_from, happens, now},
};

/// So many containers in a row fail on a node: one more than it takes for another to try.
const DISLIKES: u32 = 4;

fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_micros(draw_from(range.start * 1_000..range.end * 1_000))
}

/// Of the volumes that stay with the index.
fn names(container: &Container) -> BTreeSet<String> {
    let name = |source: &Source| match source {
        Source::Name(name) => Some(name.clone()),
        _ => None,
    };
    container.volumes.iter().filter_map(|volume| name(&volume.source)).collect()
}

impl World {
    pub(super) fn start(&mut self, id: NodeId, start: StartRun) {
        let Some(power) = self.power(id) else { return };
        let machine = self.machines.get_mut(&id).unwrap();
        let record = machine.store.records.get(&start.run.key);
        let written = record.filter(|r| r.generation == start.run.generation && r.run >= start.run.run);
        let Some(record) = written else {
            let text = format!("n{} starts {} of which nothing is on disk (19)", id.0, start.run);
            return self.checks.fail("flushed", text);
        };
        let (run, batch) = (start.run, record.spec.kind == Kind::Batch);
        let (restart_at, life) = (record.restart_at, machine.life);
        let container = Run {
            job: record.spec.job.clone(),
            batch,
            band: record.spec.band,
            limit: start.limit,
            volumes: names(&start.container),
            stage: Stage::Starting,
            removing: false,
        };
        machine.runs.insert(run, container);
        self.checks.starts(id, run, restart_at, life, ms());
        if self.checks.reclaimed.goes_on(id, run) {
            self.reached("goes_on");
        }
        self.look_at(id);
        self.later(power, millis(1..120), move |w| w.started(id, run));
    }

    fn power(&self, id: NodeId) -> Option<Group> {
        self.machines.get(&id)?.power
    }

    fn run(&mut self, id: NodeId, run: RunId) -> Option<&mut Run> {
        self.machines.get_mut(&id)?.runs.get_mut(&run)
    }

    fn started(&mut self, id: NodeId, run: RunId) {
        let (calm, wall_ms) = (self.calm, self.machines[&id].now().wall_ms);
        let Some(power) = self.power(id) else { return };
        let Some(this) = self.run(id, run).filter(|r| r.stage == Stage::Starting) else { return };
        if !calm && happens(30) {
            self.machines.get_mut(&id).unwrap().runs.remove(&run);
            return self.news(id, run, RunEvent::StartFailed { why: "luck".into(), transient: true });
        }
        this.stage = Stage::Running { since_ms: wall_ms };
        let (batch, job, volumes) = (this.batch, this.job.clone(), this.volumes.clone());
        if !volumes.is_empty() {
            if self.checks.mounts(id, &job, run, &self.machines) {
                self.reached("returns");
            }
            let machine = self.machines.get_mut(&id).unwrap();
            machine.mount(&job, run, volumes);
            let all = machine.info.volumes.clone();
            self.hears(id, Event::Volumes(all));
        }
        self.news(id, run, RunEvent::Started { pid: 100 });
        if batch {
            let code = i32::from(!calm && happens(450));
            self.later(power, millis(20..1_500), move |w| w.ended(id, run, Some(code), None));
        } else if self.machines.get_mut(&id).unwrap().dislikes(&job) {
            self.later(power, millis(20..200), move |w| w.ended(id, run, Some(1), None));
        } else if !calm && happens(40) {
            self.later(power, millis(20..3_000), move |w| w.ended(id, run, Some(1), None));
        }
    }

    /// Now and then the kernel does not allow it.
    pub(super) fn amend(&mut self, id: NodeId, amend: AmendRun) {
        let Some(group) = self.agents.get(&id).map(|agent| agent.group) else { return };
        let AmendRun { run, version, to, .. } = amend;
        let written = self.machines[&id].store.records.get(&run.key).and_then(|r| r.next.as_ref());
        if written.is_none_or(|next| next.version != version) {
            let text = format!("n{} changes {run}, of which nothing is on disk (19)", id.0);
            return self.checks.fail("flushed", text);
        }
        let refused = !self.calm && happens(100);
        self.later(group, millis(1..300), move |w| {
            let Some(this) = w.run(id, run) else { return };
            if !matches!(this.stage, Stage::Running { .. }) {
                return;
            }
            let result = if refused { Err("luck".to_string()) } else { Ok(()) };
            if result.is_ok() {
                this.limit = to.limit;
            }
            w.look_at(id);
            w.news(id, run, RunEvent::Amended { version, result });
        });
    }

    /// The node's memory is short, and one of its containers has to go: which one, the guard says. Production never goes.
    pub(super) fn evict(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).unwrap();
        let here: Vec<(RunId, bool)> = machine.living().map(|(run, one)| (run, one.band.is_prod())).collect();
        if here.is_empty() || !self.agents.contains_key(&id) {
            return;
        }
        let (run, prod) = here[draw_from(0..here.len() as u64) as usize];
        // Its pauses double: twice is enough, for who is to run again soon.
        let times = machine.evicted.entry((run.key, run.generation)).or_insert(0);
        if *times >= 2 {
            return;
        }
        *times += 1;
        let state = |w: &World| w.agents[&id].core.report(run.key).map(|report| report.state);
        let before = state(self);
        if happens(300) {
            self.core(id, Event::Free { memory: 1 << 20 });
        }
        let (hard, why) = (happens(500), "memory is short".into());
        self.core(id, Event::Evict { run, hard, what: MEMORY, used: 2 << 20, why });
        if prod && state(self) != before {
            self.checks.fail("reclaimed", format!("{run} of production has to go on n{}", id.0));
        }
    }

    /// One of the services here ends, and the next of its containers do not live long either.
    pub(super) fn dislike(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).unwrap();
        let services = machine.living().filter(|(_, one)| !one.batch);
        let services: Vec<_> = services.map(|(run, one)| (run, one.job.clone())).collect();
        if services.is_empty() {
            return;
        }
        let (run, job) = services[draw_from(0..services.len() as u64) as usize].clone();
        machine.dislike = Some((job, DISLIKES));
        self.ended(id, run, Some(1), None);
    }

    /// It may have got too far.
    pub(super) fn abandon(&mut self, id: NodeId, run: RunId) {
        if happens(500) && self.run(id, run).is_some_and(|run| run.stage == Stage::Starting) {
            self.machines.get_mut(&id).unwrap().runs.remove(&run);
            self.news(id, run, RunEvent::StartFailed { why: "called off".into(), transient: true });
        }
    }

    fn ended(&mut self, id: NodeId, run: RunId, code: Option<i32>, signal: Option<i32>) {
        let at_ms = self.machines[&id].now().wall_ms;
        let Some(this) = self.run(id, run) else { return };
        if !matches!(this.stage, Stage::Running { .. }) || this.removing {
            return;
        }
        let ended = Ended { code, signal, log_bytes_lost: 0, oom: None, shim_lost: false, why: None, at_ms };
        this.stage = Stage::Ended(ended.clone());
        self.news(id, run, RunEvent::Exited(ended));
    }

    pub(super) fn signal(&mut self, id: NodeId, run: RunId, signal: Signal) {
        let Some(power) = self.power(id) else { return };
        match signal {
            // Who does not listen.
            Signal::Term if happens(100) => {}
            Signal::Term => {
                let code = if happens(500) { Some(0) } else { Some(1) };
                self.later(power, millis(1..100), move |w| w.ended(id, run, code, None));
            }
            Signal::Kill => self.later(power, millis(1..10), move |w| w.ended(id, run, None, Some(9))),
        }
    }

    pub(super) fn remove(&mut self, id: NodeId, run: RunId) {
        let Some(group) = self.agents.get(&id).map(|agent| agent.group) else { return };
        if let Some(run) = self.run(id, run) {
            run.removing = true;
        }
        self.later(group, millis(1..40), move |w| {
            w.machines.get_mut(&id).unwrap().runs.remove(&run);
            w.news(id, run, RunEvent::Removed);
        });
    }

    /// The agent hears of it, if it lives as long as that takes: in order.
    fn news(&mut self, id: NodeId, run: RunId, what: RunEvent) {
        self.say(|_| format!("n{} {run} {what:?}", id.0));
        self.hears(id, Event::Run { run, what });
    }

    fn hears(&mut self, id: NodeId, event: Event) {
        let Some(group) = self.agents.get(&id).map(|agent| agent.group) else { return };
        let machine = self.machines.get_mut(&id).unwrap();
        let at = machine.news_at.max(now() / 1_000 + draw_from(10..5_000));
        machine.news_at = at;
        let after = Duration::from_nanos((at * 1_000).saturating_sub(now()));
        self.later(group, after, move |w| w.core(id, event));
    }
}
