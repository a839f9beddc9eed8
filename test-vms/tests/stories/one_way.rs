use crate::cell::Cell;

/// A machine that hears the others, but is not heard by them: whichever it is, the cell goes on, and is whole afterwards.
#[test]
fn a_node_that_is_not_heard_stops_nobody() {
    let cell = Cell::of("one-way", 5);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 5);
    cell.run("h1", &web);
    let mute = cell.placer("h1");
    let rest = cell.others(&[&mute]);
    let others: Vec<&str> = rest.iter().map(String::as_str).collect();
    cell.cut(&[&mute], &others, true).unwrap();

    // It placed, and cannot any more; somebody else does.
    let next = cell.web("next", 4);
    cell.submit(&rest[0], &next);
    cell.running(&rest[0], "next", 4, &rest);
    cell.running(&rest[1], "web", 5, &rest);
    assert_ne!(cell.placer(&rest[2]), mute);

    cell.heal().unwrap();
    cell.settles(&mute, &all);
    cell.wait("nothing runs twice", || {
        let running: usize = all.iter().map(|host| cell.containers(host).len()).sum();
        if running == 9 { Ok(()) } else { Err(format!("{running} containers")) }
    });
}
