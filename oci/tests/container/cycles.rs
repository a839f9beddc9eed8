//! Many starts and stops leave nothing behind.

use std::collections::BTreeSet;

use oci::container;

use crate::world::{World, read};

/// What could leak: mounts, cgroups, processes of ours, descriptors, files.
fn snapshot(world: &World) -> (String, Vec<String>, BTreeSet<String>, usize, Vec<String>) {
    let mounts = read("/proc/self/mountinfo");
    let runs = world.tree.list().into_iter().map(|(_, run)| run).collect();
    // Ours, and the fork server's.
    let me = std::process::id().to_string();
    let of = |parents: &BTreeSet<String>| -> BTreeSet<String> {
        let stats = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let stat = read(entry.path().join("stat"));
            let rest = stat.get(stat.rfind(')')? + 2..)?;
            parents
                .contains(rest.split(' ').nth(1)?)
                .then(|| entry.file_name().to_string_lossy().into_owned())
        });
        stats.collect()
    };
    let mut children = of(&BTreeSet::from([me]));
    children.extend(of(&children));
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let files = std::fs::read_dir(world.dir.path()).unwrap().flatten();
    let files = files.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    (mounts, runs, children, fds, files)
}

#[test]
fn two_hundred_cycles_leave_nothing() {
    let world = World::new();
    let before = snapshot(&world);
    for i in 0..200 {
        let name = format!("cycle-{i}");
        let run = world.run(&name, "echo here; sleep 1000 & [ $$ = 1 ]");
        if i % 4 == 3 {
            let mut run = run;
            run.input.args = vec!["/nope".into()];
            run.fail();
            continue;
        }
        let running = run.start();
        if i % 4 == 2 {
            container::signal(&running.state().shim, libc::SIGKILL).unwrap();
            running.gone();
        } else {
            assert_eq!(running.wait().code, Some(0));
            assert_eq!(running.output(), "here\n");
        }
        container::remove(&running.bundle).unwrap();
    }
    assert_eq!(snapshot(&world), before);
}

#[test]
fn many_at_once() {
    let world = World::new();
    let before = snapshot(&world);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for i in 0..5 {
                    let running = world.run(&format!("at-once-{thread}-{i}"), "echo here").start();
                    assert_eq!(running.wait().code, Some(0));
                    assert_eq!(running.output(), "here\n");
                    container::remove(&running.bundle).unwrap();
                }
            });
        }
    });
    assert_eq!(snapshot(&world), before);
}
