use crate::cell::Cell;

/// A machine that hears the others, but is not heard by them: whichever it is, the cell goes on, and is whole afterwards.
#[test]
fn a_node_that_is_not_heard_stops_nobody() {
    goes_on("one-way", true);
}

/// A machine that the others hear, but that hears nobody.
#[test]
fn a_node_that_hears_nobody_stops_nobody() {
    goes_on("deaf", false);
}

/// The one that places is cut off in one direction.
fn goes_on(name: &str, is_mute: bool) {
    let cell = Cell::of(name, 5);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 5);
    cell.run("h1", &web);
    let cut = cell.placer("h1");
    let rest = cell.others(&[&cut]);
    let others: Vec<&str> = rest.iter().map(String::as_str).collect();
    match is_mute {
        true => cell.cut(&[&cut], &others, true).unwrap(),
        false => cell.cut(&others, &[&cut], true).unwrap(),
    }

    // It placed, and cannot any more; somebody else does.
    let next = cell.web("next", 4);
    cell.submit(&rest[0], &next);
    cell.running(&rest[0], "next", 4, &rest);
    cell.running(&rest[1], "web", 5, &rest);
    assert_ne!(cell.placer(&rest[2]), cut);

    cell.heal().unwrap();
    cell.settles(&cut, &all);
    cell.wait("nothing runs twice", || {
        let running: usize = all.iter().map(|host| cell.containers(host).len()).sum();
        if running == 9 { Ok(()) } else { Err(format!("{running} containers")) }
    });
}
