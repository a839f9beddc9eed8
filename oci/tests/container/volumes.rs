//! What a container sees of the host's files, and what it leaves there.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use oci::bundle::{Bind, BindKind, IdMap};
use oci::spec::Tmpfs;

use crate::world::{IDS, World, read};

fn bind(source: impl AsRef<Path>, target: &str, kind: BindKind) -> Bind {
    Bind { source: source.as_ref().into(), target: target.into(), kind }
}

#[test]
fn a_tmpfs_is_anybodys_holds_so_much_and_runs_programs() {
    let world = World::new();
    let mut run = world.run(
        "tmpfs",
        "stat -c %a /scratch; dd if=/dev/zero of=/scratch/big bs=1024 count=2048; stat -c %s /scratch/big; rm /scratch/big; \
         cat /bin/busybox > /tmp/x; cat /bin/busybox > /deep/down/busybox; chmod +x /deep/down/busybox; \
         /deep/down/busybox echo it runs",
    );
    run.config.user = Some("web".into());
    run.input.tmpfs = vec![
        Tmpfs { target: "/deep/down".into(), bytes: 64 << 20 },
        Tmpfs { target: "/scratch".into(), bytes: 1 << 20 },
    ];
    let (_, said) = run.finish();
    assert!(said.starts_with("1777\n1048576\n"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("it runs\n"), "{said}");
}

#[test]
fn a_tmpfs_of_the_jobs_own_covers_the_usual_one() {
    let world = World::new();
    let mut run = world.run("shared", "stat -f -c '%b of %S' /dev/shm; touch /dev/shm/x && echo writable");
    run.input.tmpfs = vec![Tmpfs { target: "/dev/shm".into(), bytes: 128 << 20 }];
    assert_eq!(run.finish().1, "32768 of 4096\nwritable\n");
}

#[test]
fn a_tmpfs_counts_as_the_containers_memory() {
    let world = World::new();
    let mut run =
        world.program("filled", &["dd", "if=/dev/zero", "of=/scratch/big", "bs=65536", "count=4096"]);
    run.config.limits.memory_bytes = Some(32 << 20);
    run.input.tmpfs = vec![Tmpfs { target: "/scratch".into(), bytes: 1 << 30 }];
    let (record, _) = run.finish();
    assert!(record.oom && record.signal == Some(libc::SIGKILL), "{record:?}");
}

#[test]
fn a_volume_begins_as_the_image_has_it_and_outlives_the_container() {
    let world = World::new();
    let data = world.layer.join("srv/data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("sub/first"), "from the image\n").unwrap();
    std::fs::hard_link(data.join("sub/first"), data.join("second")).unwrap();
    symlink("/nowhere", data.join("link")).unwrap();
    chown(&data, Some(101), Some(102)).unwrap();
    chown(data.join("sub/first"), Some(101), Some(7)).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o2750)).unwrap();
    std::fs::set_permissions(data.join("sub/first"), std::fs::Permissions::from_mode(0o640)).unwrap();
    // The image may lead there by a link.
    symlink("srv/data", world.layer.join("data")).unwrap();

    let volume = world.dir.path().join("volumes/ann/db/0/data");
    let script = "stat -c '%u:%g %a %n' /data/. /data/sub/first; stat -c %h /data/second; readlink /data/link; \
                  cat /data/sub/first; echo more >> /data/sub/first; echo new > /srv/data/new";
    let mut run = world.run("one", script);
    run.config.user = Some("web".into());
    run.config.binds = vec![bind(&volume, "/data", BindKind::Volume)];
    let (_, said) = run.finish();
    let expected = "101:102 2750 /data/.\n101:7 640 /data/sub/first\n2\n/nowhere\nfrom the image\n";
    assert_eq!(said, expected);
    let owner = |name: &str| std::fs::metadata(volume.join(name)).unwrap().uid();
    assert_eq!((owner("."), owner("new")), (101, 101), "ids on disk are the container's");
    assert_eq!(read(data.join("sub/first")), "from the image\n", "the image is not changed");

    // Under other ids, or the host's own, everything still belongs to the same.
    for (name, idmap) in [("two", Some(IdMap { host: 900_000, size: 65_536 })), ("three", None)] {
        let mut run =
            world.run(name, "cat /data/sub/first /data/new; stat -c %u:%g /data/new; touch /data/by");
        run.config.user = Some("web".into());
        run.config.idmap = idmap;
        run.config.binds = vec![bind(&volume, "/data", BindKind::Volume)];
        assert_eq!(run.finish().1, "from the image\nmore\nnew\n101:102\n", "{name}");
        assert_eq!(owner("by"), 101, "{name}");
        std::fs::remove_file(volume.join("by")).unwrap();
    }
}

#[test]
fn a_volume_that_the_image_knows_nothing_of_belongs_to_the_user() {
    let world = World::new();
    let volume = world.dir.path().join("volumes/new");
    // An attempt that was cut short leaves no half volume.
    std::fs::create_dir_all(world.dir.path().join("volumes/.new.new/half")).unwrap();
    let mut run =
        world.run("new", "stat -c '%u:%g %a' /var/lib/db; ls -A /var/lib/db; echo x > /var/lib/db/x");
    run.config.user = Some("web".into());
    run.config.binds = vec![bind(&volume, "/var/lib/db", BindKind::Volume)];
    assert_eq!(run.finish().1, "101:102 755\n");
    assert_eq!(read(volume.join("x")), "x\n");
    let mut run = world.run("file", "true");
    run.config.binds = vec![bind(world.dir.path().join("volumes/odd"), "/etc/passwd", BindKind::Volume)];
    assert_eq!(
        run.fail().to_string(),
        "make the volume /etc/passwd: the image has a file there, or on the way"
    );
}

#[test]
fn the_hosts_files_are_read_only_and_so_is_all_below() {
    let mut world = World::new();
    world.leave_mounts();
    const NONE: Option<&str> = None;
    let host = world.dir.path().join("host");
    std::fs::create_dir_all(host.join("below")).unwrap();
    mount(Some("x"), &host.join("below"), Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
    for file in ["file", "below/file"] {
        std::fs::write(host.join(file), format!("{file}\n")).unwrap();
        std::fs::set_permissions(host.join(file), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    for (name, idmap) in [("mapped", Some(IDS)), ("plain", None)] {
        let script = "cat /new/dir/file /new/dir/below/file /etc/one; echo x > /new/dir/file; \
                      echo x > /new/dir/below/file; echo x > /etc/one; ls /sys/class | grep -c net; ls -d /kernel/class/net";
        let mut run = world.run(name, script);
        run.config.idmap = idmap;
        run.config.binds = vec![
            bind(&host, "/new/dir", BindKind::Host),
            bind(host.join("file"), "/etc/one", BindKind::Host),
            bind("/sys", "/kernel", BindKind::Host),
        ];
        let (_, said) = run.finish();
        assert!(said.starts_with("file\nbelow/file\nfile\n1\n/kernel/class/net\n"), "{name}: {said}");
        assert_eq!(said.matches("Read-only file system").count(), 3, "{name}: {said}");
    }
    let mut run = world.run("missing", "true");
    run.config.binds = vec![bind("/no/such/thing", "/x", BindKind::Host)];
    assert_eq!(run.fail().to_string(), "mount the host's /no/such/thing: this node has nothing there");
}

#[test]
fn mounts_within_mounts_are_made_in_order() {
    let world = World::new();
    let volume = world.dir.path().join("volumes/v");
    let mut run =
        world.run("nested", "echo a > /data/kept; echo b > /data/cache/lost; cat /data/hosts | wc -l");
    run.input.tmpfs = vec![Tmpfs { target: "/data/cache".into(), bytes: 1 << 20 }];
    run.config.binds =
        vec![bind("/etc/hosts", "/data/hosts", BindKind::Host), bind(&volume, "/data", BindKind::Volume)];
    let lines = read("/etc/hosts").lines().count();
    assert_eq!(run.finish().1, format!("{lines}\n"));
    assert_eq!(read(volume.join("kept")), "a\n");
    assert!(!volume.join("cache/lost").exists());
}
