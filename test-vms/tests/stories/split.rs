use crate::cell::Cell;

/// Two machines are cut off from three. The three go on without them; the two keep what they run, and say what they are.
#[test]
fn the_larger_side_of_a_split_goes_on() {
    let cell = Cell::of("split", 5);
    let all = cell.hosts().unwrap();
    let web = cell.web("web", 10);
    cell.run("h1", &web);
    cell.running("h1", "web", 10, &all);
    // The placer is on the smaller side: the harder case.
    let placer = cell.placer("h1");
    let small = vec![placer.clone(), cell.others(&[&placer])[0].clone()];
    let large = cell.others(&[&small[0], &small[1]]);
    let kept: Vec<_> = small.iter().map(|host| (host, cell.containers(host))).collect();

    let side = |hosts: &[String]| hosts.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let (small_side, large_side) = (side(&small), side(&large));
    let (a, b): (Vec<&str>, Vec<&str>) = (small_side.split(',').collect(), large_side.split(',').collect());
    cell.cut(&a, &b, false).unwrap();

    let next = cell.web("next", 3);
    cell.submit(&large[0], &next);
    cell.running(&large[1], "next", 3, &large);
    cell.running(&large[2], "web", 10, &large);

    // The small side answers what it can, and says that it is not the whole.
    let answer = cell.wait("the small side says that its answers are stale", || {
        let answer = cell.json(&small[1], &["tasks"]).map_err(|why| why.to_string())?;
        if answer["stale"] == true { Ok(answer) } else { Err(answer.to_string()) }
    });
    let missing: Vec<&str> =
        answer["missing"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(b.iter().all(|host| missing.contains(host)), "{missing:?}");
    let refused = cell.refused(&small[1], &["run", &cell.web("never", 1), "--json"]);
    assert!(refused.contains("no_quorum"), "{refused}");
    for (host, containers) in &kept {
        assert_eq!(cell.containers(host), *containers, "{host} keeps what it runs");
    }

    cell.heal().unwrap();
    cell.settles(&small[0], &all);
    cell.settles(&large[0], &all);
    cell.wait("what runs on both sides is stopped on one", || {
        let running: usize = all.iter().map(|host| cell.containers(host).len()).sum();
        if running == 13 { Ok(()) } else { Err(format!("{running} containers")) }
    });
    cell.running(&small[0], "web", 10, &all);
    let unknown = cell.refused(&small[0], &["job", "never"]);
    assert!(unknown.contains("never"), "{unknown}");
}
