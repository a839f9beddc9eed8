use std::io;
use std::path::PathBuf;

use crate::content;
use crate::content::error::hint;
use crate::digest::Digest;
use crate::layers::Fault;
use crate::reference;

/// Why an image was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}: {source}{}", path.display(), hint(source))]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is neither a file nor a directory: put what it gives into a file, and load that", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is no image: it holds neither index.json (OCI layout) nor manifest.json (docker save)", path.display())]
    NotAnImage { path: PathBuf },
    #[error("{}: {fault}", path.display())]
    Archive { path: PathBuf, fault: Fault },
    #[error("{}, entry {entry}: {fault}", path.display())]
    ArchiveEntry { path: PathBuf, entry: String, fault: Fault },
    #[error("{}: {file} is cut off: the archive is truncated", path.display())]
    Truncated { path: PathBuf, file: String },
    #[error("{}: {file}, which {needed_by} names, is missing", path.display())]
    MissingFile { path: PathBuf, file: String, needed_by: String },
    #[error("{}: {file} has {found} bytes, announced are {announced}", path.display())]
    Size { path: PathBuf, file: String, announced: u64, found: u64 },
    #[error("{}: {file} has {size} bytes; real ones have at most {limit}", path.display())]
    LargeDocument { path: PathBuf, file: String, size: u64, limit: u64 },
    #[error("{}: {file} has the digest {found}", path.display())]
    WrongDigest { path: PathBuf, file: String, found: Digest },
    #[error("{}: {file} cannot be read: {source}", path.display())]
    Document { path: PathBuf, file: String, source: serde_json::Error },
    #[error("{}: OCI layout version {version:?} is not known, only 1.x", path.display())]
    LayoutVersion { path: PathBuf, version: String },
    #[error("{}: {what} {digest} has the media type {media_type:?}, which is not supported", path.display())]
    MediaType { path: PathBuf, what: &'static str, digest: Digest, media_type: String },
    #[error("{}: {manifest} has {layers} layers; Linux mounts at most {limit}", path.display())]
    ManyLayers { path: PathBuf, manifest: Digest, layers: usize, limit: usize },
    #[error("{}: {manifest} has {layers} layers, its config {diff_ids} diff ids", path.display())]
    LayerCount { path: PathBuf, manifest: Digest, layers: usize, diff_ids: usize },
    #[error("{}: the index {digest} is nested too deeply", path.display())]
    Nesting { path: PathBuf, digest: Digest },
    #[error("{}: {image} is not for this machine ({wanted}); there is {available}", path.display())]
    NoPlatform { path: PathBuf, image: String, wanted: String, available: String },
    #[error("{}: the image has no name{tag}; give it one with --name NAME:TAG", path.display())]
    NoName { path: PathBuf, tag: String },
    #[error(
        "{}: --name fits one image, the file holds {}; load it without to keep their names",
        path.display(),
        names.join(", ")
    )]
    ManyImages { path: PathBuf, names: Vec<String> },
    #[error("{}: the image's own name is unusable: {source}; give it another with --name NAME:TAG", path.display())]
    Name { path: PathBuf, source: reference::ParseError },
    #[error("{}: it holds no image", path.display())]
    Empty { path: PathBuf },
    #[error(transparent)]
    Content(#[from] content::Error),
}
