use crate::cell::{Cell, Task};

/// A machine loses power. Its tasks run elsewhere; when it is back, it is used again, and nothing runs twice.
#[test]
fn the_tasks_of_a_dead_node_run_elsewhere() {
    let cell = Cell::of("node-crashed", 5);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 10);
    cell.run("h1", &web);
    let before = cell.running("h1", "web", 10, &all);
    let placer = cell.placer("h1");
    let victim = before.values().map(|task| &task.node).find(|node| **node != placer).unwrap().clone();
    let rest = cell.others(&[&victim]);

    cell.crash(&victim).unwrap();
    let after = cell.running(&placer, "web", 10, &rest);
    for (index, was) in &before {
        let is = &after[index];
        if was.node == victim {
            assert!(is.generation > was.generation, "{index} has a later generation: {was:?}, {is:?}");
        } else {
            assert_eq!(is, was, "who was not there has not noticed");
        }
    }

    cell.boot(&victim, None).unwrap();
    cell.settles(&placer, &all);
    cell.copies(&placer, "web", 10);
    let generations =
        |tasks: &[Task]| tasks.iter().all(|task| task.generation >= after[&task.index].generation);
    cell.sees(&victim, "web", "generations that never go back", generations);
    // It has room again, and gets what comes next.
    let more = cell.web("more", 10);
    cell.run(&victim, &more);
    let spread = cell.running(&placer, "more", 10, &all);
    assert!(spread.values().any(|task| task.node == victim));
}
