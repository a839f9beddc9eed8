//! Debian packages as layers: one base, and on it what a program needs beyond that.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::fcntl::{Flock, FlockArg};
use test_vms::debian;

/// What Debian's own base image has, as far as anything here uses it.
const BASE: &[&str] = &[
    "attr",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "hostname",
    "libc-bin",
    "procps",
    "sed",
    "util-linux",
];

/// The base layer: a directory to be read only.
pub(crate) fn base() -> PathBuf {
    unpacked("base", &|| closure(&[]), |root| {
        for name in ["passwd", "group"] {
            fs::copy(root.join(format!("usr/share/base-passwd/{name}.master")), root.join("etc").join(name))
                .unwrap();
        }
        for (name, mode) in [("tmp", 0o1777), ("run", 0o755), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)]
        {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        // Alternatives are set by scripts that did not run.
        let _ = symlink("mawk", root.join("usr/bin/awk"));
    })
}

/// What `package` needs beyond the base, `finish` having done what its scripts would do: a directory to be read only.
pub(crate) fn layer(package: &str, finish: impl FnOnce(&Path)) -> PathBuf {
    unpacked(package, &|| closure(&[package]).difference(&closure(&[])).cloned().collect(), finish)
}

/// All that has to be there for the base and these packages, each as `NAME=VERSION`: this system may have one of its own.
fn closure(packages: &[&str]) -> BTreeSet<String> {
    let none = tempfile::NamedTempFile::new().unwrap();
    let mut ask = Command::new("apt-get");
    let status = format!("Dir::State::status={}", none.path().display());
    ask.args(["-o", &status, "-o", "Debug::NoLocking=1", "--simulate", "--no-install-recommends", "install"]);
    ask.args(BASE).args(packages);
    let mut said = ask.output().unwrap();
    if !said.status.success() {
        // A fresh machine has no package lists.
        debian::update().unwrap();
        said = ask.output().unwrap();
    }
    assert!(said.status.success(), "{ask:?}: {}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout).unwrap();
    let package = |line: &str| {
        let mut words = line.strip_prefix("Inst ")?.split([' ', '(']).filter(|word| !word.is_empty());
        Some(format!("{}={}", words.next()?, words.next()?))
    };
    said.lines().filter_map(package).collect()
}

/// The packages `wanted`, from the cache or fetched: whole or not at all, once for all processes.
fn unpacked(name: &str, wanted: &dyn Fn() -> BTreeSet<String>, finish: impl FnOnce(&Path)) -> PathBuf {
    let cache = debian::cache().join("stock");
    fs::create_dir_all(&cache).unwrap();
    let lock = fs::File::create(cache.join(format!("{name}.lock"))).unwrap();
    let _locked = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let root = cache.join(name);
    if root.exists() {
        return root;
    }
    let scratch = tempfile::tempdir_in(&cache).unwrap();
    let fetch = || debian::download(scratch.path(), &wanted().into_iter().collect::<Vec<_>>());
    // What lists that are older than the archive name may be gone.
    fetch().or_else(|_| debian::update().and_then(|()| fetch())).unwrap();
    let into = scratch.path().join("root");
    fs::create_dir_all(into.join("usr")).unwrap();
    // As every Debian has them: a layer must not put a directory over the link.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(into.join("usr").join(dir)).unwrap();
        symlink(format!("usr/{dir}"), into.join(dir)).unwrap();
    }
    for entry in fs::read_dir(scratch.path()).unwrap() {
        let package = entry.unwrap().path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            extract(&package, &into);
        }
    }
    finish(&into);
    fs::rename(&into, &root).unwrap();
    root
}

fn extract(package: &Path, into: &Path) {
    let mut read =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-x", "--keep-directory-symlink", "-C"]).arg(into).stdin(read.stdout.take().unwrap());
    assert!(tar.status().unwrap().success(), "cannot unpack {}", package.display());
    assert!(read.wait().unwrap().success());
}

/// Adds a user and its group, as a package's script does.
pub(crate) fn add_user(root: &Path, name: &str, id: u32, home: &str) {
    let base = base();
    for (file, line) in
        [("passwd", format!("{name}:x:{id}:{id}::{home}:/bin/sh\n")), ("group", format!("{name}:x:{id}:\n"))]
    {
        let text = fs::read_to_string(base.join("etc").join(file)).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc").join(file), text + &line).unwrap();
    }
}

/// Makes a directory that belongs to a user.
pub(crate) fn owned_dir(root: &Path, path: &str, id: u32) {
    let dir = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(id), Some(id)).unwrap();
}
