//! Blobs between stores: what an image lacks here, blobs to give away, and blobs that come in pieces.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;

use super::documents::{DOCUMENT_MAX, Manifest};
use super::{Error, Flush, Lease, Store, Temp};
use crate::digest::{Digest, Hasher};

/// A blob that an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// "manifest", "image config" or "layer": for messages.
    pub what: &'static str,
    pub digest: Digest,
    /// None: nothing here says so. A manifest is that, and at most [`Part::MANIFEST_MAX`].
    pub size: Option<u64>,
}

impl Part {
    /// Bytes of the largest manifest that is taken.
    pub const MANIFEST_MAX: u64 = DOCUMENT_MAX;
}

/// A blob on its way in. Whatever is dropped before [`Store::adopt`] has taken it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    part: Part,
    size: u64,
    temp: Temp,
    file: File,
    hasher: Hasher,
    received: u64,
}

impl Incoming {
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Bytes that it will have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are here: where the next ones belong.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes. Those beyond the size are an error at once, and none of them is written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let received = self.received.saturating_add(bytes.len() as u64);
        if received > self.size {
            return Err(self.mismatch(self.part.digest, received));
        }
        let written = self.file.write_all(bytes).and_then(|()| self.hasher.write_all(bytes));
        written.map_err(Error::io("write the blob", self.temp.path()))?;
        self.received = received;
        Ok(())
    }

    fn mismatch(&self, found: Digest, found_size: u64) -> Error {
        let Part { what, digest, .. } = self.part;
        Error::Mismatch { what: what.into(), expected: digest, expected_size: self.size, found, found_size }
    }
}

impl Store {
    /// The size of a blob, if it is here. It was whole when it was stored, and is not read now.
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.blob_path(digest).metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len())
    }

    /// A blob to be read, and its size.
    pub fn blob(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let file = self.open_blob("blob", digest)?;
        let meta = file.metadata().map_err(Error::io("look at the blob", self.blob_path(digest)))?;
        Ok((file, meta.len()))
    }

    /// What of the image with the manifest `image` is not here. Without the manifest, nothing more is known than that.
    pub fn missing(&self, image: &Digest) -> Result<Vec<Part>, Error> {
        let manifest: Manifest = match self.document("manifest", image) {
            // One that is damaged comes anew.
            Err(Error::MissingBlob { .. } | Error::CorruptBlob { .. }) => {
                return Ok(vec![Part { what: "manifest", digest: *image, size: None }]);
            }
            other => other?,
        };
        let config = std::iter::once(("image config", &manifest.config));
        let layers = manifest.layers.iter().map(|layer| ("layer", layer));
        let mut seen = BTreeSet::new();
        let parts = config
            .chain(layers)
            .filter(|(_, blob)| seen.insert(blob.digest) && self.size_of(&blob.digest) != Some(blob.size))
            .map(|(what, blob)| Part { what, digest: blob.digest, size: Some(blob.size) });
        Ok(parts.collect())
    }

    /// Begins to take in a blob of `size` bytes.
    pub fn receive(&self, part: &Part, size: u64) -> Result<Incoming, Error> {
        let temp = self.temp();
        let file = File::create_new(temp.path()).map_err(Error::io("make the file", temp.path()))?;
        Ok(Incoming { part: *part, size, temp, file, hasher: Hasher::default(), received: 0 })
    }

    /// Stores what has come in, if it is what was wanted: then it is flushed, and seen by all. The lease holds it.
    pub fn adopt(&self, incoming: Incoming, lease: &mut Lease) -> Result<(), Error> {
        let digest = incoming.part.digest;
        let (found, found_size) = (incoming.hasher.clone().finish().0, incoming.received);
        if (found, found_size) != (digest, incoming.size) {
            return Err(incoming.mismatch(found, found_size));
        }
        lease.hold(&digest);
        self.adopt_blob(incoming.temp, &incoming.file, &digest, Flush::Now)?;
        lease.made(&digest);
        Ok(())
    }
}
