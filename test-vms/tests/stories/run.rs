use std::collections::BTreeSet;

use crate::cell::Cell;

/// A job is submitted through one node, seen through all, changed through another, and ended through a third.
#[test]
fn a_job_runs_on_all_nodes_whichever_is_asked() {
    let cell = Cell::of("run", 5);
    let all = cell.hosts().unwrap();
    let placer = cell.placer("h1");
    let not_placer = cell.others(&[&placer]);

    let web = cell.web("web", 10);
    cell.run(&not_placer[0], &web);
    let first = cell.running(&placer, "web", 10, &all);
    let used: BTreeSet<&str> = first.values().map(|task| task.node.as_str()).collect();
    assert_eq!(used.len(), 5, "ten tasks are spread over five nodes: {used:?}");
    for host in &all {
        assert_eq!(cell.running(host, "web", 10, &all), first, "as {host} sees it");
    }
    for task in first.values() {
        assert!(cell.asks(task, "/healthz").contains("200 OK"));
        assert!(cell.containers(&task.node).contains(&task.pid));
    }

    // Logs of a task on one node, asked for on another.
    let far = first.values().find(|task| task.node != not_placer[1]).unwrap();
    let logs = cell.covey(&not_placer[1], &["logs", &format!("web/{}", far.index)]).unwrap();
    assert!(!logs.is_empty());

    cell.covey(&not_placer[1], &["scale", "web", "12"]).unwrap();
    let more = cell.running(&not_placer[2], "web", 12, &all);
    assert!(first.iter().all(|(index, task)| more[index] == *task), "those that ran go on");

    cell.covey(&not_placer[2], &["stop", "web"]).unwrap();
    cell.copies(&placer, "web", 0);
}
