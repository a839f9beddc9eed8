//! The last step of a container's init: becoming the program, or saying exactly why it cannot.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

use super::late::CgroupNamespace;
use super::report::Reporter;
use crate::bundle::Failure;
use crate::seccomp::Filter;

#[derive(Clone)]
pub(super) struct Program {
    /// Who waits for it.
    pub(super) shim: Arc<OwnedFd>,
    pub(super) report: Reporter,
    pub(super) filter: Option<Filter>,
    pub(super) late_namespace: Option<CgroupNamespace>,
}

impl Executor for Program {
    /// The first thing of ours in the container's init.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let failed = |why| Err(ExecutorValidationError::ArgValidationError(why));
        if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
            return failed(format!("cannot tie to the shim: {error}"));
        }
        // One that died before that sends no signal, and nobody would give the word to go on. (From here a parent has no
        // number: it is outside of the pid namespace.)
        match poll(&mut [PollFd::new(self.shim.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) {
            Ok(0) => Ok(()),
            _ => failed("the shim is gone".into()),
        }
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|p| p.args().clone()).unwrap_or_default();
        // Rust ignores SIGPIPE, and what is ignored stays so over execve.
        // SAFETY: resetting to the default installs no handler.
        let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        let failed =
            |what: &str, e: io::Error| Failure { what: what.into(), why: e.to_string(), hint: String::new() };
        let entered = self.late_namespace.iter().try_for_each(CgroupNamespace::enter);
        // As late as can be: from here on only the program is executed, or why not is said.
        let ready = entered.map_err(|e| failed("make a cgroup namespace", e)).and_then(|()| {
            let installed = self.filter.as_ref().map_or(Ok(()), Filter::install);
            installed.map_err(|e| failed("filter system calls", e))
        });
        let failure = match ready.and_then(|()| become_program(&args)) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let why = failure.to_string();
        self.report.failed(failure);
        Err(ExecutorError::Other(why))
    }
}

/// Execute the program in the calling process, or say exactly why that cannot be.
pub(super) fn become_program(args: &[String]) -> Result<std::convert::Infallible, Failure> {
    let fail = |why: String, hint: &str| Failure {
        what: format!("run {}", args.first().map_or("nothing", |a| a)),
        why,
        hint: hint.into(),
    };
    let name = args.first().filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| fail("there is no command".into(), "give the job a command: the image has none"))?;
    let c_string =
        |text: &[u8]| CString::new(text).map_err(|_| fail("an argument holds a NUL byte".into(), ""));
    let argv = args.iter().map(|arg| c_string(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;

    let path_var = std::env::var_os("PATH").unwrap_or_default();
    let mut denied = None;
    for candidate in candidates(name, &path_var) {
        let Err(errno) = nix::unistd::execv(&c_string(candidate.as_os_str().as_bytes())?, &argv);
        match errno {
            // Further along the search path there may be another, as with any shell.
            Errno::ENOENT | Errno::ENOTDIR if !candidate.exists() => {}
            Errno::EACCES if !name.contains('/') => denied = denied.or(Some((candidate, errno))),
            _ => {
                let (why, hint) = diagnose(&candidate, errno);
                return Err(fail(why, hint));
            }
        }
    }
    let (why, hint) = match denied {
        Some((path, errno)) => diagnose(&path, errno),
        None if name.contains('/') => (
            format!("no such file {name} in the image"),
            "check the job's command and the image it is meant for",
        ),
        None => (
            format!("there is no {name} in the image's search path {}", path_var.to_string_lossy()),
            "check the job's command, or give its whole path",
        ),
    };
    Err(fail(why, hint))
}

fn candidates(name: &str, path_var: &OsStr) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    std::env::split_paths(path_var)
        .filter(|dir| !dir.as_os_str().is_empty())
        .map(|dir| dir.join(name))
        .collect()
}

/// Why the kernel refused a file that is there, in the container's own terms.
fn diagnose(path: &Path, errno: Errno) -> (String, &'static str) {
    let shown = path.display();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(_) if errno == Errno::EACCES => {
            return (
                format!("permission denied on the way to {shown}"),
                "run it as a user who may pass, or fix the image",
            );
        }
        Err(_) => {
            return (format!("no such file {shown} in the image"), "it may be a symbolic link to nowhere");
        }
    };
    let mode = meta.permissions().mode() & 0o7777;
    let head = head(path).unwrap_or_default();
    match errno {
        _ if meta.is_dir() => (format!("{shown} is a directory"), "name a program"),
        Errno::EACCES => (
            format!("no permission to execute {shown} (mode {mode:04o}, as user {})", nix::unistd::geteuid()),
            "chmod +x it in the image, or run as another user",
        ),
        Errno::ENOENT if head.starts_with(b"#!") => {
            let line = head[2..].split(|&b| b == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).trim().to_string();
            (
                format!("{shown} is a script for {line}, which the image does not have"),
                "add the interpreter to the image",
            )
        }
        Errno::ENOENT => (
            format!("{shown} needs a dynamic loader that the image does not have"),
            "link it statically, or use a base image with its C library",
        ),
        Errno::ENOEXEC => match machine(&head) {
            Some(machine) if machine != std::env::consts::ARCH => (
                format!("{shown} is built for {machine}, this machine is {}", std::env::consts::ARCH),
                "use an image for this machine's architecture",
            ),
            _ => (format!("{shown} is not a program"), "a script must begin with #! and its interpreter"),
        },
        _ => (format!("{shown}: {}", io::Error::from(errno)), ""),
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(256).read_to_end(&mut head)?;
    Ok(head)
}

/// The architecture in an ELF header, in Rust's words.
fn machine(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return None;
    }
    let field = [head[18], head[19]];
    let number = if head[5] == 2 { u16::from_be_bytes(field) } else { u16::from_le_bytes(field) };
    Some(match number {
        3 => "x86".into(),
        21 => "powerpc64".into(),
        22 => "s390x".into(),
        40 => "arm".into(),
        62 => "x86_64".into(),
        183 => "aarch64".into(),
        243 => "riscv64".into(),
        258 => "loongarch64".into(),
        other => format!("machine {other} (ELF)"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn nothing_waits_for_a_shim_that_died_before_it_was_tied_to_it() {
        let mut shim = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let held = crate::pidfd::open(shim.id().cast_signed()).unwrap();
        let (reading, writing) = nix::unistd::pipe().unwrap();
        let report = Reporter::new(&writing);
        let program = Program { shim: Arc::new(held), report, filter: None, late_namespace: None };
        program.validate(&Spec::default()).unwrap();
        // It ends when its input does.
        drop(shim.stdin.take());
        shim.wait().unwrap();
        program.validate(&Spec::default()).unwrap_err();
        nix::sys::prctl::set_pdeathsig(None).unwrap();
        drop((reading, writing));
    }
}
