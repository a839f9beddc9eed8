#![allow(clippy::unwrap_used)]
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::chunks::Chunks;
use super::{Copied, END, Error, Into, head, pack, unpack};

fn packed(path: &Path) -> (Vec<u8>, Copied) {
    let mut bytes = Vec::new();
    let copied = pack(path, &mut bytes, &mut |_| {}).unwrap();
    (bytes, copied)
}

fn into(bytes: &[u8], to: &Path) -> Result<Copied, Error> {
    unpack(bytes, &Into::Place(to.into()), None, &mut |_| {})
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_tree_arrives_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/one"), "1").unwrap();
    fs::set_permissions(tree.join("a/one"), fs::Permissions::from_mode(0o4751)).unwrap();
    let long = "x".repeat(150);
    fs::write(tree.join("a/b").join(&long), vec![7; 300_000]).unwrap();
    symlink("../../outside", tree.join("a/link")).unwrap();
    fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let (bytes, sent) = packed(&tree);
    assert_eq!(sent, Copied { files: 3, bytes: 300_001, skipped: 1 });

    // Under a new name; below a directory that is there; into itself, which is there by then.
    for (to, at) in [("new", "new"), (".", "tree"), ("new", "new/tree")] {
        if to == "." {
            fs::rename(&tree, temp.path().join("was")).unwrap();
        }
        let got = into(&bytes, &temp.path().join(to)).unwrap();
        assert_eq!(got, Copied { skipped: 0, ..sent });
        let at = temp.path().join(at);
        assert_eq!(fs::read(at.join("a/b").join(&long)).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::read_link(at.join("a/link")).unwrap(), Path::new("../../outside"));
        let mode = |name: &str| fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a/one"), mode("a/b")), (0o751, 0o500), "without the bits that lend rights");
        assert_eq!(names(&at.join("a")), ["b", "link", "one"]);
    }
    assert_eq!(names(temp.path()), ["new", "tree", "was"]);
}

#[test]
fn a_file_replaces_a_file_whole_or_not_at_all() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    fs::write(&from, "new text").unwrap();
    fs::write(&to, "old").unwrap();
    let (bytes, _) = packed(&from);
    // Breaks off at each place.
    for length in (0..bytes.len()).step_by(100) {
        let broken = bytes[..length].chain(Broken);
        let failed = unpack(broken, &Into::Place(to.clone()), None, &mut |_| {}).unwrap_err();
        assert!(matches!(failed, Error::Archive(_)), "{failed}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
        assert_eq!(names(temp.path()), ["from", "to"]);
    }
    into(&bytes, &to).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "new text");

    let directory = temp.path().join("dir/from");
    fs::create_dir_all(&directory).unwrap();
    assert!(matches!(into(&bytes, directory.parent().unwrap()), Err(Error::IsDirectory(_))));
    let nowhere = into(&bytes, &temp.path().join("no/such")).unwrap_err();
    assert!(nowhere.to_string().contains("No such file or directory"), "{nowhere}");
    assert!(matches!(into(&packed(&directory).0, &to), Err(Error::NoDirectory(_))));
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// What a container can make of an archive.
#[test]
fn nothing_is_written_outside_the_destination() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let entry = |kind: tar::EntryType, name: &str, link: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        // Not by the crate's own setters, which refuse what is tried here.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    use tar::EntryType as E;
    let out = outside.to_str().unwrap();
    let dir = || entry(E::Directory, "top/", "", "");
    let hostile = [
        entry(E::Regular, "../outside/x", "", "bad"),
        entry(E::Regular, &format!("{out}/x"), "", "bad"),
        [dir(), entry(E::Regular, "top/../../outside/x", "", "bad")].concat(),
        [dir(), entry(E::Symlink, "top/l", out, ""), entry(E::Regular, "top/l/x", "", "bad")].concat(),
        [dir(), entry(E::Symlink, "top/l", out, ""), entry(E::Directory, "top/l/d/", "", "")].concat(),
        [dir(), entry(E::Link, "top/l", "../outside", "")].concat(),
        [dir(), entry(E::Regular, "other/x", "", "bad")].concat(),
    ];
    for (n, archive) in hostile.into_iter().enumerate() {
        let archive = [archive, vec![0; 1024]].concat();
        let to = temp.path().join("to");
        let refused = into(&archive, &to).unwrap_err();
        assert!(matches!(refused, Error::Escapes(_) | Error::Through(_)), "{n}: {refused}");
        assert_eq!((names(&outside), names(temp.path())), (vec![], vec!["outside".to_string()]), "{n}");
    }
    // A file that replaces a link replaces the link.
    let archive =
        [dir(), entry(E::Symlink, "top/l", out, ""), entry(E::Regular, "top/l", "", "fine")].concat();
    into(&[archive, vec![0; 1024]].concat(), &temp.path().join("to")).unwrap();
    assert_eq!(fs::read_to_string(temp.path().join("to/l")).unwrap(), "fine");
    assert!(names(&outside).is_empty());
}

#[test]
fn chunks_tell_their_end() {
    let whole = [&head(3)[..], b"abc", &head(1), b"d", &END].concat();
    let mut text = String::new();
    Chunks::new(&whole[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, "abcd");
    for length in 0..whole.len() {
        let broken = Chunks::new(&whole[..length]).read_to_end(&mut Vec::new());
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
