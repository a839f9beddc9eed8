use std::fs;

use crate::cell::Cell;

/// Nobody joins with a token that is none, of another cell, or used up: each is told why, and none is let in.
#[test]
fn only_a_good_token_lets_a_node_in() {
    let cell = Cell::of("bad-token", 1);
    let other = cell.hosts().unwrap();
    assert_eq!(other, ["h1"]);
    // A cell of its own, with tokens of its own.
    cell.add_host("h2").unwrap();
    cell.start("h2").unwrap();
    cell.add_host("h3").unwrap();

    let refused = |token: &str| {
        let log = cell.dir("h3").join("agent.log");
        let read = || fs::read_to_string(&log).unwrap_or_default();
        let before = read().len();
        cell.join("h3", "h1", token).unwrap();
        cell.wait("the agent ends", || match cell.agent_pid("h3").unwrap() {
            None => Ok(()),
            Some(pid) => Err(format!("{pid} runs")),
        });
        read()[before..].to_owned()
    };
    let none = refused("covey1.nonsense");
    assert!(none.contains("token"), "{none}");
    let foreign = refused(&cell.token("h2", 1).unwrap());
    assert!(foreign.contains("cell") && !foreign.contains("panicked"), "{foreign}");

    let once = cell.token("h1", 1).unwrap();
    cell.add_host("h4").unwrap();
    cell.join("h4", "h1", &once).unwrap();
    cell.all_alive_on("h1", &["h1", "h4"]);
    let used_up = refused(&once);
    assert!(used_up.contains("used up"), "{used_up}");

    let for_people = cell.json("h1", &["token", "--role", "user", "--name", "eve"]).unwrap();
    let wrong_role = refused(for_people["token"].as_str().unwrap());
    assert!(wrong_role.contains("covey login"), "{wrong_role}");

    // With a good one it is welcome, whatever was tried before.
    cell.join("h3", "h1", &cell.token("h1", 1).unwrap()).unwrap();
    cell.all_alive_on("h1", &["h1", "h3", "h4"]);
}
