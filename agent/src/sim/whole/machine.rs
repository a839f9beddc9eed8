//! A machine: what lives on when its agent does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use placement::{
    ids::{Generation, JobKey, NodeId, TaskKey},
    job::Band,
    node::{Held, NodeInfo},
    resources::{CPU, Resources},
};

use super::{store::Store, world::ms};
use crate::{
    event::{Ended, Found, Now, RunId},
    sim::runtime::{Group, draw_from, happens},
};

pub(super) struct Machine {
    /// What dies with its power; none while it is off.
    pub(super) power: Option<Group>,
    booted_ms: u64,
    /// Its wall clock is wrong by so much.
    skew_ms: u64,
    /// The ledger's entry that admitted it.
    pub(super) admitted: u64,
    /// Counts the starts of its agent.
    pub(super) life: u64,
    pub(super) info: NodeInfo,
    pub(super) store: Store,
    pub(super) runs: BTreeMap<RunId, Run>,
    /// How often a copy had to give way here.
    pub(super) evicted: BTreeMap<(TaskKey, Generation), u32>,
    /// Containers of a job that do not live long here, and how many more.
    pub(super) dislike: Option<(JobKey, u32)>,
    /// News of runs come in order: none before this virtual time, in microseconds.
    pub(super) news_at: u64,
}

/// A container, until its bundle is removed.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) job: JobKey,
    pub(super) batch: bool,
    pub(super) band: Band,
    pub(super) limit: Resources,
    /// Volumes of its own.
    pub(super) volumes: BTreeSet<String>,
    pub(super) stage: Stage,
    pub(super) removing: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    Starting,
    /// Its agent died before the start.
    Unstarted,
    Running {
        since_ms: u64,
    },
    Ended(Ended),
}

impl Machine {
    pub(super) fn new(id: NodeId) -> Machine {
        let info = NodeInfo {
            id,
            name: format!("n{}", id.0),
            addr: address(id).to_string(),
            version: "0".into(),
            labels: BTreeMap::from([("rack".into(), format!("r{}", id.0 % 3))]),
            capacity: Resources::new(1_600, 4 << 30),
            images: Default::default(),
            volumes: Default::default(),
            bad: Vec::new(),
        };
        Machine {
            power: None,
            booted_ms: 0,
            skew_ms: draw_from(0..7_200_000),
            admitted: 0,
            life: 0,
            info,
            store: Store::default(),
            runs: BTreeMap::new(),
            evicted: BTreeMap::new(),
            dislike: None,
            news_at: 0,
        }
    }

    pub(super) fn switch_on(&mut self, group: Group) {
        self.power = Some(group);
        self.booted_ms = ms() - draw_from(1_000..5_000);
    }

    /// Without power nothing goes on.
    pub(super) fn switch_off(&mut self) {
        self.power = None;
        let at_ms = self.now().wall_ms;
        for run in self.runs.values_mut().filter(|run| run.lives()) {
            run.stage = Stage::Ended(Ended::lost(at_ms));
        }
        self.agent_dies();
    }

    /// What an agent had only begun may have left something, or nothing.
    pub(super) fn agent_dies(&mut self) {
        self.store.cut_off();
        self.runs.retain(|_, run| run.stage != Stage::Starting || !happens(300));
        for run in self.runs.values_mut() {
            run.removing = false;
            if run.stage == Stage::Starting && happens(300) {
                run.stage = Stage::Unstarted;
            }
        }
    }

    /// What an agent's scan finds.
    pub(super) fn found(&self) -> BTreeMap<RunId, Found> {
        let found = |(id, run): (&RunId, &Run)| {
            let found = match &run.stage {
                Stage::Starting => Found::Starting,
                Stage::Unstarted => Found::Unstarted,
                Stage::Running { since_ms } => {
                    let ran_ms = self.now().wall_ms.saturating_sub(*since_ms);
                    Found::Running { pid: 100, started_at_ms: *since_ms, ran_ms }
                }
                Stage::Ended(ended) => Found::Ended(ended.clone()),
            };
            (*id, found)
        };
        self.runs.iter().map(found).collect()
    }

    /// By its own clocks.
    pub(super) fn now(&self) -> Now {
        Now { mono_ms: ms() - self.booted_ms, wall_ms: ms() + self.skew_ms }
    }

    /// When its monotonic clock will show this, on everybody's.
    pub(super) fn until(&self, mono_ms: u64) -> u64 {
        (mono_ms + self.booted_ms).saturating_sub(ms())
    }

    /// Runs of which processes are there. What is being removed has no name and no share any more.
    pub(super) fn living(&self) -> impl Iterator<Item = (RunId, &Run)> {
        self.runs.iter().filter(|(_, run)| run.lives() && !run.removing).map(|(id, run)| (*id, run))
    }

    /// A container of that generation has the volumes of its index from now on.
    pub(super) fn mount(&mut self, job: &JobKey, run: RunId, names: BTreeSet<String>) {
        let held = Held { generation: run.generation, names, bytes: 0 };
        self.info.volumes.entry(job.to_string()).or_default().insert(run.key.index, held);
    }

    /// Whether another container of the job is not to live long here.
    pub(super) fn dislikes(&mut self, job: &JobKey) -> bool {
        match &mut self.dislike {
            Some((disliked, more)) if disliked == job && *more > 0 => {
                *more -= 1;
                true
            }
            _ => false,
        }
    }

    /// With less room than it was made with, or all of it.
    pub(super) fn capacity(&self, small: bool) -> Resources {
        let mut capacity = self.info.capacity.clone();
        if small {
            capacity.set(CPU, 800);
        }
        capacity
    }
}

impl Run {
    pub(super) fn lives(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Running { .. })
    }
}

pub(super) fn address(id: NodeId) -> SocketAddr {
    ([10, 0, 0, id.0 as u8], 7946).into()
}

/// Who listens there.
pub(super) fn at(address: SocketAddr) -> Option<NodeId> {
    match address {
        SocketAddr::V4(v4) => Some(NodeId(u64::from(v4.ip().octets()[3]))),
        SocketAddr::V6(_) => None,
    }
}
