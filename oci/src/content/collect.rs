//! Garbage collection: what no name, no caller and no load in progress needs goes. What an image was last used for is
//! nobody's business here, but when is: the time of its manifest's file, which `touch` sets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::documents::{DOCUMENT_MAX, ImageConfig, Manifest};
use super::{Error, State, Store, image};
use crate::digest::Digest;
use crate::reference::Reference;

/// What has come of a blob is kept for so long for a next try.
const PARTIAL_FOR: Duration = Duration::from_secs(24 * 3600);

/// What a collection has freed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    pub blobs: usize,
    pub blob_bytes: u64,
    pub layers: usize,
    /// What the unpacked layers took on disk.
    pub layer_bytes: u64,
}

impl Collected {
    pub fn bytes(&self) -> u64 {
        self.blob_bytes + self.layer_bytes
    }
}

/// An image that is stored, named or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of the manifest.
    pub digest: Digest,
    pub names: Vec<Reference>,
    /// Made here of a file, and made again at the next start.
    pub made: bool,
    /// When it was last used, in milliseconds since 1970.
    pub used_ms: u64,
}

impl Store {
    /// Removes blobs and unpacked layers that neither a name nor one of the manifests `in_use` needs.
    ///
    /// A record or manifest that cannot be read stops the collection before anything is removed, since what it
    /// needs is then unknown; the error says which.
    pub fn collect(&self, in_use: &[Digest]) -> Result<Collected, Error> {
        self.collect_among(in_use, |_| true)
    }

    /// Removes these images with their names, but for those that are used or held, or were used since they were listed.
    /// All others stay, named or not; what belongs to none of them goes. Which went, and what that freed.
    pub fn collect_images(&self, gone: &[Held], in_use: &[Digest]) -> Result<(Vec<Held>, Collected), Error> {
        let (went, kept) = {
            let state = self.state();
            let may_go = |held: &Held| {
                let listed = gone.iter().any(|g| g.digest == held.digest && g.used_ms == held.used_ms);
                listed && !in_use.contains(&held.digest) && !state.pins.contains_key(&held.digest)
            };
            let (went, kept): (Vec<Held>, Vec<Held>) = self.held()?.into_iter().partition(may_go);
            for name in went.iter().flat_map(|held| &held.names) {
                self.remove_name(name)?;
            }
            (went, kept)
        };
        let kept: Vec<Digest> = kept.iter().map(|held| held.digest).chain(in_use.iter().copied()).collect();
        let collected = self.collect(&kept)?;
        Ok((went, collected))
    }

    /// All images here, whole or not.
    pub fn held(&self) -> Result<Vec<Held>, Error> {
        let mut names: BTreeMap<Digest, (Vec<Reference>, bool)> = BTreeMap::new();
        for named in self.list()?.names {
            let (known, made) = names.entry(named.digest).or_default();
            known.push(named.reference);
            *made |= named.made;
        }
        let mut held = Vec::new();
        for (digest, path) in entries(&self.blobs())? {
            // Gone meanwhile: as if it had not been listed.
            let Ok(meta) = fs::metadata(&path) else { continue };
            let named = names.remove(&digest);
            if named.is_none() && (meta.len() > DOCUMENT_MAX || !self.is_manifest(&digest, &path)) {
                continue;
            }
            let (names, made) = named.unwrap_or_default();
            let used = meta.modified().unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
            let used_ms = u64::try_from(used.as_millis()).unwrap_or(u64::MAX);
            held.push(Held { digest, names, made, used_ms });
        }
        Ok(held)
    }

    fn is_manifest(&self, digest: &Digest, path: &Path) -> bool {
        let mut first = [0];
        let begins = fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
        begins.is_ok() && first == *b"{" && self.document::<Manifest>("manifest", digest).is_ok()
    }

    /// The image is used now. One that is not here is nobody's concern.
    pub fn touch(&self, image: &Digest) {
        let file = fs::OpenOptions::new().append(true).open(self.blob_path(image));
        if let Ok(file) = file {
            // Then it looks older than it is: it comes again if it is wanted.
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Whether some load, unpacking or fetch holds it now.
    pub fn is_held(&self, image: &Digest) -> bool {
        self.state().pins.contains_key(image)
    }

    /// Removes what has come of blobs that nobody has asked for in a day, or (`all`) that is not coming in now.
    pub fn collect_partial(&self, all: bool) -> Result<u64, Error> {
        let mut bytes = 0;
        for (_, path) in entries(&self.partial())? {
            let Ok(file) = fs::File::open(&path) else { continue };
            let Ok(meta) = file.metadata() else { continue };
            let age = meta.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
            if (all || age.is_some_and(|age| age > PARTIAL_FOR)) && file.try_lock().is_ok() {
                fs::remove_file(&path).map_err(Error::io("remove the partial blob", &path))?;
                bytes += meta.len();
            }
        }
        Ok(bytes)
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
        collected.layer_bytes = trash.iter().map(|temp| taken(temp.path())).sum();
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
        // Whoever holds a manifest holds all that it needs.
        let held = state.pins.keys().filter(|pin| self.is_manifest(pin, &self.blob_path(pin)));
        for manifest in named.chain(in_use).chain(held).copied().collect::<BTreeSet<_>>() {
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

/// Bytes on disk of a tree, without following links.
fn taken(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    let below = fs::read_dir(path).map(|entries| entries.flatten().map(|entry| taken(&entry.path())).sum());
    own + below.unwrap_or(0_u64)
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
