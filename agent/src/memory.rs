//! What the agent keeps in memory though nobody uses it.
//!
//! - The C library's allocator gives each thread a heap of its own, and gives little back: after a hundred starts at once
//!   an agent would hold for ever twice of what it needs.
//! - The kernel maps a program in large pieces, and what was once used stays mapped: after a while it is all of the file,
//!   most of which only the start or an error has ever needed.

use std::{
    ffi::{c_int, c_void},
    fs,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

/// Heaps. One thread waits for another's now and then; nothing here allocates all the time.
const HEAPS: i32 = 2;
/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// Growth after which all that is free is given back. Doing so takes milliseconds.
const WORTH_IT: u64 = 4 << 20;

/// To be called early: heaps that are there already stay.
pub(crate) fn prepare() {
    // SAFETY: changes a number of the allocator's.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}

/// Gives back what is free after the agent has grown, for ever.
pub(crate) async fn keep() {
    let Some(mut least) = Resident::now() else { return };
    // All that the start has touched, and will not touch again, goes at the first look.
    least.of_files = 0;
    loop {
        sleep(EVERY).await;
        let Some(now) = Resident::now() else { return };
        if now.of_files > least.of_files.saturating_add(WORTH_IT) {
            if spawn_blocking(forget_program).await.is_err() {
                return;
            }
            // What is needed all the time is back before the next look, which therefore says how much that is.
            least.of_files = u64::MAX;
        } else {
            least.of_files = least.of_files.min(now.of_files);
        }
        if now.own > least.own.saturating_add(WORTH_IT) {
            // SAFETY: gives free pages back to the kernel; needs nothing but the allocator's own locks.
            let trimmed = spawn_blocking(|| unsafe { libc::malloc_trim(0) });
            if trimmed.await.is_err() {
                return;
            }
            least.own = Resident::now().map_or(now.own, |then| then.own);
        } else {
            least.own = least.own.min(now.own);
        }
    }
}

/// Resident memory, in bytes (proc_pid_statm(5)).
#[derive(Clone, Copy, Debug)]
struct Resident {
    /// No file is behind it.
    own: u64,
    of_files: u64,
}

impl Resident {
    fn now() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/statm").ok()?;
        let mut pages = text.split(' ').skip(1).map(|number| number.parse::<u64>().ok());
        let (all, of_files) = (pages.next()??, pages.next()??);
        let page = page_size()? as u64;
        Some(Self { own: all.saturating_sub(of_files) * page, of_files: of_files * page })
    }
}

fn page_size() -> Option<usize> {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()
}

/// Unmaps the program's code and constants. What is used next is mapped again from the page cache: a microsecond for
/// each 64 KiB.
fn forget_program() {
    // SAFETY: the callback has the signature that is asked for, and keeps no pointer.
    unsafe { libc::dl_iterate_phdr(Some(forget_parts), std::ptr::null_mut()) };
}

/// Of one loaded object, those parts that were never writable: what relocation wrote lives in this process alone, and
/// would be lost.
unsafe extern "C" fn forget_parts(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    let Some(page) = page_size() else { return 1 };
    // SAFETY: the caller passes a valid description, whose headers live as long as the object is loaded.
    let (base, headers) = unsafe {
        let object = &*object;
        (
            object.dlpi_addr as usize,
            std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)),
        )
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let from = (base + header.p_vaddr as usize).next_multiple_of(page);
        let to = (base + header.p_vaddr as usize + header.p_filesz as usize) / page * page;
        if from < to {
            // SAFETY: these pages are mapped from a file and equal to it, so that dropping them changes nothing that can be read.
            unsafe { libc::madvise(from as *mut c_void, to - from, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn own() -> u64 {
        Resident::now().unwrap().own
    }

    #[test]
    fn memory_that_is_used_counts() {
        let before = own();
        // Or an optimiser would do without.
        let much = std::hint::black_box(vec![1_u8; 64 << 20]);
        let with = own();
        assert!(with >= before + (60 << 20), "{before} {with}");
        drop(much);
        assert!(own() + (60 << 20) < with + (4 << 20));
    }

    #[test]
    fn the_program_is_unmapped_and_goes_on() {
        let before = Resident::now().unwrap();
        forget_program();
        let after = Resident::now().unwrap();
        assert!(after.of_files < before.of_files, "{before:?} {after:?}");
        assert!(after.own.abs_diff(before.own) < WORTH_IT, "{before:?} {after:?}");
    }
}
