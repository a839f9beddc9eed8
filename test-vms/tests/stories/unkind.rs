use serde_json::Value;

use crate::cell::{Cell, names};

const MIB: u64 = 1 << 20;

/// What is unkind hurts itself: a fork bomb stays within its processes, and memory that no process has is counted all the same.
#[test]
fn who_is_unkind_stays_within_its_limits() {
    let cell = Cell::of_small("unkind", 1, 1024 * MIB);
    for (name, band) in [("web", "production"), ("bomb", "batch"), ("hider", "free")] {
        let keys = r#"cpu = "200m"
memory = "128MiB"
pids = 64
volumes = [{ tmpfs = "64MiB", path = "/scratch" }]"#;
        cell.run("h1", &cell.of_band(name, band, keys));
    }
    let [web, bomb, hider] =
        ["web", "bomb", "hider"].map(|name| cell.running("h1", name, 1, &names(&["h1"]))[&0].clone());

    cell.asks(&bomb, "/fork");
    let forks = || {
        let lines = cell.command_lines("h1").unwrap();
        lines.iter().filter(|(_, line)| line.ends_with(b"--fork-for-ever\0")).count()
    };
    cell.wait("the bomb has all the processes that it may", || {
        if forks() > 40 { Ok(()) } else { Err(forks().to_string()) }
    });
    assert!(cell.asks(&web, "/healthz").contains("200 OK"));
    assert!(forks() < 64);

    let used = || -> Result<u64, String> {
        let task: Value = cell.json("h1", &["task", "hider/0"]).map_err(|why| why.to_string())?;
        Ok(task["usage"]["memory_bytes"].as_u64().unwrap_or_default())
    };
    assert!(cell.asks(&hider, "/hide?mib=40&at=/scratch").contains("40 MiB hidden"));
    cell.wait("what is hidden in a file system in memory counts", || match used()? {
        used if used >= 40 * MIB => Ok(()),
        used => Err(format!("{used} bytes")),
    });
    // More than its limit: the page cache gives way instead of the task.
    assert!(cell.asks(&hider, "/hide?mib=200&at=/").contains("200 MiB hidden"));
    for (name, was) in [("web", &web), ("bomb", &bomb), ("hider", &hider)] {
        assert_eq!(&cell.running("h1", name, 1, &names(&["h1"]))[&0], was, "{name} has not ended");
    }
    cell.covey("h1", &["stop", "bomb"]).unwrap();
    cell.wait("nothing of the bomb is left", || if forks() == 0 { Ok(()) } else { Err(forks().to_string()) });
}
