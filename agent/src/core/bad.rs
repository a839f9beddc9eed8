//! Tasks that failed here again and again: remembered for a while and reported, so that the placer tries another node and
//! keeps to that (DESIGN 4). On disk too, as far as that
//! can be had: nothing waits for it.

use placement::{ids::TaskKey, node::Bad};

use super::Core;
use crate::event::Change;

/// Failures in a row after which another node is to try.
const FAILURES: u32 = 3;
/// How long other nodes come first, after the last failure.
const FORGET_MS: u64 = 600_000;

impl Core {
    /// After one more failure of a service. A batch task's failures count against its retries instead, wherever it runs.
    pub(crate) fn remember_failure(&mut self, key: TaskKey, why: &str) {
        let now = self.now;
        let Some(task) = self.tasks.get(&key).filter(|t| !t.is_batch() && t.failures >= FAILURES) else {
            return;
        };
        let bad = Bad {
            key,
            generation: task.record.generation,
            version: task.record.version,
            restart_at: task.record.restart_at,
            times: task.failures,
            why: why.to_string(),
            until_ms: now.wall_ms + FORGET_MS,
            reclaimed: false,
        };
        let (times, until) = (bad.times, bad.until());
        let before = self.config.node.bad.iter().any(|b| b.key == key && b.generation == bad.generation);
        self.config.node.bad.retain(|b| b.key != key);
        self.config.node.bad.push(bad);
        self.bad_until.insert(key, now.mono_ms + FORGET_MS);
        self.failures_changed();
        if !before {
            let text = format!("failed {times} times in a row here: other nodes are preferred until {until}");
            self.note(key, "bad_node", text);
        }
    }

    /// Somebody wants it to be tried again, here.
    pub(crate) fn forgive(&mut self, key: TaskKey) {
        if self.bad_until.remove(&key).is_some() {
            self.config.node.bad.retain(|b| b.key != key);
            self.failures_changed();
        }
    }

    fn failures_changed(&mut self) {
        self.node_changed = true;
        self.store(vec![Change::Bad(self.config.node.bad.clone())]);
    }

    /// What an earlier agent wrote down. The wall clock may have jumped since: nothing is remembered for longer than at first.
    pub(crate) fn recall_failures(&mut self) {
        let now = self.now;
        self.config.node.bad.retain(|bad| bad.until_ms > now.wall_ms);
        for bad in &mut self.config.node.bad {
            let left_ms = (bad.until_ms - now.wall_ms).min(FORGET_MS);
            bad.until_ms = now.wall_ms + left_ms;
            self.bad_until.insert(bad.key, now.mono_ms + left_ms);
        }
    }

    pub(crate) fn forget_old_failures(&mut self) {
        let now = self.now.mono_ms;
        let old: Vec<TaskKey> =
            self.bad_until.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        old.into_iter().for_each(|key| self.forgive(key));
    }
}
