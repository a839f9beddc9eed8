use std::fs;

use crate::cell::{Cell, names};

const MIB: u64 = 1 << 20;

/// A machine gets smaller while it runs. Its node says so, and has the free band give way before anybody else is short.
#[test]
fn a_machine_that_shrinks_takes_from_the_free_band() {
    let cell = Cell::of_small("shrinks", 1, 512 * MIB);
    for (name, band, memory) in [("web", "production", 128), ("rest", "free", 220)] {
        let keys = format!("cpu = \"50m\"\nmemory = \"{memory}MiB\"");
        cell.run("h1", &cell.of_band(name, band, &keys));
    }
    let [web, rest] = ["web", "rest"].map(|name| cell.running("h1", name, 1, &names(&["h1"]))[&0].clone());
    assert!(cell.asks(&web, "/alloc?mib=110").contains("110 MiB kept"));
    assert!(cell.asks(&rest, "/alloc?mib=200").contains("200 MiB kept"));

    let gave_way = || -> Result<bool, String> {
        let events = cell.json("h1", &["events", "--job", "rest"]).map_err(|why| why.to_string())?;
        Ok(events["items"].as_array().unwrap().iter().any(|event| event["kind"] == "reclaimed"))
    };
    cell.wait("all that was measured", || {
        let task = cell.json("h1", &["task", "rest/0"]).map_err(|why| why.to_string())?;
        let used = task["usage"]["memory_bytes"].as_u64().unwrap_or_default();
        if used >= 200 * MIB { Ok(()) } else { Err(used.to_string()) }
    });
    assert!(!gave_way().unwrap(), "there is enough for both");

    let smaller = 356 * MIB;
    let of_host = format!("covey-lab/{}/h1", cell.name());
    let files = [
        format!("/sys/fs/cgroup/memory/{of_host}/memory.limit_in_bytes"),
        format!("/sys/fs/cgroup/{of_host}/memory.max"),
    ];
    assert!(files.iter().any(|file| fs::write(file, smaller.to_string()).is_ok()), "{files:?}");
    cell.wait("the node tells its capacity", || {
        let nodes = cell.nodes("h1").map_err(|why| why.to_string())?;
        let told = &nodes[0]["capacity"]["memory_bytes"];
        if *told == smaller { Ok(()) } else { Err(told.to_string()) }
    });
    cell.wait("the free band gives way", || match gave_way()? {
        true => Ok(()),
        false => Err("nobody has".to_owned()),
    });
    assert_eq!(cell.running("h1", "web", 1, &names(&["h1"]))[&0], web);
}
