//! The fork server, and what becomes of shims without it.

use oci::bundle::Process;
use oci::container::{self, ForkServer};

use crate::world::{World, ended, read, shim};

/// The server of a world, once it has come as far as having a name.
fn server_of(world: &World) -> Process {
    let shims = world.tree.shims();
    let is_it = |pid: &&str| read(format!("/proc/{pid}/comm")) == "covey-shims\n";
    loop {
        let pids = read(shims.first().unwrap().join("cgroup.procs"));
        if let Some(pid) = pids.lines().find(is_it) {
            return Process::now(pid.parse().unwrap()).unwrap();
        }
        std::thread::yield_now();
    }
}

#[test]
fn containers_go_on_without_it_and_the_next_start_has_a_new_one() {
    let world = World::new();
    let first = world.run("first", "sleep 1000").start();
    let server = server_of(&world);
    let held = server.hold().unwrap().unwrap();
    assert!(container::signal(&server, libc::SIGKILL).unwrap());
    ended(&held);
    let live = first.live().expect("it lives on");
    assert_eq!(live.state.as_ref(), Some(first.state()));

    let (end, said) = world.run("second", "echo new").finish();
    assert_eq!((end.code, said.as_str()), (Some(0), "new\n"));
    assert_ne!(server_of(&world), server);
    container::signal(&first.state().init, libc::SIGKILL).unwrap();
    assert_eq!(first.wait().signal, Some(libc::SIGKILL));
    container::remove(&first.bundle).unwrap();
}

#[test]
fn it_is_executed_again_before_it_is_needed() {
    let world = World::new();
    let server = server_of(&world);
    world.server().look_after().unwrap();
    assert_eq!(server_of(&world), server, "one that lives is left alone");
    let held = server.hold().unwrap().unwrap();
    assert!(container::signal(&server, libc::SIGKILL).unwrap());
    ended(&held);
    world.server().look_after().unwrap();
    assert!(!server.is_there(), "not even as a zombie");
}

#[test]
fn it_ends_with_the_agent_and_the_next_agent_finds_its_shims() {
    let mut world = World::new();
    let running = world.program("stays", &["sleep", "1000"]).start();
    let (bundle, state) = (running.bundle.clone(), running.state().clone());
    drop(running);
    let server = server_of(&world);
    world.server = None;
    assert!(!server.is_there());
    world.server = Some(ForkServer::start(&shim(), &world.tree).unwrap());
    let live = container::Live::find(&bundle).unwrap().expect("it lives on");
    assert_eq!(live.state.as_ref(), Some(&state));
    // Nobody is its parent but init, or whoever takes that part.
    container::signal(&state.init, libc::SIGTERM).unwrap();
    container::signal(&state.init, libc::SIGKILL).unwrap();
    ended(&live.shim_pidfd);
    assert_eq!(container::exit_record(&bundle).unwrap().unwrap().signal, Some(libc::SIGKILL));
    container::remove(&bundle).unwrap();
}

#[test]
fn a_waiting_shim_has_next_to_no_memory_of_its_own() {
    let world = World::new();
    let running = world.program("small", &["sleep", "1000"]).start();
    let shim = running.state().shim.pid;
    // Once it waits: it has been executed anew.
    while read(format!("/proc/{shim}/comm")) != "covey-shim\n" {
        std::thread::yield_now();
    }
    let rollup = read(format!("/proc/{shim}/smaps_rollup"));
    let kib = |key: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    // What is not shared with any other process of the same program: its stack, and the edge of its data.
    assert!(kib("Private_Dirty:") <= 32, "{rollup}");
    container::remove(&running.bundle).unwrap();
}

#[test]
fn mounts_that_the_host_made_later_are_there() {
    let mut world = World::new();
    world.leave_mounts();
    let source = world.dir.path().join("later");
    std::fs::create_dir(&source).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &source, Some("tmpfs"), flags, Some("size=64k")).unwrap();
    std::fs::write(source.join("file"), "on the new mount").unwrap();
    let mut run = world.run("mounted", &format!("cat {}", source.join("file").display()));
    run.input.etc.push((source.join("file"), source.join("file")));
    let (_, said) = run.finish();
    assert_eq!(said, "on the new mount");
}
