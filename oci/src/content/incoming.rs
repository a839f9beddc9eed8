//! Blobs between stores: what an image lacks here, blobs to give away, and blobs that come in pieces.
//!
//! What has come of a large blob stays in `DIR/partial/HEX` when it breaks off, whoever gave it: the next try goes on
//! from there, after a crash too.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};

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

/// Less than this is not worth going on from.
const WORTH: u64 = 1 << 20;

/// A blob on its way in. What is dropped before [`Store::adopt`] has taken it is seen by nobody; what is large stays,
/// to be gone on from.
#[derive(Debug)]
pub struct Incoming {
    part: Part,
    size: u64,
    temp: Temp,
    file: File,
    hasher: Hasher,
    received: u64,
    /// Whether the next try would look for it where it is.
    lasts: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.lasts && self.received >= WORTH {
            self.temp.leave();
        }
    }
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

    /// Nothing of it is of use.
    pub fn discard(mut self) {
        self.lasts = false;
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

    /// Begins to take in a blob of `size` bytes, or goes on where an earlier try has broken off. Reads what that has left.
    pub fn receive(&self, part: &Part, size: u64) -> Result<Incoming, Error> {
        if size >= WORTH
            && let Some(incoming) = self.resume(part, size)?
        {
            return Ok(incoming);
        }
        let temp = self.temp();
        let file = File::create_new(temp.path()).map_err(Error::io("make the file", temp.path()))?;
        let hasher = Hasher::default();
        Ok(Incoming { part: *part, size, temp, file, hasher, received: 0, lasts: false })
    }

    /// None: somebody else is at it.
    fn resume(&self, part: &Part, size: u64) -> Result<Option<Incoming>, Error> {
        let path = self.partial().join(part.digest.hex());
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(Error::io("open the partial blob", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock the partial blob", &path)(error)),
        }
        // Whoever had it until now may have finished with it: then this is no longer what the path leads to.
        let same = |a: io::Result<std::fs::Metadata>, b: io::Result<std::fs::Metadata>| {
            use std::os::unix::fs::MetadataExt;
            matches!((a, b), (Ok(a), Ok(b)) if a.ino() == b.ino())
        };
        if !same(file.metadata(), std::fs::metadata(&path)) {
            return Ok(None);
        }
        let temp = Temp::at(path);
        let failed = |error| Error::io("read the partial blob", temp.path())(error);
        let (mut hasher, mut received) = (Hasher::default(), file.metadata().map_err(failed)?.len());
        if received < size {
            received = io::copy(&mut file, &mut hasher).map_err(failed)?;
        } else {
            // Whole, and yet not taken: it was wrong, or its size.
            received = 0;
            file.set_len(0).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(received)).map_err(failed)?;
        Ok(Some(Incoming { part: *part, size, temp, file, hasher, received, lasts: true }))
    }

    /// Stores what has come in, if it is what was wanted: then it is flushed, and seen by all. The lease holds it.
    pub fn adopt(&self, mut incoming: Incoming, lease: &mut Lease) -> Result<(), Error> {
        incoming.lasts = false;
        let digest = incoming.part.digest;
        let (found, found_size) = (incoming.hasher.clone().finish().0, incoming.received);
        if (found, found_size) != (digest, incoming.size) {
            return Err(incoming.mismatch(found, found_size));
        }
        lease.hold(&digest);
        self.adopt_blob(&mut incoming.temp, &incoming.file, &digest, Flush::Now)?;
        lease.made(&digest);
        Ok(())
    }
}
