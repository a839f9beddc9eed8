//! Starting, being found, being signalled, ending.

use oci::bundle::Process;
use oci::container::{self, Live};

use crate::world::{World, read};

#[test]
fn a_program_gets_what_the_bundle_says_and_its_exit_code_comes_back() {
    let world = World::new();
    let (end, said) = world.run("hello", "echo $GREETING $HOME $PATH; id; hostname; pwd; exit 7").finish();
    assert_eq!((end.code, end.signal, end.oom), (Some(7), None, false), "{said}");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(said, format!("hi /root {path}\nuid=0(root) gid=0(root)\nbox\n/\n"));
}

#[test]
fn a_signal_is_told_from_an_exit_code() {
    let world = World::new();
    let running = world.program("sleep", &["sleep", "1000"]).start();
    let state = running.state().clone();
    assert!(state.init.is_there() && state.shim.is_there());
    assert_eq!(running.bundle.state().unwrap().as_ref(), Some(&state));
    assert!(container::signal(&state.init, libc::SIGKILL).unwrap());
    let end = running.wait();
    assert_eq!((end.code, end.signal, end.oom), (None, Some(libc::SIGKILL), false));
    assert!(!container::signal(&state.init, libc::SIGKILL).unwrap(), "it is gone");
    let later = Process { pid: std::process::id() as i32, start_time: 1 };
    assert!(!container::signal(&later, libc::SIGKILL).unwrap(), "a later process with that pid is not meant");
}

#[test]
fn sigterm_reaches_the_program_and_is_its_to_handle() {
    let world = World::new();
    let running =
        world.run("term", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done").start();
    running.wait_for("up");
    let init = running.state().init;
    assert!(container::is_heard(&init, libc::SIGTERM));
    container::signal(&init, libc::SIGTERM).unwrap();
    assert_eq!(running.wait().code, Some(3));
    assert_eq!(running.output(), "up\nbye\n");
    assert!(container::is_heard(&init, libc::SIGTERM), "nobody waits for one that is gone");
}

#[test]
fn what_an_init_does_not_catch_does_not_reach_it() {
    let world = World::new();
    let running = world.program("deaf", &["sleep", "1000"]).start();
    let init = running.state().init;
    assert!(!container::is_heard(&init, libc::SIGTERM));
    assert!(container::signal(&init, libc::SIGTERM).unwrap(), "the kernel drops it");
    assert!(container::is_heard(&init, libc::SIGKILL));
    container::signal(&init, libc::SIGKILL).unwrap();
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
}

#[test]
fn the_shim_is_found_by_its_lock_and_its_state_is_verified() {
    let world = World::new();
    let running = world.program("find", &["sleep", "1000"]).start();
    let live = running.live().expect("it lives");
    assert_eq!(live.shim, running.state().shim.pid);
    assert_eq!(live.state.as_ref(), Some(running.state()));

    // A record of other processes is not believed.
    let mut other = running.state().clone();
    other.shim.start_time += 1;
    std::fs::write(running.bundle.dir().join("state.json"), serde_json::to_vec(&other).unwrap()).unwrap();
    assert_eq!(running.live().unwrap().state, None);

    container::signal(&running.state().init, libc::SIGKILL).unwrap();
    running.wait();
    assert!(Live::find(&running.bundle).unwrap().is_none());
    container::remove(&running.bundle).unwrap();
    container::remove(&running.bundle).unwrap();
    assert!(!running.bundle.dir().exists());
}

#[test]
fn a_killed_shim_takes_its_container_along_and_leaves_no_record() {
    let world = World::new();
    let running = world.run("lost", "sleep 1000 & sleep 1000").start();
    let state = running.state().clone();
    let placement = world.tree.placement(oci::cgroup::Band::Batch, "lost");
    let init = oci::pidfd::open(state.init.pid).unwrap();
    assert!(container::signal(&state.shim, libc::SIGKILL).unwrap());
    running.gone();
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&init), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 10_000u16), Ok(1), "the container ends");
    assert_eq!(running.bundle.exit_record().unwrap(), None);
    container::remove(&running.bundle).unwrap();
    assert!(placement.dirs().iter().all(|dir| !dir.exists()));
}

#[test]
fn remove_ends_what_still_runs() {
    let world = World::new();
    let running = world.run("busy", "sleep 1000 & sleep 1000").start();
    let init = oci::pidfd::open(running.state().init.pid).unwrap();
    container::remove(&running.bundle).unwrap();
    running.gone();
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&init), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 10_000u16), Ok(1), "the container ends");
    assert!(!running.bundle.dir().exists());
    assert_eq!(world.tree.list(), []);
}

#[test]
fn the_shim_has_left_its_parents_session_cgroup_and_mounts() {
    let world = World::new();
    let running = world.program("apart", &["sleep", "1000"]).start();
    let shim = running.state().shim.pid;
    let stat = read(format!("/proc/{shim}/stat"));
    let session: i32 = stat[stat.rfind(')').unwrap() + 2..].split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, shim);
    assert!(read(format!("/proc/{shim}/cgroup")).contains("/shims"));
    assert_eq!(read(format!("/proc/{shim}/mountinfo")), read("/proc/self/mountinfo"));
    assert_eq!(read(format!("/proc/{shim}/environ")), "");
    container::remove(&running.bundle).unwrap();
}

#[test]
fn nothing_of_the_agent_leaks_into_the_container() {
    let world = World::new();
    // A descriptor that the agent has forgotten to close.
    let leak = std::fs::File::open("/etc/passwd").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&leak);
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let (_, said) = world.program("fds", &["probe", "fds"]).finish();
    assert_eq!(said, "fd 0\nfd 1\nfd 2\n");
    let (_, said) = world.program("env", &["env"]).finish();
    let mut names: Vec<_> = said.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["GREETING", "HOME", "PATH"]);
}

#[test]
fn a_user_by_name_has_its_group_its_groups_and_its_home() {
    let world = World::new();
    let mut run = world
        .run("web", "id; pwd; echo $HOME; echo to stdout >/dev/stdout; touch /srv/x && stat -c %u /srv/x");
    run.config.user = Some("web".into());
    run.input.cwd = "/srv".into();
    std::fs::create_dir(world.layer.join("srv")).unwrap();
    std::os::unix::fs::chown(world.layer.join("srv"), Some(101), Some(102)).unwrap();
    let (_, said) = run.finish();
    assert_eq!(said, "uid=101(web) gid=102(web) groups=7(log)\n/srv\n/srv\nto stdout\n101\n");

    let mut run = world.run("number", "id -u; id -g");
    run.config.user = Some("1234:5".into());
    assert_eq!(run.finish().1, "1234\n5\n");
}

#[test]
fn a_missing_working_directory_is_made_inside_the_image_only() {
    let world = World::new();
    std::os::unix::fs::symlink("../../../../../../tmp", world.layer.join("link")).unwrap();
    let mut run = world.run("cwd", "pwd; stat -c %u .");
    run.input.cwd = "/link/covey-cwd-test/deep".into();
    assert_eq!(run.finish().1, "/tmp/covey-cwd-test/deep\n0\n");
    assert!(!std::path::Path::new("/tmp/covey-cwd-test").exists());
}

#[test]
fn without_a_user_namespace_it_works_as_well() {
    let world = World::new();
    let mut run = world
        .run("host-ids", "id -u; cat /proc/self/uid_map; grep Cap /proc/self/status; mknod /tmp/d b 254 0");
    run.config.idmap = None;
    let (end, said) = run.finish();
    assert_eq!(end.code, Some(1), "{said}");
    assert!(said.starts_with("0\n         0          0 4294967295\n"), "{said}");
    // Docker's default less CAP_MKNOD (bit 27).
    assert!(said.contains("CapBnd:\t00000000a00425fb"), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
}
