//! A process held by a file descriptor: what is sent through it can never reach a later process with the same pid.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Hold the process `pid`. It polls readable once it has ended.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; what it returns is a new descriptor, which is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Free the memory of the held process, which has been killed: it would do so itself, but not before it gets the CPU, and one
/// that may be interrupted may wait for that while others wait for its memory. Since Linux 5.15; it fails where there is
/// nothing to free.
pub fn release_memory(process: &OwnedFd) -> io::Result<()> {
    // SAFETY: a plain system call.
    let freed = unsafe { libc::syscall(libc::SYS_process_mrelease, process.as_raw_fd(), 0) };
    if freed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Send `signal` to the held process; `ESRCH` when it has ended.
pub fn signal(process: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: a plain system call; no siginfo is passed.
    let sent = unsafe {
        let none = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
