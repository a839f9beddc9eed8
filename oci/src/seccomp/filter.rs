//! A filter as the kernel takes it: compiled once, installed as often as wanted.
//!
//! libcontainer compiles each container's anew, which takes longer than everything else in a start together.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::FromRawFd as _;

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

/// A filter cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Part of the profile is not known here.
    #[error("the filter has {0}, which covey does not know")]
    Unknown(String),
    /// libseccomp's.
    #[error("the filter cannot be compiled: {0}")]
    Compile(#[from] SeccompError),
    /// It could not be had from libseccomp.
    #[error("the compiled filter cannot be read: {0}")]
    Export(io::Error),
}

/// A compiled filter.
#[derive(Clone)]
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Compile a profile; some milliseconds.
    pub(crate) fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
        Ok(Filter::of(&code(profile)?))
    }

    /// The same in a child, with which what libseccomp leaves behind goes: holes all over the heap, each of which costs
    /// whoever is forked later a page.
    ///
    /// # Safety
    /// There is one thread.
    pub(crate) unsafe fn compile_aside(profile: &LinuxSeccomp) -> Result<Filter, Error> {
        let (mut reading, mut writing) = io::pipe().map_err(Error::Export)?;
        // SAFETY: as the caller says; the child writes and ends.
        match unsafe { nix::unistd::fork() }.map_err(|e| Error::Export(e.into()))? {
            ForkResult::Child => {
                let written = code(profile).is_ok_and(|code| writing.write_all(&code).is_ok());
                // SAFETY: ending is always possible.
                unsafe { libc::_exit(i32::from(!written)) }
            }
            ForkResult::Parent { child } => {
                drop(writing);
                let mut code = Vec::new();
                let read = reading.read_to_end(&mut code);
                // It is off the process table already where children are ignored.
                let _ = waitpid(child, None);
                // What it could not do is done here, which says why.
                if read.is_ok() && !code.is_empty() {
                    Ok(Filter::of(&code))
                } else {
                    Filter::compile(profile)
                }
            }
        }
    }

    fn of(code: &[u8]) -> Filter {
        let (instructions, _) = code.as_chunks::<8>();
        Filter(instructions.iter().map(instruction).collect())
    }

    /// Filter the calling process from now on. It needs `no_new_privs`, or `CAP_SYS_ADMIN`.
    pub(crate) fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which it does not change.
        let done =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The program for the kernel, in its bytes.
fn code(profile: &LinuxSeccomp) -> Result<Vec<u8>, Error> {
    if profile.flags().as_ref().is_some_and(|flags| !flags.is_empty()) || profile.listener_path().is_some() {
        return Err(Error::Unknown("flags or a listener".into()));
    }
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default)?;
    for arch in profile.architectures().iter().flatten() {
        context.add_arch(architecture(*arch)?)?;
    }
    // A tree instead of a list: the kernel runs the whole filter for every call when it is installed.
    context.set_ctl_optimize(2)?;
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default {
            continue;
        }
        let when: Vec<_> = rule.args().iter().flatten().map(comparison).collect();
        // A name that this library does not know is a call that falls under the default.
        for call in rule.names().iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            context.add_rule_conditional(action, call, &when)?;
        }
    }
    export(&context)
}

/// Through a file in memory: libraries before 2.6 write to files only.
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, Error> {
    let mut file = memory_file().map_err(Error::Export)?;
    context.export_bpf(&file)?;
    let mut code = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut code)).map_err(Error::Export)?;
    Ok(code)
}

fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string; what it returns is a new descriptor, which is ours.
    unsafe {
        let fd = libc::memfd_create(c"filter".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

/// `struct sock_filter`, in the machine's own byte order.
fn instruction(bytes: &[u8; 8]) -> libc::sock_filter {
    let [code_low, code_high, jt, jf, k @ ..] = *bytes;
    libc::sock_filter { code: u16::from_ne_bytes([code_low, code_high]), jt, jf, k: u32::from_ne_bytes(k) }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, Error> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno.map_or(libc::EPERM, |e| e as i32)),
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        other => return Err(Error::Unknown(format!("the action {other:?}"))),
    })
}

fn architecture(arch: Arch) -> Result<ScmpArch, Error> {
    Ok(match arch {
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchArm => ScmpArch::Arm,
        other => return Err(Error::Unknown(format!("the architecture {other:?}"))),
    })
}

/// The mask of a masked comparison is in `valueTwo`: see [`super::profile`].
fn comparison(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let operator = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(arg.value_two().unwrap_or(0)),
    };
    ScmpArgCompare::new(arg.index() as u32, operator, arg.value())
}
