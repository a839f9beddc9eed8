//! The child's way into the container: first where, then who, then what it may; and at last the program.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use libcontainer::capabilities;
use libcontainer::syscall::syscall::create_syscall;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{PosixRlimitType, Spec};

use super::super::inside::{Inside, own};
use super::super::program::become_program;
use super::super::report::Reporter;
use super::super::start::failed;
use super::super::user::{self, User};
use super::{terminal, wear};
use crate::bundle::{BundleConfig, Failure, Process};
use crate::cgroup::Doors;
use crate::exec::Size;
use crate::exec::message::{self, Order, Said, Work};
use crate::seccomp::Filter;
use crate::{copy, seccomp};

/// The namespaces that a container may have of its own, in the order in which they are entered: mounts late, since the
/// host's files are gone then, and users last, since the host's rights are.
const NAMESPACES: [(&str, CloneFlags); 6] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("user", CloneFlags::CLONE_NEWUSER),
];

/// All that the child needs, opened and found out while the host's files are there.
pub(super) struct Way<'a> {
    spec: &'a Spec,
    user: User,
    /// The same user as the host sees it.
    host_uid: u32,
    pid: Option<File>,
    namespaces: Vec<(&'static str, CloneFlags, File)>,
    cwd: PathBuf,
    env: Vec<String>,
}

impl<'a> Way<'a> {
    pub(super) fn to(
        init: &Process,
        config: &BundleConfig,
        spec: &'a Spec,
        order: &Order,
    ) -> Result<Way<'a>, Failure> {
        seccomp::check(spec)
            .map_err(|e| failed("filter system calls", e, "use a build with the feature `seccomp`"))?;
        let enter = |e: io::Error| failed("enter the container", e, "");
        let user = {
            let inside = Inside::open(&PathBuf::from(format!("/proc/{}/root", init.pid))).map_err(enter)?;
            user::resolve(&inside, order.user.as_deref().or(config.user.as_deref()))?
        };
        let (base, size) = config.idmap.map_or((0, u32::MAX), |map| (map.host, map.size));
        if user.uid >= size || user.gid >= size {
            let why = format!("the container has only the ids 0 to {}", size - 1);
            return Err(failed(format!("run as {}:{}", user.uid, user.gid), why, "use a smaller id"));
        }
        let mut namespaces = Vec::new();
        for (name, kind) in NAMESPACES {
            if let Some(file) = other_namespace(init.pid, name).map_err(enter)? {
                namespaces.push((name, kind, file));
            }
        }
        let process = spec.process().as_ref();
        let cwd = order.cwd.clone().or_else(|| process.map(|p| p.cwd().clone()));
        let own = process.and_then(|p| p.env().clone()).unwrap_or_default();
        Ok(Way {
            spec,
            host_uid: base + user.uid,
            pid: other_namespace(init.pid, "pid").map_err(enter)?,
            namespaces,
            cwd: cwd.unwrap_or_else(|| "/".into()),
            env: environment(own, &order.env, &user.home, order.terminal),
            user,
        })
    }

    /// The container's, if it has one: for the process that makes the child.
    pub(super) fn pid_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.pid.as_ref().map(File::as_fd)
    }

    /// Called in the child. It never returns: it becomes the program, or says why it cannot.
    pub(super) fn take(
        self,
        order: &Order,
        doors: Doors,
        fds: Vec<OwnedFd>,
        control: &OwnedFd,
        report: Reporter,
    ) -> ! {
        let failure = match self.become_it(order, doors, fds, control, report) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        report.failed(failure);
        // SAFETY: ends this process without running anything else of the parent's.
        unsafe { libc::_exit(125) }
    }

    fn become_it(
        mut self,
        order: &Order,
        doors: Doors,
        fds: Vec<OwnedFd>,
        control: &OwnedFd,
        report: Reporter,
    ) -> Result<Infallible, Failure> {
        doors.enter().map_err(|e| failed("enter the container's cgroups", e, ""))?;
        self.restrain();
        for fd in &fds {
            // So that the container's user can open /dev/stdout.
            own(fd.as_fd(), self.host_uid).map_err(|e| failed("hand a pipe to the command", e, ""))?;
        }
        for (name, kind, file) in std::mem::take(&mut self.namespaces) {
            setns(file, kind)
                .map_err(|e| failed(format!("enter the container's {name} namespace"), e, ""))?;
        }
        self.pid = None;
        // Root, as the container has it, until all is prepared.
        let root = |what| move |errno: nix::Error| failed(what, errno, "");
        setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))
            .map_err(root("become root inside"))?;
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))
            .map_err(root("become root inside"))?;
        setgroups(&[]).map_err(root("become root inside"))?;
        nix::unistd::setsid().map_err(root("begin a session"))?;
        match (order.terminal, <[OwnedFd; 3]>::try_from(fds)) {
            (Some(size), _) => self.open_terminal(size, control)?,
            (None, Ok(fds)) => wear([&fds[0], &fds[1], &fds[2]]).map_err(root("connect its pipes"))?,
            (None, Err(_)) => return Err(failed("connect its pipes", "there are none", "")),
        }
        match &order.work {
            Work::Program(args) => {
                self.become_user()?;
                self.give_up()?;
                become_program(args)
            }
            work => {
                // Files are the container's root's to read and write; what is new is the task's user's.
                let owner = (self.user.uid, self.user.gid);
                self.give_up()?;
                report.done();
                let _ = nix::unistd::close(control.as_raw_fd());
                copy::inside::work(work, owner)
            }
        }
    }

    /// What only the host's root may set.
    fn restrain(&self) {
        let Some(process) = self.spec.process() else { return };
        if let Some(score) = process.oom_score_adj() {
            let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
        }
        for limit in process.rlimits().iter().flatten() {
            if limit.typ() == PosixRlimitType::RlimitNofile
                && setrlimit(Resource::RLIMIT_NOFILE, limit.soft(), limit.hard()).is_err()
                && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            {
                let _ = setrlimit(Resource::RLIMIT_NOFILE, limit.soft().min(hard), hard);
            }
        }
    }

    fn open_terminal(&self, size: Size, control: &OwnedFd) -> Result<(), Failure> {
        let open =
            |e: io::Error| failed("open a terminal", e, "leave out -t, or give the container /dev/pts");
        let (master, slave) = terminal::open(size).map_err(open)?;
        let user = Uid::from_raw(self.user.uid);
        nix::unistd::fchown(slave.as_raw_fd(), Some(user), None).map_err(|e| open(e.into()))?;
        message::send(control, &Said::Terminal, &[master.as_raw_fd()]).map_err(open)?;
        terminal::control(&slave).map_err(open)?;
        wear([&slave, &slave, &slave]).map_err(|e| open(e.into()))
    }

    fn become_user(&self) -> Result<(), Failure> {
        let User { uid, gid, groups, .. } = &self.user;
        // Root may pass where the user may not, and the other way round.
        let entered = self.enter_directory();
        let step = |errno: nix::Error| failed(format!("run as {uid}:{gid}"), errno, "");
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        setgroups(&groups).map_err(step)?;
        prctl::set_keepcaps(true).map_err(step)?;
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        setresgid(gid, gid, gid).map_err(step)?;
        setresuid(uid, uid, uid).map_err(step)?;
        prctl::set_keepcaps(false).map_err(step)?;
        entered.or_else(|_| self.enter_directory())
    }

    fn enter_directory(&self) -> Result<(), Failure> {
        let shown = self.cwd.display();
        let fail = |why: io::Error| failed(format!("enter the directory {shown}"), why, "name another");
        std::env::set_current_dir(&self.cwd).map_err(fail)?;
        // Outside of the container it would have no name.
        std::env::current_dir().map(drop).map_err(fail)
    }

    /// No more rights than the container has.
    fn give_up(&self) -> Result<(), Failure> {
        let step = |e: &dyn std::fmt::Display| failed("give up privileges", e, "");
        let process = self.spec.process().as_ref();
        if process.and_then(|p| p.no_new_privileges()) == Some(true) {
            prctl::set_no_new_privs().map_err(|e| step(&e))?;
        }
        if let Some(caps) = process.and_then(|p| p.capabilities().as_ref()) {
            let syscall = create_syscall();
            capabilities::reset_effective(syscall.as_ref()).map_err(|e| step(&e))?;
            capabilities::drop_privileges(caps, syscall.as_ref()).map_err(|e| step(&e))?;
        }
        // After the last change of who this is, which would clear it.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| step(&e))?;
        // SAFETY: nobody else reads the environment: there is one thread.
        unsafe {
            std::env::vars_os().for_each(|(name, _)| std::env::remove_var(name));
            for (name, value) in self.env.iter().filter_map(|entry| entry.split_once('=')) {
                if !name.is_empty() && !entry_is_odd(name, value) {
                    std::env::set_var(name, value);
                }
            }
            // Rust ignores SIGPIPE, and what is ignored stays so over execve.
            let _ = signal(Signal::SIGPIPE, SigHandler::SigDfl);
        }
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        if let Some(profile) = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
            let filter = Filter::compile(profile).map_err(|e| failed("filter system calls", e, ""))?;
            filter.install().map_err(|e| failed("filter system calls", e, ""))?;
        }
        Ok(())
    }
}

/// What `set_var` would not take.
fn entry_is_odd(name: &str, value: &str) -> bool {
    name.contains('\0') || value.contains('\0')
}

/// The namespace of a process, unless it is ours too.
fn other_namespace(pid: i32, name: &str) -> io::Result<Option<File>> {
    let there = match File::open(format!("/proc/{pid}/ns/{name}")) {
        Ok(file) => file,
        // A kernel without this kind.
        Err(error) if error.kind() == io::ErrorKind::NotFound && pid_is_there(pid) => return Ok(None),
        Err(error) => return Err(error),
    };
    let here = fs::metadata(format!("/proc/self/ns/{name}"))?;
    let theirs = there.metadata()?;
    Ok(((here.dev(), here.ino()) != (theirs.dev(), theirs.ino())).then_some(there))
}

fn pid_is_there(pid: i32) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok()
}

/// The task's, as its own program has it, under what was asked for.
fn environment(own: Vec<String>, given: &[String], home: &str, terminal: Option<Size>) -> Vec<String> {
    let mut env = own;
    if !env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > 5) {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={home}"));
    }
    if terminal.is_some() && !env.iter().chain(given).any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    env.extend_from_slice(given);
    env
}
