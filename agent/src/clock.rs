//! Time for cores: monotonic (suspension counts) for deadlines, wall time to show.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::event::Now;

/// Now, by both clocks.
pub fn now() -> Now {
    // CLOCK_BOOTTIME cannot fail on a kernel that runs covey; 0 would only make deadlines late.
    let mono = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_ms: millis(mono), wall_ms: millis(wall) }
}

/// For how long a process has run by now that began so many of the kernel's ticks after the boot.
pub fn age_ms(start_ticks: u64) -> u64 {
    // SAFETY: asks for a number.
    let a_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    now().mono_ms.saturating_sub(start_ticks.saturating_mul(1000) / a_second)
}

/// RFC 3339 with milliseconds, UTC.
pub fn rfc3339(wall_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(wall_ms)).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
