//! Times the ledger on this disk: `cargo run -p agent --example ledger_bench --release -- [DIRECTORY]`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent::ledger::LedgerHandle;
use placement::{
    ids::{CellId, JobKey, NodeId},
    ledger::{Command, Entry, Expect},
};
use serde_json::json;

const NODE: NodeId = NodeId(0xa);
const JOBS: usize = 10_000;

fn entry(command: Command) -> Entry {
    Entry { request: None, at_ms: 1_700_000_000_000, command }
}

fn submit(name: usize) -> Entry {
    let name = format!("job-{name}");
    let task = json!({
        "image": "hello:1", "cpu": 0.5, "memory": "256MiB", "ports": ["http"],
        "env": {"GREETING": "good day to you", "LEVEL": "debug"},
        "health": {"http": "/healthy", "port": "http"},
    });
    entry(Command::Submit {
        job: JobKey { owner: "root".into(), name: name.clone() },
        document: json!({"name": name, "count": 3, "task": task}),
        images: BTreeMap::from([("hello:1".into(), format!("sha256:{}", "0".repeat(64)))]),
        expect: Expect::Any,
    })
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{what:<48} median {:>9.2?}  p99 {:>9.2?}  n {}", at(0.5), at(0.99), times.len());
}

async fn founded(path: &Path) -> LedgerHandle {
    let ledger = LedgerHandle::open(path, NODE).await.unwrap();
    let first = vec![
        entry(Command::Found { cell: CellId("ab".repeat(32)), name: "home".into(), generation: 1 }),
        entry(Command::Admit { node: NODE, name: "a".into() }),
    ];
    ledger.found(first).await.unwrap();
    assert!(ledger.role().borrow().is_leader());
    ledger
}

#[tokio::main]
async fn main() {
    let place = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = place.join(format!("ledger-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("ledger.redb");
    println!("{:<48} {} KiB", "resident before", resident());

    let mut times = Vec::new();
    for i in 0..20 {
        let path = dir.join(format!("{i}.redb"));
        let start = Instant::now();
        let ledger = founded(&path).await;
        times.push(start.elapsed());
        ledger.shutdown().await;
    }
    tell("open + found", times);

    let ledger = founded(&path).await;
    println!("{:<48} {} KiB", "resident, founded", resident());
    let mut times = Vec::new();
    for i in 0..1000 {
        let start = Instant::now();
        ledger.propose(&submit(i)).await.unwrap();
        times.push(start.elapsed());
    }
    tell("propose, one after the other", times);

    restarts(&path, ledger, "restart with 1,000 entries").await;
    let ledger = LedgerHandle::open(&path, NODE).await.unwrap();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 1000..JOBS {
        let ledger = ledger.clone();
        tasks.spawn(async move { ledger.propose(&submit(i)).await.map(drop).unwrap() });
    }
    tasks.join_all().await;
    println!("{:<48} {:.2?}", format!("propose {} at once", JOBS - 1000), start.elapsed());
    println!("{:<48} {} KiB", format!("resident, {JOBS} jobs"), resident());

    let start = Instant::now();
    for _ in 0..1_000_000 {
        std::hint::black_box(ledger.state());
    }
    println!("{:<48} {:.2?}", "state()", start.elapsed() / 1_000_000);

    let activate = || entry(Command::Activate { node: NODE });
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        ledger.propose(&activate()).await.unwrap();
        times.push(start.elapsed());
    }
    tell("propose, nobody reads", times);
    let mut times = Vec::new();
    for _ in 0..20 {
        let held = ledger.state();
        let start = Instant::now();
        ledger.propose(&activate()).await.unwrap();
        times.push(start.elapsed());
        drop(held);
    }
    tell("propose while a reader holds the state", times);

    let mut times = Vec::new();
    for _ in 0..6_000 {
        let start = Instant::now();
        ledger.propose(&activate()).await.unwrap();
        times.push(start.elapsed());
    }
    let longest = times.iter().max().copied().unwrap();
    tell("propose, over a snapshot", times);
    println!("{:<48} {longest:.2?}", "the longest of these");
    println!("{:<48} {} KiB", "resident, after a snapshot", resident());

    restarts(&path, ledger, &format!("restart with {JOBS} jobs")).await;
    println!("{:<48} {} KiB", "ledger.redb", fs::metadata(&path).unwrap().len() / 1024);
    fs::remove_dir_all(&dir).unwrap();
}

async fn restarts(path: &Path, ledger: LedgerHandle, what: &str) {
    ledger.shutdown().await;
    drop(ledger);
    let mut times = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let ledger = LedgerHandle::open(path, NODE).await.unwrap();
        assert!(ledger.role().borrow().is_leader());
        times.push(start.elapsed());
        ledger.shutdown().await;
    }
    tell(what, times);
}
