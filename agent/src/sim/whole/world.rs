//! All there is, and how one thing leads to another: at some time later, unless its group has died by then.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use placement::ids::NodeId;

use super::{
    agent::{Agent, Reached},
    checks::Checks,
    machine::Machine,
    rules::Rule,
    stream::Streams,
};
use crate::sim::{
    net::Net,
    runtime::{Group, now, sleep, spawn_in},
};

pub(super) type Shared = Arc<Mutex<World>>;

/// What nobody's death ends.
pub(super) const NOBODY: Group = 0;

pub(super) struct World {
    me: Weak<Mutex<World>>,
    pub(super) net: Net,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    /// Those that run.
    pub(super) agents: BTreeMap<NodeId, Agent>,
    pub(super) streams: Streams,
    pub(super) checks: Checks,
    /// The rule that is left out, to see whether anybody notices.
    pub(super) without: Option<Rule>,
    /// Nothing fails by itself any more.
    pub(super) calm: bool,
    pub(super) reached: Reached,
    /// Clients that wait for an answer.
    pub(super) asking: usize,
    trace: Trace,
    numbers: u64,
}

/// What becomes of the story of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Nothing,
    Print,
    Keep,
}

struct Trace {
    telling: Telling,
    begun_ms: u64,
    kept: String,
}

impl World {
    pub(super) fn new(net: Net, telling: Telling, without: Option<Rule>) -> Shared {
        let trace = Trace { telling, begun_ms: ms(), kept: String::new() };
        Arc::new_cyclic(|me| {
            Mutex::new(World {
                me: me.clone(),
                net,
                machines: BTreeMap::new(),
                agents: BTreeMap::new(),
                streams: Streams::default(),
                checks: Checks::default(),
                without,
                calm: false,
                reached: Reached::new(),
                asking: 0,
                trace,
                numbers: 0,
            })
        })
    }

    /// Does it after that time, if the group lives.
    pub(super) fn later(
        &self,
        group: Group,
        after: Duration,
        then: impl FnOnce(&mut World) + Send + 'static,
    ) {
        let world = self.me.clone();
        spawn_in(group, async move {
            sleep(after).await;
            if let Some(world) = world.upgrade() {
                then(&mut world.lock().unwrap());
            }
        });
    }

    pub(super) fn shared(&self) -> Weak<Mutex<World>> {
        self.me.clone()
    }

    /// A number that nobody had before.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// For whoever replays a seed.
    pub(super) fn say(&mut self, text: impl FnOnce(&World) -> String) {
        if self.trace.telling == Telling::Nothing {
            return;
        }
        let at = (now() - self.trace.begun_ms * 1_000_000) / 1_000;
        let line = format!("{:>4}.{:06} {}", at / 1_000_000, at % 1_000_000, text(self));
        match self.trace.telling {
            Telling::Print => println!("{line}"),
            _ => {
                self.trace.kept.push_str(&line);
                self.trace.kept.push('\n');
            }
        }
    }

    pub(super) fn told(&mut self) -> String {
        std::mem::take(&mut self.trace.kept)
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }
}

/// Virtual milliseconds since long ago.
pub(super) fn ms() -> u64 {
    now() / 1_000_000
}
