//! What had to give way does not start again where it gave way before its pause is over, unless somebody asks for that, or the
//! agent that remembers it has died.

use std::collections::BTreeMap;

use placement::{
    ids::{Generation, NodeId, TaskKey},
    task::{Cause, Report},
};

use super::Verdict;
use crate::event::RunId;

/// The shortest pause.
const PAUSE_MS: u64 = 5_000;

#[derive(Default)]
pub(in super::super) struct Reclaimed(BTreeMap<(NodeId, TaskKey), GaveWay>);

struct GaveWay {
    generation: Generation,
    restart_at: u64,
    /// The agent's.
    life: u64,
    at_ms: u64,
}

impl Reclaimed {
    /// A run has ended, as its node's core sees it.
    pub(in super::super) fn ended(&mut self, id: NodeId, report: &Report, life: u64, now_ms: u64) {
        let Report { key, generation, restart_at, .. } = *report;
        match report.exit.as_ref().map(|exit| exit.cause) {
            Some(Cause::Reclaimed) => {
                self.0.insert((id, key), GaveWay { generation, restart_at, life, at_ms: now_ms });
            }
            _ => {
                self.0.remove(&(id, key));
            }
        }
    }

    pub(super) fn starts(&self, id: NodeId, run: RunId, restart_at: u64, life: u64, now_ms: u64) -> Verdict {
        let gave_way = self.0.get(&(id, run.key));
        let same =
            |was: &&GaveWay| (was.generation, was.restart_at, was.life) == (run.generation, restart_at, life);
        match gave_way.filter(same).map(|was| now_ms - was.at_ms) {
            Some(after) if after < PAUSE_MS => {
                Err(format!("{run} starts on n{} {after} ms after it gave way there", id.0))
            }
            _ => Ok(()),
        }
    }

    /// Whether it goes on on another node than the one where it gave way.
    pub(in super::super) fn goes_on(&self, id: NodeId, run: RunId) -> bool {
        let elsewhere = |(node, key): &(NodeId, TaskKey)| *node != id && *key == run.key;
        self.0.iter().any(|(at, was)| elsewhere(at) && was.generation < run.generation)
    }
}
