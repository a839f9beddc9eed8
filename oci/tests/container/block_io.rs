//! Direct IO against the limit of a run, on a disk made of a file. Needs root, and a controller of block IO.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use oci::cgroup::{Band, Disk, Io, Limits, Placement, Tree};

/// A loop device over a file, let go when dropped.
struct Loop {
    path: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn new() -> Loop {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let path = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        Loop { path, _file: file }
    }

    fn number(&self) -> Disk {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let number = fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap();
        let (major, minor) = number.trim().split_once(':').unwrap();
        Disk { major: major.parse().unwrap(), minor: minor.parse().unwrap() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// Starts `dd` in the run's cgroups, at the word.
fn dd(cgroup: &Placement, disk: &Path, operations: u32, size: &str) -> (Child, impl FnOnce(&mut Child)) {
    let command = format!(
        "read go; exec dd if=/dev/zero of={} bs={size} count={operations} oflag=direct",
        disk.display()
    );
    let mut child = Command::new("sh").args(["-c", &command]).stdin(Stdio::piped()).spawn().unwrap();
    for dir in cgroup.dirs() {
        fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    let mut go = child.stdin.take().unwrap();
    (child, move |_| go.write_all(b"go\n").unwrap())
}

fn seconds(cgroup: &Placement, disk: &Path, operations: u32, size: &str) -> f64 {
    let (mut child, go) = dd(cgroup, disk, operations, size);
    go(&mut child);
    let began = Instant::now();
    assert!(child.wait().unwrap().success());
    began.elapsed().as_secs_f64()
}

#[test]
fn direct_writes_are_held_to_the_limit_and_to_a_new_one() {
    let (tree, _) = Tree::open(&format!("io-{}", std::process::id()));
    if !tree.enforces("io") {
        eprintln!("this machine has no controller of block IO");
        return;
    }
    let disk = Loop::new();
    let io = |iops, bandwidth| Limits {
        io: Io { iops, bandwidth, disk: Some(disk.number()) },
        ..Limits::default()
    };
    // Begun without a limit, as most are.
    let free = io(None, None);
    let run = tree.placement_with_devices(Band::Batch, "run");
    run.create().unwrap();
    run.allow(&[oci::cgroup::Device::of(&disk.path).unwrap().unwrap()]).unwrap();
    let slow = io(Some(100), None);
    let cgroup = tree.with_io(run, &slow);
    cgroup.change(&free, &slow).unwrap();

    // The kernel lets a slice of a tenth of a second through at first. A busy machine is slower, never faster.
    let took = seconds(&cgroup, &disk.path, 200, "4k");
    eprintln!("200 writes at 100 a second took {took:.2} s");
    assert!(took > 2.0 * 0.85, "{took}");

    let narrow = io(None, Some(2 << 20));
    cgroup.change(&slow, &narrow).unwrap();
    let took = seconds(&cgroup, &disk.path, 32, "128k");
    eprintln!("4 MiB at 2 MiB a second took {took:.2} s");
    assert!(took > 2.0 * 0.85, "{took}");

    tree.clear().unwrap();
}
