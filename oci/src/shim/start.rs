//! From a bundle to a running container, or to a named failure with nothing left over.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use oci_spec::runtime::Spec;

use super::inside::{Inside, own};
use super::mounts;
use super::program::Program;
use super::report::{self, Reporter};
use super::user;
use crate::bundle::{
    Announcement, Bundle, BundleConfig, ExitRecord, Failure, Process, State, VERSION, now_ms,
};
use crate::cgroup::Doors;
use crate::{rootfs, seccomp};

/// The name under which libcontainer knows every container: there is one per shim.
const ID: &str = "c";

pub(super) fn main(dir: &Path) -> ExitCode {
    // Whatever the agent, or what started it, has left open is not for the container.
    // SAFETY: nothing in this process owns a descriptor beyond the standard three yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    let _ = nix::unistd::setsid();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let bundle = Bundle::at(dir);
    match start(&bundle) {
        Ok(running) => {
            report::announce(&Announcement::Started(running.state.clone()));
            super::wait::become_waiter(dir, &running)
        }
        Err(failure) => {
            report::announce(&Announcement::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// What the waiter goes on with.
pub(super) struct Running {
    pub(super) state: State,
    /// Reading ends of the container's stdout and stderr.
    pub(super) output: [OwnedFd; 2],
    /// Its POSIX lock lasts over `execve`.
    pub(super) lock: File,
    /// See [`mounts::Host`].
    _host: mounts::Host,
}

fn failed(what: impl Into<String>, why: impl ToString, hint: &str) -> Failure {
    Failure { what: what.into(), why: why.to_string(), hint: hint.into() }
}

fn start(bundle: &Bundle) -> Result<Running, Failure> {
    let shown = bundle.dir().display();
    let read = |e: crate::bundle::Error| failed(format!("read the bundle {shown}"), e, "");
    let (config, spec) = (bundle.config().map_err(read)?, bundle.spec().map_err(read)?);
    let lock =
        lock(bundle).map_err(|e| failed(format!("lock the bundle {shown}"), e, "another shim runs it"))?;
    wake_cgroups(&config);
    let result = bundle
        .reserve_exit_record()
        .map_err(|e| {
            failed("set room aside for the exit record", e, "free some space on the data directory's disk")
        })
        .and_then(|()| attempt(bundle, &config, spec, lock));
    result.inspect_err(|failure| clean_up(bundle, &config, failure))
}

/// After a quiet spell the kernel takes an RCU grace period (some 10 ms) to let the first process change cgroups. A child
/// is that process, while the shim does other things.
fn wake_cgroups(config: &BundleConfig) {
    // SAFETY: there is one thread.
    if let Ok(nix::unistd::ForkResult::Child) = unsafe { nix::unistd::fork() } {
        let _ = config.cgroup.join_shims();
        // SAFETY: ends at once, running nothing of what the parent has set up.
        unsafe { libc::_exit(0) };
    }
}

/// Held until the shim ends; the agent asks with `F_GETLK` who holds it.
fn lock(bundle: &Bundle) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).read(true).write(true).open(bundle.lock())?;
    // SAFETY: all zeroes is a valid flock: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    fcntl(file.as_raw_fd(), FcntlArg::F_SETLK(&lock))?;
    Ok(file)
}

fn attempt(bundle: &Bundle, config: &BundleConfig, mut spec: Spec, lock: File) -> Result<Running, Failure> {
    seccomp::check(&spec)
        .map_err(|e| failed("filter system calls", e, "use a build with the feature `seccomp`"))?;
    let cgroup = |e: crate::cgroup::Error| failed("prepare the run's cgroups", e, "");
    // Built inside its cgroups, so that every process of it is in them from the start; limits come afterwards.
    config.cgroup.create().map_err(cgroup)?;
    let doors = config.cgroup.doors().map_err(cgroup)?;

    let host = mounts::enter().map_err(|(step, error)| failed(step, error, "the agent must run as root"))?;
    let built = build(bundle, config, &mut spec, doors);
    host.back().map_err(|e| failed("return to the host's mounts", e, ""))?;
    config.cgroup.join_shims().map_err(cgroup)?;
    let built = built?;

    config
        .cgroup
        .apply(&config.limits)
        .map_err(|e| failed("limit the container", e, "give the task more"))?;
    if let Some(score) = built.oom_score_adj {
        // Fails only for scores below ours without CAP_SYS_RESOURCE; spec::build asks for none then.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", built.init), score.to_string());
    }
    // Any connection is the word to go on; closing the socket's directory would do as well as any message.
    let go = format!("/proc/self/fd/{}/notify.sock", built.state.as_raw_fd());
    let go = UnixStream::connect(go).and_then(|mut socket| socket.write_all(b"start container"));
    go.map_err(|e| failed("start the container's init", e, ""))?;
    if let Some(failure) = report::read(built.report) {
        return Err(failure);
    }

    let this = std::process::id() as i32;
    let gone = || failed("find the container's first process", "it is gone", "");
    let state = State {
        version: VERSION,
        shim: Process::now(this).ok_or_else(gone)?,
        init: Process::now(built.init).ok_or_else(gone)?,
        started_at_ms: now_ms(),
    };
    bundle
        .write_state(&state)
        .map_err(|e| failed("record the start", e, "free some space on the data directory's disk"))?;
    Ok(Running { state, output: built.output, lock, _host: host })
}

/// A container whose init waits for the word to execute its program.
struct Built {
    init: i32,
    state: OwnedFd,
    output: [OwnedFd; 2],
    report: OwnedFd,
    oom_score_adj: Option<i32>,
}

/// In the private mount namespace.
fn build(bundle: &Bundle, config: &BundleConfig, spec: &mut Spec, doors: Doors) -> Result<Built, Failure> {
    mount_rootfs(bundle, config)?;
    let inside =
        Inside::open(Path::new(mounts::ROOTFS)).map_err(|e| failed("open the root file system", e, ""))?;
    let (uid, oom_score_adj) = adapt(spec, config, &inside)?;

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
        as_user.set_uid(user.uid).set_gid(user.gid).set_additional_gids(Some(user.groups)).set_username(None);
        process.set_user(as_user);
    }
    Ok((base + user.uid, oom_score_adj))
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

/// Keep a descriptor open over `execve`.
pub(super) fn keep(fd: RawFd) {
    let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()));
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

/// Take what has ended off the process table.
fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}

/// After a failed start: kill, reap, record, and only then remove.
fn clean_up(bundle: &Bundle, config: &BundleConfig, failure: &Failure) {
    // Killing the cgroup must not reach the shim itself.
    let outside = config.cgroup.join_shims().is_ok();
    if outside {
        let _ = config.cgroup.kill();
    }
    reap();
    let record = ExitRecord {
        version: VERSION,
        code: None,
        signal: None,
        oom: false,
        finished_at_ms: now_ms(),
        error: Some(failure.clone()),
        log_bytes_lost: 0,
    };
    // The agent learns of it from the announcement as well.
    let _ = bundle.write_exit_record(&record);
    if outside {
        let _ = config.cgroup.remove();
    }
}
