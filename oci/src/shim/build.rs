//! Building a container with libcontainer, inside the shim's private mount namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec};

use super::binds::{Binds, Owner};
use super::inside::{Inside, own};
use super::mounts;
use super::network;
use super::program::Program;
use super::report::{self, Reporter};
use super::start::{failed, reap};
use super::user;
use crate::bundle::{Bundle, BundleConfig, Failure};
use crate::cgroup::Doors;
use crate::rootfs;

/// The name under which libcontainer knows every container: there is one per shim.
const ID: &str = "c";

/// A container whose init waits for the word to execute its program.
pub(super) struct Built {
    /// Its pid on the host.
    pub(super) init: i32,
    /// libcontainer's directory, in which it waits for a connection.
    pub(super) state: OwnedFd,
    /// Reading ends of its stdout and stderr.
    pub(super) output: [OwnedFd; 2],
    /// What it says until it has executed its program.
    pub(super) report: OwnedFd,
    /// What the spec wants it to have.
    pub(super) oom_score_adj: Option<i32>,
}

/// The calling process is in the container's cgroups afterwards.
pub(super) fn build(
    bundle: &Bundle,
    config: &BundleConfig,
    spec: &mut Spec,
    doors: Doors,
    binds: &Binds<'_>,
) -> Result<Built, Failure> {
    network::join(spec)?;
    network::show_files(bundle, spec)?;
    mount_rootfs(bundle, config)?;
    let inside =
        Inside::open(Path::new(mounts::ROOTFS)).map_err(|e| failed("open the root file system", e, ""))?;
    let (uid, oom_score_adj) = adapt(spec, config, &inside)?;
    let (user, idmap) = (spec.process().as_ref().map(|process| process.user()), config.idmap);
    let (own_uid, own_gid) = user.map_or((0, 0), |user| (user.uid(), user.gid()));
    binds.attach(&inside, Owner { idmap, uid: own_uid, gid: own_gid })?;

    let io = |what: &'static str| move |e: io::Error| failed(what, e, "");
    let (report_end, report_write) = pipe().map_err(io("make a pipe"))?;
    let reporter = Reporter::new(&report_write);
    reporter.listen();
    let null = File::open("/dev/null").map_err(io("open /dev/null"))?;
    let (out, out_write) = output_pipe(uid).map_err(io("make a pipe for stdout"))?;
    let (err, err_write) = output_pipe(uid).map_err(io("make a pipe for stderr"))?;

    let state = Path::new(mounts::STATE);
    spec.save(state.join("config.json")).map_err(|e| failed("write the adapted spec", e, ""))?;
    doors.enter().map_err(|e| failed("join the run's cgroups", e, ""))?;
    let built =
        ContainerBuilder::new(ID.into(), SyscallType::default()).with_root_path(state).and_then(|builder| {
            builder
                .with_executor(Program { report: reporter })
                .with_stdin(null)
                .with_stdout(out_write)
                .with_stderr(err_write)
                .as_init(state)
                .with_systemd(false)
                .build()
        });
    // From here on only the container's init holds it, and its execve closes it.
    drop(report_write);
    let init = match built {
        Ok(container) => container.pid().map(|pid| pid.as_raw()),
        Err(error) => {
            reap();
            let told = report::read(report_end);
            return Err(told.unwrap_or_else(|| failed("build the container", chain(&error), "")));
        }
    };
    let init = init.ok_or_else(|| failed("build the container", "libcontainer named no process", ""))?;
    let state = File::open(state.join(ID)).map_err(io("open libcontainer's state"))?.into();
    Ok(Built { init, state, output: [out, err], report: report_end, oom_score_adj })
}

fn mount_rootfs(bundle: &Bundle, config: &BundleConfig) -> Result<(), Failure> {
    for layer in &config.layers {
        if !layer.is_dir() {
            let why = format!("the layer {} is not there", layer.display());
            return Err(failed("mount the image", why, "load or pull the image again"));
        }
    }
    let target = Path::new(mounts::ROOTFS);
    rootfs::mount(&config.layers, &bundle.upper(), &bundle.work(), target, config.idmap.as_ref())
        .map_err(|e| failed("mount the image", e, ""))
}

/// Make the agent's spec fit what the shim has prepared. Returns the user's id on the host, and the OOM score.
fn adapt(spec: &mut Spec, config: &BundleConfig, inside: &Inside) -> Result<(u32, Option<i32>), Failure> {
    let user = user::resolve(inside, config.user.as_deref())?;
    let (base, size) = config.idmap.map_or((0, u32::MAX), |map| (map.host, map.size));
    if user.uid >= size || user.gid >= size {
        let why = format!("the container has only the ids 0 to {}", size - 1);
        return Err(failed(format!("run as {}:{}", user.uid, user.gid), why, "use a smaller id"));
    }
    if let Some(root) = spec.root_mut() {
        root.set_path(mounts::ROOTFS.into());
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if mount.source().as_deref() == Some(Path::new("/sys")) {
            mount.set_source(Some(mounts::SYSFS.into()));
        } else if mount.typ().as_deref() == Some("bind") {
            let target = mount.destination();
            inside
                .clear_dangling(target)
                .map_err(|e| failed(format!("make room for {} in the image", target.display()), e, ""))?;
        }
    }
    if let Some(linux) = spec.linux_mut() {
        // Ours: see `cgroup`.
        linux.set_resources(None).set_cgroups_path(None);
    }
    let mut oom_score_adj = None;
    if let Some(process) = spec.process_mut() {
        inside.make_dirs(process.cwd(), base).map_err(|e| {
            failed(format!("enter the working directory {}", process.cwd().display()), e, "name a directory")
        })?;
        // libcontainer would set its own process's: that is the shim's.
        oom_score_adj = process.oom_score_adj();
        process.set_oom_score_adj(None);
        let mut env = process.env().clone().unwrap_or_default();
        // libcontainer would ask the C library, which would load code from the image to answer.
        if !env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > 5) {
            env.retain(|entry| !entry.starts_with("HOME="));
            env.push(format!("HOME={}", user.home));
        }
        process.set_env(Some(env));
        let mut as_user = process.user().clone();
        let reached = process.rlimits().iter().flatten().map(|limit| reach(*limit)).collect();
        process.set_rlimits(Some(reached));
        as_user.set_uid(user.uid).set_gid(user.gid).set_additional_gids(Some(user.groups)).set_username(None);
        process.set_user(as_user);
    }
    Ok((base + user.uid, oom_score_adj))
}

/// In a user namespace nobody may raise a hard limit: the shim does it beforehand, for itself and so for its children.
/// Where it may not either, the container gets what there is.
fn reach(limit: PosixRlimit) -> PosixRlimit {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return limit };
    let ours = limit.typ() == PosixRlimitType::RlimitNofile && limit.hard() > hard;
    if !ours || setrlimit(Resource::RLIMIT_NOFILE, soft, limit.hard()).is_ok() {
        return limit;
    }
    let lower = PosixRlimitBuilder::default().typ(limit.typ()).soft(limit.soft().min(hard)).hard(hard);
    lower.build().unwrap_or(limit)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Owned by the container's user, so that opening `/dev/stdout` works in it, and with room for bursts.
fn output_pipe(uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    const ROOM: libc::c_int = 256 * 1024;
    let (read, write) = pipe()?;
    own(write.as_fd(), uid)?;
    let _ = fcntl(read.as_raw_fd(), FcntlArg::F_SETPIPE_SZ(ROOM));
    fcntl(read.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
