//! What the bands below production may have of the memory: it moves with what the others leave.
//!
//! The kernel must not kill for it, since it would choose by size. On v1 (where a limit is hard) its killer is switched off
//! for these cgroups: who wants more waits, until somebody else has chosen. On v2 `memory.high` slows such a task down.
//! Within a task's own limit nothing changes: that one still kills.

use std::io;
use std::path::PathBuf;

use super::apply::write;
use super::{Band, Error, SPARE, Tree, UNIFIED, number};

/// Moves of the ceiling.
const STEP: u64 = 1 << 20;
/// Pages of files above a new ceiling are dropped while it is put there: so many at once, which takes milliseconds.
const MOST: u64 = 32 << 20;

/// Holds batch and free down.
#[derive(Debug)]
pub struct Ceiling {
    file: &'static str,
    usage: &'static str,
    /// Of both together, and of the free band alone.
    places: [(PathBuf, Option<u64>); 2],
}

impl Tree {
    /// The ceiling of batch and free; `None` where there is no controller of memory.
    pub fn ceiling(&self) -> Result<Option<Ceiling>, Error> {
        let (tree, file, usage) = match (self.tree_of("memory"), self.tree_of(UNIFIED)) {
            (Some(tree), _) => (tree, "memory.limit_in_bytes", "memory.usage_in_bytes"),
            (None, Some(tree)) if tree.join(SPARE).join("memory.high").exists() => {
                (tree, "memory.high", "memory.current")
            }
            _ => return Ok(None),
        };
        let places = [tree.join(SPARE), Band::Free.dir(&tree)];
        if file == "memory.limit_in_bytes" {
            for dir in &places {
                write(&dir.join("memory.oom_control"), "1")?;
            }
        }
        Ok(Some(Ceiling { file, usage, places: places.map(|dir| (dir, None)) }))
    }
}

impl Ceiling {
    /// Put the ceilings of both bands together and of the free band there. One below what is in use stays where it is:
    /// nobody is asked to give memory back by it.
    pub fn put(&mut self, spare: u64, lowest: u64) -> Result<(), Error> {
        for ((dir, now), bytes) in self.places.iter_mut().zip([spare, lowest]) {
            let mut bytes = bytes & !(STEP - 1);
            if *now == Some(bytes) {
                continue;
            }
            if now.is_none_or(|now| bytes < now) {
                bytes = bytes.max(number(&dir.join(self.usage)).unwrap_or(0).saturating_sub(MOST));
            }
            match write(&dir.join(self.file), &bytes.to_string()) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {}
                done => done?,
            }
            *now = Some(bytes);
        }
        Ok(())
    }
}
