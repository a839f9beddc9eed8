//! The files that a container has left, as it saw them: its writable layer over its image's, read-only and without its
//! volumes, in a mount namespace of this process's own.

use std::convert::Infallible;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Gid, Uid, chdir, chroot, fork, setgroups, setresgid, setresuid};

use super::{Inside, Reporter, failed, report, wear};
use crate::bundle::{Bundle, Failure};
use crate::exec::message::{self, Order, Said};
use crate::{copy, rootfs};

/// Begins the order's work on them.
pub(super) fn begin(order: &Order, fds: Vec<OwnedFd>, control: &OwnedFd) -> Result<Inside, Failure> {
    let bundle = Bundle::at(&order.bundle);
    let see = |e: &dyn std::fmt::Display, hint| failed("see the files that the container has left", e, hint);
    let config = bundle.config().map_err(|e| see(&e, ""))?;
    if let Some(layer) = config.layers.iter().find(|layer| !layer.is_dir()) {
        let why = format!("a layer of its image is gone ({})", layer.display());
        return Err(see(&why, "the image was removed since; pull or load it again on that node"));
    }
    let ours = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    };
    ours().map_err(|e| see(&e, ""))?;
    let idmap = config.idmap.as_ref();
    std::fs::create_dir_all(bundle.rootfs()).map_err(|e| see(&e, ""))?;
    rootfs::mount_left(&config.layers, &bundle.upper(), &bundle.rootfs(), idmap).map_err(|e| see(&e, ""))?;
    let users = idmap.map(rootfs::user_namespace).transpose().map_err(|e| see(&e, ""))?;
    let (said, says) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| see(&e, ""))?;
    // SAFETY: this process has one thread, so that the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            drop(said);
            let report = Reporter::new(&says);
            match enter(order, &bundle.rootfs(), users, fds, control, report) {
                Ok(never) => match never {},
                Err(errno) => report.failed(see(&errno, "")),
            }
            // SAFETY: ends this process without running anything else of the parent's.
            unsafe { libc::_exit(125) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop((says, fds));
            if let Some(failure) = report::read(said) {
                let _ = nix::sys::wait::waitpid(child, None);
                return Err(failure);
            }
            // An agent that is gone already is seen later.
            let _ = message::send(control, &Said::Started { pid: child.as_raw() }, &[]);
            Ok(Inside { child, nest: None, tidies: true })
        }
        Err(errno) => Err(see(&errno, "")),
    }
}

/// Links lead nowhere but into it, and owners are the container's.
fn enter(
    order: &Order,
    root: &Path,
    users: Option<OwnedFd>,
    fds: Vec<OwnedFd>,
    control: &OwnedFd,
    report: Reporter,
) -> nix::Result<Infallible> {
    let pipes = <[OwnedFd; 3]>::try_from(fds).map_err(|_| nix::Error::EBADF)?;
    chroot(root)?;
    chdir("/")?;
    if let Some(users) = users {
        setns(users, CloneFlags::CLONE_NEWUSER)?;
        setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
        setgroups(&[])?;
    }
    prctl::set_no_new_privs()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    nix::unistd::setsid()?;
    wear([&pipes[0], &pipes[1], &pipes[2]])?;
    report.done();
    let _ = nix::unistd::close(control.as_raw_fd());
    copy::inside::work(&order.work, (0, 0))
}
