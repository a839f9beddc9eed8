//! Processes without a copy of this one's memory, and with one.
//!
//! To copy the page tables of a program as large as this takes longer than most of what a shim does before it executes the
//! waiter. So it borrows its parent's memory until then, as with vfork(2): the parent stands still meanwhile.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::unistd::Pid;

/// The constant of the C library's headers does not fit into its type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a builder, which goes on where its shim stood, has as its stack: as much as a main thread, and used pages only.
const STACK: std::num::NonZeroUsize = std::num::NonZeroUsize::new(8 << 20).unwrap();

/// A stack for one borrower at a time.
pub(super) struct Stack(NonNull<c_void>);

impl Stack {
    pub(super) fn new() -> io::Result<Stack> {
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        let flags = flags | MapFlags::MAP_NORESERVE | MapFlags::MAP_STACK;
        // SAFETY: nothing is where the kernel puts it.
        Ok(Stack(unsafe { mmap_anonymous(None, STACK, access, flags) }?))
    }

    /// Run `child` in a new process, which must execute something or end. This returns when it has.
    ///
    /// # Safety
    /// There is one thread. What `child` allocates and does not free stays allocated here; whatever it changes is changed
    /// here, except descriptors and signal dispositions.
    pub(super) unsafe fn borrow<F: FnOnce() -> c_int>(&self, child: F) -> io::Result<()> {
        extern "C" fn enter<F: FnOnce() -> c_int>(given: *mut c_void) -> c_int {
            // SAFETY: it is the one below, which outlives this; it is taken once.
            let given = unsafe { (*given.cast::<Option<F>>()).take() };
            given.map_or(1, |child| child())
        }
        let mut given = Some(child);
        // SAFETY: the end of the mapping is a stack's beginning.
        let top = unsafe { self.0.byte_add(STACK.get()) };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is nobody else's, as the parent waits until it is free again.
        let pid = unsafe { libc::clone(enter::<F>, top.as_ptr(), flags, (&raw mut given).cast::<c_void>()) };
        Errno::result(pid).map(drop).map_err(io::Error::from)
    }
}

/// Fork, into a cgroup of the unified tree if one is given: a process that begins there need not be moved, which the
/// kernel takes long over. `None` in the child.
///
/// # Safety
/// There is one thread. The C library is not told (no handlers run).
pub(super) unsafe fn fork(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    // SAFETY: all zeroes is a valid one.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(dir) = cgroup {
        args.flags = INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM it is a fork: the child goes on with a copy of everything.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    let pid = Errno::result(pid)?;
    Ok((pid > 0).then(|| Pid::from_raw(pid as i32)))
}
