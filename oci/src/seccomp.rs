//! The default system call filter.
//!
//! Three answers: what programs in containers use is allowed; what is known and dangerous gives `EPERM`; anything else
//! (calls newer than this list, and `clone3`, whose flags a filter cannot see) gives `ENOSYS`, on which C libraries
//! fall back to older calls. The lists follow what Docker's profile lets a container without extra capabilities do.

#[cfg(feature = "seccomp")]
mod filter;

use std::collections::BTreeSet;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder, Spec,
};

/// Whether this build can enforce a filter.
pub const ENFORCED: bool = cfg!(feature = "seccomp");

/// The spec has a filter that this build would not enforce.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this covey was built without seccomp, and would run the container unfiltered")]
pub struct NotEnforced;

#[cfg(feature = "seccomp")]
pub(crate) use filter::Filter;

/// In a build that cannot filter there are no filters: see [`check`].
#[cfg(not(feature = "seccomp"))]
#[derive(Clone)]
pub(crate) enum Filter {}

#[cfg(not(feature = "seccomp"))]
impl Filter {
    pub(crate) fn compile(_: &LinuxSeccomp) -> Result<Filter, NotEnforced> {
        Err(NotEnforced)
    }

    pub(crate) unsafe fn compile_aside(_: &LinuxSeccomp) -> Result<Filter, NotEnforced> {
        Err(NotEnforced)
    }

    pub(crate) fn install(&self) -> std::io::Result<()> {
        match *self {}
    }
}

/// A filter must not be ignored silently: nothing may be started then.
pub fn check(spec: &Spec) -> Result<(), NotEnforced> {
    let filtered = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
    if filtered && !ENFORCED { Err(NotEnforced) } else { Ok(()) }
}

const ALLOWED: &str = "\
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv
futex_wake futimesat get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt
gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
mbind membarrier memfd_create memfd_secret mincore mkdir mkdirat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
_newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease process_vm_readv
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy
set_mempolicy_home_node set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt
shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
writev chroot mknod mknodat";

const REFUSED: &str = "\
acct add_key bpf create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount migrate_pages move_pages nfsservctl
open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root query_module quotactl quotactl_fd reboot
request_key setdomainname sethostname setns settimeofday clock_settime clock_settime64 stime
swapoff swapon sysfs syslog _sysctl umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old vserver";

/// What `clone` may not ask for: new mount, cgroup, UTS, IPC, user, PID and network namespaces.
const CLONE_NEW: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Execution domains: Linux, Linux32, the two without address randomisation's legacy layout, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// Sockets into the hypervisor's other guests know no network namespace.
const AF_VSOCK: u64 = 40;

/// What a granted capability is of no use without: then the kernel alone decides.
fn opened(by: Capability) -> &'static str {
    match by {
        Capability::Bpf => "bpf",
        Capability::DacReadSearch => "open_by_handle_at",
        Capability::Perfmon => "perf_event_open",
        Capability::SysAdmin => {
            "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
             move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount \
             umount2 unshare"
        }
        Capability::SysBoot => "reboot",
        Capability::SysModule => "delete_module init_module finit_module",
        Capability::SysPacct => "acct",
        Capability::SysPtrace => "kcmp pidfd_getfd",
        Capability::SysRawio => "ioperm iopl",
        Capability::SysTime => "settimeofday stime clock_settime clock_settime64",
        Capability::SysTtyConfig => "vhangup",
        Capability::Syslog => "syslog",
        _ => "",
    }
}

/// The filter of a container with these capabilities beyond the usual ones.
pub fn profile(granted: &[Capability]) -> Result<LinuxSeccomp, OciSpecError> {
    let opened: BTreeSet<&str> = granted.iter().flat_map(|by| opened(*by).split_whitespace()).collect();
    let refused: Vec<&str> = REFUSED.split_whitespace().filter(|name| !opened.contains(name)).collect();
    let mut rules = vec![allow(ALLOWED)?, refuse(&refused.join(" "))?];
    if !opened.is_empty() {
        rules.push(allow(&opened.iter().copied().collect::<Vec<_>>().join(" "))?);
    }
    if !opened.contains("clone") {
        let all_new: u64 = CLONE_NEW.iter().sum();
        rules.push(allow_if("clone", masked(0, all_new, 0)?)?);
        for flag in CLONE_NEW {
            rules.push(refuse_if("clone", masked(0, flag, flag)?)?);
        }
    }
    for domain in PERSONALITIES {
        rules.push(allow_if("personality", compare(0, LinuxSeccompOperator::ScmpCmpEq, domain)?)?);
    }
    rules.push(allow_if("socket", compare(0, LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK)?)?);
    rules.push(refuse_if("socket", compare(0, LinuxSeccompOperator::ScmpCmpEq, AF_VSOCK)?)?);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::ENOSYS as u32)
        .architectures(architectures())
        .syscalls(rules)
        .build()
}

/// The machine's own and its 32-bit one: images with 32-bit programs are not rare.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    }
}

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(String::from).collect()
}

fn allow(list: &str) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default().names(names(list)).action(LinuxSeccompAction::ScmpActAllow).build()
}

fn refuse(list: &str) -> Result<LinuxSyscall, OciSpecError> {
    let rule = LinuxSyscallBuilder::default().names(names(list)).action(LinuxSeccompAction::ScmpActErrno);
    rule.errno_ret(libc::EPERM as u32).build()
}

fn allow_if(name: &str, when: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    let mut rule = allow(name)?;
    rule.set_args(Some(vec![when]));
    Ok(rule)
}

fn refuse_if(name: &str, when: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    let mut rule = refuse(name)?;
    rule.set_args(Some(vec![when]));
    Ok(rule)
}

fn compare(index: usize, op: LinuxSeccompOperator, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(index).op(op).value(value).build()
}

/// `argument & mask == value`. libcontainer 0.7 takes the mask from `valueTwo`, where runc and Docker put the value: read
/// by one of those, this rule allows less, not more.
fn masked(index: usize, mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    let op = LinuxSeccompOperator::ScmpCmpMaskedEq;
    LinuxSeccompArgBuilder::default().index(index).op(op).value(value).value_two(mask).build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let allowed: HashSet<_> = names(ALLOWED).into_iter().collect();
        let refused: HashSet<_> = names(REFUSED).into_iter().collect();
        assert_eq!(allowed.intersection(&refused).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(allowed.len(), names(ALLOWED).len(), "a call is allowed twice");
        assert!(!allowed.contains("clone3") && !refused.contains("clone3"), "clone3 must give ENOSYS");
    }

    /// Under `--no-default-features` as well.
    #[test]
    fn a_filter_that_is_not_enforced_is_refused() {
        let mut spec = Spec::default();
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(Some(profile(&[]).unwrap()));
        }
        let expected = if cfg!(feature = "seccomp") { Ok(()) } else { Err(NotEnforced) };
        assert_eq!(check(&spec), expected);
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(None);
        }
        assert_eq!(check(&spec), Ok(()));
    }

    #[test]
    fn a_capability_opens_what_it_is_for() {
        let named = |profile: &LinuxSeccomp, action| -> HashSet<String> {
            let rules = profile.syscalls().iter().flatten().filter(|rule| rule.action() == action);
            rules.flat_map(|rule| rule.names().clone()).collect()
        };
        let (allow, refuse) = (LinuxSeccompAction::ScmpActAllow, LinuxSeccompAction::ScmpActErrno);
        let plain = profile(&[]).unwrap();
        let admin = profile(&[Capability::SysAdmin, Capability::NetAdmin]).unwrap();
        for name in ["mount", "unshare", "setns", "bpf"] {
            assert!(named(&plain, refuse).contains(name) && !named(&plain, allow).contains(name), "{name}");
            assert!(!named(&admin, refuse).contains(name) && named(&admin, allow).contains(name), "{name}");
        }
        assert!(named(&admin, allow).contains("clone3") && !named(&admin, refuse).contains("clone"));
        assert!(named(&admin, refuse).contains("reboot"));
    }

    #[test]
    fn what_is_not_listed_does_not_exist() {
        let profile = profile(&[]).unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(profile.default_errno_ret(), Some(libc::ENOSYS as u32));
    }
}
