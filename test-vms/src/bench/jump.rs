//! A service that has used a tenth of what it may, on a node whose batch work has the rest, and that wants all of it within a
//! second: alone, and beside them.

use std::collections::{BTreeSet, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use test_vms::node::{Node, Plan};
use test_vms::{Error, Result};

use crate::arrivals::Asked;
use crate::figures::{Series, millis, show_at_most, show_holds};
use crate::pairs::{Pairs, Window};
use crate::service::{address, job, overcommitted, restarts, running};
use crate::{band, cores};

const MIB: u64 = 1 << 20;
const NODE: u64 = 1024;
/// Of the service.
const LIMIT: u64 = 512;
const TENTH: u64 = 50;
/// What it takes in the jump, in so many steps over a second: some of its limit is its program's.
const STEP: u64 = 44;
const STEPS: u32 = 10;
/// Of the batch work: burners, half a core together, and keepers of memory, as many as there is room for.
const BURNERS: usize = 10;
const KEEPERS: usize = 13;
const KEEPER: u64 = 64;
const KEPT: u64 = 56;

/// It has its CPU so soon.
const CPU_MS: f64 = 100.0;
/// A step takes so much longer than alone, at most.
const MEMORY: f64 = 1.5;
/// How long batch work may take to get what the service does not use.
const FILLS: Duration = Duration::from_secs(240);
/// It has its CPU when it uses so much of a core for so long.
const HAS: f64 = 0.9;
const FOR: Duration = Duration::from_millis(30);
const LOOK: Duration = Duration::from_millis(3);
const LASTS: Duration = Duration::from_secs(3);

pub(crate) fn run(count: usize) -> Result<bool> {
    let (mut memory, mut cpu, mut alone) =
        (Pairs::default(), Series::new(String::new()), Series::new(String::new()));
    let (mut taken, mut restarted) = (u64::MAX, 0);
    for _ in 0..count {
        memory.begin();
        let node = Node::start_as(Plan { memory: Some(NODE * MIB), ..overcommitted() })?;
        let service = service(&node)?;
        for window in [Window::Alone, Window::Again] {
            let jump = jump(&node, &service)?;
            memory.note(window, jump.slowest.as_secs_f64() * 1e3);
            alone.push(jump.cpu);
            service.wants("/reveal")?;
        }
        drop(node);
        let node = Node::start_as(Plan { memory: Some(NODE * MIB), ..overcommitted() })?;
        let service = self::service(&node)?;
        taken = taken.min(fill(&node)?);
        let jump = jump(&node, &service)?;
        memory.note(Window::Beside, jump.slowest.as_secs_f64() * 1e3);
        cpu.push(jump.cpu);
        restarted += restarts(&node, "service")?;
        drop(node);
    }
    println!("  it has its CPU after {} alone (median)", millis(alone.median()));
    Ok(show_at_most("it has its CPU after, worst", cpu.worst().as_secs_f64() * 1e3, CPU_MS, "ms")
        & memory.show_at_most("memory, the slowest step", MEMORY, "ms")
        & show_holds(
            "others had its memory before",
            taken > NODE - LIMIT,
            &format!("{taken} MiB of limits beside it"),
        )
        & show_holds("it was never restarted", restarted == 0, ""))
}

impl Asked {
    fn of(task: &serde_json::Value) -> Result<Self> {
        Ok(Self { at: address(task)?, path: String::new() })
    }

    fn wants(&self, path: &str) -> Result<()> {
        Self { path: path.to_owned(), ..*self }.once()
    }
}

fn service(node: &Node) -> Result<Asked> {
    cores::part(node)?;
    let scratch = format!("volumes = [{{ tmpfs = \"{LIMIT}MiB\", path = \"/scratch\" }}]\n");
    node.run("service", &(job("service", "production", 1, "1", &format!("{LIMIT}MiB")) + &scratch))?;
    cores::pin_tasks(node)?;
    let task = running(node, "service")?.pop();
    let service = Asked::of(&task.ok_or_else(|| Error::Missing("no service runs".to_owned()))?)?;
    service.wants(&format!("/alloc?mib={TENTH}"))?;
    service.wants("/burn?cpu=0.1&seconds=86400")?;
    Ok(service)
}

/// Has batch work take what it gets; the sum of the memory that those may have who run, in MiB.
fn fill(node: &Node) -> Result<u64> {
    let file = |name, count, cpu, memory: u64| {
        node.job_file(name, &job(name, "batch", count, cpu, &format!("{memory}MiB")))
    };
    for file in [file("burner", BURNERS, "50m", 16)?, file("keeper", KEEPERS, "20m", KEEPER)?] {
        node.json(&["run", &file.display().to_string()])?;
    }
    let (begun, mut kept, mut taken) = (Instant::now(), BTreeSet::new(), 0);
    while begun.elapsed() < FILLS && kept.len() < BURNERS + KEEPERS {
        for (name, path, memory) in [
            ("burner", "/burn?cpu=1&seconds=86400".to_owned(), 16),
            ("keeper", format!("/alloc?mib={KEPT}"), KEEPER),
        ] {
            for task in running(node, name)? {
                if kept.insert(task["pid"].as_u64()) {
                    cores::pin_tasks(node)?;
                    Asked::of(&task)?.wants(&path)?;
                    taken += memory;
                }
            }
        }
        thread::sleep(Duration::from_secs(1));
    }
    println!("  batch work with {taken} MiB of limits runs after {:.0} s", begun.elapsed().as_secs_f64());
    Ok(taken)
}

struct Jump {
    cpu: Duration,
    slowest: Duration,
}

fn jump(node: &Node, service: &Asked) -> Result<Jump> {
    let taking = {
        let service = Asked { path: format!("/hide?mib={STEP}&at=/scratch"), ..service.clone() };
        thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            for _ in 0..STEPS {
                let begun = Instant::now();
                service.once()?;
                slowest = slowest.max(begun.elapsed());
                thread::sleep((Duration::from_secs(1) / STEPS).saturating_sub(begun.elapsed()));
            }
            Ok(slowest)
        })
    };
    service.wants(&format!("/burn?cpu=1&seconds={}", LASTS.as_secs()))?;
    let cpu = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            cores::pin_client()?;
            has_its_cpu(node)
        });
        watch.join().unwrap_or_else(|_| Err(Error::Missing("the watcher panicked".to_owned())))
    })?;
    let slowest = taking.join().unwrap_or_else(|_| Err(Error::Missing("the taker panicked".to_owned())))?;
    thread::sleep(LASTS);
    Ok(Jump { cpu, slowest })
}

/// Until production has used its share for a while.
fn has_its_cpu(node: &Node) -> Result<Duration> {
    let begun = Instant::now();
    let mut looks = VecDeque::new();
    while begun.elapsed() < LASTS {
        let now = (begun.elapsed(), band::cpu(node, "production")?);
        looks.push_back(now);
        while looks.front().is_some_and(|first: &(Duration, Duration)| now.0 - first.0 > FOR + LOOK) {
            looks.pop_front();
        }
        if let Some(first) = looks.front().filter(|first| now.0 - first.0 >= FOR)
            && (now.1 - first.1).as_secs_f64() >= HAS * (now.0 - first.0).as_secs_f64()
        {
            return Ok(first.0);
        }
        thread::sleep(LOOK);
    }
    Ok(LASTS)
}
