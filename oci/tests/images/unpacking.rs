//! What layers become on disk, and what an overlay of them shows.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci::layers::Limits;
use oci::rootfs;
use tar::EntryType;

use crate::support::{Tar, own_mounts, unpack};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let mut value = [0u8; 256];
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    usize::try_from(len).ok().map(|len| value[..len].to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

fn one(tar: Tar) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let layer = unpack(dir.path(), &tar.bytes(), &[], &Limits::default()).unwrap();
    (dir, layer)
}

/// Unpacks the layers, base first, each on those before, and mounts them.
fn stack(layers: Vec<Tar>) -> (tempfile::TempDir, PathBuf) {
    own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let mut lowers = Vec::new();
    for tar in layers {
        lowers.insert(0, unpack(dir.path(), &tar.bytes(), &lowers, &Limits::default()).unwrap());
    }
    let at = |name| dir.path().join(name);
    rootfs::mount(&lowers, &at("upper"), &at("work"), &at("rootfs"), None).unwrap();
    let rootfs = at("rootfs");
    (dir, rootfs)
}

/// All paths below `dir`, in order, directories with a slash.
fn tree(dir: &Path) -> String {
    let mut paths = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let mut path = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
                path.push('/');
            }
            paths.push(path);
        }
    }
    paths.sort();
    paths.join(" ")
}

#[test]
fn attributes_survive() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let long_name = format!("long/{}/{}", "a".repeat(150), "b".repeat(200));
    let long_target = "t/".repeat(300);
    let (_dir, layer) = one(Tar::default()
        .dir_with("./", |h| (h.set_mode(0o751), h.set_uid(7), h.set_mtime(77)).0)
        .dir_with("tmp/", |h| h.set_mode(0o1777))
        .file_with("su", "x", |h| (h.set_mode(0o4755), h.set_uid(0), h.set_gid(5)).0)
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("uid", b"100000"),
            ("gid", b"3000000"),
            ("SCHILY.xattr.user.note", b"line\nbreak"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.security.selinux", b"ignored"),
            ("SCHILY.xattr.com.apple.provenance", b"ignored"),
        ])
        .file_with("tmp/attributed", "x", |h| h.set_mode(0o2750))
        .pax(&[("mtime", b"-1.25")])
        .file("tmp/old", "")
        .hard_link("tmp/linked", "tmp/attributed")
        .symlink("tmp/absolute", "/etc/../../anything")
        .special(EntryType::Fifo, "tmp/fifo", 0, 0)
        .long(EntryType::GNULongName, long_name.as_bytes())
        .file("cut", "long")
        .long(EntryType::GNULongLink, long_target.as_bytes())
        .symlink("far", "cut")
        .pax(&[("path", "päx/ü".as_bytes())])
        .file("cut", "pax")
        .file("old-style-directory/", ""));
    let meta = |path: &str| fs::symlink_metadata(layer.join(path)).unwrap();
    let root = fs::symlink_metadata(&layer).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.mtime()), (0o751, 7, 77));
    assert_eq!((meta("tmp").mode() & 0o7777, meta("tmp").mtime()), (0o1777, 1_000_000_000));
    assert_eq!((meta("su").mode() & 0o7777, meta("su").gid()), (0o4755, 5));
    let attributed = meta("tmp/attributed");
    assert_eq!(
        (attributed.mode() & 0o7777, attributed.uid(), attributed.gid()),
        (0o2750, 100_000, 3_000_000)
    );
    assert_eq!((attributed.mtime(), attributed.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!((meta("tmp/old").mtime(), meta("tmp/old").mtime_nsec()), (-2, 750_000_000));
    assert_eq!((attributed.nlink(), attributed.ino()), (2, meta("tmp/linked").ino()));
    let path = layer.join("tmp/linked");
    assert_eq!(xattr(&path, "user.note").unwrap(), b"line\nbreak");
    assert_eq!(xattr(&path, "security.capability").unwrap(), capability);
    assert_eq!(xattr(&path, "security.selinux"), None);
    assert_eq!(fs::read_link(layer.join("tmp/absolute")).unwrap().to_str(), Some("/etc/../../anything"));
    assert!(meta("tmp/fifo").file_type().is_fifo());
    assert_eq!(fs::read(layer.join(&long_name)).unwrap(), b"long");
    assert_eq!(fs::read_link(layer.join("far")).unwrap().as_os_str(), OsStr::new(&long_target));
    assert_eq!(fs::read(layer.join("päx/ü")).unwrap(), b"pax");
    assert!(meta("old-style-directory").is_dir());
}

#[test]
fn a_filesystem_without_attributes() {
    use nix::mount::{MsFlags, mount};
    own_mounts();
    let dir = tempfile::tempdir().unwrap();
    mount(Some("covey"), dir.path(), Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
    let with = |name| Tar::default().pax(&[(name, b"value")]).file("f", "x").bytes();
    // What is only a note is left out, what changes the way a program runs is not.
    let layer = unpack(dir.path(), &with("SCHILY.xattr.user.note"), &[], &Limits::default()).unwrap();
    assert_eq!(fs::read(layer.join("f")).unwrap(), b"x");
    let error =
        unpack(dir.path(), &with("SCHILY.xattr.security.capability"), &[], &Limits::default()).unwrap_err();
    let says = r#"entry "f": set the extended attribute "security.capability" of 5 bytes: "#;
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let (_dir, layer) = one(Tar::default()
        .file("a", "first")
        .file("a", "second")
        .dir("b")
        .file("b/c", "")
        .file("b", "now a file")
        .file("d", "")
        .dir("d")
        .file("d/e", "")
        .symlink("f", "a")
        .file("f", "not through the link")
        .dir_with("g", |h| h.set_mode(0o700))
        .file("g/h", "kept")
        .dir_with("g", |h| h.set_mode(0o750)));
    assert_eq!(tree(&layer), "a b d/ d/e f g/ g/h");
    assert_eq!(fs::read(layer.join("a")).unwrap(), b"second");
    assert_eq!(fs::read(layer.join("f")).unwrap(), b"not through the link");
    assert_eq!(fs::metadata(layer.join("g")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn whiteouts_in_the_form_of_overlayfs() {
    let (_dir, layer) = one(Tar::default()
        .file(".wh.gone", "")
        .dir("hidden")
        .file("hidden/.wh..wh..opq", "")
        // Removed and put there again, in either order.
        .file("before/f", "")
        .file(".wh.before", "")
        .file(".wh.after", "")
        .file("after/f", "")
        .file(".wh.listed", "")
        .dir("listed")
        .file(".wh.file", "")
        .file("file", "")
        .file("other", "")
        .file(".wh.other", "")
        .file(".wh..wh.plnk", "kept by AUFS"));
    assert!(is_whiteout(&layer.join("gone")));
    for name in ["hidden", "before", "after", "listed"] {
        assert!(is_opaque(&layer.join(name)), "{name}");
    }
    assert!(fs::metadata(layer.join("file")).unwrap().is_file());
    assert!(fs::metadata(layer.join("other")).unwrap().is_file());
    assert_eq!(tree(&layer), "after/ after/f before/ before/f file gone hidden/ listed/ other");
}

#[test]
fn an_overlay_shows_what_the_layers_say() {
    let base = Tar::default()
        .dir_with("tmp", |h| h.set_mode(0o1777))
        .file("etc/passwd", "root")
        .file("etc/shadow", "secret")
        .file("usr/a", "")
        .file("usr/b", "")
        .file("gone/x", "");
    let middle = Tar::default()
        .file("etc/.wh.shadow", "")
        .file(".wh.gone", "")
        .dir("usr")
        .file("usr/.wh..wh..opq", "");
    // No entry for tmp: it is as the base has it.
    let top = Tar::default().file("usr/c", "").file("gone", "a file now").file("tmp/t", "");
    let (_dir, rootfs) = stack(vec![base, middle, top]);
    assert_eq!(tree(&rootfs), "etc/ etc/passwd gone tmp/ tmp/t usr/ usr/c");
    assert_eq!(fs::metadata(rootfs.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(rootfs.join("etc")).unwrap().mode() & 0o7777, 0o755);
    fs::write(rootfs.join("etc/passwd"), "changed").unwrap();
    fs::remove_file(rootfs.join("usr/c")).unwrap();
    assert_eq!(tree(&rootfs), "etc/ etc/passwd gone tmp/ tmp/t usr/");
}

#[test]
fn implied_directories_look_through_the_layers_below() {
    let private = |tar: Tar| tar.dir_with("d", |h| (h.set_mode(0o711), h.set_uid(9)).0);
    let f = || Tar::default().file("d/f", "");
    let seen = |layers: Vec<Tar>| {
        let dir = tempfile::tempdir().unwrap();
        let mut lowers: Vec<PathBuf> = Vec::new();
        for tar in layers {
            lowers.insert(0, unpack(dir.path(), &tar.bytes(), &lowers, &Limits::default()).unwrap());
        }
        let meta = fs::metadata(lowers[0].join("d")).unwrap();
        (meta.mode() & 0o7777, meta.uid())
    };
    assert_eq!(seen(vec![private(Tar::default()), f()]), (0o711, 9));
    assert_eq!(seen(vec![private(Tar::default()), Tar::default().file("x", ""), f()]), (0o711, 9));
    // What is hidden in between is not seen.
    assert_eq!(seen(vec![private(Tar::default()), Tar::default().file(".wh.d", ""), f()]), (0o755, 0));
    assert_eq!(seen(vec![private(Tar::default()), Tar::default().file(".wh..wh..opq", ""), f()]), (0o755, 0));
    assert_eq!(seen(vec![private(Tar::default()), Tar::default().file("d", "a file"), f()]), (0o755, 0));
}

#[test]
fn seventy_layers_with_long_names() {
    let long = "l".repeat(200);
    let layers =
        (0..70).map(|n| Tar::default().file(&n.to_string(), "").file("last", n.to_string())).collect();
    own_mounts();
    let dir = tempfile::Builder::new().prefix(&format!("a:b,{long}")).tempdir().unwrap();
    let lowers: Vec<_> = Vec::from_iter::<Vec<Tar>>(layers)
        .iter()
        .rev()
        .map(|tar: &Tar| unpack(dir.path(), &tar.clone().bytes(), &[], &Limits::default()).unwrap())
        .collect();
    let at = |name| dir.path().join(name);
    rootfs::mount(&lowers, &at("upper"), &at("work"), &at("rootfs"), None).unwrap();
    assert_eq!(fs::read_dir(at("rootfs")).unwrap().count(), 71);
    assert_eq!(fs::read_to_string(at("rootfs").join("last")).unwrap(), "69");
}
