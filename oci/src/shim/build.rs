//! The builder: from a locked bundle to a running container, or to a named failure with nothing left over.
//!
//! It is the shim's child, and makes the container's first process another one (`CLONE_PARENT`). So it can join the
//! container's cgroups, where every process of it is from the start, and need not leave them again: it ends.

use std::ffi::c_int;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec};
use waiter::Word;

use super::binds::{Binds, Owner};
use super::cgroupfs::View;
use super::inside::{Inside, own};
use super::late::{self, CgroupNamespace};
use super::program::Program;
use super::report::{self, Reporter};
use super::serve::Ahead;
use super::start::{Shared, failed};
use super::{capability, mounts, network, user, usual};
use crate::bundle::{
    Announcement, Bundle, BundleConfig, ExitRecord, Failure, Process, State, VERSION, now_ms,
};
use crate::cgroup::{self, Doors};
use crate::{pidfd, rootfs, seccomp};

/// The name under which libcontainer knows every container: there is one per builder.
const ID: &str = "c";

/// How the builder came to be.
pub(super) struct Born {
    /// Its parent, which waits for it.
    pub(super) shim: u32,
    /// In the run's cgroup of the unified tree.
    pub(super) inside: bool,
}

/// Returns what the process shall exit with.
pub(super) fn main(
    bundle: &Bundle,
    config: &BundleConfig,
    shared: Shared,
    channel: OwnedFd,
    ahead: &Ahead,
    born: Born,
) -> c_int {
    // Nothing is built for a shim that is gone.
    let tied = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if tied.is_err() || std::os::unix::process::parent_id() != born.shim {
        return 1;
    }
    let started = bundle
        .reserve_exit_record()
        .map_err(|e| {
            failed("set room aside for the exit record", e, "free some space on the data directory's disk")
        })
        .and_then(|()| {
            bundle.spec().map_err(|e| failed(format!("read the bundle {}", bundle.dir().display()), e, ""))
        })
        .and_then(|spec| start(bundle, config, spec, shared, ahead, &born));
    match started {
        Ok(state) => {
            report::announce(channel, &Announcement::Started(state));
            0
        }
        Err(failure) => {
            // Wherever that was: cgroups are the host's.
            let _ = ahead.mounts.back();
            // Under the shim's lock: whoever finds it free finds the record, and nothing else left.
            clean_up(bundle, config, &failure);
            report::announce(channel, &Announcement::Failed(failure));
            1
        }
    }
}

fn start(
    bundle: &Bundle,
    config: &BundleConfig,
    spec: Spec,
    shared: Shared,
    ahead: &Ahead,
    born: &Born,
) -> Result<State, Failure> {
    // Not freed: the process ends soon, and each page that freeing touches would be copied for that.
    let mut spec = ManuallyDrop::new(spec);
    seccomp::check(&spec)
        .map_err(|e| failed("filter system calls", e, "use a build with the feature `seccomp`"))?;
    let join = |e: cgroup::Error| failed("join the run's cgroups", e, "");
    // A cgroup namespace begins where its first process is; what shows it is mounted by libcontainer.
    let early = !born.inside && late::is_shown(&spec);
    let early = early.then(|| doors(config)).transpose()?;
    let binds = Binds::open(&config.binds)?;
    let prepared = prepare(bundle, config, &mut spec, &shared, ahead, &binds, born)?;
    if let Some(doors) = &early {
        doors.enter_unified().map_err(join)?;
    }

    let built = create(prepared, shared, config.log_cap_bytes)?;
    let back = || ahead.mounts.back().map_err(|e| failed("return to the host's mounts", e, ""));
    back()?;
    // The agent has made the cgroups meanwhile.
    let doors = early.map_or_else(|| doors(config), Ok)?;
    // A convenience: nothing is less limited without it.
    if let Some(view) = View::open(&config.cgroup, &spec) {
        let _ = view.attach(built.init);
        back()?;
    }
    config
        .cgroup
        .apply(&config.limits)
        .map_err(|e| failed("limit the container", e, "give the task more"))?;
    // Only now, where it has to be moved: the kernel takes ten milliseconds to prepare for it, and was asked to in time (see
    // `ForkServer::spawn`). So building is neither throttled nor counted.
    if !born.inside {
        doors.admit(built.init).map_err(join)?;
    }
    if let Some(score) = built.oom_score_adj {
        // Fails only for scores below ours without CAP_SYS_RESOURCE; spec::build asks for none then.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", built.init), score.to_string());
    }
    // Before its end can be seen.
    let gone = || failed("find the container's first process", "it is gone", "");
    let state = State {
        version: VERSION,
        shim: Process::now(born.shim.cast_signed()).ok_or_else(gone)?,
        init: Process::now(built.init).ok_or_else(gone)?,
        started_at_ms: now_ms(),
    };
    // Any connection is the word to go on; closing the socket's directory would do as well as any message.
    let go = format!("/proc/self/fd/{}/notify.sock", built.state.as_raw_fd());
    let go = UnixStream::connect(go).and_then(|mut socket| socket.write_all(b"start container"));
    go.map_err(|e| failed("start the container's init", e, ""))?;
    if let Some(failure) = report::read(built.report) {
        return Err(failure);
    }
    bundle
        .write_state(&built.lock, &state)
        .map_err(|e| failed("record the start", e, "free some space on the data directory's disk"))?;
    Ok(state)
}

fn doors(config: &BundleConfig) -> Result<Doors, Failure> {
    let made = config.cgroup.create().and_then(|()| config.cgroup.doors());
    made.map_err(|e| failed("prepare the run's cgroups", e, ""))
}

/// All that libcontainer is given.
struct Prepared {
    program: Program,
    report: (OwnedFd, OwnedFd),
    stdin: File,
    oom_score_adj: Option<i32>,
}

/// A container whose init waits for the word to execute its program.
struct Built {
    /// Its pid on the host.
    init: i32,
    /// libcontainer's directory, in which it waits for a connection.
    state: OwnedFd,
    /// What it says until it has executed its program.
    report: OwnedFd,
    /// What the spec wants it to have.
    oom_score_adj: Option<i32>,
    /// The bundle's, which the shim holds.
    lock: File,
}

/// In a mount namespace of our own from here on.
fn prepare(
    bundle: &Bundle,
    config: &BundleConfig,
    spec: &mut Spec,
    shared: &Shared,
    ahead: &Ahead,
    binds: &Binds<'_>,
    born: &Born,
) -> Result<Prepared, Failure> {
    // We live, so it has not been waited for, and the number is its own.
    let shim = pidfd::open(born.shim.cast_signed()).map_err(|e| failed("hold the shim", e, ""))?;
    let profile = spec.linux_mut().as_mut().and_then(|linux| {
        // Ours: see `seccomp::filter`.
        linux.seccomp_mut().take()
    });
    let filter = profile.map(|profile| ahead.filter(&ManuallyDrop::new(profile))).transpose()?;
    ahead.mounts.enter().map_err(|(step, error)| failed(step, error, "the agent must run as root"))?;
    network::join(spec)?;
    network::show_files(bundle, spec)?;
    mount_rootfs(bundle, config)?;
    let inside =
        Inside::open(Path::new(mounts::ROOTFS)).map_err(|e| failed("open the root file system", e, ""))?;
    usual::make(spec, &inside, config.idmap.map_or(0, |map| map.host))?;
    let (uid, oom_score_adj) = adapt(spec, config, &inside, ahead)?;
    let late_namespace = CgroupNamespace::take(spec);
    let (user, idmap) = (spec.process().as_ref().map(|process| process.user()), config.idmap);
    let (own_uid, own_gid) = user.map_or((0, 0), |user| (user.uid(), user.gid()));
    binds.attach(&inside, Owner { idmap, uid: own_uid, gid: own_gid })?;

    let io = |what: &'static str| move |e: io::Error| failed(what, e, "");
    for (_, end) in &shared.output {
        // So that opening `/dev/stdout` works in it.
        own(end.as_fd(), uid).map_err(io("give the container its output pipes"))?;
    }
    let report = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("make a pipe", e, ""))?;
    let reporter = Reporter::new(&report.1);
    reporter.listen();
    let stdin = File::open("/dev/null").map_err(io("open /dev/null"))?;
    let path = Path::new(mounts::STATE).join("config.json");
    spec.save(path).map_err(|e| failed("write the adapted spec", e, ""))?;
    let program = Program { shim: Arc::new(shim), report: reporter, filter, late_namespace };
    Ok(Prepared { program, report, stdin, oom_score_adj })
}

fn create(prepared: Prepared, shared: Shared, log_cap: u64) -> Result<Built, Failure> {
    let Prepared { program, report: (report, report_end), stdin, oom_score_adj } = prepared;
    let Shared { lock, word: (_, word), output: [(_, stdout), (_, stderr)] } = shared;
    let state = Path::new(mounts::STATE);
    let built =
        ContainerBuilder::new(ID.into(), SyscallType::default()).with_root_path(state).and_then(|builder| {
            builder
                .with_executor(program)
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr)
                .as_init(state)
                .with_systemd(false)
                .as_sibling(true)
                .build()
        });
    // From here on only the container's init holds it, and its execve closes it.
    drop(report_end);
    let init = match built {
        Ok(container) => container.pid().map(|pid| pid.as_raw()),
        Err(error) => {
            let told = report::read(report);
            return Err(told.unwrap_or_else(|| failed("build the container", chain(&error), "")));
        }
    };
    let init = init.ok_or_else(|| failed("build the container", "libcontainer named no process", ""))?;
    let said = Word { init: u64::from(init.unsigned_abs()), log_cap };
    File::from(word).write_all(&said.bytes()).map_err(|e| failed("tell the shim", e, ""))?;
    let state = File::open(state.join(ID)).map_err(|e| failed("open libcontainer's state", e, ""))?.into();
    Ok(Built { init, state, report, oom_score_adj, lock })
}

fn mount_rootfs(bundle: &Bundle, config: &BundleConfig) -> Result<(), Failure> {
    for layer in &config.layers {
        if !layer.is_dir() {
            let why = format!("the layer {} is not there", layer.display());
            return Err(failed("mount the image", why, "load or pull the image again"));
        }
    }
    let target = Path::new(mounts::ROOTFS);
    let mount =
        || rootfs::mount(&config.layers, &bundle.upper(), &bundle.work(), target, config.idmap.as_ref());
    let mounted = match config.project {
        None => mount(),
        // An overlay writes with the rights of who mounted it.
        Some(_) => capability::without(capability::SYS_RESOURCE, mount)
            .map_err(|e| failed("hold the container to its disk", e, ""))?,
    };
    mounted.map_err(|e| failed("mount the image", e, ""))
}

/// After a failed start: kill, record, and only then remove. The shim reaps.
fn clean_up(bundle: &Bundle, config: &BundleConfig, failure: &Failure) {
    // Killing the cgroup must not reach ourselves.
    let outside = config.cgroup.join_shims().is_ok();
    if outside {
        let _ = config.cgroup.kill();
    }
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

/// Make the agent's spec fit what the shim has prepared. Returns the user's id on the host, and the OOM score.
fn adapt(
    spec: &mut Spec,
    config: &BundleConfig,
    inside: &Inside,
    ahead: &Ahead,
) -> Result<(u32, Option<i32>), Failure> {
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
        if mount.typ().as_deref() == Some("bind") {
            let target = mount.destination();
            inside
                .clear_dangling(target)
                .map_err(|e| failed(format!("make room for {} in the image", target.display()), e, ""))?;
        }
    }
    if let Some(linux) = spec.linux_mut() {
        // Ours: see `cgroup`.
        linux.set_resources(None).set_cgroups_path(ahead.mounts.no_cgroup());
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
