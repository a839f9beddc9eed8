//! The placer killed again and again, under clients on all nodes: what was acknowledged must be there at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::lab::Result;

use super::{Cell, items, wait};
use crate::dice::Dice;
use crate::figures::{Series, millis, show_holds};

/// Between two submissions of one client.
const PACE: Duration = Duration::from_millis(1000);
/// So many jobs of each client go on; older ones are stopped, or the machine would run thousands.
const KEPT: usize = 4;
/// Of so many kills, one is a loss of power.
const POWER: usize = 20;

pub(crate) fn run(count: usize) -> Result<bool> {
    let (cell, _) = Cell::up()?;
    cell.run("h1", "first", cell.hosts.len())?;
    let over = AtomicBool::new(false);
    let (killed, clients) = thread::scope(|scope| {
        let clients: Vec<_> =
            cell.hosts.iter().map(|host| scope.spawn(|| Client::new(host).work(&cell, &over))).collect();
        let killed = kill(&cell, count);
        over.store(true, Ordering::Relaxed);
        let clients: Vec<Client> = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        (killed, clients)
    });
    let longest = killed?;
    cell.whole()?;
    report(&clients, count, longest);
    check(&cell, &clients)
}

/// Kills whoever places, so often; the longest time without a placer that a client's node could name.
fn kill(cell: &Cell, count: usize) -> Result<Duration> {
    let mut dice = Dice(0x5eed);
    let mut longest = Duration::ZERO;
    let mut seen_by = "h1".to_owned();
    let mut gone = Instant::now();
    for round in 0..count {
        let placer = cell.placer(&seen_by)?;
        if round > 0 {
            longest = longest.max(gone.elapsed());
        }
        let others = cell.others(&placer);
        others[dice.below(others.len() as u64) as usize].clone_into(&mut seen_by);
        // Sometimes at once, sometimes when it has done something.
        sleep(Duration::from_millis(dice.below(1000)));
        gone = Instant::now();
        let off = Duration::from_millis(dice.below(1500));
        if round % POWER == POWER - 1 {
            cell.crash(&placer)?;
            sleep(off);
            cell.boot(&placer, None)?;
        } else {
            cell.kill(&placer)?;
            sleep(off);
            cell.start(&placer)?;
        }
    }
    Ok(longest)
}

/// One on each host, which asks its own agent.
struct Client {
    host: String,
    acknowledged: Vec<String>,
    took: Series,
    /// Asked to be stopped: what runs of these may be anything, but they must be known.
    stopped: BTreeSet<String>,
    refused: BTreeMap<String, usize>,
}

impl Client {
    fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            acknowledged: Vec::new(),
            took: Series::new("an acknowledgement".to_owned()),
            stopped: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    fn work(mut self, cell: &Cell, over: &AtomicBool) -> Self {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let name = format!("{}-{number}", self.host);
            number += 1;
            let file = cell.job(&name, 1).map(|file| file.display().to_string());
            match file
                .map_err(|why| why.to_string())
                .and_then(|file| self.ask(cell, &["run", "--create", &file]))
            {
                Ok(()) => {
                    self.acknowledged.push(name);
                    self.took.push(begun.elapsed());
                }
                Err(why) => *self.refused.entry(why).or_default() += 1,
            }
            if let Some(old) =
                self.acknowledged.len().checked_sub(KEPT + 1).map(|at| self.acknowledged[at].clone())
            {
                // Acknowledged or not, it may have been stopped.
                let _ = self.ask(cell, &["stop", &old]);
                self.stopped.insert(old);
            }
            sleep(PACE.saturating_sub(begun.elapsed()));
        }
        self
    }

    /// Why not, in a few words.
    fn ask(&self, cell: &Cell, args: &[&str]) -> std::result::Result<(), String> {
        let mut covey = cell.exec(&self.host, "covey").map_err(|_| "the host is off".to_owned())?;
        let output = covey.args(args).arg("--json").stdin(Stdio::null()).output();
        let output = output.map_err(|why| format!("cannot run covey: {}", why.kind()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        match said["error"]["code"].as_str() {
            Some(code) => Err(code.to_owned()),
            // Whoever is on a host that loses power says nothing any more.
            None if output.stderr.is_empty() => Err(format!("covey itself ended with {}", output.status)),
            None => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

fn report(clients: &[Client], kills: usize, longest: Duration) {
    let acknowledged: usize = clients.iter().map(|client| client.acknowledged.len()).sum();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for (why, times) in clients.iter().flat_map(|client| &client.refused) {
        *refused.entry(why).or_default() += times;
    }
    let slowest = clients.iter().map(|client| client.took.worst()).max().unwrap_or_default();
    let all: usize = refused.values().sum();
    println!("  {kills} kills, {acknowledged} submissions acknowledged, {all} refused");
    println!(
        "  slowest acknowledgement {}; longest without a placer, the restart included, {}",
        millis(slowest),
        millis(longest)
    );
    for (why, times) in refused {
        println!("    refused {times} ×: {why}");
    }
}

fn check(cell: &Cell, clients: &[Client]) -> Result<bool> {
    let known: BTreeSet<String> = items(cell.json("h1", &["jobs"])?)
        .iter()
        .filter_map(|job| job["name"].as_str().map(str::to_owned))
        .collect();
    let lost: Vec<&String> = clients
        .iter()
        .flat_map(|client| &client.acknowledged)
        .filter(|name| !known.contains(*name))
        .collect();
    let none_lost = show_holds("no acknowledged submission lost", lost.is_empty(), &format!("{lost:?}"));

    let wanted: BTreeSet<&String> = clients
        .iter()
        .flat_map(|client| client.acknowledged.iter().filter(|name| !client.stopped.contains(*name)))
        .collect();
    let wrong = wait("each wanted task has one running copy", || {
        let copies = copies(cell).map_err(|why| why.to_string())?;
        let wrong: BTreeMap<_, _> = wanted
            .iter()
            .map(|name| (name, copies.get(*name).map_or(0, Vec::len)))
            .filter(|(_, copies)| *copies != 1)
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
    });
    let why = wrong.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let one_each = show_holds(
        "each wanted task has exactly one running copy",
        wrong.is_ok(),
        &format!("{} wanted {why}", wanted.len()),
    );
    Ok(none_lost & one_each)
}

/// The hosts of the processes of each job, as the kernel has them: nobody's records are asked.
fn copies(cell: &Cell) -> Result<BTreeMap<String, Vec<String>>> {
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for host in &cell.hosts {
        for pid in cell.processes(host)? {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let program = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut job =
                environment.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(b"COVEY_JOB="));
            if let Some(job) = job.next()
                && program.starts_with(b"/hello")
            {
                copies.entry(String::from_utf8_lossy(job).into_owned()).or_default().push(host.clone());
            }
        }
    }
    Ok(copies)
}
