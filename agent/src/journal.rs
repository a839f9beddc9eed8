//! What happened on this node, for people: a bounded ring, written down, and followed live.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::wire::{EventRecord, examine::Warned};
use tokio::sync::broadcast;

use crate::{
    clock,
    event::Note,
    store::{EVENTS_SHOWN, Store},
};

/// A follower that is further behind misses some, and is told how many.
const BACKLOG: usize = 1_024;
/// Events that were not yet on disk when an agent was killed may have been seen by a follower: their numbers are not
/// used again.
const GAP: u64 = 1_000;
/// The kind of an event that says what the node cannot do as it should.
pub const WARNING: &str = "warning";
/// So many warnings are remembered for `covey doctor`: the newest.
const WARNINGS: usize = 32;

/// A handle on the node's events; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    node: Arc<str>,
    ring: Arc<Mutex<Ring>>,
    live: broadcast::Sender<Arc<EventRecord>>,
    store: Store,
}

struct Ring {
    next: u64,
    records: VecDeque<Arc<EventRecord>>,
    /// Of this agent, oldest first; each once.
    warnings: VecDeque<Warned>,
}

impl Journal {
    /// `held`: what the store had, oldest first.
    pub fn new(node: &str, held: Vec<EventRecord>, store: Store) -> Journal {
        let next = held.last().map_or(0, |last| last.seq + GAP);
        let records = held.into_iter().map(Arc::new).collect();
        Journal {
            node: node.into(),
            ring: Arc::new(Mutex::new(Ring { next, records, warnings: VecDeque::new() })),
            live: broadcast::channel(BACKLOG).0,
            store,
        }
    }

    /// What the core noted: of a task, or of the node.
    pub fn note(&self, note: Note) {
        let mut record = plain(note.kind, note.text);
        record.detail.extend(note.ms.map(|ms| ("ms".to_string(), ms.into())));
        if let Some(about) = note.about {
            record.owner = Some(about.job.owner);
            record.job = Some(about.job.name);
            record.index = Some(about.index);
            record.generation = Some(about.generation);
        }
        self.add(record);
    }

    /// Of a job: somebody changed it.
    pub fn job(&self, kind: &str, owner: &str, job: &str, text: String) {
        self.add(EventRecord {
            job: Some(job.to_string()),
            owner: Some(owner.to_string()),
            ..plain(kind, text)
        });
    }

    /// Of the node itself.
    pub fn node(&self, kind: &str, text: String) {
        self.add(plain(kind, text));
    }

    /// Of the node itself, in the log too: what it cannot do as it should.
    pub fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.node(WARNING, text);
    }

    /// What was warned of since the agent began, and when last, oldest first.
    pub fn warnings(&self) -> Vec<Warned> {
        self.ring().warnings.iter().cloned().collect()
    }

    fn add(&self, mut record: EventRecord) {
        let at_ms = clock::now().wall_ms;
        record.node = self.node.to_string();
        record.time = clock::rfc3339(at_ms);
        let mut ring = self.ring();
        if record.kind == WARNING {
            ring.warnings.retain(|warned| warned.text != record.text);
            if ring.warnings.len() == WARNINGS {
                ring.warnings.pop_front();
            }
            ring.warnings.push_back(Warned { text: record.text.clone(), at_ms });
        }
        record.seq = ring.next;
        ring.next += 1;
        let record = Arc::new(record);
        if ring.records.len() == EVENTS_SHOWN {
            ring.records.pop_front();
        }
        ring.records.push_back(record.clone());
        // Under the lock, so that followers and the disk see them in order.
        self.store.event(EventRecord::clone(&record));
        let _ = self.live.send(record);
    }

    /// What there is, oldest first, and what is to come, without a gap between them.
    pub fn read(&self) -> (Vec<Arc<EventRecord>>, broadcast::Receiver<Arc<EventRecord>>) {
        let ring = self.ring();
        (ring.records.iter().cloned().collect(), self.live.subscribe())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic elsewhere cannot have left a ring half changed that matters.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plain(kind: &str, text: String) -> EventRecord {
    EventRecord {
        time: String::new(),
        node: String::new(),
        seq: 0,
        kind: kind.to_string(),
        job: None,
        owner: None,
        index: None,
        generation: None,
        text,
        detail: BTreeMap::new(),
    }
}
