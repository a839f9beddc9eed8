//! An agent's disk: what was not flushed when the agent died may be lost, from its end on.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use placement::{
    ids::{Activation, NodeId, TaskKey},
    node::Bad,
};

use super::{rules::Rule, world::World};
use crate::{
    core::record::Record,
    event::{Change, Event, Ticket},
    sim::runtime::{draw_from, happens, now},
};

#[derive(Default)]
pub(super) struct Store {
    pub(super) records: BTreeMap<TaskKey, Record>,
    pub(super) promise: Activation,
    pub(super) bad: Vec<Bad>,
    waiting: VecDeque<(Ticket, Vec<Change>)>,
    /// When what was handed over so far will be on disk.
    busy_until: u64,
}

impl Store {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(record) => drop(self.records.insert(record.key, *record)),
                Change::Drop(key) => drop(self.records.remove(&key)),
                Change::Promise(promise) => self.promise = promise,
                Change::Bad(bad) => self.bad = bad,
            }
        }
    }

    /// The agent dies: some of the writes under way land, in their order.
    pub(super) fn cut_off(&mut self) {
        let landed = draw_from(0..self.waiting.len() as u64 + 1) as usize;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().take(landed).for_each(|(_, changes)| self.write(changes));
        self.busy_until = 0;
    }
}

impl World {
    pub(super) fn store(&mut self, id: NodeId, ticket: Ticket, changes: Vec<Change>) {
        let Some(group) = self.agents.get(&id).map(|agent| agent.group) else { return };
        let store = &mut self.machines.get_mut(&id).unwrap().store;
        store.waiting.push_back((ticket, changes));
        // Mostly quick; now and then something else keeps the disk busy.
        let micros = if happens(20) { draw_from(5_000..60_000) } else { draw_from(100..2_000) };
        store.busy_until = store.busy_until.max(now()) + micros * 1_000;
        let flushed = Duration::from_nanos(store.busy_until - now());
        match self.without {
            Some(Rule::Flush) => {
                self.later(group, flushed * 100, move |w| drop(w.flush(id)));
                self.later(group, Duration::ZERO, move |w| {
                    w.core(id, Event::Stored { ticket, result: Ok(()) })
                });
            }
            _ => self.later(group, flushed, move |w| {
                if let Some((ticket, result)) = w.flush(id) {
                    w.core(id, Event::Stored { ticket, result });
                }
            }),
        }
    }

    fn flush(&mut self, id: NodeId) -> Option<(Ticket, Result<(), String>)> {
        let full = !self.calm && happens(5);
        let store = &mut self.machines.get_mut(&id)?.store;
        let (ticket, changes) = store.waiting.pop_front()?;
        if full {
            return Some((ticket, Err("no space left".into())));
        }
        store.write(changes);
        Some((ticket, Ok(())))
    }
}
