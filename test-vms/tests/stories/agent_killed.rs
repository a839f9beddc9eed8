use crate::cell::Cell;

/// An agent is killed and started again: its containers have not noticed.
#[test]
fn containers_go_on_without_their_agent() {
    let cell = Cell::of("agent-killed", 3);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 6);
    cell.run("h1", &web);
    let before = cell.running("h1", "web", 6, &all);
    let placer = cell.placer("h1");
    let victim = &cell.others(&[&placer])[0];
    let pids = cell.containers(victim);
    assert!(!pids.is_empty());

    cell.kill(victim).unwrap();
    assert_eq!(cell.containers(victim), pids);
    for task in before.values().filter(|task| task.node == *victim) {
        assert!(cell.asks(task, "/healthz").contains("200 OK"), "it answers without its agent");
    }

    cell.start(victim).unwrap();
    // Same containers, same generations, nothing restarted, nothing moved: it was back before anyone gave it up.
    assert_eq!(cell.running(victim, "web", 6, &all), before);
    assert_eq!(cell.containers(victim), pids);
    cell.copies(&placer, "web", 6);
}
