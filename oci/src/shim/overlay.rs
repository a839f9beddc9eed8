//! The overlay mount, until `rootfs` is there.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::bundle::IdMap;

fn check(ret: i64) -> io::Result<i32> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as i32) }
}

pub(super) fn mount(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    map: Option<&IdMap>,
) -> io::Result<()> {
    let mut lowers = Vec::new();
    let ns = map.map(userns).transpose()?;
    for (i, layer) in layers.iter().enumerate() {
        let Some(ns) = &ns else {
            lowers.push(layer.clone());
            continue;
        };
        let at = PathBuf::from(format!("/sys/layers/{i}"));
        fs::create_dir_all(&at)?;
        idmap(layer, &at, ns)?;
        lowers.push(at);
    }
    if let Some(map) = map {
        std::os::unix::fs::chown(upper, Some(map.host), Some(map.host))?;
    }
    let text: Vec<String> = lowers.iter().map(|l| l.display().to_string()).collect();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", text.join(":"), upper.display(), work.display());
    Ok(nix::mount::mount(
        Some("overlay"),
        target,
        Some("overlay"),
        nix::mount::MsFlags::MS_NODEV,
        Some(options.as_str()),
    )?)
}

fn idmap(from: &Path, to: &Path, ns: &File) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    #[repr(C)]
    struct Attr {
        set: u64,
        clr: u64,
        propagation: u64,
        userns: u64,
    }
    unsafe {
        let tree = check(libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            from.as_ptr(),
            1u32 | libc::O_CLOEXEC as u32,
        ))?;
        let tree = OwnedFd::from_raw_fd(tree);
        let attr = Attr { set: 0x0010_0000, clr: 0, propagation: 0, userns: ns.as_raw_fd() as u64 };
        check(libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attr,
            32usize,
        ))?;
        check(libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            4u32,
        ))?;
    }
    Ok(())
}

fn userns(map: &IdMap) -> io::Result<File> {
    let (ready_r, ready_w) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (end_r, end_w) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    match unsafe { nix::unistd::fork()? } {
        nix::unistd::ForkResult::Child => {
            drop(end_w);
            let ok = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_ok();
            let _ = File::from(ready_w).write_all(&[ok as u8]);
            let _ = File::from(end_r).read(&mut [0]);
            unsafe { libc::_exit(0) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(ready_w);
            let mut byte = [0];
            File::from(ready_r).read_exact(&mut byte)?;
            let line = format!("0 {} {}", map.host, map.size);
            fs::write(format!("/proc/{child}/uid_map"), &line)?;
            fs::write(format!("/proc/{child}/gid_map"), &line)?;
            let ns = File::open(format!("/proc/{child}/ns/user"))?;
            drop(end_w);
            nix::sys::wait::waitpid(child, None)?;
            Ok(ns)
        }
    }
}
