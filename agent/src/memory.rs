//! What the C library's allocator keeps though nobody uses it. It gives each thread a heap of its own, and gives little
//! back: after a hundred starts at once an agent would hold for ever twice of what it needs.

use std::{fs, time::Duration};

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
    let mut least = used().unwrap_or(0);
    loop {
        sleep(EVERY).await;
        let Some(now) = used() else { return };
        if now <= least.saturating_add(WORTH_IT) {
            least = least.min(now);
            continue;
        }
        // SAFETY: gives free pages back to the kernel; needs nothing but the allocator's own locks.
        let trimmed = spawn_blocking(|| unsafe { libc::malloc_trim(0) });
        if trimmed.await.is_err() {
            return;
        }
        least = used().unwrap_or(now);
    }
}

/// Resident memory that no file is behind, in bytes (proc_pid_statm(5)).
fn used() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(|number| number.parse::<u64>().ok());
    let (resident, of_files) = (pages.next()??, pages.next()??);
    // SAFETY: sysconf has no preconditions.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(resident.saturating_sub(of_files) * page)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_that_is_used_counts() {
        let before = used().unwrap();
        // Or an optimiser would do without.
        let much = std::hint::black_box(vec![1_u8; 64 << 20]);
        let with = used().unwrap();
        assert!(with >= before + (60 << 20), "{before} {with}");
        drop(much);
        assert!(used().unwrap() + (60 << 20) < with + (4 << 20));
    }
}
