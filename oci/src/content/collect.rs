//! Garbage collection: what no name, no caller and no load in progress needs goes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::documents::{ImageConfig, Manifest};
use super::{Error, State, Store, image};
use crate::digest::Digest;

/// What a collection has freed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    pub blobs: usize,
    /// Of the blobs; what the unpacked layers took is not counted.
    pub blob_bytes: u64,
    pub layers: usize,
}

impl Store {
    /// Removes blobs and unpacked layers that neither a name nor one of the manifests `in_use` needs.
    ///
    /// A record or manifest that cannot be read stops the collection before anything is removed, since what it
    /// needs is then unknown; the error says which.
    pub fn collect(&self, in_use: &[Digest]) -> Result<Collected, Error> {
        self.collect_among(in_use, |_| true)
    }

    pub(super) fn collect_among(
        &self,
        in_use: &[Digest],
        candidate: impl Fn(&Digest) -> bool,
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let mut trash = Vec::new();
        {
            // Whoever loads or unpacks holds pins, taken under this lock, so nothing in the making is removed.
            let state = self.state();
            let needed = self.needed(in_use, &state)?;
            let garbage = |digest: &Digest| candidate(digest) && !needed.contains(digest);
            for (digest, path) in entries(&self.blobs())? {
                if garbage(&digest) {
                    let size = fs::metadata(&path).map_or(0, |meta| meta.len());
                    fs::remove_file(&path).map_err(Error::io("remove the blob", &path))?;
                    collected.blobs += 1;
                    collected.blob_bytes += size;
                }
            }
            for (digest, path) in entries(&self.layers())? {
                if garbage(&digest) {
                    let temp = self.temp();
                    fs::rename(&path, temp.path()).map_err(Error::io("remove the layer", &path))?;
                    trash.push(temp);
                    collected.layers += 1;
                }
            }
        }
        // Deleting a large tree takes a while: done with the lock released. A crash leaves it to `open`.
        drop(trash);
        Ok(collected)
    }

    fn needed(&self, in_use: &[Digest], state: &State) -> Result<BTreeSet<Digest>, Error> {
        let listing = self.list()?;
        if let Some(error) = listing.unreadable.into_iter().next() {
            return Err(error);
        }
        let mut needed: BTreeSet<Digest> = state.pins.keys().copied().collect();
        let named = listing.names.iter().map(|named| &named.digest);
        for manifest in named.chain(in_use).copied().collect::<BTreeSet<_>>() {
            needed.insert(manifest);
            let document: Manifest = match self.document("manifest", &manifest) {
                // Nothing is there to need anything.
                Err(Error::MissingBlob { .. }) => continue,
                other => other?,
            };
            needed.extend(document.blobs().map(|blob| blob.digest));
            match self.document::<ImageConfig>("image config", &document.config.digest) {
                Err(Error::MissingBlob { .. }) => {}
                config => needed.extend(image::chain_ids(&config?.rootfs.diff_ids)),
            }
        }
        Ok(needed)
    }
}

/// The entries of `dir` that are named by a digest.
fn entries(dir: &Path) -> Result<Vec<(Digest, std::path::PathBuf)>, Error> {
    let list = || -> io::Result<Vec<_>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Some(digest) = entry.file_name().to_str().and_then(Digest::from_hex) {
                entries.push((digest, entry.path()));
            }
        }
        Ok(entries)
    };
    list().map_err(Error::io("list", dir))
}
