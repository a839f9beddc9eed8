//! A stored image as its users see it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::documents::{Descriptor, ImageConfig, LAYERS_MAX, Manifest, Platform, is_layer};
use super::{Error, Store};
use crate::digest::Digest;
use crate::platform;

/// What an image asks for when it runs, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Of the manifest: the image's identity.
    pub digest: Digest,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Empty if the image names none.
    pub working_dir: String,
    /// `user[:group]`, by name or number; empty if the image names none.
    pub user: String,
    /// `port/protocol` each.
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    /// Diff ids, base layer first.
    pub layers: Vec<Digest>,
    /// Bytes of manifest, config and layers as they are distributed.
    pub size: u64,
}

impl Store {
    /// Reads the image with the manifest `digest`.
    pub fn image(&self, digest: &Digest) -> Result<Image, Error> {
        let (manifest, config, size) = self.documents(digest)?;
        let size = size + manifest.blobs().map(|blob| blob.size).fold(0, u64::saturating_add);
        let run = config.config.unwrap_or_default();
        Ok(Image {
            digest: *digest,
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            working_dir: run.working_dir,
            user: run.user,
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            labels: run.labels,
            stop_signal: run.stop_signal,
            layers: config.rootfs.diff_ids,
            size,
        })
    }

    /// The manifest, the config and the manifest's size.
    pub(super) fn documents(&self, digest: &Digest) -> Result<(Manifest, ImageConfig, u64), Error> {
        let bytes = self.read_blob("manifest", digest)?;
        let manifest: Manifest = parse("manifest", digest, &bytes)?;
        let config: ImageConfig = self.document("image config", &manifest.config.digest)?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(Error::LayerCount { image: *digest, layers, diff_ids });
        }
        Ok((manifest, config, bytes.len() as u64))
    }

    pub(super) fn document<T: DeserializeOwned>(
        &self,
        what: &'static str,
        digest: &Digest,
    ) -> Result<T, Error> {
        parse(what, digest, &self.read_blob(what, digest)?)
    }
}

/// Whether the image can run on this machine: what came from elsewhere may be anything.
pub(super) fn runs_here(image: &Digest, manifest: &Manifest, config: &ImageConfig) -> Result<(), Error> {
    let image = *image;
    let built_for =
        Platform { architecture: config.architecture.clone(), os: config.os.clone(), variant: None };
    if platform::fit(&built_for).is_none() {
        let found = platform::listed([&built_for].into_iter());
        return Err(Error::Platform { image, found, wanted: platform::own() });
    }
    let layers = manifest.layers.len();
    if layers > LAYERS_MAX {
        return Err(Error::ManyLayers { image, layers, limit: LAYERS_MAX });
    }
    match manifest.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        Some(Descriptor { digest, media_type, .. }) => {
            Err(Error::LayerType { image, digest: *digest, media_type: media_type.clone() })
        }
        None => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, digest: &Digest, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document { what, digest: *digest, source })
}

/// One layer of an image: where it comes from and what it becomes.
pub(super) struct Layer {
    pub(super) blob: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) chain_id: Digest,
}

pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(Digest::chain(chain.last(), diff_id));
    }
    chain
}

pub(super) fn layers(manifest: Manifest, config: &ImageConfig) -> Vec<Layer> {
    let diff_ids = &config.rootfs.diff_ids;
    let pairs = diff_ids.iter().copied().zip(chain_ids(diff_ids));
    let layers = manifest.layers.into_iter().zip(pairs);
    layers.map(|(blob, (diff_id, chain_id))| Layer { blob, diff_id, chain_id }).collect()
}
