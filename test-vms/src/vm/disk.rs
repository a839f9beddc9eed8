//! What a machine boots from: an initramfs that loads modules and leaves for a real root (nothing may pivot away from
//! an initramfs, and containers do), and that root's disk.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::kit::Kit;
use super::modules;
use crate::error::output_of;
use crate::{Error, Result};

/// Comes before the script's status, last on the second serial line.
pub(super) const SENTINEL: &str = "\n=== covey-vm script ended with ";

pub(super) const INITRAMFS_INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module || echo "cannot load $module"; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root || echo "cannot mount the disk"
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"#;

/// As on a host with systemd: only v2, mounted where everybody expects it.
const ROOT_INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd
mount --make-rshared /
hostname vm
ip link set lo up
stty -F /dev/ttyS1 raw
cd /root
# No terminal for the script, so that programs do not draw.
mkfifo /run/said
cat /run/said >/dev/ttyS1 &
cat=$!
sh /script </dev/null >/run/said 2>&1
status=$?
# What the script left running must not hold this up for long.
tries=0
while kill -0 $cat 2>/dev/null && [ $tries -lt 20 ]; do tries=$((tries + 1)); sleep 0.1; done
echo "
=== covey-vm script ended with $status" >/dev/ttyS1
sync
poweroff -f
"#;

/// Writes the initramfs with the `wanted` kernel modules, in `/modules` in the order to load them, and the script `init`.
pub(crate) fn initramfs(kit: &Kit, wanted: &[&str], init: &str, to: &Path) -> Result<()> {
    let tree = tempfile::tempdir().map_err(Error::file("make a directory in", std::env::temp_dir()))?;
    let at = |name: &str| tree.path().join(name);
    for directory in ["bin", "dev", "modules", "root"] {
        fs::create_dir(at(directory)).map_err(Error::file("make", at(directory)))?;
    }
    copy(&kit.busybox, &at("bin/busybox"))?;
    executable(&at("init"), init)?;
    let mut names = "init\nbin\nbin/busybox\ndev\nroot\nmodules\n".to_owned();
    for (number, module) in modules::in_order(&kit.modules, wanted)?.iter().enumerate() {
        let name = format!("modules/{number:03}");
        copy(module, &at(&name))?;
        names.push_str(&name);
        names.push('\n');
    }
    let archive = File::create(to).map_err(Error::file("create", to))?;
    let program = || kit.busybox.display().to_string();
    let mut cpio = Command::new(&kit.busybox)
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(tree.path())
        .stdin(Stdio::piped())
        .stdout(archive)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| Error::Run { program: program(), why, hint: "" })?;
    if let Some(mut stdin) = cpio.stdin.take() {
        stdin.write_all(names.as_bytes()).map_err(Error::file("write names to", &kit.busybox))?;
    }
    let output = cpio.wait_with_output().map_err(Error::file("wait for", &kit.busybox))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Failed { program: format!("{} cpio", program()), status: output.status, said })
}

/// Writes the root disk: busybox under all its names, the test's files and its script.
pub(super) fn root(
    kit: &Kit,
    files: &[(PathBuf, String)],
    script: &str,
    disk_mib: u32,
    to: &Path,
) -> Result<()> {
    let tree = tempfile::tempdir().map_err(Error::file("make a directory in", std::env::temp_dir()))?;
    // The root directory of the machine gets this one's mode, and unprivileged containers look through it.
    fs::set_permissions(tree.path(), Permissions::from_mode(0o755))
        .map_err(Error::file("open up", tree.path()))?;
    let at = |name: &str| tree.path().join(name.trim_start_matches('/'));
    for directory in
        ["bin", "sbin", "usr/bin", "usr/sbin", "dev", "proc", "sys", "run", "tmp", "root", "etc", "var"]
    {
        fs::create_dir_all(at(directory)).map_err(Error::file("make", at(directory)))?;
    }
    copy(&kit.busybox, &at("bin/busybox"))?;
    for name in output_of(Command::new(&kit.busybox).arg("--list"))?.lines() {
        if name != "busybox" {
            let link = at("bin").join(name);
            symlink("busybox", &link).map_err(Error::file("make", &link))?;
        }
    }
    executable(&at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    executable(&at("sbin/init"), ROOT_INIT)?;
    executable(&at("script"), script)?;
    for (outside, inside) in files {
        if let Some(parent) = at(inside).parent() {
            fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
        }
        copy(outside, &at(inside))?;
    }
    let disk = File::create(to).map_err(Error::file("create", to))?;
    disk.set_len(u64::from(disk_mib) << 20).map_err(Error::file("enlarge", to))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(tree.path()).arg(to);
    output_of(&mut mke2fs).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(Error::file("copy", from))
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file("write", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(Error::file("make executable", path))
}
