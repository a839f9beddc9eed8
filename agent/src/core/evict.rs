//! Room that is taken back from what may be interrupted. The guard says who; the task ends with the cause `reclaimed`, other
//! nodes come first for it from then on, and it starts here again only where there is as much room as it had.

use placement::{
    ids::TaskKey,
    job::Band,
    node::Bad,
    obstacle::amount,
    resources::{CPU, DISK, MEMORY},
    task::Cause,
};

use super::{
    Core,
    drive::seconds,
    task::{Goal, Stage},
};
use crate::{
    event::{Action, Note, RunId},
    guard::{
        signals::{Limited, Watched},
        who::Tenant,
    },
};

/// Pauses before it may start here again double from the first to the last.
const PAUSE_FIRST_MS: u64 = 5_000;
const PAUSE_LAST_MS: u64 = 300_000;
/// How long other nodes come first.
const ELSEWHERE_MS: u64 = 60_000;
/// Between two looks at whether there is room again.
const LOOK_MS: u64 = 1_000;
const WAITS_FOR_ROOM: &str =
    "waits for room: its memory was taken back here, and other nodes have none for it either";
const WAITS_FOR_DISK: &str =
    "waits for room: the disk is short here, and other nodes have no room for it either";

impl Core {
    pub(crate) fn on_evict(&mut self, id: RunId, hard: bool, room: (&'static str, u64), why: String) {
        let Some(task) = self.tasks.get_mut(&id.key).filter(|t| t.record.generation == id.generation) else {
            return;
        };
        // Whoever asks: never production.
        if task.record.spec.band.is_prod() {
            return;
        }
        let (wants_free, wants_disk) = match room {
            (DISK, _) => (0, true),
            (_, used) => (used.max(task.usage.get(MEMORY)), false),
        };
        let Some(run) = task.run.as_mut().filter(|r| r.number == id.run) else { return };
        if matches!(run.stage, Stage::Ended { .. }) {
            return;
        }
        run.hurry |= hard;
        if task.goal == Goal::Run {
            run.over = Some(why.clone());
            (task.wants_free, task.wants_disk) = (wants_free, wants_disk);
            let how = if hard { "at once" } else { "within its grace" };
            self.note(id.key, "reclaimed", format!("has to end {how}: {why}"));
            self.end_and_again(id.key, Cause::Reclaimed, &format!("its room is taken back: {why}"));
        } else {
            self.drive(id.key);
        }
    }

    pub(crate) fn on_free(&mut self, memory: u64) {
        self.free = Some(memory);
        self.look_again(WAITS_FOR_ROOM);
    }

    pub(crate) fn on_disk_short(&mut self, kept: Option<u64>) {
        let before = std::mem::replace(&mut self.disk_kept, kept);
        if before.is_some() != kept.is_some() {
            let (kind, text) = match kept {
                Some(kept) => {
                    let kept = amount(DISK, kept);
                    (
                        "disk_short",
                        format!(
                            "less than {kept} of disk are left, and kept for production: batch and free get nothing new here"
                        ),
                    )
                }
                None => ("disk_well", "there is disk for batch and free again".to_string()),
            };
            self.out.push(Action::Note(Note { kind, about: None, text, ms: None }));
        }
        // The books say so.
        self.node_changed |= before != kept;
        self.look_again(WAITS_FOR_DISK);
    }

    /// There may be room now for those that wait for it.
    fn look_again(&mut self, reason: &str) {
        let waiting = self.tasks.values_mut().filter(|t| t.record.reason.as_deref() == Some(reason));
        let waiting: Vec<TaskKey> = waiting
            .map(|task| {
                task.not_before = self.now.mono_ms;
                task.record.key
            })
            .collect();
        waiting.into_iter().for_each(|key| self.drive(key));
    }

    /// Another node is to take it; failing that, it waits here. Not a failure of its own.
    pub(crate) fn after_eviction(&mut self, key: TaskKey, why: &str) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.goal = Goal::Run;
        // As after a failure: a start that was called off was no run.
        if task.run.is_some() {
            task.record.run += 1;
            task.record.restarts += 1;
            task.unsaved = true;
        }
        let pause = (PAUSE_FIRST_MS << task.evictions.min(16)).min(PAUSE_LAST_MS);
        task.evictions = task.evictions.saturating_add(1);
        task.not_before = now.mono_ms + pause;
        let record = &task.record;
        let bad = Bad {
            key,
            generation: record.generation,
            version: record.version,
            restart_at: record.restart_at,
            times: task.evictions,
            why: why.to_string(),
            until_ms: now.wall_ms + ELSEWHERE_MS,
            reclaimed: true,
        };
        self.config.node.bad.retain(|b| b.key != key);
        self.config.node.bad.push(bad);
        self.bad_until.insert(key, now.mono_ms + ELSEWHERE_MS);
        // Not written down: it is forgotten in a minute.
        self.node_changed = true;
        let text = format!("{why}; on another node if one has room, here not before {}", seconds(pause));
        self.say(key, &text);
        self.note(key, "restarting", text);
    }

    /// Whether it has to wait until there is as much room here as it had.
    pub(crate) fn waits_for_room(&mut self, key: TaskKey) -> bool {
        let (free, short, now) = (self.free, self.disk_kept.is_some(), self.now.mono_ms);
        let Some(task) = self.tasks.get_mut(&key) else { return false };
        let waits_for = if task.wants_disk && short {
            WAITS_FOR_DISK
        } else if free.is_none_or(|free| free > task.wants_free) {
            (task.wants_free, task.wants_disk) = (0, false);
            return false;
        } else {
            WAITS_FOR_ROOM
        };
        task.not_before = now + LOOK_MS;
        self.say(key, waits_for);
        true
    }

    /// What runs here and may be interrupted; what it uses is for the guard to find out.
    pub(crate) fn interruptible(&self) -> Vec<Tenant> {
        let of = |task: &super::task::Task| {
            let run = task.run.as_ref()?;
            let since_ms = match run.stage {
                Stage::Running { since, ran_ms, .. } => since.saturating_sub(ran_ms),
                Stage::Starting => u64::MAX,
                Stage::Ended { .. } => return None,
            };
            let band = task.record.spec.band;
            let reserved = task.reservation().get(MEMORY);
            (band < Band::Production).then(|| Tenant {
                run: task.run_id(run.number),
                band,
                used: 0,
                reserved,
                since_ms,
            })
        };
        self.tasks.values().filter_map(of).collect()
    }

    /// The same, with what each has written as last measured: of disk nothing is reserved.
    pub(crate) fn writers(&self) -> Vec<Tenant> {
        let used = |run: RunId| self.tasks.get(&run.key).map_or(0, |task| task.usage.get(DISK));
        let all = self.interruptible().into_iter();
        all.map(|tenant| Tenant { used: used(tenant.run), reserved: 0, ..tenant }).collect()
    }

    /// Those of them whose container is there, and their CPU limits.
    pub(crate) fn limited(&self) -> Vec<Limited> {
        let limit = |run: RunId| self.tasks.get(&run.key).map_or(0, |task| task.record.spec.limit.get(CPU));
        let there = self.interruptible().into_iter().filter(|tenant| tenant.since_ms < u64::MAX);
        there
            .map(|tenant| (limit(tenant.run), tenant))
            .map(|(cpu_milli, tenant)| (tenant, cpu_milli))
            .collect()
    }

    /// Production that is here, and the memory that it is believed to need.
    pub(crate) fn needs(&self) -> Vec<(RunId, Band, u64)> {
        let of = |task: &super::task::Task| {
            let run = task.run.as_ref().filter(|run| !matches!(run.stage, Stage::Ended { .. }))?;
            let band = task.record.spec.band;
            let most = task.record.spec.limit.0.get(MEMORY).copied().unwrap_or(u64::MAX);
            let need = task.reservation().get(MEMORY).min(most);
            band.is_prod().then(|| (task.run_id(run.number), band, need))
        };
        self.tasks.values().filter_map(of).collect()
    }

    /// Production that says of itself when it suffers, and can be asked.
    pub(crate) fn signals(&self) -> Vec<Watched> {
        let of = |task: &super::task::Task| {
            let spec = &task.record.spec;
            let signal =
                spec.container.signal.clone().filter(|_| spec.band.is_prod() && task.goal == Goal::Run)?;
            let (run, _) = self.running(task.record.key)?;
            let port = signal.port().and_then(|name| task.record.port_inside(name));
            let name = format!("{}/{}", spec.job, task.record.key.index);
            Some(Watched { run, band: spec.band, name, signal, port })
        };
        self.tasks.values().filter_map(of).collect()
    }
}
