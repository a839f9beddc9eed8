//! Several processes in one container, under covey as its first.

use oci::bundle::{Bind, BindKind};
use oci::container;
use oci::supervisor::{Named, PATH, Processes};

use crate::world::{Run, World, shim};

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).to_vec()
}

fn named(name: &str, script: &str) -> Vec<Named> {
    vec![Named { name: name.into(), command: sh(script) }]
}

fn processes(main: &str) -> Processes {
    Processes { main: sh(main), init: vec![], side: vec![], last: vec![], grace_ms: 5_000 }
}

fn run<'a>(world: &'a World, name: &str, processes: &Processes) -> Run<'a> {
    let mut run = world.program(name, &[PATH, &serde_json::to_string(processes).unwrap()]);
    run.config.binds.push(Bind { source: shim(), target: PATH.into(), kind: BindKind::Host });
    run
}

#[test]
fn inits_then_the_main_one_with_its_sides_then_finals() {
    let world = World::new();
    let mut all = processes(
        "echo main >> /tmp/order; until [ -e /tmp/again ]; do sleep 0.05; done; sleep 1000 & echo $! > /tmp/left; exit 7",
    );
    all.init = named("one", "echo one > /tmp/order");
    all.init.extend(named("two", "echo two >> /tmp/order"));
    // It ends, and is started again.
    all.side =
        named("helper", "[ -e /tmp/once ] && touch /tmp/again && exec sleep 1000; touch /tmp/once; exit 3");
    all.last = named("tidy", "cat /tmp/order; echo $GREETING; kill -0 $(cat /tmp/left) && echo left");
    let (record, said) = run(&world, "all", &all).finish();
    assert_eq!(record.code, Some(7), "{said}");
    assert!(said.starts_with("one\ntwo\nmain\nhi\n"), "{said}");
    assert!(!said.contains("left"), "{said}");
    let again = "covey: the side process helper exited with code 3; starting again in 0.5 s\n";
    assert!(said.contains(again), "{said}");
}

#[test]
fn an_init_that_fails_is_named_and_nothing_else_runs() {
    let world = World::new();
    let mut all = processes("echo main");
    all.init = named("migrate", "exit 4");
    all.last = named("tidy", "echo tidy");
    let (record, said) = run(&world, "failed", &all).finish();
    assert_eq!(
        (record.code, said.as_str()),
        (Some(4), "covey: its init process migrate exited with code 4\n")
    );

    all.init[0].command = vec!["/nothing".into()];
    let (record, said) = run(&world, "absent", &all).finish();
    assert_eq!(record.code, Some(127));
    assert!(
        said.starts_with("covey: its init process migrate cannot be run: /nothing: No such file"),
        "{said}"
    );
}

#[test]
fn signals_are_the_main_processs() {
    let world = World::new();
    let mut all = processes("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done");
    all.side = named("deaf", "trap '' TERM; echo beside; while :; do sleep 0.05; done");
    all.grace_ms = 200;
    let running = run(&world, "told", &all).start();
    running.wait_for("up\n");
    running.wait_for("beside\n");
    assert!(container::signal(&running.state().init, libc::SIGTERM).unwrap());
    assert_eq!(running.wait().code, Some(5));
    assert!(running.output().contains("bye\n"));
}
