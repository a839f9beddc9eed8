//! A user namespace that exists for its id map alone.

use std::ffi::{c_int, c_void};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use crate::bundle::IdMap;

const STACK: usize = 16 << 10;

/// Makes a user namespace with the map; the descriptor keeps it.
///
/// A namespace is born with a process. That one shares our memory (nothing is copied), makes two system calls on
/// a stack of its own and is killed as soon as its namespace is open.
pub(super) fn make(map: &IdMap) -> io::Result<OwnedFd> {
    // u128: the stack pointer must be aligned to 16 bytes.
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    // No SIGCHLD at its end: the caller may have a handler.
    let flags = libc::CLONE_VM | libc::CLONE_NEWUSER;
    // SAFETY: the child runs `wait_to_be_killed` on `stack`, which outlives it: it is reaped before this
    // function returns. It touches neither memory of ours nor errno.
    let pid = unsafe {
        libc::clone(wait_to_be_killed, stack.as_mut_ptr_range().end.cast(), flags, std::ptr::null_mut())
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let child = Child { pid, _stack: stack };
    let ids = format!("0 {} {}\n", map.host, map.size);
    fs::write(format!("/proc/{}/uid_map", child.pid), &ids)?;
    fs::write(format!("/proc/{}/gid_map", child.pid), &ids)?;
    Ok(File::open(format!("/proc/{}/ns/user", child.pid))?.into())
}

extern "C" fn wait_to_be_killed(_: *mut c_void) -> c_int {
    // SAFETY: plain system calls; pause returns only for signals that are handled, so not for the one that ends us.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

struct Child {
    pid: libc::pid_t,
    _stack: Vec<u128>,
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: plain system calls on our own child, which nobody else reaps (it sends no signal: __WALL).
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            while libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}
