//! Capabilities of the calling process: capabilities(7), by number.

use std::io;

use nix::errno::Errno;

pub(super) const SYS_ADMIN: u32 = 21;
/// Who has it may exceed quotas, and so may whoever writes to a file system that he mounted.
pub(super) const SYS_RESOURCE: u32 = 24;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Part {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Of 64 bits, in two parts.
type Sets = [Part; 2];
static HEADER: Header = Header { version: 0x2008_0522, pid: 0 };

fn get() -> io::Result<Sets> {
    let mut sets = Sets::default();
    // SAFETY: both are what this version of the calls wants.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, sets.as_mut_ptr()) })?;
    Ok(sets)
}

fn set(sets: &Sets) -> io::Result<()> {
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, sets.as_ptr()) })?;
    Ok(())
}

/// Take a capability from the calling process, for good.
pub(super) fn give_up(capability: u32) -> io::Result<()> {
    let mut sets = get()?;
    if let Some(part) = sets.get_mut(capability as usize / 32) {
        let others = !(1 << (capability % 32));
        part.effective &= others;
        part.permitted &= others;
        part.inheritable &= others;
    }
    set(&sets)
}

/// Act without one.
pub(super) fn without<T>(capability: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    let before = get()?;
    let mut sets = before;
    if let Some(part) = sets.get_mut(capability as usize / 32) {
        part.effective &= !(1 << (capability % 32));
    }
    set(&sets)?;
    let done = act();
    set(&before)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_given_back() {
        let has = || get().unwrap()[0].effective & (1 << SYS_ADMIN) != 0;
        assert!(has());
        assert!(!without(SYS_ADMIN, has).unwrap());
        assert!(has());
    }
}
