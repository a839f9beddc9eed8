//! What a container cannot see, reach or do.

use oci::container;

use crate::world::{IDS, World, read};

#[test]
fn it_is_alone_in_its_namespaces() {
    let world = World::new();
    let running =
        world.run("alone", "ps -o pid,comm; echo; cat /proc/self/uid_map; echo done; sleep 1000").start();
    running.wait_for("done");
    let said = running.output();
    let pids: Vec<&str> = said.lines().skip(1).take_while(|l| !l.is_empty()).map(|l| l.trim()).collect();
    assert_eq!(pids, ["1 sh", "2 ps"]);
    let map: Vec<&str> = said.split_whitespace().rev().skip(1).take(3).collect();
    assert_eq!(map, ["65536", "300000", "0"]);
    let init = running.state().init.pid;
    for namespace in ["pid", "mnt", "ipc", "uts", "cgroup", "user"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&init.to_string()), of("self"), "{namespace}");
    }
    assert!(read(format!("/proc/{init}/status")).contains(&format!("Uid:\t{0}\t{0}", IDS.host)));
    container::remove(&running.bundle).unwrap();
}

#[test]
fn two_containers_cannot_see_or_signal_each_other() {
    let world = World::new();
    let victim = world.program("victim", &["sleep", "1000"]).start();
    let pid = victim.state().init.pid;
    let script = format!("kill -9 {pid}; kill -9 -1; ls /proc | grep -c '^[0-9]'; ls -d /proc/{pid}");
    let (_, said) = world.run("attacker", &script).finish();
    assert!(said.contains("No such process"), "{said}");
    assert!(said.contains(&format!("/proc/{pid}: No such file")), "{said}");
    assert!(victim.state().init.is_there());
    container::remove(&victim.bundle).unwrap();
}

#[test]
fn privileges_are_none_and_cannot_grow() {
    let world = World::new();
    let (_, said) =
        world.run("caps", "grep -E 'NoNewPrivs|Seccomp:|CapBnd|CapInh|CapAmb' /proc/self/status").finish();
    let bounding = "CapBnd:\t00000000a00425fb";
    let expected = format!(
        "CapInh:\t0000000000000000\n{bounding}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn system_calls_are_filtered() {
    const EPERM: i32 = libc::EPERM;
    const ENOSYS: i32 = libc::ENOSYS;
    let world = World::new();
    let cases = [
        ("keyctl", EPERM),
        ("add_key", EPERM),
        ("bpf", EPERM),
        ("unshare", EPERM),
        ("setns", EPERM),
        ("clone-user", EPERM),
        ("clone-mount", EPERM),
        ("mount", EPERM),
        ("fsopen", EPERM),
        ("kexec", EPERM),
        ("reboot", EPERM),
        ("io_uring", EPERM),
        ("vsock", EPERM),
        ("sethostname", EPERM),
        ("mknod", EPERM),
        ("mknod-null", EPERM),
        ("clone3", ENOSYS),
        ("unknown", ENOSYS),
        ("fork", 0),
        ("socket", 0),
        ("mkfifo", 0),
    ];
    let args: Vec<&str> = ["probe"].into_iter().chain(cases.iter().map(|c| c.0)).collect();
    let expected: String = cases
        .iter()
        .map(|&(name, errno)| if errno == 0 { format!("{name} ok\n") } else { format!("{name} {errno}\n") })
        .collect();
    assert_eq!(world.program("filter", &args).finish().1, expected);
}

#[test]
fn the_hosts_devices_and_kernel_are_out_of_reach() {
    let world = World::new();
    let script = "ls /dev; wc -c < /proc/keys; ls /proc/acpi /sys/firmware 2>/dev/null; touch /sys/x; \
                  echo 1 > /proc/sys/vm/swappiness; ls /sys/fs/cgroup; ls /sys/class/net; \
                  echo x > /dev/null; cat /dev/zero | head -c 3 | wc -c; echo shm > /dev/shm/x; cat /dev/shm/x";
    let (_, said) = world.run("host", script).finish();
    let expected =
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n0\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("touch: /sys/x: Read-only file system"), "{said}");
    assert!(said.contains("/proc/sys/vm/swappiness: Read-only file system"), "{said}");
    assert!(said.contains("\nlo\n"), "the host's network: {said}");
    assert!(said.contains("\n3\nshm\n"), "{said}");
}

#[test]
fn a_hosts_device_is_denied_even_if_its_node_is_in_the_image() {
    let world = World::new();
    let disk = nix::sys::stat::stat("/").unwrap().st_dev;
    let kind = nix::sys::stat::SFlag::S_IFBLK;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&world.layer.join("disk"), kind, mode, disk).unwrap();
    for (name, idmap) in [("mapped", Some(IDS)), ("host", None)] {
        let mut run = world.run(name, "head -c 1 /disk | wc -c");
        run.config.idmap = idmap;
        let (_, said) = run.finish();
        assert!(said.contains("denied") || said.contains("not permitted"), "{name}: {said}");
        assert!(said.contains("0\n"), "{name}: {said}");
    }
}

#[test]
fn the_image_is_not_changed_and_can_be_read_only() {
    let world = World::new();
    let (_, said) = world
        .run("writes", "echo x > /etc/passwd && rm -r /tmp && mkdir -p /new && stat -c %u /new /etc/passwd")
        .finish();
    assert_eq!(said, "0\n0\n");
    assert!(read(world.layer.join("etc/passwd")).starts_with("root:"));
    assert!(world.layer.join("tmp").exists() && !world.layer.join("new").exists());

    let mut run = world.run("fixed", "touch /x; touch /dev/shm/x && echo fine");
    run.input.read_only = true;
    let (_, said) = run.finish();
    assert_eq!(said, "fine\ntouch: /x: Read-only file system\n");
}

#[test]
fn resolv_conf_and_hosts_are_the_hosts_and_read_only() {
    let world = World::new();
    let (_, said) = world.run("etc", "cat /etc/hosts; touch /etc/hosts").finish();
    assert_eq!(said, format!("{}touch: /etc/hosts: Read-only file system\n", read("/etc/hosts")));
    // An image from a host with systemd-resolved.
    std::os::unix::fs::symlink("../run/systemd/nowhere", world.layer.join("etc/hosts")).unwrap();
    assert_eq!(world.run("dangling", "cat /etc/hosts").finish().1, read("/etc/hosts"));
}

#[test]
fn an_image_cannot_lead_mounts_out_of_it() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for name in ["etc", "dev"] {
        std::fs::remove_dir_all(world.layer.join(name)).unwrap();
        std::os::unix::fs::symlink(
            format!("../../../../../../..{}", outside.display()),
            world.layer.join(name),
        )
        .unwrap();
    }
    let running = world.run("links", "echo fine").spawn();
    // Whether it starts (in directories of that name inside) or is refused: the host is not touched.
    running.gone();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!read("/proc/self/mountinfo").contains(&outside.display().to_string()));
    container::remove(&running.bundle).unwrap();
}

/// What containers get on pure v2 hosts; the unified tree of a hybrid one will do to see that it works.
#[test]
fn a_v2_host_shows_a_container_its_own_cgroup_and_no_other() {
    let world = World::new();
    let mut run = world.run("own", "cat /proc/self/cgroup | grep ^0; ls /sys/fs/cgroup | grep -c covey; cat /sys/fs/cgroup/cgroup.procs; \
                             mkdir /sys/fs/cgroup/x; echo 1 > /sys/fs/cgroup/cgroup.kill; sleep 0.1; echo alive");
    run.host.cgroup2 = true;
    let (_, said) = run.finish();
    assert!(said.starts_with("0::/\n0\n1\n"), "{said}");
    assert!(said.contains("can't create directory '/sys/fs/cgroup/x': Read-only file system"), "{said}");
    assert!(said.contains("alive\n"), "{said}");
}

/// Where a JVM, Go's runtime and others look for what they may use.
#[test]
fn a_v1_host_shows_a_container_its_own_limits() {
    let world = World::new();
    let run = world.run(
        "own",
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us; cat memory/cgroup.procs;
         grep -E 'cpu|memory' /proc/self/cgroup; ls cpuset/cpuset.cpus; grep -c /sys/fs/cgroup /proc/self/mountinfo;
         grep -o ' / /sys/fs/cgroup/memory ro' /proc/self/mountinfo;
         echo 1 > memory/memory.limit_in_bytes; mkdir memory/x; touch x; ls",
    );
    // Others' mounts come and go meanwhile.
    let shown = || read("/proc/self/mountinfo").matches("/sys/fs/cgroup").count();
    let before = shown();
    let (_, said) = run.finish();
    assert!(said.starts_with("67108864\n100000\n1\n"), "{said}");
    assert!(said.contains(":memory:/\n") && said.contains(":cpu:/\n"), "{said}");
    assert!(
        said.contains("cpuset/cpuset.cpus\n") && said.contains(" / /sys/fs/cgroup/memory ro\n"),
        "{said}"
    );
    assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
    assert!(said.contains("cpu\ncpuacct\ncpuset\nmemory\n"), "{said}");
    assert_eq!(before, shown());
}
