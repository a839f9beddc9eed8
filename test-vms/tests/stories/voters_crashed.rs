use crate::cell::Cell;

/// One voter after another loses power, each when the last has been replaced: down to two nodes the cell needs nobody's help.
#[test]
fn voters_die_one_after_another() {
    let cell = Cell::of("voters-crashed", 5);
    let web = cell.web("web", 2);
    cell.run("h1", &web);
    let mut rest = cell.hosts().unwrap();
    while rest.len() > 2 {
        // The hardest case: the one that leads.
        let victim = cell.placer(&rest[0]);
        cell.crash(&victim).unwrap();
        rest.retain(|host| *host != victim);
        cell.settles(&rest[0], &rest);
        // What was asked for goes on, and more can be asked for.
        cell.running(&rest[0], "web", 2, &rest);
        let next = cell.web(&format!("with-{}", rest.len()), 1);
        cell.run(&rest[1], &next);
    }
}
