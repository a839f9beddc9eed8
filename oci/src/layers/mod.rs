//! Layers: a tar archive becomes a directory that overlayfs reads as a lower layer.
//!
//! A layer is hostile until shown otherwise. No path of it is ever given to the kernel as a whole string that
//! could lead out: every parent is opened beneath the layer's own directory without following any
//! link (`tree`), and the tar reader is our own (`archive`), so that no length in a header makes
//! us allocate or write more than the [`Limits`].

mod apply;
mod archive;
mod fault;
mod path;
mod stream;
mod tree;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use fault::{Error, Fault};

use crate::digest::Digest;
use apply::Applier;
pub(crate) use archive::{Archive, Kind};
pub(crate) use stream::{Decompressed, is_compressed};

/// What a layer may cost at most. The defaults are far beyond real layers and far below what hurts a machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of the decompressed archive, everything counted: contents, headers, padding.
    pub bytes: u64,
    /// Files, directories and links, whiteouts too.
    pub entries: u64,
    /// Length of a path in bytes.
    pub path: usize,
    /// All extended attributes of one entry together, names too, in bytes.
    pub xattrs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 30, entries: 1_000_000, path: 4095, xattrs: 256 << 10 }
    }
}

/// What the layer is expected to be.
#[derive(Debug, Clone)]
pub struct Source {
    /// Digest and size of the layer as distributed, compressed or not.
    pub blob: Digest,
    pub size: u64,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// Unpacks the layer in `blob` into the new directory `target`.
///
/// `below` are the unpacked layers under this one, topmost first: a directory that the archive implies
/// without an entry of its own gets the attributes it has there. `progress` is told how many more bytes of `blob` were
/// read. After an error `target` may hold a part of the layer; the caller removes it.
pub fn unpack(
    blob: File,
    source: &Source,
    target: &Path,
    below: &[PathBuf],
    limits: &Limits,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let layer = source.blob;
    let whole = |fault| Error { layer, entry: None, fault };
    let stream =
        Decompressed::new(blob, limits.bytes, progress).map_err(|error| whole(Fault::read(error, limits)))?;
    let mut archive = Archive::new(stream, limits);
    let mut applier = Applier::new(target, below, limits).map_err(whole)?;
    while let Some(entry) =
        archive.next_entry().map_err(|(fault, name)| Error { layer, entry: name.map(Into::into), fault })?
    {
        let applied = applier.apply(&entry, &mut archive);
        applied.map_err(|fault| Error { layer, entry: Some(fault::shown(&entry.path).into()), fault })?;
    }
    applier.finish().map_err(whole)?;
    let found = archive.into_reader().finish().map_err(|error| whole(Fault::read(error, limits)))?;
    compare(source, &found)
}

/// Verifies the layer in `blob` without unpacking it, which was done from another form of it.
pub(crate) fn verify(
    blob: File,
    source: &Source,
    limits: &Limits,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let whole = |error| Error { layer: source.blob, entry: None, fault: Fault::read(error, limits) };
    let stream = Decompressed::new(blob, limits.bytes, progress).map_err(whole)?;
    compare(source, &stream.finish().map_err(whole)?)
}

fn compare(source: &Source, found: &stream::Found) -> Result<(), Error> {
    let fault = if (found.blob, found.size) != (source.blob, source.size) {
        Fault::Blob { size: source.size, found: found.blob, found_size: found.size }
    } else if found.diff_id != source.diff_id {
        Fault::DiffId { expected: source.diff_id, found: found.diff_id }
    } else {
        return Ok(());
    };
    Err(Error { layer: source.blob, entry: None, fault })
}

/// Reads a layer to its end and forgets it: what the fuzzer drives.
#[doc(hidden)]
pub fn read_through(bytes: &[u8], limits: &Limits) -> Result<u64, Fault> {
    let mut archive = Archive::new(bytes, limits);
    let mut entries = 0;
    while let Some(entry) = archive.next_entry().map_err(|(fault, _)| fault)? {
        path::components(&entry.path, limits)?;
        entries += 1;
    }
    Ok(entries)
}
