//! Layers seen by the root of a user namespace, with the real kernel.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci::bundle::IdMap;
use oci::layers::Limits;
use oci::rootfs::{self, Error};

use crate::support::{Tar, own_mounts, unpack};

const MAP: IdMap = IdMap { host: 1_000_000, size: 65_536 };

fn layers(dir: &Path, count: usize) -> Vec<PathBuf> {
    let mut lowers = Vec::new();
    for n in 0..count {
        let tar = Tar::default()
            .dir_with("./", |h| (h.set_mode(0o750), h.set_gid(3)).0)
            .file("owned-by-root", "image")
            .file_with("owned-by-daemon", "image", |h| h.set_uid(1))
            .file(&format!("layer{n}"), "");
        lowers.insert(0, unpack(dir, &tar.bytes(), &lowers, &Limits::default()).unwrap());
    }
    lowers
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

#[test]
fn ids_of_the_image_are_the_mapped_ids() {
    let host_mounts = || fs::read_to_string("/proc/1/mountinfo").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let lowers = layers(dir.path(), 3);
    let at = |name| dir.path().join(name);
    own_mounts();
    let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count();
    rootfs::mount(&lowers, &at("upper"), &at("work"), &at("rootfs"), Some(&MAP)).unwrap();
    let rootfs = at("rootfs");
    assert_eq!(owner(&rootfs), (1_000_000, 1_000_003));
    assert_eq!(owner(&rootfs.join("owned-by-root")), (1_000_000, 1_000_000));
    assert_eq!(owner(&rootfs.join("owned-by-daemon")), (1_000_001, 1_000_000));
    // On disk nothing has changed.
    assert_eq!(owner(&lowers[0].join("owned-by-root")), (0, 0));
    // Nothing but the overlay was mounted, and only here.
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert_eq!(mounts.lines().count(), before + 1);
    assert!(mounts.lines().last().unwrap().contains("nodev"), "{mounts}");
    assert!(!host_mounts().contains(rootfs.to_str().unwrap()));

    // What the mapped root writes, changes and creates belongs to it, in the upper directory too.
    let script = "echo more >> owned-by-root && echo new > new && chown 1 new && stat -c %u owned-by-root new | tr '\\n' ' '";
    let output = in_user_namespace(&rootfs, "0", script);
    assert_eq!(output, "0 1 ");
    assert_eq!(owner(&at("upper/owned-by-root")), (1_000_000, 1_000_000));
    assert_eq!(owner(&at("upper/new")), (1_000_001, 1_000_000));
    assert_eq!(fs::read_to_string(at("upper/owned-by-root")).unwrap(), "imagemore\n");
}

/// Runs a shell script in `dir` as a user of a user namespace with the map.
fn in_user_namespace(dir: &Path, user: &str, script: &str) -> String {
    let mut holder = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo ready; read _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let map = format!("0 {} {}", MAP.host, MAP.size);
    fs::write(format!("/proc/{}/uid_map", holder.id()), &map).unwrap();
    fs::write(format!("/proc/{}/gid_map", holder.id()), &map).unwrap();
    let output = Command::new("nsenter")
        .arg(format!("--user=/proc/{}/ns/user", holder.id()))
        .args(["--setuid", user, "--setgid", user, "sh", "-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn capabilities_and_setuid_of_the_image_hold_in_the_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let busybox = fs::read("/bin/busybox").unwrap();
    // Version 2, effective: CAP_NET_BIND_SERVICE, bit 10.
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::default()
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .file_with("grep", &busybox, |h| h.set_mode(0o755))
        .file_with("id", fs::read("/usr/bin/id").unwrap(), |h| h.set_mode(0o4755));
    let layer = unpack(dir.path(), &tar.bytes(), &[], &Limits::default()).unwrap();
    let at = |name| dir.path().join(name);
    own_mounts();
    rootfs::mount(&[layer], &at("upper"), &at("work"), &at("rootfs"), Some(&MAP)).unwrap();
    // The mapped users have to get to it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = in_user_namespace(&at("rootfs"), "5", "./grep CapEff /proc/self/status; ./id -ru; ./id -u");
    assert_eq!(output, "CapEff:\t0000000000000400\n5\n0\n");
}

#[test]
fn layers_of_several_directories() {
    let (one, two, dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lowers = [layers(one.path(), 2), layers(two.path(), 1)].concat();
    let at = |name| dir.path().join(name);
    own_mounts();
    rootfs::mount(&lowers, &at("upper"), &at("work"), &at("rootfs"), Some(&MAP)).unwrap();
    assert_eq!(owner(&at("rootfs/layer1")), (1_000_000, 1_000_000));
}

#[test]
fn a_filesystem_without_idmaps_is_told_apart() {
    own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // An overlay as the place of the layers: it cannot be idmapped.
    let base = layers(dir.path(), 1);
    rootfs::mount(&base, &at("upper1"), &at("work1"), &at("content"), None).unwrap();
    fs::create_dir(at("content/layer")).unwrap();
    let lowers = [at("content/layer")];
    let error = rootfs::mount(&lowers, &at("upper"), &at("work"), &at("rootfs"), Some(&MAP)).unwrap_err();
    assert!(matches!(error, Error::IdmapUnsupported { .. }), "{error}");
    rootfs::mount(&lowers, &at("upper"), &at("work"), &at("rootfs"), None).unwrap();
}

#[test]
fn what_is_missing_is_named() {
    own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mount = |lowers: &[PathBuf]| {
        let error = rootfs::mount(lowers, &at("upper"), &at("work"), &at("rootfs"), Some(&MAP)).unwrap_err();
        error.to_string().replace(dir.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(mount(&[]), "the image has no layers: nothing to mount on DIR/rootfs");
    assert_eq!(
        mount(&[at("missing")]),
        "look at the layer DIR/missing: No such file or directory (os error 2)"
    );
    let lowers = layers(dir.path(), 1);
    symlink("/", at("rootfs-elsewhere")).unwrap();
    fs::remove_dir(at("rootfs")).unwrap();
    fs::write(at("rootfs"), "").unwrap();
    assert_eq!(mount(&lowers), "make the directory DIR/rootfs: File exists (os error 17)");
}
