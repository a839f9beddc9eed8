//! Blobs: files whose name is the digest of their content.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::documents::DOCUMENT_MAX;
use super::{Error, Lease, Store, sync_dir};
use crate::digest::{Digest, Hasher};

/// Whether content must survive a power cut, or can be made again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Now,
    /// Not flushed: the name that will need it says so (see `names`), and the next boot starts afresh.
    Later,
}

const CHUNK: usize = 1 << 18;

impl Store {
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Opens a blob for reading, without verifying it. `what` is for the error, e.g. "layer".
    pub(crate) fn open_blob(&self, what: &'static str, digest: &Digest) -> Result<File, Error> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::MissingBlob { what, digest: *digest },
            _ => Error::Io { doing: "open the blob", path, source },
        })
    }

    /// Reads and verifies a small blob.
    pub(crate) fn read_blob(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.open_blob(what, digest)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes);
        read.map_err(Error::io("read the blob", self.blob_path(digest)))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(Error::LargeDocument { what, digest: *digest, limit: DOCUMENT_MAX });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::CorruptBlob { what, digest: *digest, found, size: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    /// Whether the blob is there and whole. Reads all of it: content that somebody takes the trouble to
    /// load again is worth a look, and a damaged blob is thus repaired by loading it.
    fn has_whole_blob(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, Error> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == size => {}
            _ => return Ok(false),
        }
        let mut hasher = Hasher::default();
        let mut file = File::open(&path).map_err(Error::io("open the blob", &path))?;
        let mut buffer = vec![0; CHUNK];
        loop {
            // A block that the disk cannot read any more is as good as a missing one.
            let Ok(n) = file.read(&mut buffer) else { return Ok(false) };
            if n == 0 {
                break;
            }
            hasher.write_all(&buffer[..n]).map_err(Error::io("hash the blob", &path))?;
        }
        let whole = hasher.finish().0 == *digest;
        if whole {
            progress(size);
        }
        Ok(whole)
    }

    /// Stores what `source` gives as the blob `digest` of `size` bytes, verified; nothing is stored otherwise.
    /// `progress` is told how many more bytes are done.
    pub(crate) fn insert_blob(
        &self,
        lease: &mut Lease,
        what: &'static str,
        (digest, size): (&Digest, u64),
        source: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        lease.hold(digest);
        if self.has_whole_blob(digest, size, progress)? {
            return Ok(());
        }
        let mut temp = self.temp();
        let mut file = File::create_new(temp.path()).map_err(Error::io("make the file", temp.path()))?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; CHUNK];
        // One byte more than announced tells a longer source, without reading all of it.
        let mut source = source.take(size.saturating_add(1));
        loop {
            let n = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Source { what, digest: *digest, source }),
            };
            let written = file.write_all(&buffer[..n]).and_then(|()| hasher.write_all(&buffer[..n]));
            written.map_err(Error::io("write the blob", self.blob_path(digest)))?;
            progress(n as u64);
        }
        let (found, found_size) = hasher.finish();
        if (found, found_size) != (*digest, size) {
            let (expected, expected_size) = (*digest, size);
            return Err(Error::Mismatch { what: what.into(), expected, expected_size, found, found_size });
        }
        self.adopt_blob(&mut temp, &file, digest, Flush::Now)?;
        lease.made(digest);
        Ok(())
    }

    /// Gives a verified temporary file its final name.
    pub(crate) fn adopt_blob(
        &self,
        temp: &mut super::Temp,
        file: &File,
        digest: &Digest,
        flush: Flush,
    ) -> Result<(), Error> {
        let path = self.blob_path(digest);
        if flush == Flush::Now {
            file.sync_all().map_err(Error::io("flush the blob", &path))?;
        }
        fs::rename(temp.path(), &path).map_err(Error::io("name the blob", &path))?;
        // Somebody else may make that path anew.
        temp.leave();
        if flush == Flush::Now {
            sync_dir(&self.blobs())?;
        }
        Ok(())
    }
}
