//! Buffered writes on cgroup v1: the kernel counts them as nobody's and throttles none of them, so a task with a limit of
//! block IO could fill the disk's queue all the same. What such a task writes is counted here by its processes, and a task
//! that is ahead of its limit is frozen until it is not. Rough, and told to its owner; direct IO is the kernel's to hold.

use std::{collections::BTreeMap, fs, mem, sync::Arc, time::Duration};

use oci::cgroup::{Placement, Tree};
use placement::job::container::Io;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    daemon::inbox::NodeHandle,
    event::{Event, RunEvent, RunId},
    runner::{Ground, prepare::band},
};

/// Between two looks: at one that has written too much before, what it writes until the next is what it is stopped for;
/// at others; and where there is nobody to look at.
const CLOSE: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(1);
/// Where only operations are limited: what the kernel makes one of when it writes pages back.
const OPERATION: u64 = 128 << 10;
/// A task may be ahead by what its limit allows in so many seconds.
const AHEAD_S: f64 = 1.0;
/// The most that it is stopped for, in seconds of its limit: what it wrote before anybody could look is not paid for in full,
/// since it would seem to be dead.
const DEBT_S: f64 = 3.0;

/// Looks after such tasks until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle) {
    if !ground.tree.writes_escape() {
        return;
    }
    // An earlier agent may have died meanwhile.
    for (band, run) in ground.tree.list() {
        ground.tree.placement(band, &run).freeze(false);
    }
    let mut accounts: BTreeMap<RunId, Account> = BTreeMap::new();
    let mut before = Instant::now();
    loop {
        let limited = |core: &crate::core::Core| core.io_limits();
        let Some(limited) = node.read(limited).await else { break };
        let seconds = before.elapsed().as_secs_f64();
        before = Instant::now();
        let limited_starts = &ground.limited_starts;
        let ground = ground.clone();
        let looked = spawn_blocking(move || {
            let held = look(&ground.tree, limited, &mut accounts, seconds);
            (accounts, held)
        });
        let Ok((now, held)) = looked.await else { return };
        accounts = now;
        for (run, text) in held {
            node.tell(Event::Run { run, what: RunEvent::Held(text) });
        }
        let close = accounts.values().any(|account| account.told && !account.frozen);
        let pause = if close { CLOSE } else { LOOK };
        tokio::select! {
            () = sleep(if accounts.is_empty() { IDLE } else { pause }) => {}
            () = limited_starts.notified() => {}
        }
    }
    accounts.values_mut().for_each(Account::let_go);
}

/// Who was stopped just now for the first time, and what to say of it.
fn look(
    tree: &Tree,
    limited: Vec<(RunId, placement::job::Band, Io)>,
    accounts: &mut BTreeMap<RunId, Account>,
    seconds: f64,
) -> Vec<(RunId, String)> {
    let mut there = BTreeMap::new();
    let mut held = Vec::new();
    for (run, on, io) in limited {
        let fresh = || Account::new(tree.placement(band(on), &run.to_string()));
        let mut account = accounts.remove(&run).unwrap_or_else(fresh);
        let rate =
            io.bandwidth.unwrap_or(u64::MAX).min(io.iops.unwrap_or(u64::MAX).saturating_mul(OPERATION));
        if let Some(text) = account.look(rate, seconds) {
            held.push((run, text));
        }
        there.insert(run, account);
    }
    // Those that are left are stopping, gone, or have no limit any more.
    accounts.values_mut().for_each(Account::let_go);
    *accounts = there;
    held
}

/// A task's writes.
struct Account {
    cgroup: Placement,
    /// Bytes that its processes had written when they were looked at last, all together. Those of one that has ended are
    /// its parent's from then on.
    written: u64,
    bucket: Bucket,
    frozen: bool,
    told: bool,
}

impl Account {
    fn new(cgroup: Placement) -> Account {
        Account { cgroup, written: 0, bucket: Bucket::default(), frozen: false, told: false }
    }

    fn look(&mut self, rate: u64, seconds: f64) -> Option<String> {
        let now: u64 = self.cgroup.processes().into_iter().map(written).sum();
        let bytes = now.saturating_sub(mem::replace(&mut self.written, now));
        let hold = self.bucket.holds(bytes, rate, seconds);
        let can = hold == self.frozen || self.cgroup.freeze(hold);
        self.frozen = hold && can;
        if !hold || mem::replace(&mut self.told, true) {
            return None;
        }
        let what =
            "it writes more than its IO limit through the page cache, which cgroup v1 does not throttle";
        Some(match can {
            true => format!("{what}: it is stopped for moments, so that it stays below"),
            false => format!("{what}, and this node has no unified cgroups to stop it with"),
        })
    }

    fn let_go(&mut self) {
        if mem::take(&mut self.frozen) {
            self.cgroup.freeze(false);
        }
    }
}

/// How far a task is ahead of its rate.
#[derive(Default)]
struct Bucket {
    ahead: f64,
    holds: bool,
}

impl Bucket {
    /// After so many bytes in so many seconds: whether it has to wait. Once it does, until it is not ahead any more.
    fn holds(&mut self, bytes: u64, rate: u64, seconds: f64) -> bool {
        let rate = rate as f64;
        self.ahead = (self.ahead + bytes as f64 - rate * seconds).clamp(0.0, rate * DEBT_S);
        self.holds = self.ahead > if self.holds { 0.0 } else { rate * AHEAD_S };
        self.holds
    }
}

/// Bytes that a process has caused to be written, page cache included, less what was removed before that.
fn written(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    field("write_bytes").saturating_sub(field("cancelled_write_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waits_from_a_second_ahead_until_it_is_not_ahead() {
        let mut bucket = Bucket::default();
        assert!(!bucket.holds(1_500, 1_000, 1.0));
        assert!(!bucket.holds(1_000, 1_000, 0.5));
        assert!(bucket.holds(600, 1_000, 0.1));
        assert!(bucket.holds(0, 1_000, 1.0));
        assert!(!bucket.holds(0, 1_000, 0.6));
        assert!(bucket.holds(1_000_000, 1_000, 0.1));
        assert!(bucket.holds(0, 1_000, 2.9));
        assert!(!bucket.holds(0, 1_000, 0.1));
        // What is not used is not saved up.
        assert!(!bucket.holds(0, 1_000, 100.0));
        assert!(bucket.holds(2_001, 1_000, 1.0));
    }
}
