//! Room that is taken back on a real node: who goes, in which order, what is said of it. Real containers in real memory. Needs
//! root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod started;

use std::time::{Duration, Instant};

use started::node::{Node, get};

fn job(name: &str, band: &str, memory: &str) -> String {
    format!(
        "name = \"{name}\"\nband = \"{band}\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\ncpu = \"500m\"\nmemory = \"{memory}\"\n"
    )
}

fn evicted(node: &Node, task: &str) -> serde_json::Value {
    node.until(task, |task| task["exit"]["cause"] == "reclaimed")
}

/// REQUIREMENTS BX19: free before batch before nothing; never production.
#[test]
fn memory_is_taken_back_from_free_then_from_batch_and_never_from_production() {
    let node = Node::start("cpu=4,memory=512MiB");
    // Each may use more than there will be: what they are believed to need is for others to say.
    node.runs(&job("web", "production", "200MiB"));
    node.runs(&job("etl", "batch", "150MiB"));
    node.runs(&job("idle", "free", "16MiB"));
    node.runs(&job("hog", "free", "140MiB"));
    let [web, etl, hog] = ["web/0", "etl/0", "hog/0"].map(|task| node.task(task));

    get(&etl, "/alloc?mib=143");
    get(&hog, "/alloc?mib=134");
    // All that it may have: it is there when it asks.
    let began = Instant::now();
    get(&web, "/alloc?mib=193");
    eprintln!("production had its memory after {:?}", began.elapsed());

    let gone = evicted(&node, "hog/0");
    let reason = gone["reason"].as_str().unwrap_or_default();
    assert!(gone["state"] == "starting" && reason.contains("of memory are free"), "{gone}");
    let events = node.events("hog");
    assert!(events.contains("reclaimed") && events.contains("in band free"), "{events}");
    // Batch goes on, and so does the small one of the free band: one was enough.
    for (task, before) in [("web/0", &web), ("etl/0", &etl)] {
        let now = node.task(task);
        assert_eq!(
            (&now["state"], &now["pid"], &now["restarts"]),
            (&"running".into(), &before["pid"], &0.into())
        );
    }
    assert_eq!(node.task("idle/0")["state"], "running");
}

/// An antagonist that takes all it can get is gone at once, and the kernel never chose.
#[test]
fn who_takes_all_memory_is_gone_within_two_seconds() {
    let node = Node::start("cpu=4,memory=368MiB");
    node.runs(&job("web", "production", "64MiB"));
    node.runs(&job("hog", "free", "300MiB"));
    let [web, hog] = ["web/0", "hog/0"].map(|task| node.task(task));
    get(&web, "/alloc?mib=58");
    let began = Instant::now();
    get(&hog, "/alloc?mib=295");
    let gone = evicted(&node, "hog/0");
    eprintln!("gone after {:?}: {}", began.elapsed(), gone["reason"]);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(gone["exit"]["signal"], 9);
    let now = node.task("web/0");
    assert_eq!((&now["pid"], &now["restarts"]), (&web["pid"], &0.into()));
}
