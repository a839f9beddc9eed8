use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::layers;
use crate::reference::Reference;

/// What can go wrong with stored content. Each message names the file, digest or reference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}: {source}{}", path.display(), hint(source))]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("no image is named {reference}{}", known(known_names))]
    UnknownImage { reference: Reference, known_names: Vec<Reference> },
    #[error("{reference} is not stored: no blob has that digest; load or pull the image again")]
    UnknownDigest { reference: Reference },
    #[error("{what} {digest} is missing from the store: load or pull the image again")]
    MissingBlob { what: &'static str, digest: Digest },
    #[error(
        "{what} {digest} is corrupt: its content has the digest {found} and {size} bytes; \
         load or pull the image again"
    )]
    CorruptBlob { what: &'static str, digest: Digest, found: Digest, size: u64 },
    #[error("{what} {digest} is larger than {limit} bytes, which no real one is")]
    LargeDocument { what: &'static str, digest: Digest, limit: u64 },
    #[error("{what} {digest} cannot be read: {source}")]
    Document { what: &'static str, digest: Digest, source: serde_json::Error },
    #[error("image {image} is for {found}, this machine is {wanted}")]
    Platform { image: Digest, found: String, wanted: String },
    #[error("image {image} has {layers} layers; Linux mounts at most {limit}")]
    ManyLayers { image: Digest, layers: usize, limit: usize },
    #[error("layer {digest} of image {image} has the media type {media_type:?}, which is not supported")]
    LayerType { image: Digest, digest: Digest, media_type: String },
    #[error("image {image}: the manifest has {layers} layers, the config {diff_ids} diff ids")]
    LayerCount { image: Digest, layers: usize, diff_ids: usize },
    #[error(
        "the record of an image name, {}, cannot be read: {why}; remove the file and load the image again",
        path.display()
    )]
    NameRecord { path: PathBuf, why: String },
    #[error("{what}: expected {expected} ({expected_size} bytes), found {found} ({found_size} bytes)")]
    Mismatch { what: String, expected: Digest, expected_size: u64, found: Digest, found_size: u64 },
    #[error("{what} {digest} cannot be read from its source: {source}")]
    Source { what: &'static str, digest: Digest, source: io::Error },
    #[error(transparent)]
    Layer(Box<layers::Error>),
}

impl From<layers::Error> for Error {
    fn from(error: layers::Error) -> Self {
        Error::Layer(Box::new(error))
    }
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { doing, path, source }
    }
}

/// What the user can do about an I/O error, as a suffix of its message.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space there, e.g. with `covey image rm`",
        io::ErrorKind::QuotaExceeded => "; the disk quota of that directory is used up",
        io::ErrorKind::ReadOnlyFilesystem => "; the data directory must be on a writable filesystem",
        io::ErrorKind::PermissionDenied => "; images are stored and unpacked as root",
        _ => "",
    }
}

fn known(names: &[Reference]) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return "; no image is stored, load one with `covey image load FILE`".into();
    }
    let mut list: Vec<_> = names.iter().take(SHOWN).map(Reference::to_string).collect();
    if names.len() > SHOWN {
        list.push("…".into());
    }
    format!("; stored are {}", list.join(", "))
}
