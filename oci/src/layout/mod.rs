//! Loading images from files: an OCI image layout (a directory, or a tar of one, perhaps compressed) or what
//! `docker save` writes.

mod docker;
mod error;
mod files;
mod oci;

use std::io::Read;
use std::path::Path;

pub use error::Error;

use crate::content::documents::{
    Descriptor, ImageConfig, LAYERS_MAX, Manifest, Platform, is_config, is_layer,
};
use crate::content::{Lease, Store, Unpacked};
use crate::digest::Digest;
use crate::platform;
use crate::reference::Reference;
use files::Files;

/// An image that is in the store, unpacked, under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    pub reference: Reference,
    /// Of the manifest.
    pub digest: Digest,
    /// Bytes of manifest, config and layers as they are distributed.
    pub size: u64,
}

/// An image found in the file, before anything of it is stored.
struct Found {
    names: Vec<Reference>,
    /// Digest and bytes of the manifest.
    digest: Digest,
    manifest_bytes: Vec<u8>,
    config_bytes: Vec<u8>,
    manifest: Manifest,
    /// The file of each layer.
    layer_files: Vec<String>,
}

impl Found {
    /// Each layer is copied and then unpacked.
    fn work(&self) -> u64 {
        let layers = self.manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        layers
            .saturating_mul(2)
            .saturating_add(self.manifest_bytes.len() as u64 + self.config_bytes.len() as u64)
    }
}

/// Loads the images in `path` into the store, unpacks and names them; `name` replaces the name that the file gives,
/// and is needed if it gives none. `progress` is told the bytes done and the bytes in all.
///
/// After an error nothing of the image that failed is left; images before it in the file stay.
pub fn load(
    store: &Store,
    path: &Path,
    name: Option<&Reference>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<LoadedImage>, Error> {
    let files = Files::open(store, path)?;
    let images = if files.find("index.json")?.is_some() {
        oci::images(&files, name)?
    } else if files.is_archive() && files.find("manifest.json")?.is_some() {
        docker::images(&files, name)?
    } else {
        return Err(Error::NotAnImage { path: path.to_owned() });
    };
    if images.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    let total = images.iter().map(Found::work).fold(0, u64::saturating_add);
    let mut done = 0u64;
    progress(0, total);
    let mut advance = |bytes: u64| {
        done = done.saturating_add(bytes).min(total);
        progress(done, total);
    };
    let mut loaded = Vec::new();
    for image in &images {
        let mut lease = store.lease();
        if let Err(error) = store_image(store, &mut lease, &files, image, &mut advance) {
            // What could not be tidied up now is garbage like any other; the load's own error is the one to tell.
            let _ = lease.abandon(store);
            return Err(error);
        }
        let size =
            image.manifest.blobs().map(|blob| blob.size).sum::<u64>() + image.manifest_bytes.len() as u64;
        for reference in &image.names {
            store.set_name(reference, &image.digest)?;
            loaded.push(LoadedImage { reference: reference.tagged(), digest: image.digest, size });
        }
    }
    Ok(loaded)
}

fn store_image(
    store: &Store,
    lease: &mut Lease,
    files: &Files,
    image: &Found,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    for (layer, name) in image.manifest.layers.iter().zip(&image.layer_files) {
        let (file, size) = files.open_file(name, &format!("the manifest {}", image.digest))?;
        if size != layer.size {
            let (path, file) = (files.path.clone(), name.clone());
            return Err(Error::Size { path, file, announced: layer.size, found: size });
        }
        store.insert_blob(lease, "layer", (&layer.digest, layer.size), &mut file.take(size), progress)?;
    }
    let config = &image.manifest.config;
    let documents = [
        ("image config", config.digest, &image.config_bytes),
        ("manifest", image.digest, &image.manifest_bytes),
    ];
    for (what, digest, bytes) in documents {
        store.insert_blob(lease, what, (&digest, bytes.len() as u64), &mut bytes.as_slice(), progress)?;
    }
    store.unpack(lease, &image.digest, Unpacked::Compare, progress)?;
    Ok(())
}

/// Checks a manifest and its config before any layer is touched.
fn check(files: &Files, digest: &Digest, manifest: &Manifest, config: &ImageConfig) -> Result<(), Error> {
    let path = || files.path.clone();
    let media_type = |what, descriptor: &Descriptor| Error::MediaType {
        path: path(),
        what,
        digest: descriptor.digest,
        media_type: descriptor.media_type.clone(),
    };
    if !is_config(&manifest.config.media_type) {
        return Err(media_type("the image config", &manifest.config));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        return Err(media_type("the layer", layer));
    }
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers > LAYERS_MAX {
        return Err(Error::ManyLayers { path: path(), manifest: *digest, layers, limit: LAYERS_MAX });
    }
    if layers != diff_ids {
        return Err(Error::LayerCount { path: path(), manifest: *digest, layers, diff_ids });
    }
    let platform =
        Platform { architecture: config.architecture.clone(), os: config.os.clone(), variant: None };
    if platform::fit(&platform).is_none() {
        return Err(no_platform(files, format!("the image {digest}"), &[platform]));
    }
    Ok(())
}

fn no_platform(files: &Files, image: String, available: &[Platform]) -> Error {
    let (wanted, available) = (platform::own(), platform::listed(available.iter()));
    Error::NoPlatform { path: files.path.clone(), image, wanted, available }
}
