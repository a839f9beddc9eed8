use crate::cell::Cell;

/// The placer's machine loses power: another places, and nothing that ran elsewhere is touched.
#[test]
fn another_places_when_the_placer_dies() {
    let cell = Cell::of("placer-crashed", 5);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 10);
    cell.run("h2", &web);
    let before = cell.running("h2", "web", 10, &all);
    let placer = cell.placer("h2");
    let rest = cell.others(&[&placer]);

    cell.crash(&placer).unwrap();
    // Not retried here: the node that takes the request finds the next placer by itself.
    let next = cell.web("next", 5);
    cell.submit(&rest[0], &next);
    let new = cell.placer(&rest[0]);
    assert_ne!(new, placer);
    cell.running(&rest[1], "next", 5, &rest);
    let after = cell.running(&rest[2], "web", 10, &rest);
    for (index, was) in before.iter().filter(|(_, task)| task.node != placer) {
        assert_eq!(after[index], *was, "it was on another node and has not noticed");
    }

    // The old one comes back as one of many.
    cell.boot(&placer, None).unwrap();
    cell.settles(&placer, &all);
    cell.wait("what it had and started again is stopped, since it runs elsewhere", || {
        let running: usize = all.iter().map(|host| cell.containers(host).len()).sum();
        if running == 15 { Ok(()) } else { Err(format!("{running} containers")) }
    });
    assert_eq!(cell.running(&placer, "web", 10, &all), after);
}
