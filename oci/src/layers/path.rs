//! Paths as tar entries spell them, taken apart.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::Limits;
use super::fault::Fault;

/// Longest file name that Linux filesystems take.
const NAME_MAX: usize = 255;

/// The names that lead from the layer's root to the entry; none for the root itself. `./a//b/` is `a`, `b`.
pub(super) fn components<'a>(path: &'a [u8], limits: &Limits) -> Result<Vec<&'a OsStr>, Fault> {
    if path.is_empty() {
        return Err(Fault::EmptyPath);
    }
    if path.len() > limits.path {
        return Err(Fault::LongPath { limit: limits.path });
    }
    if path.contains(&0) {
        return Err(Fault::Nul);
    }
    let names = || path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    // Some builders name the root itself "/", which is harmless.
    if path[0] == b'/' && names().next().is_some() {
        return Err(Fault::Absolute);
    }
    let mut components = Vec::new();
    for name in names() {
        if name == b".." {
            return Err(Fault::Climbs);
        }
        if name.len() > NAME_MAX {
            return Err(Fault::LongName);
        }
        components.push(OsStr::from_bytes(name));
    }
    Ok(components)
}

/// The names joined again, without a leading slash; `.` for none.
pub(super) fn join(components: &[&OsStr]) -> Vec<u8> {
    match components {
        [] => b".".to_vec(),
        _ => components.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/'),
    }
}
