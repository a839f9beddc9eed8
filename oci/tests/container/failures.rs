//! Starts that cannot be: each says what, why and what to do, and leaves nothing.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use oci::cgroup::Band;

use crate::world::World;

fn why(world: &World, name: &str, args: &[&str]) -> String {
    let failure = world.program(name, args).fail();
    assert_eq!(world.tree.list(), []);
    assert!(!failure.hint.is_empty(), "{failure}");
    failure.to_string()
}

#[test]
fn a_program_that_is_not_there() {
    let world = World::new();
    assert_eq!(why(&world, "nope", &["/nope", "x"]), "run /nope: no such file /nope in the image");
    let said = why(&world, "path", &["nope"]);
    assert!(
        said.starts_with("run nope: there is no nope in the image's search path /usr/local/sbin:"),
        "{said}"
    );
    assert_eq!(why(&world, "none", &[""]), "run : there is no command");
}

#[test]
fn a_file_that_is_no_program() {
    let world = World::new();
    let file = |name: &str, content: &[u8], mode| {
        std::fs::write(world.layer.join(name), content).unwrap();
        std::fs::set_permissions(world.layer.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    file("data", b"hello", 0o644);
    let said = why(&world, "data", &["/data"]);
    assert_eq!(said, "run /data: no permission to execute /data (mode 0644, as user 0)");
    file("text", b"hello", 0o755);
    assert_eq!(why(&world, "text", &["/text"]), "run /text: /text is not a program");
    file("script", b"#!/usr/bin/perl -w\n", 0o755);
    let said = why(&world, "script", &["/script"]);
    assert_eq!(said, "run /script: /script is a script for /usr/bin/perl -w, which the image does not have");
    assert_eq!(why(&world, "dir", &["/etc"]), "run /etc: /etc is a directory");
    let mut elf = std::fs::read(world.layer.join("bin/busybox")).unwrap();
    elf.truncate(4096);
    elf[18] = 183;
    file("arm", &elf, 0o755);
    assert_eq!(why(&world, "arm", &["/arm"]), "run /arm: /arm is built for aarch64, this machine is x86_64");
}

#[test]
fn a_user_that_is_not_there() {
    let world = World::new();
    let mut run = world.run("user", "id");
    run.config.user = Some("nobody".into());
    assert_eq!(run.fail().to_string(), "run as nobody: the image has no user nobody in /etc/passwd");
    let mut run = world.run("large", "id");
    run.config.user = Some("70000".into());
    assert_eq!(run.fail().to_string(), "run as 70000:0: the container has only the ids 0 to 65535");
}

#[test]
fn hostile_account_files_do_not_reach_the_host() {
    let world = World::new();
    std::fs::remove_file(world.layer.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../../etc/passwd", world.layer.join("etc/passwd")).unwrap();
    let mut run = world.run("link", "id");
    // The host has it; the link, resolved inside the image, leads to itself.
    run.config.user = Some("daemon".into());
    assert_eq!(run.fail().why, "the image has no user daemon in /etc/passwd");
}

#[test]
fn a_layer_that_is_gone() {
    let world = World::new();
    let mut run = world.run("no-layer", "id");
    run.config.layers.push("/nonexistent/layer".into());
    assert_eq!(run.fail().to_string(), "mount the image: the layer /nonexistent/layer is not there");
}

#[test]
fn a_working_directory_that_is_a_file() {
    let world = World::new();
    let mut run = world.run("cwd", "id");
    run.input.cwd = "/etc/passwd/x".into();
    let failure = run.fail();
    assert_eq!(
        failure.to_string(),
        "enter the working directory /etc/passwd/x: Not a directory (os error 20)"
    );
}

#[test]
fn a_memory_limit_too_small_to_start_in() {
    let world = World::new();
    let mut run = world.run("tiny", "id");
    run.config.limits.memory_bytes = Some(4096);
    let failure = run.fail();
    assert!(failure.why.starts_with("a memory limit of 4096 bytes is less than"), "{failure}");
    assert_eq!(world.tree.list(), []);
}

#[test]
fn a_mount_that_cannot_be_names_itself() {
    let world = World::new();
    let mut run = world.run("mount", "id");
    run.input.etc.push(("/nonexistent/file".into(), "/nonexistent/file".into()));
    let failure = run.fail();
    assert!(failure.why.contains("/nonexistent/file"), "{failure}");
    assert_eq!(world.tree.list(), []);
}

#[test]
fn no_bundle_at_all() {
    let world = World::new();
    let mut said = String::new();
    let cgroup = world.tree.placement(Band::Batch, "none");
    world.server().spawn(&world.dir.path().join("none"), &cgroup).unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("open the bundle") && said.contains("No such file"), "{said}");
    let missing = std::path::Path::new("/nonexistent/covey");
    let error = oci::container::ForkServer::start(missing, &world.tree).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot start a shim of /nonexistent/covey: No such file"),
        "{error}"
    );
}
