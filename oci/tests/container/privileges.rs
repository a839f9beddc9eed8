//! What a container may do that a plain one may not.

use oci::bundle::{Bind, BindKind};
use oci::cgroup::{Band, Device};
use oci::spec::capability;

use crate::world::{IDS, World};

#[test]
fn a_granted_capability_is_there_for_any_user_and_no_other_is() {
    let world = World::new();
    let usual = 0xa004_25fb_u64;
    let net_admin = 1 << 12;
    for (user, expected) in [(None, usual | net_admin), (Some("web"), net_admin)] {
        let mut run = world.run("caps", "grep -E 'CapEff|CapBnd' /proc/self/status");
        run.config.user = user.map(Into::into);
        run.input.capabilities = vec![capability("NET_ADMIN").unwrap()];
        let bounding = usual | net_admin;
        let (_, said) = run.finish();
        assert_eq!(said, format!("CapEff:\t{expected:016x}\nCapBnd:\t{bounding:016x}\n"), "{user:?}");
        std::fs::remove_dir_all(world.dir.path().join("caps")).unwrap();
    }
    assert_eq!(capability("CAP_SYS_TIME"), capability("SYS_TIME"));
    let error = capability("MAKE_COFFEE").unwrap_err();
    assert_eq!(error.to_string(), "Linux has no capability `MAKE_COFFEE`");
}

#[test]
fn a_granted_capability_opens_the_calls_it_is_for() {
    let world = World::new();
    let calls = ["probe", "mount", "sethostname", "clone-user", "keyctl", "reboot", "unshare"];
    let mut run = world.program("admin", &calls);
    run.input.capabilities = vec![capability("SYS_ADMIN").unwrap()];
    let said = run.finish().1;
    assert_eq!(said, "mount ok\nsethostname ok\nclone-user ok\nkeyctl 1\nreboot 1\nunshare ok\n");
}

/// The kernel's log: no container may use it otherwise, and every machine has it.
#[test]
fn a_granted_device_is_the_users_own() {
    let world = World::new();
    let node = world.dir.path().join("kmsg");
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o600));
    nix::sys::stat::mknod(&node, kind, mode, libc::makedev(1, 11)).unwrap();
    let device = Device::of(&node).unwrap().unwrap();
    assert_eq!(device, Device { block: false, major: 1, minor: Some(11) });
    assert_eq!(Device::of(world.dir.path()).unwrap(), None);

    let script = "stat -c '%u %t:%T' /dev/own/log; exec 3>/dev/own/log && echo open; test -e /dev/own/more || echo alone";
    for (name, idmap, allowed) in [
        ("mapped", Some(IDS), true),
        ("host", None, true),
        ("denied", Some(IDS), false),
        ("out", None, false),
    ] {
        let mut run = world.run(name, script);
        run.config.user = Some("web".into());
        run.config.idmap = idmap;
        run.config.cgroup = world.tree.placement_with_devices(Band::Batch, name);
        run.config.cgroup.allow(if allowed { std::slice::from_ref(&device) } else { &[] }).unwrap();
        let target = "/dev/own/log".into();
        run.config.binds = vec![Bind { source: node.clone(), target, kind: BindKind::Device }];
        let running = run.start();
        running.wait();
        let said = running.output();
        oci::container::remove(&running.bundle).unwrap();
        assert!(said.starts_with("101 1:b\n"), "{name}: {said}");
        assert_eq!(said.contains("open"), allowed, "{name}: {said}");
    }
    assert_eq!(world.tree.list(), [], "nothing of it is left");
    // Nor may the next plain one.
    let mut run = world.run("plain", script);
    run.config.binds = vec![Bind { source: node, target: "/dev/own/log".into(), kind: BindKind::Device }];
    assert!(!run.finish().1.contains("open"));
    let mut run = world.run("nothing", "true");
    let (source, target) = ("/dev/no-such-device".into(), "/dev/x".into());
    run.config.binds = vec![Bind { source, target, kind: BindKind::Device }];
    let said = run.fail().to_string();
    assert_eq!(said, "give the container the device /dev/no-such-device: this node has nothing there");
}
