//! The content of images on disk.
//!
//! ```text
//! DIR/blobs/sha256/HEX    manifests, configs and layers as they were distributed
//! DIR/layers/HEX/         a layer unpacked, in the form overlayfs reads; HEX is its *chain id* (see `unpacked`)
//! DIR/names/HEX.json      one image name, the digest of its manifest, and when it was given; HEX is the name's hash
//! DIR/partial/HEX         the beginning of a large blob that broke off on its way in (see `incoming`)
//! DIR/tmp/                what is being written; emptied when the store is opened
//! ```
//! Whatever is outside `tmp` and `partial` is whole: it was written in `tmp`, verified, flushed and renamed. One process
//! has the store open at a time (the agent's lock sees to that); its threads may use it together.

mod blobs;
mod collect;
pub(crate) mod documents;
pub(crate) mod error;
mod image;
mod incoming;
mod names;
mod unpacked;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) use blobs::Flush;
pub use collect::{Collected, Held};
pub use error::Error;
pub use image::Image;
pub use incoming::{Incoming, Part};
pub use names::{Listing, Named};
pub(crate) use names::{Made, Record, boot_id, now_ms};
pub(crate) use unpacked::Unpacked;

use crate::digest::Digest;
use crate::layers::Limits;

/// A directory of image content. See the module's text for its shape.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
    state: Arc<Mutex<State>>,
    /// Signalled when a layer has been unpacked, or failed to be.
    unpacked: Condvar,
    temps: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// What is being loaded or unpacked: kept by `collect`, whoever names it or not.
    pins: BTreeMap<Digest, usize>,
    /// Chain ids of the layers that some thread is unpacking now.
    unpacking: BTreeSet<Digest>,
}

impl Store {
    /// Opens the store in `dir`, making it if it is not there, and removes what a crash has left half made.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        Self::open_with(dir, Limits::default())
    }

    /// Like [`Store::open`], with other limits for the layers that will be unpacked.
    pub fn open_with(dir: &Path, limits: Limits) -> Result<Store, Error> {
        let store = Store {
            root: dir.to_owned(),
            limits,
            state: Arc::default(),
            unpacked: Condvar::new(),
            temps: AtomicU64::new(0),
        };
        // Layers hold setuid programs: nobody but root may come near them.
        for dir in
            [dir.to_owned(), store.blobs(), store.layers(), store.names_dir(), store.partial(), store.tmp()]
        {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(Error::io("make the directory", &dir))?;
        }
        let tmp = store.tmp();
        for entry in fs::read_dir(&tmp).map_err(Error::io("list", &tmp))? {
            let path = entry.map_err(Error::io("list", &tmp))?.path();
            remove_all(&path).map_err(Error::io("remove the leftover", &path))?;
        }
        store.drop_unflushed()?;
        Ok(store)
    }

    /// The directory given to [`Store::open`].
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn names_dir(&self) -> PathBuf {
        self.root.join("names")
    }

    fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A fresh path under `tmp`; whatever is there is removed when the value is dropped.
    pub(crate) fn temp(&self) -> Temp {
        let number = self.temps.fetch_add(1, Ordering::Relaxed);
        Temp::at(self.tmp().join(number.to_string()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// A lease keeps what it holds from being collected while an image is not named yet.
    pub fn lease(&self) -> Lease {
        Lease { state: Arc::clone(&self.state), held: Vec::new(), fresh: BTreeSet::new() }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The state is consistent between any two statements; a panic elsewhere does not spoil it.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path under `tmp` or `partial` that is removed, file or directory, unless it was renamed away or is to stay.
#[derive(Debug)]
pub(crate) struct Temp {
    path: PathBuf,
    stays: bool,
}

impl Temp {
    fn at(path: PathBuf) -> Temp {
        Temp { path, stays: false }
    }

    /// It is not removed, whatever is there.
    fn leave(&mut self) {
        self.stays = true;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // What cannot be removed now is removed when the store is opened next.
        let _ = remove_all(&self.path);
    }
}

/// Content in use before any name says so.
#[derive(Debug)]
pub struct Lease {
    state: Arc<Mutex<State>>,
    held: Vec<Digest>,
    fresh: BTreeSet<Digest>,
}

impl Lease {
    /// From now on `digest` is not collected, be it there already or not.
    pub fn hold(&mut self, digest: &Digest) {
        *locked(&self.state).pins.entry(*digest).or_default() += 1;
        self.held.push(*digest);
    }

    /// Notes that the holder itself put `digest` there.
    pub(crate) fn made(&mut self, digest: &Digest) {
        self.fresh.insert(*digest);
    }

    /// Gives up: what the holder put there goes again, unless somebody else has come to need it.
    pub fn abandon(mut self, store: &Store) -> Result<(), Error> {
        let fresh = std::mem::take(&mut self.fresh);
        drop(self);
        store.collect_among(&[], |digest| fresh.contains(digest)).map(drop)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        for digest in &self.held {
            if let Some(count) = state.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(digest);
                }
            }
        }
    }
}

/// Removes a file or a tree, without following links; what is not there is fine.
fn remove_all(path: &Path) -> std::io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a rename in `dir` durable.
fn sync_dir(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("flush the directory", dir))
}
