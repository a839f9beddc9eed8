//! The program's pages, mapped once for all shims.
//!
//! A fork does not copy where a file is mapped: each child finds its program by page faults, some hundred of them until a
//! container runs, and they are a good part of what a start costs. But it does copy a private mapping that has been written
//! to. So the server writes to its own (what is there already), and maps what the first builder turned out to need.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};

const PAGE: usize = 4096;
/// In the kernel's `pagemap`: the page is mapped.
const PRESENT: u64 = 1 << 63;

/// The program's own mappings of its file, and which of their pages a start needs.
pub(super) struct Pages {
    mappings: Vec<Range<usize>>,
    /// One for each page, in memory that all children share; the first says whether anybody has looked.
    needed: &'static [AtomicU8],
    mapped: bool,
}

impl Pages {
    /// To be called while there is one thread.
    pub(super) fn own() -> io::Result<Pages> {
        let mut mappings = Vec::new();
        for (range, access) in of_program(&fs::read_to_string("/proc/self/maps")?) {
            mark_written(&range, access)?;
            mappings.push(range);
        }
        let pages: usize = mappings.iter().map(|range| range.len() / PAGE).sum();
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        let length = NonZeroUsize::MIN.saturating_add(pages);
        // SAFETY: nothing is where the kernel puts it.
        let shared = unsafe { mmap_anonymous(None, length, access, flags) }?;
        // SAFETY: it is so long, zeroed, and stays as long as the process.
        let needed = unsafe { slice::from_raw_parts(shared.as_ptr().cast(), length.get()) };
        Ok(Pages { mappings, needed, mapped: false })
    }

    fn known(&self) -> Option<(&AtomicU8, &[AtomicU8])> {
        self.needed.split_first()
    }

    /// In a builder: note what it and `other`, a process of the same program, have mapped, if nobody has yet.
    pub(super) fn note(&self, other: i32) {
        let Some((looked, pages)) = self.known() else { return };
        if looked.swap(1, Ordering::AcqRel) != 0 {
            return;
        }
        for who in ["self", &other.to_string()] {
            let Ok(pagemap) = File::open(format!("/proc/{who}/pagemap")) else { continue };
            let mut left = pages;
            for range in &self.mappings {
                let (these, rest) = left.split_at(left.len().min(range.len() / PAGE));
                left = rest;
                let mut entries = vec![0; these.len() * 8];
                if pagemap.read_exact_at(&mut entries, (range.start / PAGE * 8) as u64).is_err() {
                    continue;
                }
                for (entry, page) in entries.chunks_exact(8).zip(these) {
                    if u64::from_ne_bytes(entry.try_into().unwrap_or_default()) & PRESENT != 0 {
                        page.store(1, Ordering::Release);
                    }
                }
            }
        }
        looked.store(2, Ordering::Release);
    }

    /// In the server, before it forks: map what has been noted.
    pub(super) fn map(&mut self) {
        let Some((looked, pages)) = self.known() else { return };
        if self.mapped || looked.load(Ordering::Acquire) != 2 {
            return;
        }
        let addresses = self.mappings.iter().flat_map(|range| range.clone().step_by(PAGE));
        for (address, _) in addresses.zip(pages).filter(|(_, page)| page.load(Ordering::Acquire) != 0) {
            // SAFETY: it is in a readable mapping of this program, which nobody unmaps.
            unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
        }
        self.mapped = true;
    }
}

/// The private, readable, unwritten mappings of the executed file.
fn of_program(maps: &str) -> Vec<(Range<usize>, ProtFlags)> {
    let own = of_program as fn(&str) -> Vec<(Range<usize>, ProtFlags)> as usize;
    let mut found = Vec::new();
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (range, access) = (words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        Some((range, access.to_string(), words.nth(2)?.to_string()))
    };
    let lines: Vec<_> = maps.lines().filter_map(parse).collect();
    let Some((_, _, inode)) = lines.iter().find(|(range, ..)| range.contains(&own)) else { return found };
    for (range, access, _) in lines.iter().filter(|(_, _, other)| other == inode && other != "0") {
        match access.as_str() {
            "r-xp" => found.push((range.clone(), ProtFlags::PROT_READ | ProtFlags::PROT_EXEC)),
            "r--p" => found.push((range.clone(), ProtFlags::PROT_READ)),
            _ => {}
        }
    }
    found
}

/// Write the first byte of a mapping, as it is.
fn mark_written(range: &Range<usize>, access: ProtFlags) -> io::Result<()> {
    let Some(start) = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(range.start)) else {
        return Ok(());
    };
    // SAFETY: it is a whole mapping of ours, and never less accessible than it was: this very code may be in it.
    unsafe { mprotect(start.cast(), range.len(), access | ProtFlags::PROT_WRITE) }?;
    // SAFETY: it may be written to, and what is there does not change.
    unsafe { start.write_volatile(start.read_volatile()) };
    // SAFETY: as above; nobody else writes here.
    Ok(unsafe { mprotect(start.cast(), range.len(), access) }?)
}
