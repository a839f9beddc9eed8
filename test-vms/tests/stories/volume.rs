use std::fs;

use crate::cell::{Cell, Task};

/// A task's data stays where it is, and the task with it, until the machine is no more.
#[test]
fn a_task_stays_with_its_volume() {
    let cell = Cell::of("volume", 3);
    let all = cell.hosts().unwrap();
    let placer = cell.placer("h1");
    let rest = cell.others(&[&placer]);
    cell.run("h1", &job(&cell, "1", &placer));
    let first = cell.running(&placer, "db", 1, &rest)[&0].clone();
    let home = first.node.clone();
    // On the node's disk; through the container only its own users could.
    cell.wait("volume ls has it", || {
        let volumes = cell.json("h1", &["volume", "ls"]).map_err(|e| e.to_string())?;
        let volume = &volumes["items"][0];
        let right = volume["node"] == *home && volume["names"][0] == "data";
        if right { Ok(()) } else { Err(volumes.to_string()) }
    });
    let dir = cell.dir(&home).join("data/volumes/root/db/0/data");
    cell.says(&home, &format!("echo dear > {}/kept", dir.display()));
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", first.pid)).unwrap();
    assert!(mounts.lines().any(|m| m.contains(" /scratch tmpfs ") && m.contains("size=1024k")), "{mounts}");

    // A restart, the agent's death, another version.
    cell.covey("h1", &["restart", "db"]).unwrap();
    let again = cell.sees(&placer, "db", "another run", |tasks| other(tasks, &first))[&0].clone();
    assert_eq!((&again.node, kept(&again)), (&home, Some("dear\n".to_owned())));
    cell.kill(&home).unwrap();
    cell.start(&home).unwrap();
    cell.settles(&placer, &all);
    cell.run("h1", &job(&cell, "2", &placer));
    let newer = cell.sees(&placer, "db", "the new version", |tasks| other(tasks, &again))[&0].clone();
    assert_eq!((&newer.node, kept(&newer)), (&home, Some("dear\n".to_owned())));

    // Drained, its node keeps it: there is nowhere to go.
    cell.covey("h1", &["drain", &home]).unwrap();
    cell.wait("why it stays", || {
        let why = cell.covey("h1", &["why", "db/0"]).map_err(|e| e.to_string())?;
        let said = format!("the data of its volume data is on {home}");
        if why.contains(&said) { Ok(()) } else { Err(why) }
    });
    assert_eq!(cell.tasks(&placer, "db").unwrap(), std::slice::from_ref(&newer));
    cell.covey("h1", &["undrain", &home]).unwrap();

    // Gone, it starts anew, which is said; and what comes back is old.
    cell.crash(&home).unwrap();
    let elsewhere = cell.others(&[&placer, &home]);
    let moved = cell.running(&placer, "db", 1, &elsewhere)[&0].clone();
    assert_eq!(kept(&moved), None);
    let task = cell.json(&placer, &["task", "db/0"]).unwrap();
    let lost = format!("its volume data starts empty: the data is on {home}, which is gone");
    assert_eq!(task["reason"].as_str(), Some(lost.as_str()), "{task:#}");
    cell.boot(&home, None).unwrap();
    cell.settles(&placer, &all);
    cell.covey("h1", &["restart", "db"]).unwrap();
    let last = cell.sees(&placer, "db", "another run", |tasks| other(tasks, &moved))[&0].clone();
    assert_eq!(last.node, moved.node);

    // What a task uses stays, whoever asks through whichever node; what is old may go.
    let refused = cell.refused(&home, &["volume", "rm", "db/0"]);
    let used = format!("root/db/0 uses them on {} (it is running)", last.node);
    assert!(refused.contains(&used) && refused.contains("covey stop root/db/0"), "{refused}");
    let removed = cell.json(&placer, &["volume", "rm", "db/0/data", "--on", &home]).unwrap();
    assert_eq!((&removed["changed"], &removed["items"][0]["node"]), (&true.into(), &home.as_str().into()));
    assert!(!dir.exists());
    cell.covey(&placer, &["stop", "db"]).unwrap();
    cell.wait("the rest goes with its task", || {
        cell.covey(&home, &["volume", "rm", "db/0"]).map_err(|e| e.to_string())
    });
    cell.wait("volume ls is empty", || {
        let left = cell.json("h1", &["volume", "ls"]).map_err(|e| e.to_string())?["items"].take();
        if left == serde_json::json!([]) { Ok(()) } else { Err(left.to_string()) }
    });
    let nothing = cell.refused(&home, &["volume", "rm", "db/0"]);
    assert!(nothing.contains("root/db/0 has no volumes on any node"), "{nothing}");
}

fn other(tasks: &[Task], than: &Task) -> bool {
    matches!(tasks, [task] if task.state == "running" && task.pid != than.pid)
}

/// What a task's processes find in its volume.
fn kept(task: &Task) -> Option<String> {
    fs::read_to_string(format!("/proc/{}/root/data/kept", task.pid)).ok()
}

fn job(cell: &Cell, version: &str, not_on: &str) -> String {
    let text = format!(
        r#"name = "db"
require = ["node!={not_on}"]
[task]
image = "hello:1"
command = ["/hello", "--listen", ":${{PORT_http}}"]
env = {{ VERSION = "{version}" }}
memory = "32MiB"
ports = ["http"]
volumes = [{{ name = "data", path = "/data" }}, {{ tmpfs = "1MiB", path = "/scratch" }}]
"#
    );
    cell.file("db.toml", &text)
}
