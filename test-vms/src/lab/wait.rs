//! Waiting for what nobody announces.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Error, Result};

/// For what the kernel does by itself.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// Between two looks at a file of the kernel's.
pub(super) const OFTEN: Duration = Duration::from_millis(2);

/// Looks every `pause` whether something has come true, and gives it; a `look` that says how it is instead goes on.
pub(super) fn until<T>(
    what: impl Into<String>,
    after: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let end = Instant::now() + after;
    loop {
        match look()? {
            Ok(there) => return Ok(there),
            Err(seen) if Instant::now() > end => {
                return Err(Error::Waited { what: what.into(), after, seen });
            }
            Err(_) => sleep(pause),
        }
    }
}
