use crate::cell::Cell;

/// A machine is to go for good: its tasks move, its vote goes to another, and the cell forgets it.
#[test]
fn a_node_leaves_and_its_tasks_move() {
    let cell = Cell::of("leave", 4);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 8);
    cell.run("h1", &web);
    let before = cell.running("h1", "web", 8, &all);
    let placer = cell.placer("h1");
    // Of four nodes three vote; one that does and leads nothing is the case of interest.
    let nodes = cell.nodes("h1").unwrap();
    let voter = nodes.iter().find(|node| node["voter"] == true && node["name"] != placer.as_str()).unwrap();
    let leaver = voter["name"].as_str().unwrap().to_owned();
    let rest = cell.others(&[&leaver]);

    cell.covey(&leaver, &["leave"]).unwrap();
    let after = cell.running(&placer, "web", 8, &rest);
    for (index, was) in before.iter().filter(|(_, task)| task.node != leaver) {
        assert_eq!(after[index], *was, "who was not there has not noticed");
    }
    cell.settles(&placer, &rest);
    assert_eq!(cell.containers(&leaver), [] as [i64; 0]);
    let known = cell.nodes(&placer).unwrap();
    assert!(!known.iter().any(|node| node["name"] == leaver.as_str()), "{known:?}");
}
