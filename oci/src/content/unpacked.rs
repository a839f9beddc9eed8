//! Layers unpacked for overlayfs, once each.
//!
//! They are filed under the *chain id* (the layer and everything below it), not under the diff id: a layer may
//! leave out the entries of directories that exist below it, and those directories then have the
//! attributes that they have *there*. (The same layer on two bases is thus unpacked twice, which is rare.)

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::image::{self, Layer};
use super::{Error, Lease, Store, sync_dir};
use crate::digest::Digest;
use crate::layers::{self, Source};

/// What to make of a layer that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpacked {
    Trust,
    /// See that the blob at hand is that layer indeed: the image is new and may claim anything.
    Compare,
}

impl Store {
    /// Unpacks what is not unpacked yet of the image with the manifest `digest` and returns the directories for
    /// an overlay mount, top layer first. Concurrent callers share the work.
    ///
    /// The caller tells [`Store::collect`] that the image is in use for as long as it uses the directories.
    pub fn ensure_unpacked(&self, digest: &Digest) -> Result<Vec<PathBuf>, Error> {
        let mut lease = self.lease();
        self.unpack(&mut lease, digest, Unpacked::Trust, &mut |_| {})
    }

    /// Whether `ensure_unpacked` would have nothing to do.
    pub fn is_unpacked(&self, digest: &Digest) -> bool {
        let Ok((manifest, config, _)) = self.documents(digest) else { return false };
        image::layers(manifest, &config).iter().all(|layer| self.layer_path(&layer.chain_id).exists())
    }

    pub(crate) fn unpack(
        &self,
        lease: &mut Lease,
        digest: &Digest,
        unpacked: Unpacked,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<PathBuf>, Error> {
        lease.hold(digest);
        let (manifest, config, _) = self.documents(digest)?;
        image::runs_here(digest, &manifest, &config)?;
        let layers = image::layers(manifest, &config);
        for layer in &layers {
            lease.hold(&layer.blob.digest);
            lease.hold(&layer.chain_id);
        }
        let mut paths: Vec<PathBuf> = Vec::with_capacity(layers.len());
        for layer in &layers {
            let path = self.layer_path(&layer.chain_id);
            if self.claim(layer, &path) {
                let claim = Claim { store: self, chain_id: &layer.chain_id };
                self.unpack_layer(layer, &paths, progress)?;
                lease.made(&layer.chain_id);
                drop(claim);
            } else if unpacked == Unpacked::Compare {
                // What the blob should become is there: is it that?
                let blob = self.open_blob("layer", &layer.blob.digest)?;
                layers::verify(blob, &source(layer), &self.limits, progress)?;
            } else {
                progress(layer.blob.size);
            }
            paths.insert(0, path);
        }
        Ok(paths)
    }

    pub(crate) fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.hex())
    }

    /// Whether it falls to this thread to unpack the layer; waits while another one does it.
    fn claim(&self, layer: &Layer, path: &Path) -> bool {
        let mut state = self.state();
        loop {
            if path.exists() {
                return false;
            }
            if state.unpacking.insert(layer.chain_id) {
                return true;
            }
            state = self.unpacked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn unpack_layer(
        &self,
        layer: &Layer,
        below: &[PathBuf],
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let blob = self.open_blob("layer", &layer.blob.digest)?;
        let temp = self.temp();
        layers::unpack(blob, &source(layer), temp.path(), below, &self.limits, progress)?;
        // One flush of the filesystem for the layer's many files, before its name says that it is whole.
        let dir = File::open(temp.path()).map_err(Error::io("open", temp.path()))?;
        // SAFETY: a plain system call on a descriptor that `dir` keeps open.
        if unsafe { libc::syncfs(dir.as_raw_fd()) } != 0 {
            return Err(Error::io("flush the layer", temp.path())(std::io::Error::last_os_error()));
        }
        let path = self.layer_path(&layer.chain_id);
        fs::rename(temp.path(), &path).map_err(Error::io("name the layer", &path))?;
        sync_dir(&self.layers())
    }
}

fn source(layer: &Layer) -> Source {
    Source { blob: layer.blob.digest, size: layer.blob.size, diff_id: layer.diff_id }
}

/// Ends the turn of the thread that unpacks a layer, whether it succeeded or not.
struct Claim<'a> {
    store: &'a Store,
    chain_id: &'a Digest,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.state().unpacking.remove(self.chain_id);
        self.store.unpacked.notify_all();
    }
}
