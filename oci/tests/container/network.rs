//! Containers with networks of their own, on a host that is a network namespace made for the test.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use oci::container;
use oci::network::files::{Etc, Whose};
use oci::network::{Namespace, Networks, Published, Spares};

use crate::world::{IDS, Run, World};

/// The links that were given to it: some kernels put tunnels into every namespace.
const LINKS: &str = "ls /sys/class/net | grep -E '^(lo|eth.*|cv.*)$'";

fn in_namespace(run: &mut Run<'_>, namespace: &Namespace) {
    run.input.network = Some(namespace.path());
}

/// What is said on a port, once somebody listens there.
fn hear(port: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        let mut said = String::new();
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5));
        if stream.and_then(|mut stream| stream.read_to_string(&mut said)).is_ok() && !said.is_empty() {
            return said;
        }
        assert!(Instant::now() < deadline, "nobody answers on {port}");
        std::thread::yield_now();
    }
}

#[test]
fn with_none_there_is_only_a_loopback() {
    let world = World::new();
    let spares = Spares::default();
    for (name, idmap) in [("mapped", Some(IDS)), ("host", None)] {
        let namespace = spares.take().unwrap();
        spares.refill().unwrap();
        let script = format!(
            "{LINKS}; busybox nc -l -p 80 -e echo heard & until busybox nc 127.0.0.1 80 2>/dev/null; do :; done; \
             busybox nc 192.0.2.1 80; echo end"
        );
        let mut run = world.run(name, &script);
        run.config.idmap = idmap;
        in_namespace(&mut run, &namespace);
        let running = run.start();
        drop(namespace);
        running.wait_for("end");
        let said = running.output();
        assert!(said.starts_with("lo\nheard\n"), "{said}");
        assert!(said.contains("Network is unreachable"), "{said}");
        container::remove(&running.bundle).unwrap();
    }
}

#[test]
fn a_private_network_is_published_and_goes_with_the_container() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success());
    let world = World::new();
    let networks = Networks::new(7, None);
    let mut namespace = Namespace::make().unwrap();
    let ports = vec![Published { port: 20000, inside: 80 }];
    let attachment = networks.attach("web", &mut namespace, ports, 20000).unwrap();
    let script = format!(
        "{LINKS}; cat /proc/net/route | wc -l; ls /proc/sys/net/ipv4/conf | grep -c cv; \
         while :; do busybox nc -l -p 80 -e echo from $(hostname); done"
    );
    let mut run = world.run("web", &script);
    run.config.user = Some("web".into());
    run.config.network = Some(attachment.clone());
    in_namespace(&mut run, &namespace);
    let running = run.start();
    drop(namespace);
    // Port 80, without being root, in a user namespace.
    assert_eq!(hear(20000), "from box\n");
    assert_eq!(running.output(), "eth0\nlo\n3\n0\n");
    assert_eq!(running.bundle.config().unwrap().network, Some(attachment));

    // An agent that comes after finds it in the bundle, and nothing breaks.
    let later = Networks::new(7, None);
    let found = running.bundle.config().unwrap().network.unwrap();
    later.adopt([("web".into(), found, true)]).unwrap();
    assert_eq!(hear(20000), "from box\n");

    container::remove(&running.bundle).unwrap();
    later.detach("web").unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 20000));
    assert!(TcpStream::connect_timeout(&to, Duration::from_secs(5)).is_err());
    let left = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(!left.contains("cv"), "{left}");
}

#[test]
fn its_names_are_its_own() {
    let world = World::new();
    // The container's root may not pass the directories above the bundle.
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(world.dir.path(), closed).unwrap();
    let etc = Etc::new(world.dir.path().join("names/etc"), "box", Whose::Private(Ipv4Addr::new(10, 1, 2, 3)));
    let script = "cat /etc/hostname /etc/hosts; wc -l < /etc/resolv.conf; touch /etc/hosts";
    let mut run = world.run("names", script);
    run.input.etc = etc.mounts.clone();
    let resolv_conf = world.layer.join("etc/resolv.conf");
    std::os::unix::fs::symlink("../run/systemd/nowhere", resolv_conf).unwrap();
    let bundle = run.bundle();
    etc.write().unwrap();
    let running = run.start_in(bundle);
    running.wait_for("touch: ");
    let expected = "box\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.1.2.3 box\n";
    let said = running.output();
    assert!(said.starts_with(expected), "{said}");
    assert!(said.ends_with("touch: /etc/hosts: Read-only file system\n"), "{said}");
    container::remove(&running.bundle).unwrap();
}

#[test]
fn a_namespace_that_is_gone_is_a_failed_start() {
    let world = World::new();
    let mut run = world.program("late", &["true"]);
    in_namespace(&mut run, &Namespace::make().unwrap());
    let failure = run.fail();
    assert!(failure.what.starts_with("join the network namespace /proc/"), "{failure}");
}
