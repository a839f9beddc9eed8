use std::io;

use super::Limits;
use super::stream::OverLimit;
use crate::content::error::hint;
use crate::digest::Digest;

/// Why a layer was not unpacked: which layer, which of its entries, what about it.
#[derive(Debug, thiserror::Error)]
#[error("layer {layer}{}: {fault}", entry.as_ref().map(|entry| format!(", entry {entry}")).unwrap_or_default())]
pub struct Error {
    /// Digest of the layer's blob.
    pub layer: Digest,
    /// The entry's path, quoted and escaped; `None` if it is about the layer as a whole.
    pub entry: Option<Box<str>>,
    #[source]
    pub fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the path is absolute: paths in a layer are relative to its root")]
    Absolute,
    #[error("the path climbs with `..`: it could lead out of the layer")]
    Climbs,
    #[error("the path is longer than {limit} bytes")]
    LongPath { limit: usize },
    #[error("a name in the path is longer than 255 bytes")]
    LongName,
    #[error("the path has a NUL byte")]
    Nul,
    #[error("the path is empty")]
    EmptyPath,
    #[error("the layer's root would become something else than a directory")]
    Root,
    #[error("the path leads through the symbolic link {link}")]
    ThroughSymlink { link: String },
    #[error("the path leads through {parent}, which is not a directory")]
    ThroughFile { parent: String },
    #[error("hard link to {target}: {source}")]
    HardLinkPath { target: String, source: Box<Fault> },
    #[error("hard link to {target}, which is not in this layer before it")]
    HardLinkMissing { target: String },
    #[error("hard link to {target}, which is {kind}")]
    HardLinkKind { target: String, kind: &'static str },
    #[error("the symbolic link's target is empty or longer than 4095 bytes")]
    SymlinkTarget,
    #[error("{kind} device {major}:{minor}: images may not bring device nodes")]
    Device { kind: &'static str, major: u32, minor: u32 },
    #[error("unsupported tar entry type {0:?}")]
    EntryType(char),
    #[error("sparse entries are not supported: pack the layer without `--sparse`")]
    Sparse,
    #[error("whiteout of {0:?}, which is no name")]
    Whiteout(String),
    #[error("extended attribute {0:?} belongs to overlayfs: a layer may not set it")]
    OverlayXattr(String),
    // No hint: "no space left" means here that the filesystem takes no attribute of that size.
    #[error("set the extended attribute {name:?} of {size} bytes: {source}")]
    Xattr { name: String, size: usize, source: io::Error },
    #[error("the extended attributes take more than {limit} bytes")]
    LargeXattrs { limit: usize },
    #[error("the owner {0} is no valid user or group id")]
    Owner(u64),
    #[error("malformed tar: {0}")]
    Malformed(&'static str),
    #[error("more than {limit} bytes once decompressed")]
    TooLarge { limit: u64 },
    #[error("more than {limit} entries")]
    TooMany { limit: u64 },
    #[error("the paths of its directories take more than {limit} bytes")]
    ManyDirectories { limit: usize },
    #[error("the layer ends in the middle of an entry: the archive is truncated")]
    Truncated,
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("is corrupt: expected {size} bytes with that digest, found {found} ({found_size} bytes)")]
    Blob { size: u64, found: Digest, found_size: u64 },
    #[error("its content has the diff id {found}, the image's config says {expected}")]
    DiffId { expected: Digest, found: Digest },
    #[error("{doing}: {source}{}", hint(source))]
    Io { doing: &'static str, source: io::Error },
}

impl Fault {
    /// Tells apart why a layer could not be read further.
    pub(super) fn read(error: io::Error, limits: &Limits) -> Fault {
        if error.get_ref().is_some_and(|inner| inner.is::<OverLimit>()) {
            Fault::TooLarge { limit: limits.bytes }
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Fault::Truncated
        } else {
            Fault::Read(error)
        }
    }

    /// For `map_err` after a system call.
    pub(super) fn io<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Fault {
        move |error| Fault::Io { doing, source: error.into() }
    }
}

/// A path for a message: quoted, escaped, not endless.
pub(crate) fn shown(path: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
