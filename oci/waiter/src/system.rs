//! System calls, made directly. Errors are `errno` numbers.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_long};
use core::mem::MaybeUninit;
use core::ptr::null;

type Result<T> = core::result::Result<T, i32>;

/// A descriptor of ours, closed when it is dropped.
pub(crate) struct Fd(pub(crate) i32);

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = call(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]);
    }
}

fn call(number: c_long, args: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the callers below pass what the numbered call takes.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

pub(crate) fn exit(code: u8) -> ! {
    loop {
        let _ = call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]);
    }
}

fn at(dir: i32, path: *const c_char, flags: i32, mode: u32) -> Result<Fd> {
    let flags = (flags | libc::O_CLOEXEC) as usize;
    call(libc::SYS_openat, [dir as usize, path as usize, flags, mode as usize, 0, 0]).map(|fd| Fd(fd as i32))
}

/// A directory, to name files in; relative to `dir` unless `path` is absolute.
pub(crate) fn open_dir(dir: i32, path: &CStr) -> Result<Fd> {
    at(dir, path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY, 0)
}

/// A file to be written from its beginning, made if it is missing.
pub(crate) fn open_file(dir: i32, name: &CStr, truncate: bool) -> Result<Fd> {
    let truncate = if truncate { libc::O_TRUNC } else { 0 };
    at(dir, name.as_ptr(), libc::O_WRONLY | libc::O_CREAT | truncate, 0o600)
}

/// A directory for its owner alone.
pub(crate) fn make_dir(dir: i32, name: &CStr) -> Result<()> {
    call(libc::SYS_mkdirat, [dir as usize, name.as_ptr() as usize, 0o700, 0, 0, 0]).map(drop)
}

pub(crate) fn unlink(dir: i32, name: &CStr) {
    let _ = call(libc::SYS_unlinkat, [dir as usize, name.as_ptr() as usize, 0, 0, 0, 0]);
}

pub(crate) fn rename(dir: &Fd, from: &CStr, to: &CStr) -> Result<()> {
    let (dir, from, to) = (dir.0 as usize, from.as_ptr() as usize, to.as_ptr() as usize);
    call(libc::SYS_renameat, [dir, from, dir, to, 0, 0]).map(drop)
}

pub(crate) fn truncate(file: &Fd, length: usize) -> Result<()> {
    call(libc::SYS_ftruncate, [file.0 as usize, length, 0, 0, 0, 0]).map(drop)
}

/// What was read.
pub(crate) fn read(fd: i32, buffer: &mut [MaybeUninit<u8>]) -> Result<&[u8]> {
    let (start, length) = (buffer.as_mut_ptr(), buffer.len());
    let n = call(libc::SYS_read, [fd as usize, start as usize, length, 0, 0, 0])?;
    // SAFETY: the kernel has written the first n bytes.
    Ok(unsafe { core::slice::from_raw_parts(start.cast(), n) })
}

pub(crate) fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
}

/// From a pipe to a file at its own position.
pub(crate) fn splice(pipe: i32, file: &Fd, length: usize) -> Result<usize> {
    let flags = (libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE) as usize;
    call(libc::SYS_splice, [pipe as usize, 0, file.0 as usize, 0, length, flags])
}

/// How many bytes are in a pipe.
pub(crate) fn waiting(pipe: i32) -> i32 {
    let mut waiting = 0i32;
    let _ =
        call(libc::SYS_ioctl, [pipe as usize, libc::FIONREAD as usize, &raw mut waiting as usize, 0, 0, 0]);
    waiting
}

/// Descriptors below zero are passed over. No timeout: however long it takes.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: Option<u32>) -> Result<usize> {
    let timeout = timeout_ms
        .map(|ms| libc::timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 });
    let timeout: *const libc::timespec = timeout.as_ref().map_or(null(), |t| t);
    call(libc::SYS_ppoll, [fds.as_mut_ptr() as usize, fds.len(), timeout as usize, 0, 0, 0])
}

pub(crate) fn readable(fd: i32) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// A descriptor that is readable when a child has ended. Children that have ended before must be looked for.
pub(crate) fn child_ends() -> Option<Fd> {
    // The kernel's signal set: bit n - 1 is signal n.
    let set = 1u64 << (libc::SIGCHLD - 1);
    let (at, size) = (&raw const set as usize, size_of::<u64>());
    call(libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as usize, at, 0, size, 0, 0]).ok()?;
    let flags = (libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) as usize;
    let fd = call(libc::SYS_signalfd4, [-1isize as usize, at, size, flags, 0, 0]).ok()?;
    Some(Fd(fd as i32))
}

/// Make [`child_ends`] wait for the next.
pub(crate) fn hear(ends: &Fd) {
    let mut said = [MaybeUninit::<u8>::uninit(); size_of::<libc::signalfd_siginfo>()];
    let _ = read(ends.0, &mut said);
}

pub(crate) fn kill(pid: i32, signal: i32) {
    let _ = call(libc::SYS_kill, [pid as usize, signal as usize, 0, 0, 0, 0]);
}

/// A child that has ended, off the process table now, and its status; `None` when none has.
pub(crate) fn reap() -> Result<Option<(i32, i32)>> {
    let mut status = 0i32;
    let (any, flags) = (-1isize as usize, (libc::__WALL | libc::WNOHANG) as usize);
    let pid = call(libc::SYS_wait4, [any, &raw mut status as usize, flags, 0, 0, 0])?;
    Ok((pid != 0).then_some((pid as i32, status)))
}

/// Wall time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = libc::CLOCK_REALTIME as usize;
    let _ = call(libc::SYS_clock_gettime, [clock, &raw mut now as usize, 0, 0, 0, 0]);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

pub(crate) fn sleep_ms(ms: u32) {
    let _ = poll(&mut [], Some(ms));
}

/// What `ps` and the like show.
pub(crate) fn set_name(name: &CStr) {
    let _ = call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]);
}
