use crate::cell::Cell;

/// The power fails everywhere, a moment after an answer. When it is back, every machine has another address, and the cell is
/// what it was.
#[test]
fn the_cell_survives_a_power_cut_and_new_addresses() {
    let cell = Cell::of("all-off", 5);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 5);
    cell.run("h3", &web);
    let before = cell.running("h3", "web", 5, &all);
    let next = cell.web("next", 3);

    cell.submit("h4", &next);
    all.iter().for_each(|host| cell.crash(host).unwrap());
    for (host, number) in all.iter().zip(1..) {
        cell.power(host, Some(format!("10.77.9.{number}").parse().unwrap())).unwrap();
    }
    all.iter().for_each(|host| cell.start(host).unwrap());

    for host in &all {
        cell.settles(host, &all);
        for node in cell.nodes(host).unwrap() {
            assert!(node["addr"].as_str().unwrap().starts_with("10.77.9."), "{node}");
        }
    }
    let after = cell.running("h1", "web", 5, &all);
    for (index, was) in &before {
        assert!(after[index].generation >= was.generation, "generations never go back");
    }
    cell.running("h5", "next", 3, &all);
    cell.covey("h4", &["stop", "next"]).unwrap();
    cell.copies("h2", "web", 5);
}
