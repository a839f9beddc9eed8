use crate::cell::Cell;

/// Two machines with a kernel each, on pure cgroup v2. One loses power, then both at one moment, with all that they had not
/// synced: what was acknowledged is there when they are back.
#[test]
fn what_was_acknowledged_outlives_the_power() {
    let cell = Cell::of_vms("vms", 2);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 2);
    cell.run("h2", &web);
    let before = cell.running("h1", "web", 2, &all);
    for task in before.values() {
        assert!(cell.asks(task, "/healthz").contains("200 OK"));
        let limits = cell.says(
            &task.node,
            &format!(
                "cd /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{}/cgroup); cat cpu.max memory.max pids.max",
                task.pid
            ),
        );
        let limits: Vec<&str> = limits.lines().collect();
        assert_eq!(limits[..2], ["5000 100000", "16777216"], "50m and 16MiB");
        assert!(limits[2].parse::<u32>().is_ok(), "a number of processes: {limits:?}");
    }

    // Of two nodes one votes and places. The other's agent is killed, and started where a service manager would start it.
    let placer = cell.placer("h1");
    let victim = cell.others(&[&placer]).remove(0);
    let pids = cell.containers(&victim);
    cell.kill(&victim).unwrap();
    cell.start(&victim).unwrap();
    assert_eq!(cell.running(&placer, "web", 2, &all), before);
    assert_eq!(cell.containers(&victim), pids, "they have not noticed");

    // Then its machine loses power.
    let rest = [placer.clone()];
    assert!(before.values().any(|task| task.node == victim), "{before:?}");
    let id = |host: &str| {
        cell.nodes(&placer).unwrap().iter().find(|node| node["name"] == host).unwrap()["id"].clone()
    };
    let was = id(&victim);
    cell.crash(&victim).unwrap();
    let after = cell.running(&placer, "web", 2, &rest);
    for (index, was) in before.iter().filter(|(_, task)| task.node == victim) {
        assert!(after[index].generation > was.generation);
    }
    cell.boot(&victim, None).unwrap();
    cell.settles(&placer, &all);
    assert_eq!(id(&victim), was, "it is the node that its disk says it is");
    cell.copies(&placer, "web", 2);

    // Both, a moment after an answer. What nobody has synced shows that their memory was really lost.
    let next = cell.web("next", 2);
    let unsynced = |host: &str| cell.dir(host).join("data/unsynced").display().to_string();
    for host in &all {
        cell.says(host, &format!("echo lost > {}", unsynced(host)));
    }
    cell.submit(&victim, &next);
    all.iter().for_each(|host| cell.crash(host).unwrap());
    cell.power_all().unwrap();
    for host in &all {
        assert_eq!(cell.says(host, &format!("cat {} || true", unsynced(host))), "", "{host} has lost it");
    }
    all.iter().for_each(|host| cell.start(host).unwrap());
    cell.settles(&victim, &all);
    cell.running(&victim, "next", 2, &all);
    cell.running(&placer, "web", 2, &all);
}
