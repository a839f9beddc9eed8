//! All that a running container needs beside it: somebody who waits for its end and keeps its words.
//!
//! A node has as many waiters as containers, and almost all of the time they sleep. So a waiter runs before the C
//! library, and before the program's relocations are applied: those alone would dirty most of a megabyte in each. The
//! linker is told to make [`covey_entry`] the program's first instruction; when the arguments are a waiter's it never
//! gets any further, else it goes on to `_start` as if nothing had been.
//!
//! What that demands of this crate: system calls are made directly, nothing of the standard or C library is called (a
//! `memcpy` is a jump through a table that is not filled in yet), statics hold no addresses, nothing can panic, and it is
//! compiled optimised in every profile (see the workspace's `Cargo.toml`), because only then is all of this so.
//!
//! A waiter moves log bytes ([`pump`]), writes the exit record ([`record`]) and ends. All else is left to who sees it end.
#![no_std]
#![no_builtins]

pub mod pump;
pub mod record;
mod system;
mod wait;

use core::ffi::{CStr, c_char};

/// How a waiter is told from other calls of the program: `covey shim --wait BUNDLE BUILDER WORD STDOUT STDERR`.
pub const VERB: &CStr = c"shim";
/// See [`VERB`].
pub const FLAG: &CStr = c"--wait";

/// What a waiter is given. Whatever else shall last as long as it does (the bundle's lock) is a descriptor that it
/// inherits, and never hears of.
pub struct Waiter<'a> {
    /// The bundle directory.
    pub bundle: &'a CStr,
    /// The child that builds the container, whose first process becomes another child of the caller's.
    pub builder: i32,
    /// Reading end of a pipe, not blocking, through which the builder sends its [`Word`].
    pub word: i32,
    /// Reading ends of the container's stdout and stderr, not blocking.
    pub output: [i32; 2],
}

/// What the builder says once the container's first process is there, and before it executes its program.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Word {
    /// The pid of the container's first process.
    pub init: u64,
    /// Disk that each of its streams may take, in bytes.
    pub log_cap: u64,
}

impl Word {
    /// As it goes through the pipe, whole.
    pub fn bytes(self) -> [u8; 16] {
        ((u128::from(self.log_cap) << 64) | u128::from(self.init)).to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 16]) -> Word {
        let both = u128::from_le_bytes(bytes);
        Word { init: both as u64, log_cap: (both >> 64) as u64 }
    }
}

impl Waiter<'_> {
    /// Wait to the end; what is returned is the caller's exit code: 0 when the container ran and its exit record is there.
    ///
    /// The caller's process must have been executed anew, or be about to end: its children are reaped, all of them.
    pub fn run(&self) -> u8 {
        wait::run(self)
    }
}

/// The program's entry.
///
/// # Safety
/// For the linker (`-e`): it is entered with the stack as the kernel leaves it, and never returns.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn covey_entry() -> ! {
    core::arch::naked_asm!(
        // The stack and rdx are what `_start` wants to find.
        "mov rdi, rsp",
        "push rdx",
        "sub rsp, 8",
        "call {look}",
        "add rsp, 8",
        "pop rdx",
        "jmp {start}",
        look = sym look,
        start = sym _start,
    )
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the waiter's entry and system calls are written for x86-64 only");

unsafe extern "C" {
    /// The C library's.
    fn _start();
}

/// Returns only if these are not a waiter's arguments. `stack` is where the kernel has put their number, and they follow.
unsafe extern "C" fn look(stack: *const usize) {
    // SAFETY: so the kernel lays out a new program's stack: argc, argv, each ending in NUL.
    let arg = |index: usize| unsafe {
        if index < *stack { Some(*stack.add(1 + index) as *const c_char) } else { None }
    };
    let is = |index, text: &CStr| arg(index).is_some_and(|found| same(found, text));
    if !is(1, VERB) || !is(2, FLAG) {
        return;
    }
    let number = |index| arg(index).and_then(number);
    let (Some(bundle), Some(builder), Some(word), Some(stdout), Some(stderr)) =
        (arg(3), number(4), number(5), number(6), number(7))
    else {
        system::exit(2)
    };
    let mut length = 0;
    // SAFETY: a C string that stays where it is. Its length is not asked of the C library.
    let bundle = unsafe {
        while *bundle.add(length) != 0 {
            length += 1;
        }
        CStr::from_bytes_with_nul_unchecked(core::slice::from_raw_parts(bundle.cast(), length + 1))
    };
    system::exit(Waiter { bundle, builder, word, output: [stdout, stderr] }.run())
}

fn same(found: *const c_char, text: &CStr) -> bool {
    let mut at = found;
    for &byte in text.to_bytes_with_nul() {
        // SAFETY: not read beyond the first difference, and so not beyond its NUL.
        unsafe {
            if *at as u8 != byte {
                return false;
            }
            at = at.add(1);
        }
    }
    true
}

fn number(text: *const c_char) -> Option<i32> {
    let (mut at, mut sum) = (text, 0i32);
    loop {
        // SAFETY: read up to its NUL.
        let byte = unsafe { *at as u8 };
        match byte {
            0 if at != text => return Some(sum),
            b'0'..=b'9' => sum = sum.checked_mul(10)?.checked_add(i32::from(byte - b'0'))?,
            _ => return None,
        }
        // SAFETY: it was not the NUL.
        at = unsafe { at.add(1) };
    }
}
