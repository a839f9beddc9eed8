//! Layers that must not be unpacked, each with the message that its sender gets. Nothing outside the layer's
//! directory may be touched by any of them, which a sentinel beside it shows.

use std::fs;

use oci::layers::Limits;
use tar::EntryType::{self, Block, Char, Fifo, GNULongLink, GNULongName, GNUSparse, Link, Regular, XHeader};

use crate::support::{Tar, gzip, unpack, zstd};

fn sized(kind: EntryType, path: &str, size: u64) -> tar::Header {
    let mut header = Tar::header(kind, path);
    header.set_size(size);
    header
}

/// The archive, what is said about it.
fn cases() -> Vec<(Tar, &'static str)> {
    let t = Tar::default;
    let deep = "d/".repeat(2048) + "f";
    vec![
        (
            t().file("../out", "x"),
            r#", entry "../out": the path climbs with `..`: it could lead out of the layer"#,
        ),
        (
            t().file("a/../../out", "x"),
            r#", entry "a/../../out": the path climbs with `..`: it could lead out of the layer"#,
        ),
        (t().dir("a/.."), r#", entry "a/..": the path climbs with `..`: it could lead out of the layer"#),
        (
            t().file("/etc/out", "x"),
            r#", entry "/etc/out": the path is absolute: paths in a layer are relative to its root"#,
        ),
        (
            t().pax(&[("path", b"/etc/out")]).file("a", "x"),
            r#", entry "/etc/out": the path is absolute: paths in a layer are relative to its root"#,
        ),
        (
            t().long(GNULongName, b"../out").file("a", "x"),
            r#", entry "../out": the path climbs with `..`: it could lead out of the layer"#,
        ),
        (t().pax(&[("path", b"a\0b")]).file("a", "x"), r#", entry "a\0b": the path has a NUL byte"#),
        (t().file("", "x"), r#", entry "": the path is empty"#),
        (t().file(".", "x"), r#", entry ".": the layer's root would become something else than a directory"#),
        (
            t().symlink("./", "/"),
            r#", entry "./": the layer's root would become something else than a directory"#,
        ),
        (
            t().long(GNULongName, deep.as_bytes()).file("a", ""),
            r#", entry "././@LongLink": the path is longer than 4095 bytes"#,
        ),
        // Through links, whatever they point to, whenever they come.
        (
            t().symlink("l", "/").file("l/out", "x"),
            r#", entry "l/out": the path leads through the symbolic link "l""#,
        ),
        (
            t().symlink("l", "..").file("l/out", "x"),
            r#", entry "l/out": the path leads through the symbolic link "l""#,
        ),
        (
            t().dir("d").symlink("l", "d").file("l/f", "x"),
            r#", entry "l/f": the path leads through the symbolic link "l""#,
        ),
        (
            t().file("d/f", "x").symlink("d", "..").file("d/out", "x"),
            r#", entry "d/out": the path leads through the symbolic link "d""#,
        ),
        (
            t().dir("a/b").symlink("a/b/c", "../../..").file("a/b/c/d/out", "x"),
            r#", entry "a/b/c/d/out": the path leads through the symbolic link "a/b/c""#,
        ),
        (
            t().symlink("l", "..").file("l/.wh.sentinel", ""),
            r#", entry "l/.wh.sentinel": the path leads through the symbolic link "l""#,
        ),
        (
            t().symlink("l", "..").file("l/.wh..wh..opq", ""),
            r#", entry "l/.wh..wh..opq": the path leads through the symbolic link "l""#,
        ),
        (
            t().symlink("l", "..").hard_link("f", "l/sentinel"),
            r#", entry "f": hard link to "l/sentinel": the path leads through the symbolic link "l""#,
        ),
        (
            t().file("f", "x").symlink("l", "..").hard_link("l/out", "f"),
            r#", entry "l/out": the path leads through the symbolic link "l""#,
        ),
        (
            t().file("f", "x").file("f/out", "x"),
            r#", entry "f/out": the path leads through "f", which is not a directory"#,
        ),
        (
            t().hard_link("f", "../sentinel"),
            r#", entry "f": hard link to "../sentinel": the path climbs with `..`: it could lead out of the layer"#,
        ),
        (
            t().hard_link("f", "/etc/passwd"),
            r#", entry "f": hard link to "/etc/passwd": the path is absolute: paths in a layer are relative to its root"#,
        ),
        (
            t().hard_link("f", "missing"),
            r#", entry "f": hard link to "missing", which is not in this layer before it"#,
        ),
        (t().hard_link("f", "f"), r#", entry "f": hard link to "f", which is not in this layer before it"#),
        (t().dir("d").hard_link("f", "d"), r#", entry "f": hard link to "d", which is a directory"#),
        (t().hard_link("f", "."), r#", entry "f": hard link to ".", which is a directory"#),
        (
            t().file(".wh.f", "").hard_link("g", "f"),
            r#", entry "g": hard link to "f", which is not in this layer before it"#,
        ),
        (
            t().long(GNULongLink, b"../sentinel").hard_link("f", "a"),
            r#", entry "f": hard link to "../sentinel": the path climbs with `..`: it could lead out of the layer"#,
        ),
        (
            t().symlink("l", ""),
            r#", entry "l": the symbolic link's target is empty or longer than 4095 bytes"#,
        ),
        (t().file(".wh..", ""), r#", entry ".wh..": whiteout of ".", which is no name"#),
        (t().file("a/.wh...", ""), r#", entry "a/.wh...": whiteout of "..", which is no name"#),
        (t().file(".wh.", ""), r#", entry ".wh.": whiteout of "", which is no name"#),
        (
            t().special(Char, "dev/mem", 1, 1),
            r#", entry "dev/mem": character device 1:1: images may not bring device nodes"#,
        ),
        (
            t().special(Char, "hidden", 0, 0),
            r#", entry "hidden": character device 0:0: images may not bring device nodes"#,
        ),
        (
            t().special(Block, "dev/sda", 8, 0),
            r#", entry "dev/sda": block device 8:0: images may not bring device nodes"#,
        ),
        (
            t().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("d"),
            r#", entry "d": extended attribute "trusted.overlay.redirect" belongs to overlayfs: a layer may not set it"#,
        ),
        (
            t().pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).dir("d"),
            r#", entry "d": extended attribute "user.overlay.opaque" belongs to overlayfs: a layer may not set it"#,
        ),
        (
            t().pax(&[("uid", b"4294967295")]).file("f", ""),
            r#", entry "f": the owner 4294967295 is no valid user or group id"#,
        ),
        (
            t().entry(sized(GNUSparse, "f", 0), b""),
            r#", entry "f": sparse entries are not supported: pack the layer without `--sparse`"#,
        ),
        (
            t().pax(&[("GNU.sparse.major", b"1")]).file("f", ""),
            r#", entry "PaxHeaders/x": sparse entries are not supported: pack the layer without `--sparse`"#,
        ),
        (
            t().entry(Tar::header(EntryType::new(b'V'), "f"), b""),
            r#", entry "f": unsupported tar entry type 'V'"#,
        ),
        // Lengths that nothing stands behind.
        (
            t().entry(sized(GNULongName, "f", 1 << 40), b""),
            r#", entry "f": the path is longer than 4095 bytes"#,
        ),
        (
            t().entry(sized(XHeader, "f", 1 << 40), b""),
            r#", entry "f": the extended attributes take more than 4096 bytes"#,
        ),
        (
            t().entry(sized(Regular, "f", 1 << 62), b""),
            r#", entry "f": the layer ends in the middle of an entry: the archive is truncated"#,
        ),
        (
            t().entry(sized(Regular, "f", 4096), b""),
            r#", entry "f": the layer ends in the middle of an entry: the archive is truncated"#,
        ),
        (t().file("f", vec![0; 1 << 20]), r#", entry "f": more than 1048576 bytes once decompressed"#),
        ((0..99).fold(t(), |tar, n| tar.file(&n.to_string(), "")), r#", entry "50": more than 50 entries"#),
        (
            t().pax(&[("SCHILY.xattr.user.a", &[7; 4095])]).file("f", ""),
            r#", entry "PaxHeaders/x": the extended attributes take more than 4096 bytes"#,
        ),
        (t().pax(&[("path", b"")]).file("f", ""), r#", entry "": the path is empty"#),
        (
            t().entry(sized(XHeader, "f", 10), b"99 path=a\n"),
            r#", entry "f": malformed tar: a PAX record is broken"#,
        ),
        (
            t().entry(sized(XHeader, "f", 10), b"-1 path=a\n"),
            r#", entry "f": malformed tar: a PAX record is broken"#,
        ),
        (
            t().entry(sized(XHeader, "f", 9), b"9 size=x\n"),
            r#", entry "f": malformed tar: a PAX size or owner is no number"#,
        ),
        (Tar([&[0; 512][..], &[1; 512]].concat()), ": malformed tar: there is more after its end"),
        (Tar(vec![b'x'; 1024]), ": malformed tar: a header's checksum is no number"),
        (
            t().special(Fifo, "p", 0, 0).link(Link, "q/r", "p/x"),
            r#", entry "q/r": hard link to "p/x": the path leads through "p", which is not a directory"#,
        ),
    ]
}

#[test]
fn each_is_refused_by_layer_and_entry() {
    let limits = Limits { bytes: 1 << 20, entries: 50, xattrs: 4096, ..Limits::default() };
    let mut wrong = Vec::new();
    for (tar, expected) in cases() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sentinel"), "untouched").unwrap();
        let archive = tar.bytes();
        let error = unpack(dir.path(), &archive, &[], &limits).unwrap_err().to_string();
        let layer = format!("layer {}", oci::digest::Digest::of(&archive));
        let (named, said) = error.split_at(layer.len());
        if (named, said) != (&layer, expected) {
            wrong.push(format!("expected …{expected}\n     got …{said}"));
        }
        // The blob, the layer's directory and the sentinel, as it was.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "{expected}");
        assert_eq!(fs::read_to_string(dir.path().join("sentinel")).unwrap(), "untouched", "{expected}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bombs_stop_at_the_limit_however_small_they_are() {
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let archive = Tar::default().file("f", vec![0; 8 << 20]).bytes();
    for bomb in [gzip(&archive), zstd(&archive)] {
        assert!(bomb.len() < archive.len() / 50);
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(dir.path(), &bomb, &[], &limits).unwrap_err().to_string();
        assert!(error.ends_with(r#"entry "f": more than 1048576 bytes once decompressed"#), "{error}");
        assert!(fs::metadata(dir.path().join("layer0/f")).unwrap().len() <= 1 << 20);
    }
    // The bytes may as well come after the archive's end.
    let dir = tempfile::tempdir().unwrap();
    let padded = zstd(&[Tar::default().bytes(), vec![0; 8 << 20]].concat());
    let error = unpack(dir.path(), &padded, &[], &limits).unwrap_err().to_string();
    assert!(error.ends_with("more than 1048576 bytes once decompressed"), "{error}");
}

#[test]
fn names_and_attributes_longer_than_the_filesystem_takes() {
    let refused = |tar: Tar| {
        let dir = tempfile::tempdir().unwrap();
        unpack(dir.path(), &tar.bytes(), &[], &Limits::default()).unwrap_err().to_string()
    };
    let name = "n".repeat(256);
    let error = refused(Tar::default().long(GNULongName, name.as_bytes()).file("a", ""));
    assert!(error.ends_with("nnn\"…: a name in the path is longer than 255 bytes"), "{error}");
    let error = refused(Tar::default().pax(&[("SCHILY.xattr.user.a", &[7; 70_000])]).file("f", ""));
    assert!(error.contains("entry \"f\": set the extended attribute \"user.a\" of 70000 bytes: "), "{error}");
}

#[test]
fn a_layer_below_with_a_link_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    let base = unpack(dir.path(), &Tar::default().symlink("lib", "usr/lib").bytes(), &[], &limits).unwrap();
    let above = Tar::default().file("lib/f", "x").bytes();
    let error = unpack(dir.path(), &above, &[base], &limits).unwrap_err().to_string();
    assert!(error.ends_with(r#"entry "lib/f": the path leads through the symbolic link "lib""#), "{error}");
}
