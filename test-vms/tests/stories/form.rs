use crate::cell::{Cell, names};

/// Five machines, one of them first, four with a token: after a moment each of them knows all five, and a sixth may come.
#[test]
fn five_machines_become_one_cell() {
    let cell = Cell::of("form", 5);
    let five = names(&["h1", "h2", "h3", "h4", "h5"]);
    let placer = cell.placer("h1");
    for host in &five {
        // Whichever is asked, the answer is the same: who is there, where, in which rack, who places and who votes.
        assert_eq!(cell.placer(host), placer);
        cell.settles(host, &five);
        for node in cell.nodes(host).unwrap() {
            let name = node["name"].as_str().unwrap();
            let number: usize = name[1..].parse().unwrap();
            assert_eq!(node["addr"], format!("10.77.0.{number}:7411"));
            assert_eq!(node["labels"]["rack"], format!("r{}", (number - 1) % 3 + 1));
        }
    }

    cell.add("h6").unwrap();
    let six = names(&["h1", "h2", "h3", "h4", "h5", "h6"]);
    // Five votes are enough for any number.
    cell.settles("h2", &six);
    cell.settles("h6", &six);
}
