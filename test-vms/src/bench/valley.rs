//! A service whose load comes and goes as that of a day does, only faster, on a core that batch work shares: the work fills the
//! valleys and is away at the peaks. What both use is looked at second by second.

use std::collections::BTreeSet;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_vms::node::{Node, Plan};
use test_vms::{Error, Result};

use crate::arrivals::{Answered, Asked, varying};
use crate::dice::Dice;
use crate::figures::{show_at_least, show_at_most, show_holds};
use crate::pairs::correlation;
use crate::service::{Service, address, job, overcommitted, restarts, room_on_paper, running};
use crate::{band, cores};

const PERIOD: Duration = Duration::from_secs(120);
/// The service's load at night and at noon, of a core.
const LOAD: [f64; 2] = [0.1, 0.7];
/// Of batch work, whose limits together are a core.
const TASKS: usize = 10;
const SAMPLE: Duration = Duration::from_secs(1);
/// Between two looks for batch tasks that have come.
const LOOK: u32 = 5;
/// Until the node has seen what a day is like, and batch work has come as far as it may.
const LEARNS: usize = 1;

const CORRELATION: f64 = -0.7;
/// Of what the service leaves.
const PERCENT: f64 = 85.0;
/// Of the service's p99 alone.
const P99: f64 = 1.5;

pub(crate) fn run(count: usize) -> Result<bool> {
    Ok(on_paper(count)? & as_predicted(count)?)
}

/// There is room on paper, so that all batch work runs from the beginning: what the bands do to each other.
fn on_paper(count: usize) -> Result<bool> {
    println!("  a node with room on paper for all of the work:");
    let days = Days::begin(room_on_paper())?;
    let alone = days.pass(1, || Ok(()))?;
    days.node.run("burn", &work())?;
    days.burn(&mut BTreeSet::new())?;
    let beside = days.pass(count, || Ok(()))?;
    println!("  the service's p99 {:.2} ms alone, {:.2} ms beside it", alone.p99(), beside.p99());
    Ok(show_at_most("batch to the service's CPU", beside.correlation(), CORRELATION, "correlation")
        & show_at_least("batch, of what is left", beside.filled(), PERCENT, "%")
        & show_at_most("the service's p99, to alone", beside.p99() / alone.p99(), P99, "×")
        & days.unharmed(&beside)?)
}

/// The service's limit is all that there is: batch work runs as far as the node predicts that it may.
fn as_predicted(count: usize) -> Result<bool> {
    println!("  a node that the service fills on paper:");
    let days = Days::begin(overcommitted())?;
    let file = days.node.job_file("burn", &work())?;
    days.node.json(&["run", &file.display().to_string()])?;
    let mut all = BTreeSet::new();
    let mut newcomers = || days.burn(&mut all);
    days.pass(LEARNS, &mut newcomers)?;
    let beside = days.pass(count, &mut newcomers)?;
    println!("  {} of {TASKS} batch tasks run", running(&days.node, "burn")?.len());
    Ok(show_at_most("batch to the service's CPU", beside.correlation(), CORRELATION, "correlation")
        & days.unharmed(&beside)?)
}

struct Days {
    node: Node,
    service: Service,
}

/// What was seen of some of them.
struct Seen {
    answered: Answered,
    /// The service's CPU and batch work's, of a core, second by second.
    cpu: Vec<[f64; 2]>,
}

impl Days {
    fn begin(plan: Plan) -> Result<Self> {
        let node = Node::start_as(plan)?;
        cores::part(&node)?;
        let service = Service::start(&node, "64MiB")?;
        Ok(Self { node, service })
    }

    /// Has those that have come do all the work that they can.
    fn burn(&self, burning: &mut BTreeSet<Option<u64>>) -> Result<()> {
        for task in running(&self.node, "burn")? {
            let pid = task["pid"].as_u64();
            if !burning.contains(&pid) && burn(&task).is_ok() {
                burning.insert(pid);
                cores::pin_tasks(&self.node)?;
            }
        }
        Ok(())
    }

    fn pass(&self, days: usize, mut now_and_then: impl FnMut() -> Result<()>) -> Result<Seen> {
        now_and_then()?;
        let (length, asked) = (PERIOD * days as u32, self.service.asked().clone());
        let most = self.service.of_a_core(LOAD[1]);
        let rate = |at: Duration| most * load(at) / LOAD[1];
        thread::scope(|scope| {
            let users = scope.spawn(move || varying(&asked, rate, length, &mut Dice(0x5eed)));
            let (begun, mut cpu) = (Instant::now(), Vec::new());
            let mut before = self.cpu()?;
            for number in 1.. {
                let due = SAMPLE * number;
                if due > length {
                    break;
                }
                sleep(due.saturating_sub(begun.elapsed()));
                let after = self.cpu()?;
                let took = (after.0 - before.0).as_secs_f64();
                cpu.push([0, 1].map(|of| (after.1[of] - before.1[of]).as_secs_f64() / took));
                before = after;
                if number % LOOK == 0 {
                    now_and_then()?;
                }
            }
            let answered =
                users.join().unwrap_or_else(|_| Err(Error::Missing("the users panicked".to_owned())))?;
            Ok(Seen { answered, cpu })
        })
    }

    fn cpu(&self) -> Result<(Instant, [Duration; 2])> {
        let used = [band::cpu(&self.node, "production")?, band::cpu(&self.node, "batch")?];
        Ok((Instant::now(), used))
    }

    fn unharmed(&self, beside: &Seen) -> Result<bool> {
        let (failed, again) = (&beside.answered.failed, restarts(&self.node, "service")?);
        let detail = format!(
            "{} failed {}, {again} restarts",
            failed.len(),
            failed.first().map_or("", String::as_str)
        );
        Ok(show_holds(
            "the service answered all, and was never restarted",
            failed.is_empty() && again == 0,
            &detail,
        ))
    }
}

impl Seen {
    /// In milliseconds.
    fn p99(&self) -> f64 {
        self.answered.p99().as_secs_f64() * 1e3
    }

    fn correlation(&self) -> f64 {
        correlation(&self.cpu)
    }

    /// In percent of the core's rest.
    fn filled(&self) -> f64 {
        let left: f64 = self.cpu.iter().map(|[service, _]| 1.0 - service).sum();
        self.cpu.iter().map(|[_, batch]| batch).sum::<f64>() * 100.0 / left
    }
}

/// The service's, of a core.
fn load(at: Duration) -> f64 {
    let turn = at.as_secs_f64() / PERIOD.as_secs_f64() * std::f64::consts::TAU;
    LOAD[0] + (LOAD[1] - LOAD[0]) * (1.0 - turn.cos()) / 2.0
}

fn work() -> String {
    job("burn", "batch", TASKS, "100m", "16MiB")
}

fn burn(task: &Value) -> Result<()> {
    Asked { at: address(task)?, path: "/burn?cpu=1&seconds=86400".to_owned() }.once()
}
